"""The words of a text as numbers, so that phrases are compared by arithmetic on arrays.

`decontaminate`, `dedup` and `quality` ask whether two texts share runs of words. A word is a run of letters and digits,
case and punctuation aside; of a script that writes no spaces between words, each character is one. The numbers depend
on the text alone: not on the machine, the process or Python's hash seed.
"""

import functools
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from vicuna.data.step_kinds import Record

Hashes = npt.NDArray[np.uint64]

CHUNK_CHARACTERS = 1 << 18  # bounds the arrays' memory for a text of any length; a word across a border becomes two
KEPT_CHARACTERS = 1 << 21  # a batch has fewer
MULTIPLIER = (
    0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64: the golden ratio, as in Fibonacci hashing
)
# Kana, CJK ideographs with their extensions: one character, one word. Hangul writes spaces.
IDEOGRAPHS = ((0x3041, 0x3100), (0x31F0, 0x3200), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00))
CODE_POINTS = 0x10000  # what lies beyond is no letter, or one that is a word by itself

SEPARATOR, LETTER, IDEOGRAPH = 0, 1, 2


def word_hashes(text: str) -> Hashes:
    """A number of 64 bits for each word of a text, in order."""
    if len(text) <= CHUNK_CHARACTERS:
        return _chunk_hashes(text.casefold())[0]
    starts = range(0, len(text), CHUNK_CHARACTERS)
    return np.concatenate([_chunk_hashes(text[start : start + CHUNK_CHARACTERS].casefold())[0] for start in starts])


class _Kept:
    """What was asked last, for as many records as `KEPT_CHARACTERS` are.

    `quality`, `decontaminate` and `dedup` ask about the same records, one of them about a whole batch before the next.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], tuple[Hashes, ...]] = {}
        self._characters = 0

    def hashes(self, texts: tuple[str, ...]) -> tuple[Hashes, ...]:
        found = self._found.get(texts)
        if found is None:
            while self._found and self._characters > KEPT_CHARACTERS:
                oldest = next(iter(self._found))
                self._characters -= sum(map(len, oldest))
                del self._found[oldest]
            found = self._found[texts] = _hashes_of_each(texts)
            self._characters += sum(map(len, texts))
        return found


_kept = _Kept()


def hashes_of(record: Record) -> tuple[Hashes, ...]:
    """`word_hashes` of each message's text."""
    return _kept.hashes(tuple(message.content for message in record.messages))


def _hashes_of_each(texts: tuple[str, ...]) -> tuple[Hashes, ...]:
    """All texts go through in one, because arrays are slow to begin with and most turns are short."""
    folded = [text.casefold() for text in texts]
    ends = list(itertools.accumulate(len(text) + 1 for text in folded))  # each with the line break behind it
    if not ends or ends[-1] > CHUNK_CHARACTERS:
        return tuple(word_hashes(text) for text in texts)
    hashes, starts = _chunk_hashes("\n".join(folded))
    places = [0, *np.searchsorted(starts, ends).tolist()]
    return tuple(hashes[begin:end] for begin, end in itertools.pairwise(places))


def phrase_hashes(words: Hashes, length: int) -> Hashes:
    """A number for each run of `length` words; for none of them if there are fewer words."""
    count = len(words) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = words[:count].copy()
    for offset in range(1, length):
        total *= np.uint64(MULTIPLIER)
        total += words[offset : offset + count]
    return _mix(total)


def _chunk_hashes(text: str) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """The words' numbers, and where each word begins. The text is folded."""
    alone = np.empty(0, np.int64)
    if text.isascii():  # the same, with a quarter of the memory to walk through
        data = text.encode("ascii")
        values = _ascii_values().take(np.frombuffer(data, np.uint8))
        is_letter = np.frombuffer(data.translate(_ascii_letters()), np.bool_)
    else:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        values = _scrambled(points)
        kinds = _kinds().take(np.minimum(points, CODE_POINTS))
        is_letter = kinds == LETTER
        alone = np.flatnonzero(kinds == IDEOGRAPH)
    edges = np.flatnonzero(is_letter[1:] != is_letter[:-1]) + 1
    if len(values) and is_letter[0]:
        edges = np.concatenate(([0], edges))
    if len(edges) % 2:
        edges = np.concatenate((edges, [len(values)]))
    starts, ends = edges[::2], edges[1::2]
    if len(alone):
        starts = np.concatenate((starts, alone))
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], np.concatenate((ends, alone + 1))[order]
    powers, inverses = _powers(1 << len(values).bit_length())
    # The sum of letter * multiplier**place up to each place; the difference of two is a word, moved to place 0.
    sums = np.empty(len(values) + 1, np.uint64)
    sums[0] = 0
    np.cumsum(np.multiply(values, powers[: len(values)], out=values), out=sums[1:])
    return _mix((sums[ends] - sums[starts]) * inverses[starts]), starts


@functools.cache
def _ascii_values() -> Hashes:
    return _scrambled(np.arange(0x80))


@functools.cache
def _ascii_letters() -> bytes:
    """For each byte whether it is a letter, as a table for `bytes.translate`."""
    is_letter: bytes = (_kinds()[:0x100] == LETTER).tobytes()
    return is_letter


def _scrambled(points: npt.NDArray[Any]) -> Hashes:
    """Code points spread over 64 bits; letters next to each other in the alphabet must not cancel out."""
    values = points.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    return values ^ (values >> np.uint64(32))


def _mix(values: Hashes) -> Hashes:
    """Every bit of the result depends on every bit of the value: the finalizer of MurmurHash3 (Appleby, 2011)."""
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xFF51AFD7ED558CCD)
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xC4CEB9FE1A85EC53)
    values ^= values >> np.uint64(33)
    return values


@functools.cache
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """The multiplier's powers from 0 on, and their inverses modulo 2**64."""
    tables = []
    for factor in (MULTIPLIER, pow(MULTIPLIER, -1, 1 << 64)):
        table = np.full(count, factor, np.uint64)
        table[0] = 1
        tables.append(np.cumprod(table, dtype=np.uint64))
    return tables[0], tables[1]


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    """What each code point is. Python's own tables change with its version, so only plain ranges are used.

    Below 0x80: letters and digits. Above: everything but spaces, punctuation and symbols, by Unicode block.
    """
    kinds = np.full(CODE_POINTS + 1, LETTER, np.uint8)
    for start, end in ((0x00, 0x30), (0x3A, 0x61), (0x7B, 0xAA), (0xAB, 0xB5), (0xB6, 0xBA), (0xBB, 0xC0)):
        kinds[start:end] = SEPARATOR
    for point in (0xD7, 0xF7, 0x1680, 0x180E, 0x060C, 0x061B, 0x061F, 0x06D4, 0x0964, 0x0965):
        kinds[point] = SEPARATOR
    for start, end in ((0x2000, 0x2C00), (0x2E00, 0x3005), (0x3008, 0x3031), (0xD800, 0xF900), (0xFE10, 0xFE70)):
        kinds[start:end] = SEPARATOR
    for start, end in ((0xFF00, 0xFF10), (0xFF1A, 0xFF41), (0xFF5B, 0xFF66), (0xFFE0, 0x10000)):
        kinds[start:end] = SEPARATOR
    for start, end in IDEOGRAPHS:
        kinds[start:end] = IDEOGRAPH
    kinds[CODE_POINTS] = IDEOGRAPH
    kinds[0x30FB] = SEPARATOR  # the middle dot between Japanese names
    return kinds
