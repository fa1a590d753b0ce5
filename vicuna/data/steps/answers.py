"""The steps `empty`, `errors`, `refusals` and `blocked`: each finds bad answers.

The conversation is cut before the round of the first one (`rounds`). The word lists are read by `phrases`.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence

from vicuna.data.options import ERROR_CHARACTERS, REFUSAL_CHARACTERS
from vicuna.data.step_kinds import Finding, Record, Step, excerpt
from vicuna.data.steps.phrases import fold, fold_all
from vicuna.data.steps.rounds import answers_of, cut_rounds

ASSISTANT_NAMES = ("gpt", "openai", "anthropic", "google", "claude", "bard")  # and their makers'
ERROR_EDGES = "*_. \n"  # emphasis and a last full stop
CODE = re.compile(r"^(`{3,})[\s\S]*?^\1`*[ \t]*$|(?<!`)(`+)(?!`)[\s\S]+?(?<!`)\2(?!`)", re.MULTILINE)


def _empty_messages(record: Record) -> Iterator[tuple[int, Finding]]:
    for index, (message, turn) in enumerate(zip(record.messages, record.turns, strict=True)):
        if not message.content.strip() and message.role in ("user", "assistant"):
            rule = "empty_answer" if message.role == "assistant" else "empty_question"
            yield index, Finding(rule, repr(message.content), turn)


def errors_step(messages: Iterable[str], max_characters: int = ERROR_CHARACTERS) -> Step:
    """The step `errors`: an answer's first or last paragraph is an error message of the page.

    Args:
        messages: compared with a whole paragraph, or, where a * ends them, with its beginning.
        max_characters: a longer paragraph is not an error message.
    """
    wholes, beginnings = set(), []
    for message in messages:
        known = fold(message.strip(ERROR_EDGES))
        if message.endswith("*"):
            beginnings.append(known)
        else:
            wholes.add(known)
    find = functools.partial(_error_messages, frozenset(wholes), tuple(beginnings), max_characters)
    rules = {"error_message": "an error message stands in place of an answer; the conversation ends before its round"}
    return Step("errors", 1, rules, cut_rounds(find))


def _error_messages(
    wholes: frozenset[str], beginnings: tuple[str, ...], max_characters: int, record: Record
) -> Iterator[tuple[int, Finding]]:
    def is_error(paragraph: str, *, may_be_short: bool) -> bool:
        """Whether a paragraph is an error message; one of the whole messages only where `may_be_short`."""
        if len(paragraph) > max_characters:
            return False
        folded = fold(paragraph.strip(ERROR_EDGES))
        return folded.startswith(beginnings) or (may_be_short and folded in wholes)

    for index, turn, content in answers_of(record):
        first = last = content  # paragraphs
        if (end := content.find("\n\n")) >= 0:
            first, last = content[:end], content[content.rfind("\n\n") + 2 :]
        # A reply that broke off ends with the message; one that never began may have more of the page below it.
        if is_error(last, may_be_short=True):
            yield index, Finding("error_message", excerpt(last), turn)
        elif is_error(first, may_be_short=False):
            yield index, Finding("error_message", excerpt(first), turn)


def refusals_step(
    beginnings: Iterable[str], continuations: Iterable[str], max_characters: int = REFUSAL_CHARACTERS
) -> Step:
    """The step `refusals`: an answer only refuses.

    Args:
        beginnings: how refusals begin.
        continuations: phrases after which help follows; an answer with one of them stays.
        max_characters: a longer answer is not a refusal.
    """
    find = functools.partial(_refusals, fold_all(beginnings), fold_all(continuations), max_characters)
    rules = {"refusal": "a bare refusal; the conversation ends before its round"}
    return Step("refusals", 2, rules, cut_rounds(find))


def _refusals(
    beginnings: tuple[str, ...], continuations: tuple[str, ...], max_characters: int, record: Record
) -> Iterator[tuple[int, Finding]]:
    for index, turn, content in answers_of(record):
        if len(content) > max_characters:
            continue
        text = fold(content)
        if text.startswith(beginnings) and not any(phrase in text for phrase in continuations):
            yield index, Finding("refusal", excerpt(content), turn)


def blocked_step(phrases: Iterable[str], identities: Iterable[str]) -> Step:
    """The step `blocked`: an answer contains one of these phrases outside of code.

    Args:
        identities: those of the phrases with which another assistant says who it is; they have their own rule.
    """
    folded = fold_all(phrases)
    find = functools.partial(_blocked, folded, _blocked_hints(folded), frozenset(fold_all(identities)))
    rules = {
        "other_identity": "another assistant says who it is; the conversation ends before its round",
        "blocked_phrase": "an answer holds a phrase that was blocked; the conversation ends before its round",
    }
    return Step("blocked", 1, rules, cut_rounds(find))


def _blocked(
    phrases: tuple[str, ...], hints: tuple[str, ...], identities: frozenset[str], record: Record
) -> Iterator[tuple[int, Finding]]:
    for index, turn, content in answers_of(record):
        lowered = content.casefold()
        if not any(map(lowered.__contains__, hints)):
            continue
        text = fold(CODE.sub(" ", content))
        for phrase in phrases:
            # The search for a whole word is slow, so it is done only in the few texts that contain the letters.
            if phrase in text and re.search(rf"(?<!\w){re.escape(phrase)}", text):
                rule = "other_identity" if phrase in identities else "blocked_phrase"
                yield index, Finding(rule, phrase, turn)


def _blocked_hints(phrases: Sequence[str]) -> tuple[str, ...]:
    """Words of which every phrase contains one; an answer without any is not searched (0.03 CPU-s, not 0.35)."""
    hints = list(ASSISTANT_NAMES)
    for phrase in phrases:
        if not any(name in phrase for name in hints):
            hints.append(max(re.split(r"[\s']", phrase), key=len))
    return tuple(hints)


EMPTY_STEP = Step(
    "empty",
    1,
    {
        "empty_question": "a question is empty; the conversation ends before it",
        "empty_answer": "an answer is empty; the conversation ends before its round",
    },
    cut_rounds(_empty_messages),
)
