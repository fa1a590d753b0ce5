"""The steps that repair a conversation's order and leave out what nobody should learn.

One rule for everything bad in the middle: the conversation is cut there. The rounds before it are good training and
stay; what comes after it may lean on it. If nothing is left, the record is dropped. `phrases` reads the word lists that
four of the steps are made of. `html` has made text of the answers before; `dedup` and `split` come next.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from vicuna.conversation import Message
from vicuna.data.html.walker import HtmlError, is_page, looks_like_html, page_text, to_markdown
from vicuna.data.options import ERROR_CHARACTERS, REFUSAL_CHARACTERS
from vicuna.data.step_kinds import Drop, Finding, Keep, Outcome, Record, Step, excerpt

NAMES = (
    "gpt",
    "openai",
    "anthropic",
    "google",
    "claude",
    "bard",
)  # of assistants and their makers; in most blocked phrases
ERROR_EDGES = "*_. \n"  # emphasis and a last full stop
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")
CONTROL_BYTES = bytes((*range(0x09), *range(0x0B, 0x20), 0x7F))
EMPTY_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")
CODE = re.compile(r"^(`{3,})[\s\S]*?^\1`*[ \t]*$|(?<!`)(`+)(?!`)[\s\S]+?(?<!`)\2(?!`)", re.MULTILINE)


def _folded(phrases: Iterable[str]) -> tuple[str, ...]:
    """Phrases as they are compared, each once."""
    return tuple(dict.fromkeys(map(_fold, phrases)))


def _fold(text: str) -> str:
    return " ".join(text.replace("’", "'").casefold().split())


# html


def _html(record: Record) -> Outcome:
    """Answers that are a page's HTML become Markdown; human turns stay, unless they are a page's element too."""
    messages, repairs = [], []
    for message, turn in zip(record.messages, record.turns, strict=True):
        content = message.content
        try:
            if message.role == "assistant" and record.shape == "sharegpt" and looks_like_html(content):
                content = to_markdown(content)
            elif message.role != "assistant" and is_page(content):
                content = page_text(content)
                repairs.append(Finding("human_html", excerpt(message.content), turn))
        except HtmlError as error:
            return Drop(Finding("broken_html", str(error), turn))
        messages.append(Message(message.role, content))
    return Keep(record.with_messages(tuple(messages)), tuple(repairs))


# noise


def noise_step(leftovers: Iterable[str]) -> Step:
    """The step that takes `leftovers`, the words of the page's buttons, off the ends of answers."""
    rules = {
        "control_characters": "an answer held control characters or foreign line ends",
        "page_words": "an answer began or ended with the words of the page's buttons",
    }
    return Step("noise", 1, rules, functools.partial(_noise, frozenset(_folded(leftovers))))


def _noise(words: frozenset[str], record: Record) -> Outcome:
    """Answers lose control characters, the page's button words at their ends, and the space around them."""
    messages, repairs = [], []
    for message, turn in zip(record.messages, record.turns, strict=True):
        content = message.content
        if message.role == "assistant":
            if _has_controls(content):
                content = CONTROL.sub("", content.replace("\r\n", "\n").replace("\r", "\n"))
                repairs.append(Finding("control_characters", excerpt(repr(message.content)[1:-1]), turn))
            content, leftovers = _without_leftovers(_trim(content), words)
            repairs += [Finding("page_words", line, turn) for line in leftovers]
        messages.append(message if content is message.content else Message(message.role, content))
    return Keep(record.with_messages(tuple(messages)), tuple(repairs))


def _has_controls(text: str) -> bool:
    """Whether `CONTROL` or a carriage return is in a text. (Bytes are looked up ten times as fast as a class is.)"""
    data = text.encode("utf-8", "surrogatepass")
    return len(data.translate(None, CONTROL_BYTES)) < len(data) or "\ufeff" in text


def _trim(text: str) -> str:
    """Without empty lines at the start and space at the end; the first line's indentation stays."""
    return (EMPTY_LINES.sub("", text) if text[:1].isspace() else text).rstrip()


def _without_leftovers(text: str, words: frozenset[str]) -> tuple[str, list[str]]:
    leftovers: list[str] = []
    first, last = text[: max(0, text.find("\n"))], text[text.rfind("\n") + 1 :]
    if not (_fold(first) in words or _fold(last) in words):
        return text, leftovers
    lines = text.split("\n")
    while len(lines) > 1 and _fold(lines[0]) in words:
        leftovers.append(lines.pop(0).strip())
    while len(lines) > 1 and _fold(lines[-1]) in words:
        leftovers.append(lines.pop().strip())
    return (_trim("\n".join(lines)), leftovers) if leftovers else (text, leftovers)


# roles


def _roles(record: Record) -> Outcome:
    """System text first, then a human turn, then answers and questions in turn, and an answer at the end."""
    if not record.messages:
        return Drop(Finding("no_turns", "the list of turns is empty"))
    roles = [message.role for message in record.messages]
    if "assistant" not in roles:
        return Drop(Finding("no_answer", f"roles: {', '.join(roles)}"))
    if "user" not in roles:
        return Drop(Finding("no_question", f"roles: {', '.join(roles)}"))
    turns = roles[1:] if roles[0] == "system" and record.messages[0].content.strip() else roles
    if turns == ["user", "assistant"] * (len(turns) // 2):  # as nearly all are
        return Keep(record)
    repairs: list[Finding] = []
    kept = _in_order(record, repairs)
    merged = _merged(kept, repairs)
    last = max((index for index, message in enumerate(merged.messages) if message.role == "assistant"), default=-1)
    for message, turn in zip(merged.messages[last + 1 :], merged.turns[last + 1 :], strict=True):
        repairs.append(Finding("trailing_question", excerpt(message.content), turn))
    if last < 0:
        return Drop(Finding("no_answer", "no answer follows the first question"), tuple(repairs))
    return Keep(merged.select(range(last + 1)), tuple(repairs))


def _in_order(record: Record, repairs: list[Finding]) -> Record:
    """Without answers before the first question, and without system text that is empty or not at the start."""
    first = next(index for index, message in enumerate(record.messages) if message.role == "user")
    kept = []
    for index, message in enumerate(record.messages):
        if message.role == "system" and (index > first or not message.content.strip()):
            repairs.append(Finding("misplaced_system", excerpt(message.content), record.turns[index]))
        elif message.role not in ("system", "user") and index < first:
            repairs.append(Finding("leading_answer", excerpt(message.content), record.turns[index]))
        else:
            kept.append(index)
    return record.select(kept)


def _merged(record: Record, repairs: list[Finding]) -> Record:
    """Neighbours of one role as one message: the same text once, other texts with an empty line between them."""
    messages: list[Message] = []
    turns: list[int] = []
    for message, turn in zip(record.messages, record.turns, strict=True):
        if not messages or message.role == "tool" or messages[-1].role != message.role:
            messages.append(message)
            turns.append(turn)
            continue
        before = messages[-1].content
        if message.content.strip() == before.strip():
            repairs.append(Finding("repeated_turn", excerpt(message.content), turn))
            continue
        repairs.append(Finding("merged_turns", excerpt(message.content), turn))
        both = "\n\n".join(text for text in (before, message.content) if text.strip())
        messages[-1] = Message(message.role, both)
    indices = [record.turns.index(turn) for turn in turns]
    return record.select(indices).with_messages(tuple(messages))


# empty, error messages, refusals, blocked words: each finds the first bad message, and `cut_rounds` does the rest


def cut_rounds(find: Callable[[Record], Iterator[tuple[int, Finding]]]) -> Callable[[Record], Outcome]:
    """A step that keeps the rounds before the first thing that `find` finds."""

    def run(record: Record) -> Outcome:
        index, finding = next(find(record), (None, None))
        if index is None or finding is None:
            return Keep(record)
        start = max((at for at in range(index + 1) if record.messages[at].role == "user"), default=0)
        if not any(message.role == "assistant" for message in record.messages[:start]):
            return Drop(finding)
        return Keep(record.select(range(start)), (finding,))

    return run


def _answers(record: Record) -> Iterator[tuple[int, int, str]]:
    for index, (message, turn) in enumerate(zip(record.messages, record.turns, strict=True)):
        if message.role == "assistant":
            yield index, turn, message.content


def _empty_turns(record: Record) -> Iterator[tuple[int, Finding]]:
    for index, (message, turn) in enumerate(zip(record.messages, record.turns, strict=True)):
        if not message.content.strip() and message.role in ("user", "assistant"):
            rule = "empty_answer" if message.role == "assistant" else "empty_question"
            yield index, Finding(rule, repr(message.content), turn)


def errors_step(messages: Iterable[str], max_characters: int = ERROR_CHARACTERS) -> Step:
    """The step that knows these error messages, whole or, where a * ends them, by their beginning.

    Args:
        max_characters: a longer paragraph is none.
    """
    wholes, beginnings = set(), []
    for message in messages:
        known = _fold(message.strip(ERROR_EDGES))
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
        """Whether a paragraph is an error message; the short ones, which begin good answers too, only where allowed."""
        if len(paragraph) > max_characters:
            return False
        folded = _fold(paragraph.strip(ERROR_EDGES))
        return folded.startswith(beginnings) or (may_be_short and folded in wholes)

    for index, turn, content in _answers(record):
        first = last = content  # paragraphs
        if (end := content.find("\n\n")) >= 0:
            first, last = content[:end], content[content.rfind("\n\n") + 2 :]
        # A reply that broke off ends with the message; one that never began may have more of the page below it.
        if is_error(last, may_be_short=True):
            yield index, Finding("error_message", excerpt(last), turn)
        elif is_error(first, may_be_short=False):
            yield index, Finding("error_message", excerpt(first), turn)


def refusals_step(beginnings: Iterable[str], turns: Iterable[str], max_characters: int = REFUSAL_CHARACTERS) -> Step:
    """The step that knows a refusal by its beginning, unless one of `turns` in it says that help follows.

    Args:
        max_characters: a longer answer is none.
    """
    find = functools.partial(_refusals, _folded(beginnings), _folded(turns), max_characters)
    rules = {"refusal": "a bare refusal; the conversation ends before its round"}
    return Step("refusals", 2, rules, cut_rounds(find))


def _refusals(
    beginnings: tuple[str, ...], turns: tuple[str, ...], max_characters: int, record: Record
) -> Iterator[tuple[int, Finding]]:
    for index, turn, content in _answers(record):
        if len(content) > max_characters:
            continue
        text = _fold(content)
        if text.startswith(beginnings) and not any(phrase in text for phrase in turns):
            yield index, Finding("refusal", excerpt(content), turn)


def blocked_step(phrases: Iterable[str], identities: Iterable[str]) -> Step:
    """The step that finds these phrases. Those that are `identities` too have a rule of their own."""
    folded = _folded(phrases)
    find = functools.partial(_blocked, folded, _blocked_hints(folded), frozenset(_folded(identities)))
    rules = {
        "other_identity": "another assistant says who it is; the conversation ends before its round",
        "blocked_phrase": "an answer holds a phrase that was blocked; the conversation ends before its round",
    }
    return Step("blocked", 1, rules, cut_rounds(find))


def _blocked(
    phrases: tuple[str, ...], hints: tuple[str, ...], identities: frozenset[str], record: Record
) -> Iterator[tuple[int, Finding]]:
    for index, turn, content in _answers(record):
        lowered = content.casefold()
        if not any(map(lowered.__contains__, hints)):
            continue
        text = _fold(CODE.sub(" ", content))
        for phrase in phrases:
            # The search for a whole word is slow, so it is left to the few texts that hold the letters.
            if phrase in text and re.search(rf"(?<!\w){re.escape(phrase)}", text):
                rule = "other_identity" if phrase in identities else "blocked_phrase"
                yield index, Finding(rule, phrase, turn)


def _blocked_hints(phrases: Sequence[str]) -> tuple[str, ...]:
    """Words of which every blocked phrase holds one: an answer without them is not looked at (0.03 CPU-s, not 0.35)."""
    hints = list(NAMES)
    for phrase in phrases:
        if not any(name in phrase for name in hints):
            hints.append(max(re.split(r"[\s']", phrase), key=len))
    return tuple(hints)


HTML = Step(
    "html",
    2,
    {
        "human_html": "a human turn was an element of the page; its text was taken",
        "broken_html": "an answer's elements are nested beyond any sense",
    },
    _html,
)
ROLES = Step(
    "roles",
    1,
    {
        "no_turns": "the record has no turns",
        "no_question": "nobody asks anything",
        "no_answer": "nobody answers",
        "leading_answer": "an answer stood before the first question",
        "misplaced_system": "system text was empty or stood inside the conversation",
        "repeated_turn": "the same turn came twice in a row",
        "merged_turns": "two turns of one side came in a row and were joined",
        "trailing_question": "the last question has no answer",
    },
    _roles,
)
EMPTY = Step(
    "empty",
    1,
    {
        "empty_question": "a question is empty; the conversation ends before it",
        "empty_answer": "an answer is empty; the conversation ends before its round",
    },
    cut_rounds(_empty_turns),
)
