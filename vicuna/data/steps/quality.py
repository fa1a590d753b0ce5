"""The step `quality`: the conversation is cut before an answer that repeats itself (words, lines or letters).

The measure is one of those of MassiveText (Rae et al. 2021, arXiv:2112.11446, table A1: the part of a text in repeated
n-grams and lines), but the limits there, made for web pages, would drop good answers: tables, code, songs with a
refrain, lists of similar sentences. So only prose is measured, and the limits are those that no person's text reaches.
"""

import functools
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vicuna.data.options import REPEATED_PART
from vicuna.data.step_kinds import Finding, Record, Step, excerpt
from vicuna.data.steps.rounds import cut_rounds
from vicuna.data.steps.shingles import Hashes, hashes_of, phrase_hashes, word_hashes

PHRASE_WORDS = 5
LOOP_ROUNDS = 5  # the same words five times in a row are a loop; between two choruses there is a verse
LOOP_WORDS = 100  # ... if the repetitions have so many words together: the end of "Hey Jude" has about 60
REPEATED_WORDS = 200  # in a shorter text a few formulas are a large part
LETTER_RUN_CHARACTERS = 50  # exclamations are shorter, and lines and blanks to fill in are not letters
LETTER_RUN = re.compile(rf"([^\W_])\1{{{LETTER_RUN_CHARACTERS - 1},}}")
# Maps a text's bytes to 0 (part of a letter or digit) or a space.
LETTER_CLASS = bytes(0x30 if byte >= 0x80 or chr(byte).isalnum() else 0x20 for byte in range(256))
BORDER = "ꙮ"  # between answers that are searched together; a letter that no answer has

RULES = {
    "repeated_words": "an answer says the same words over and over at once; the conversation ends before its round",
    "repeated_phrases": "hardly a phrase of an answer is new in it; the conversation ends before its round",
    "repeated_characters": "an answer holds one letter over and over; the conversation ends before its round",
}


def quality_step(repeated_part: float = REPEATED_PART) -> Step:
    """The step.

    Args:
        repeated_part: an answer is bad if at least this part of its 5-grams came before in it.
    """
    return Step("quality", 1, RULES, cut_rounds(functools.partial(_repetitions, repeated_part)))


def _repetitions(repeated_part: float, record: Record) -> Iterator[tuple[int, Finding]]:
    answers = [index for index, message in enumerate(record.messages) if message.role == "assistant"]
    hashes = hashes_of(record)
    texts = [record.messages[index].content for index in answers]
    if not (_may_have_letter_run("\n".join(texts)) or _may_repeat([hashes[index] for index in answers], repeated_part)):
        return
    for index, text in zip(answers, texts, strict=True):
        if finding := find_repetition(text, record.turns[index], repeated_part):
            yield index, finding


def _may_have_letter_run(text: str) -> bool:
    """Whether one letter is repeated; searched only where there are so many letters in a row at all."""
    classes = text.encode("utf-8", "surrogatepass").translate(LETTER_CLASS)
    return b"0" * LETTER_RUN_CHARACTERS in classes and LETTER_RUN.search(text) is not None


def _may_repeat(answers: list[Hashes], repeated_part: float) -> bool:
    """A fast check of all answers at once, code included: False only where no answer repeats words."""
    if not answers:
        return False
    words = np.concatenate([part for answer in answers for part in (_border(), answer)][1:])
    phrases = phrase_hashes(words, PHRASE_WORDS)
    least = min(LOOP_WORDS, repeated_part * (REPEATED_WORDS - PHRASE_WORDS + 1))
    if len(phrases) < least:
        return False
    distances = _distances(phrases)
    if np.count_nonzero(distances) < least:
        return False
    starts = np.concatenate(([0], np.flatnonzero(words[: len(phrases)] == _border())))
    sizes = np.diff(np.concatenate((starts, [len(phrases)])))
    places = np.arange(len(phrases)) - np.repeat(starts, sizes)  # of each phrase in its answer
    repeated = np.add.reduceat(((distances > 0) & (distances <= places)).astype(np.int64), starts)
    is_much = (repeated >= least) & (repeated >= repeated_part / 2 * sizes)  # half: code counts here, too
    return bool(is_much.any()) or _longest_loop(distances) is not None


def find_repetition(text: str, turn: int | None = None, repeated_part: float = REPEATED_PART) -> Finding | None:
    """What one answer repeats; None if nothing."""
    text = prose(text)
    if run := LETTER_RUN.search(text):
        return Finding("repeated_characters", f"{len(run[0])} times {run[1]}", turn)
    words = word_hashes(text)
    phrases = phrase_hashes(words, PHRASE_WORDS)
    if not len(phrases):
        return None
    distances = _distances(phrases)
    if loop := _longest_loop(distances):
        start, period, rounds = loop
        unit = _words_at(text, len(words), start, period)
        return Finding("repeated_words", excerpt(f"{rounds} times in a row: {unit}"), turn)
    part = np.count_nonzero(distances) / len(phrases)
    if len(words) >= REPEATED_WORDS and part >= repeated_part:
        return Finding("repeated_phrases", excerpt(f"{part:.0%} of its phrases came before: {text}"), turn)
    return None


@functools.cache
def _border() -> Hashes:
    return word_hashes(BORDER)


def prose(text: str) -> str:
    """A text without code blocks, tables, and lines that are more signs and digits than letters."""
    kept = []
    fence = ""
    for line in text.split("\n"):
        stripped = line.lstrip(" >")
        if stripped.startswith(fence or "```"):
            fence = "" if fence else stripped[: len(stripped) - len(stripped.lstrip("`"))]
        elif not fence and "|" not in line and 2 * sum(map(str.isalpha, stripped)) >= len(stripped.replace(" ", "")):
            kept.append(stripped)
    return "\n".join(kept)


def _distances(phrases: Hashes) -> npt.NDArray[np.int64]:
    """For each phrase how many words before it the same one stands; 0 if nowhere."""
    # Sorted by phrase and then by place, which takes the lowest bits: twice as fast as sorting the places.
    mask = np.uint64((1 << len(phrases).bit_length()) - 1)
    ordered = np.sort((phrases & ~mask) | np.arange(len(phrases), dtype=np.uint64))
    places = (ordered & mask).astype(np.int64)
    is_same = (ordered[1:] ^ ordered[:-1]) <= mask
    distances = np.zeros(len(phrases), np.int64)
    distances[places[1:][is_same]] = np.diff(places)[is_same]
    return distances


def _longest_loop(distances: npt.NDArray[np.int64]) -> tuple[int, int, int] | None:
    """The first word, the length and the number of rounds of the longest loop that is long enough.

    In a loop of p words the same phrase stands p words before each phrase, so all distances are p.
    """
    edges = np.flatnonzero(np.diff(distances)) + 1
    starts = np.concatenate(([0], edges))
    lengths = np.diff(np.concatenate((starts, [len(distances)])))
    periods = distances[starts]
    repeated = lengths + PHRASE_WORDS - 1  # words after the first round
    is_loop = (periods > 0) & (repeated >= LOOP_WORDS) & (repeated >= (LOOP_ROUNDS - 1) * periods)
    if not is_loop.any():
        return None
    best = int(np.argmax(np.where(is_loop, repeated, 0)))
    period = int(periods[best])
    return int(starts[best]) - period, period, 1 + int(repeated[best]) // period


def _words_at(text: str, num_words: int, start: int, count: int) -> str:
    """Words of a text, for the evidence; the text's end, where this pattern and `shingles` count words differently."""
    found = re.findall(r"[^\W_]+", text)
    return " ".join(found[start : start + count]) if len(found) == num_words else text[-100:]
