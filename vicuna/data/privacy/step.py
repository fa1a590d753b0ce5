"""The step `privacy`: private data in any turn becomes a placeholder, or the record is dropped.

Found are mail addresses, phone numbers, IP addresses, bank accounts, cards and keys; `addresses`, `numbers` and `keys`
say how. The placeholder names the kind, so that the sentence around it keeps its sense. Findings count and never
quote; the step stands right after `html`, so that no later finding quotes what it takes out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from vicuna.conversation import Message
from vicuna.data.privacy.addresses import find_addresses, find_emails, has_address
from vicuna.data.privacy.keys import find_keys, find_private_keys, find_web_tokens, has_key
from vicuna.data.privacy.numbers import find_cards, find_ibans, find_phones, has_long_number
from vicuna.data.privacy.spans import Span
from vicuna.data.step_kinds import Drop, Finding, Keep, Outcome, Record, Step

Mode = Literal["replace", "drop"]


@dataclass(frozen=True)
class Kind:
    """A kind of private data.

    Attributes:
        rule: its name in findings.
        meaning: what it is, for the report.
        placeholder: the text put in its place.
        may_contain: a fast check; where it is False, a text need not be searched.
        find: the spans in a text, in order.
    """

    rule: str
    meaning: str
    placeholder: str
    may_contain: Callable[[str], bool]
    find: Callable[[str], Iterator[Span]]


KINDS = (
    Kind("private_key", "a private key block", "<PRIVATE_KEY>", lambda text: "-----BEGIN " in text, find_private_keys),
    Kind("web_token", "a JSON Web Token", "<TOKEN>", lambda text: "eyJ" in text, find_web_tokens),
    Kind("key", "a service's key, by its known shape", "<KEY>", has_key, find_keys),
    Kind("email", "a mail address", "<EMAIL>", lambda text: "@" in text, find_emails),
    Kind("iban", "a bank account whose check digits agree", "<IBAN>", has_long_number, find_ibans),
    Kind("card", "a payment card whose issuer and check digit agree", "<CARD>", has_long_number, find_cards),
    Kind("ip_address", "an IP address of the public net", "<IP_ADDRESS>", has_address, find_addresses),
    Kind("phone", "a phone number", "<PHONE>", has_long_number, find_phones),
)
QUICK_CHECKS = frozenset(kind.may_contain for kind in KINDS)


def privacy_step(mode: Mode) -> Step:
    """The step: `replace` puts placeholders, `drop` drops the record."""
    rules = {kind.rule: f"{kind.meaning}; {_done_about(mode, kind)}" for kind in KINDS}
    return Step("privacy", 1, rules, _replace if mode == "replace" else _drop)


def _done_about(mode: Mode, kind: Kind) -> str:
    return f"it became {kind.placeholder}" if mode == "replace" else "the record was dropped"


def _replace(record: Record) -> Outcome:
    kinds = _kinds_in(record)
    if not kinds:
        return Keep(record)
    messages, repairs = [], []
    for message, turn in zip(record.messages, record.turns, strict=True):
        found = find(message.content, kinds)
        messages.append(Message(message.role, _with_placeholders(message.content, found)) if found else message)
        repairs += _findings(found, turn)
    return Keep(record.with_messages(tuple(messages)), tuple(repairs))


def _drop(record: Record) -> Outcome:
    kinds = _kinds_in(record)
    for message, turn in zip(record.messages, record.turns, strict=True) if kinds else ():
        if findings := _findings(find(message.content, kinds), turn):
            return Drop(findings[0])
    return Keep(record)


def find(text: str, kinds: Sequence[Kind] = KINDS) -> list[tuple[Span, Kind]]:
    """The spans of private data in a text, in order; where two overlap, the kind that comes first in `kinds` counts."""
    found: list[tuple[Span, Kind]] = []
    is_taken = bytearray()  # for each character
    for kind in kinds:
        if kind.may_contain(text):
            for start, end in kind.find(text):
                is_taken = is_taken or bytearray(len(text))
                if is_taken.find(1, start, end) < 0:
                    is_taken[start:end] = b"\x01" * (end - start)
                    found.append(((start, end), kind))
    return sorted(found, key=lambda item: item[0])


def _kinds_in(record: Record) -> list[Kind]:
    """The kinds that may be in a record; checked on all texts at once, because most records have none."""
    text = "\n".join(message.content for message in record.messages)
    passed = {check: check(text) for check in QUICK_CHECKS}
    return [kind for kind in KINDS if passed[kind.may_contain]]


def _with_placeholders(text: str, found: list[tuple[Span, Kind]]) -> str:
    pieces, done = [], 0
    for (start, end), kind in found:
        pieces += [text[done:start], kind.placeholder]
        done = end
    return "".join((*pieces, text[done:]))


def _findings(found: list[tuple[Span, Kind]], turn: int) -> list[Finding]:
    """One finding for each kind in a turn, with how often it came."""
    rules = [kind.rule for _, kind in found]
    return [Finding(rule, f"{rules.count(rule)} in this turn", turn) for rule in dict.fromkeys(rules)]
