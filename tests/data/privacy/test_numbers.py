"""Accounts, cards and phones: found whatever stands around them; other numbers stay."""

import pytest

from tests.data.privacy.builders import AROUND, found_in, seconds_of_search

PRIVATE = [
    ("phone", "+49 30 901820"),
    ("phone", "+91 7022383286"),
    ("phone", "+8613719206018"),
    ("phone", "+1 (415) 867-2671"),
    ("phone", "(415) 867-2671"),
    ("phone", "413-268-1956"),
    ("phone", "413.268.1956"),
    ("iban", "DE89 3704 0044 0532 0130 00"),
    ("iban", "NL91ABNA0417164300"),
    ("iban", "NO93 8601 1117 947"),
    ("iban", "MT84MALT011000012345MTLCAST001S"),
    ("card", "4539 1488 0343 6467"),
    ("card", "4539-1488-0343-6467"),
    ("card", "4539148803436467"),
    ("card", "3714 496353 98456"),
    ("card", "5425233430109903"),
    ("card", "2223 0000 4841 0010"),
    ("card", "30043277253245"),
]


@pytest.mark.parametrize(("rule", "private"), PRIVATE)
@pytest.mark.parametrize("around", AROUND)
def test_private_data_is_found(rule: str, private: str, around: str) -> None:
    assert found_in(around.format(private)) == [(rule, private)]


INNOCENT = """
ISBN 978-0-306-40615-7, 0-306-40615-2, 9780306406157
2023-01-15 2023.01.15 15/01/2023 20230115123456 12:30:45.123456
1699999999 1699999999999 1699999999999999
3.14159265358979323846264338327950288
0.4539148803436467
4539148803436468
4539148803436467890123
9539148803436467
id_4539148803436467 4539148803436467px
4111 1111 1111 1111, 4242424242424242, 378282246310005
1111-2222-3333-4444 0000 0000 0000 0000
(555) 123-4567, 555-867-5309, 415-555-2671, +1 415 555 0100, 123-456-7890, 1-800-FLOWERS
+1234567890 +10000000 x+4930901820 1+493090182034 C++17 +5% +20
500-300-20000 413-268-19567 1413-268-1956 413-268-1956-7 1/413-268-1956/2
123-45-6789
phone 12 and phone 3.5, mobile 2024, Tel: 1234567
phone: 555-0199 telephone 000-0000
1 234 567 890 and 100 200 300 400 500
DE88 3704 0044 0532 0130 00
DE89 3704 0044 0532 0130
ZZ89370400440532013000
GB82WEST123456987654321
#4287f5 0x7fffffff 1e10 1,234,567,890 $4,539,148,803 18446744073709551615 9223372036854775807
"""


@pytest.mark.parametrize("text", INNOCENT.strip().split("\n"))
def test_what_only_looks_private_is_not_found(text: str) -> None:
    assert found_in(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "1" * 200_000,
        "1 " * 100_000,
        "+1" * 100_000,
        "AB12 " * 40_000,
        "4539 " * 40_000,
        "(415) " * 40_000,
        "phone: 1 " * 20_000,
    ],
    ids=lambda text: text[:12],
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    assert seconds_of_search(text) < 2
