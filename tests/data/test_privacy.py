"""Private data becomes placeholders; what only looks like it stays, letter by letter."""

import time

import pytest

from tests.data.builders import record, turns
from vicuna.data.privacy.step import find, privacy_step
from vicuna.data.step_kinds import Drop, Keep

# Keys are put together here, so that no scanner takes this file for a leak.
RANDOM = "q7Zp2XvN9bLrT4wKc8HsYf3MdGj6RnUa5BeVx1PoWiQtCz0SlEhJyDgAkFuOmIrT8vNw4Xb"
PEM_BODY = "\n".join(RANDOM[at:] + RANDOM[:at] for at in range(0, 60, 10))
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{PEM_BODY}\n-----END RSA PRIVATE KEY-----"
WEB_TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0" + "." + RANDOM[:43]

PRIVATE = [
    ("email", "ada.lovelace+math@analytical.co.uk"),
    ("email", "chen_99@mail2.sysu.edu.cn"),
    ("phone", "+49 30 901820"),
    ("phone", "+91 7022383286"),
    ("phone", "+8613719206018"),
    ("phone", "+1 (415) 867-2671"),
    ("phone", "(415) 867-2671"),
    ("phone", "413-268-1956"),
    ("phone", "413.268.1956"),
    ("ip_address", "52.94.236.248"),
    ("ip_address", "2a00:1450:4001:82b::200e"),
    ("ip_address", "2600:1f18:22ba:8c00:ba86:a05e:a5ba:00fd"),
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
    ("key", "sk-" + RANDOM[:48]),
    ("key", "sk-proj-" + RANDOM[:40] + "_-x"),
    ("key", "sk-ant-api03-" + RANDOM[:60]),
    ("key", "AKIA" + "QZ7RTN3XWLP5MKJ2"),
    ("key", "ghp_" + RANDOM[:36]),
    ("key", "github_pat_" + RANDOM[:70]),
    ("key", "xoxb-" + "7482910365-" + RANDOM[:24]),
    ("key", "AIza" + RANDOM[:35]),
    ("key", "sk_live_" + RANDOM[:24]),
    ("key", "glpat-" + RANDOM[:20]),
    ("key", "hf_" + "qZpXvNbLrTwKcHsYfMdGjRnUaBeVxPoWiQ"),
    ("private_key", PEM),
    ("private_key", PEM.replace("RSA ", "")),
    ("private_key", PEM.replace("\n", "\\n")),
    ("web_token", WEB_TOKEN),
]


@pytest.mark.parametrize(("rule", "private"), PRIVATE)
@pytest.mark.parametrize("around", ["{}", "It is {}.", 'x = "{}",', "({})", "| {} |", "- {}\n- next", "那是 {}，对。"])
def test_private_data_becomes_a_placeholder(rule: str, private: str, around: str) -> None:
    text = around.format(private)
    assert [(kind.rule, text[start:end]) for (start, end), kind in find(text)] == [(rule, private)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Phone: 13719206018\nMail: a.b@uni.edu", "Phone: <PHONE>\nMail: <EMAIL>"),
        ("Tel. 030 901820, Fax: 030/901821", "Tel. <PHONE>, Fax: 030/901821"),
        ("[me@x.org](mailto:me@x.org)", "[<EMAIL>](mailto:<EMAIL>)"),
        ("http://52.94.236.248:8080/a and 52.94.236.0/24", "http://<IP_ADDRESS>:8080/a and <IP_ADDRESS>/24"),
        ("52.94.236.248,52.94.236.249", "<IP_ADDRESS>,<IP_ADDRESS>"),
        ("4539148803436467,123", "<CARD>,123"),
        ("电话：13719206018", "电话：<PHONE>"),
        ("call me at 868 267 1956", "call me at <PHONE>"),
        ("1-413-268-1956", "1-<PHONE>"),
        ("from 2a00:1450:4001:82b::200e: timeout", "from <IP_ADDRESS>: timeout"),
        (f"AWS_SECRET_ACCESS_KEY={RANDOM[:40]}", "AWS_SECRET_ACCESS_KEY=<KEY>"),
        (f"https://hooks.slack.com/services/T0Q7Z2XVN/B9LRT4WKC/{RANDOM[:24]}", "https://hooks.slack.com/<KEY>"),
    ],
)
def test_the_text_around_stays(text: str, expected: str) -> None:
    outcome = privacy_step("replace").run(record(f"u: {text}", "a: r"))
    assert isinstance(outcome, Keep)
    assert turns(outcome.record)[0] == f"u: {expected}"


INNOCENT = """
version 10.91.236.248
v2.94.236.48
torch==52.94.236.248
name-52.94.236.248.jar
Chrome/91.0.4472.124 Safari/537.36
Section 3.2.1.1
1.3.6.1.4.1.311.21.20
52.94.236.248.7
127.0.0.1 localhost 0.0.0.0 255.255.255.0 10.1.2.3 192.168.178.20 172.16.254.1 8.8.8.8 203.0.113.77
256.300.1.1
std::vector<int> a::b::c::d dead::beef
2001:db8:85a3:8d3:1319:8a2e:370:7348
fe80:3438:7667:5c77:ce27:18ff:fe7c:9bf1
12:34:56:78 00:1A:2B:3C:4D:5E
user@example.com me@mail.example.org you@yourdomain.com a@b.test your-service@project.iam.com
git@github.com:owner/name.git
@app.route npm install @types/node@18.1.0 logo@2x.png x@y.transpose foo@bar.js lodash@4.17.21
postgres://user:password@db.host.net/name
name@host @someone
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
sk-your-api-key-goes-here-please sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx sk-cube-grid-animation-for-loading
sk-1234567890abcdefghijklmnopqrstuvwxyz123456
AKIAIOSFODNN7EXAMPLE
ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx gh_pages
-----BEGIN PRIVATE KEY-----\\n...\\n-----END PRIVATE KEY-----
-----BEGIN PUBLIC KEY-----
eyJhbGciOi... eyJub3RhbGciOjF9xx.eyJzdWIiOiIxIn0abc.c2lnbmF0dXJl
c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00 550e8400-e29b-41d4-a716-446655440000
#4287f5 0x7fffffff 1e10 1,234,567,890 $4,539,148,803 18446744073709551615 9223372036854775807
"""


@pytest.mark.parametrize("text", INNOCENT.strip().split("\n"))
def test_what_only_looks_private_stays(text: str) -> None:
    assert [(kind.rule, text[start:end]) for (start, end), kind in find(text)] == []


def test_findings_count_and_never_quote() -> None:
    given = record("s: ask bob@x.org", "u: a@x.org b@x.org 52.94.236.248", "a: c@x.org", "u: no", "a: none")
    outcome = privacy_step("replace").run(given)
    assert isinstance(outcome, Keep)
    assert turns(outcome.record) == [
        "s: ask <EMAIL>",
        "u: <EMAIL> <EMAIL> <IP_ADDRESS>",
        "a: <EMAIL>",
        "u: no",
        "a: none",
    ]
    assert [(finding.rule, finding.evidence, finding.turn) for finding in outcome.repairs] == [
        ("email", "1 in this turn", 0),
        ("email", "2 in this turn", 1),
        ("ip_address", "1 in this turn", 1),
        ("email", "1 in this turn", 2),
    ]
    again = privacy_step("replace").run(outcome.record)
    assert again == Keep(outcome.record)


def test_a_record_may_be_dropped_instead() -> None:
    step = privacy_step("drop")
    outcome = step.run(record("u: q", "a: write to a@x.org or 52.94.236.248"))
    assert isinstance(outcome, Drop)
    assert (outcome.finding.rule, outcome.finding.evidence, outcome.finding.turn) == ("email", "1 in this turn", 1)
    assert isinstance(step.run(record("u: q", "a: write to user@example.com")), Keep)
    assert "the record was dropped" in step.rules["email"]
    assert "<EMAIL>" in privacy_step("replace").rules["email"]


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000 + "@",
        "@" * 200_000,
        "a@a." * 50_000,
        "1" * 200_000,
        "1 " * 100_000,
        "+1" * 100_000,
        "1." * 100_000,
        "::" * 100_000,
        "a:" * 100_000,
        "-----BEGIN PRIVATE KEY-----" * 2_000,
        "-----BEGIN PRIVATE KEY-----" + "-a" * 100_000,
        "eyJ" * 70_000,
        "sk-" * 70_000,
        "AB12 " * 40_000,
        "4539 " * 40_000,
        "(415) " * 40_000,
        "phone: 1 " * 20_000,
        "secret_key=" * 20_000,
        "\ud800 1234567 a@",
    ],
    ids=lambda text: text[:12],
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    start = time.process_time()
    find(text)
    assert time.process_time() - start < 2
