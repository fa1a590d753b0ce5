"""Numbers of bank accounts, payment cards and phones.

Order numbers have the shape of cards, dates and ISBNs that of phones. So each shape is checked further (a checksum, an
issuer, a calling code). Well-known examples are not found.
"""

import functools
import re
from collections.abc import Iterator

from vicuna.data.options import shipped_words
from vicuna.data.privacy.spans import Span, is_standalone

JOINERS = ".-/"  # between numbers these make a longer number, a date or a path
# Maps a text's bytes to 0 (a digit) or a space, without separators: a long number is then found as a substring.
DIGIT_CLASS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
MIN_DIGITS = 7  # the shortest labelled phone number; accounts and cards have more


def has_long_number(text: str) -> bool:
    """A fast check: False only where none of these numbers is."""
    classes = text.encode("utf-8", "surrogatepass").translate(DIGIT_CLASS, b" ().-")
    return b"0" * MIN_DIGITS in classes


# accounts

IBAN = re.compile(r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}")
# Characters of an IBAN by country: the registry of ISO 13616, kept by SWIFT.
IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


def find_ibans(text: str) -> Iterator[Span]:
    """Bank accounts whose length is their country's and whose check digits agree (ISO 7064, mod 97-10)."""
    for match in IBAN.finditer(text):
        length = IBAN_LENGTHS.get(match[0][:2], 0)
        end, count = match.start(), 0
        while count < length and end < match.end():
            count += text[end] != " "
            end += 1
        digits = text[match.start() : end].replace(" ", "")
        if length and count == length and is_standalone(text, match.start(), end, JOINERS):
            number = "".join(str(int(character, 36)) for character in digits[4:] + digits[:4])
            if int(number) % 97 == 1:
                yield match.start(), end


# cards

CARD = re.compile(
    r"[2-6][0-9]{13,18}(?![0-9])|[2-6][0-9]{3}([ -])(?:[0-9]{4}\1[0-9]{4}\1[0-9]{4}|[0-9]{6}\1[0-9]{4,5})(?![0-9])"
)


def find_cards(text: str) -> Iterator[Span]:
    """Payment cards: an issuer's number range and length, and Luhn's check digit (ISO/IEC 7812)."""
    for match in CARD.finditer(text):
        digits = re.sub(r"[ -]", "", match[0])
        is_card = (
            _is_issued(digits)
            and _has_luhn_check_digit(digits)
            and digits not in _test_cards()
            and len(set(digits)) > 3
        )
        if is_card and is_standalone(text, *match.span(), JOINERS):
            yield match.span()


@functools.cache
def _test_cards() -> frozenset[str]:
    return shipped_words("test_cards.txt")


def _is_issued(digits: str) -> bool:
    two, three, four = int(digits[:2]), int(digits[:3]), int(digits[:4])
    match len(digits):
        case 14:  # Diners Club
            return two in (36, 38, 39) or 300 <= three <= 305 or three == 309
        case 15:  # American Express
            return two in (34, 37)
        case 16:  # Visa, Mastercard (two ranges), Discover, JCB, UnionPay
            return (
                digits[0] == "4"
                or 51 <= two <= 55
                or 2221 <= four <= 2720
                or four == 6011
                or 644 <= three <= 659
                or 3528 <= four <= 3589
                or two == 62
            )
        case 19:
            return two == 62
    return False


def _has_luhn_check_digit(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        total += digit if place % 2 == 0 else sum(divmod(2 * digit, 10))
    return total % 10 == 0


# phones

INTERNATIONAL = re.compile(r"\+[1-9][0-9]{0,13}(?:[ .-]?\([0-9]{1,5}\)|[ .-]?[0-9]{2,12}){0,7}(?![0-9])")
NORTH_AMERICAN = re.compile(
    r"(?:\([2-9][0-9]{2}\)[ -]?[2-9][0-9]{2}[ .-]|[2-9][0-9]{2}([.-])[2-9][0-9]{2}\1)[0-9]{4}(?![0-9])"
)
DIGIT_RUN = re.compile(r"[0-9](?:[ ().-]{0,2}[0-9]){6,}")
LABELLED_DIGITS = range(7, 16)
PHONE_LABEL = re.compile(
    r"(?:\b(?:phone|telephone|tel|mobile|cell ?phone|fax|whats ?app|hotline|t[eé]l[eé]phone|telefon|tel[eé]fono|"
    r"celular|handy|(?:call|text|reach|ring) (?:me|us) (?:at|on))|телефон|电话|手机|電話)"
    r"[ \t]?(?:no|nr|number|num|№|#)?[\"'*.\]]{0,3}[ \t]?[:：=#-]?[ \t\"'*]{0,3}\(?\Z",
    re.IGNORECASE,
)
# Calling codes in use (ITU-T E.164) but 1, which has a shape of its own.
CALLING_CODE = re.compile(
    r"7|2[07]|3[0-4]|36|39|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|(?:2[1-69]|35|37|38|42|50|59|6[7-9]|8[578]|9[679])[0-9]"
)


def find_phones(text: str) -> Iterator[Span]:
    """Phone numbers: with a calling code, in the shape of North America, or after a word such as "phone"."""
    found = [match.span() for match in INTERNATIONAL.finditer(text) if _is_international(text, match)]
    for run in DIGIT_RUN.finditer(text):
        start = run.start() - (text[max(0, run.start() - 1) : run.start()] == "(")
        shaped = NORTH_AMERICAN.finditer(text, start, run.end())
        spans = [match.span() for match in shaped if _is_north_american(text, match)]
        if not spans and _is_labelled(text, start, run.end()):
            spans = [(start, run.end())]
        found += spans
    end = 0
    for span in sorted(found):
        if span[0] >= end:
            end = span[1]
            yield span


def _is_international(text: str, match: re.Match[str]) -> bool:
    digits = re.sub(r"[^0-9]", "", match[0])
    before = text[max(0, match.start() - 1) : match.start()]
    if before.isalnum() or (before and before in "_)+]") or not 9 <= len(digits) <= 15 or _is_placeholder(digits):
        return False
    if not re.search(r"[ .-]", match[0]) and len(digits) < 11:
        return False
    if digits[0] == "1":
        return len(digits) == 11 and _is_subscriber(digits[1:])
    return CALLING_CODE.match(digits) is not None


def _is_north_american(text: str, match: re.Match[str]) -> bool:
    digits = re.sub(r"[^0-9]", "", match[0])
    start = match.start()
    is_alone = is_standalone(text, start, match.end(), JOINERS) or text[max(0, start - 2) : start] in ("1-", "1.", "1 ")
    return is_alone and _is_subscriber(digits)


def _is_subscriber(digits: str) -> bool:
    """Whether ten digits can be a subscriber's: no area or exchange is x11, and 555 is kept for examples."""
    area, exchange = digits[:3], digits[3:6]
    return (
        area[0] not in "01"
        and exchange[0] not in "01"
        and "11" not in (area[1:], exchange[1:])
        and "555" not in (area, exchange)
        and area[1] != "9"
        and not _is_placeholder(digits)
    )


def _is_labelled(text: str, start: int, end: int) -> bool:
    if not PHONE_LABEL.search(text, max(0, start - 40), start):
        return False
    digits = re.sub(r"[^0-9]", "", text[start:end])
    is_phone = len(digits) in LABELLED_DIGITS and "555" not in digits and not _is_placeholder(digits)
    return is_phone and is_standalone(text, start, end, JOINERS)


def _is_placeholder(digits: str) -> bool:
    """Whether digits are a placeholder: 1234567, 0000000, 9876543210."""
    return len(set(digits)) <= 2 or any(part in digits for part in ("123456", "234567", "987654", "000000"))
