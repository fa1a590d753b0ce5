"""Hashes of a text's words and word n-grams, as arrays.

`decontaminate`, `dedup` and `quality` compare texts by them. A word is a run of letters and digits, in lower case; in
scripts that write no spaces between words, each character is a word. The hashes depend on the text alone: not on the
machine, the process or Python's hash seed.
"""

import functools
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from vicuna.data.step_kinds import Record

Hashes = npt.NDArray[np.uint64]

CHUNK_CHARACTERS = (
    1 << 18
)  # bounds the arrays' memory for a text of any length; a word across a chunk's end becomes two
CACHED_CHARACTERS = 1 << 21  # a batch has fewer
MULTIPLIER = (
    0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64: the golden ratio, as in Fibonacci hashing
)
# Kana, CJK ideographs with their extensions: one character, one word. Hangul writes spaces.
IDEOGRAPHS = ((0x3041, 0x3100), (0x31F0, 0x3200), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00))
CODE_POINTS = 0x10000  # everything beyond counts as an ideograph

SEPARATOR, LETTER, IDEOGRAPH = 0, 1, 2


def word_hashes(text: str) -> Hashes:
    """A hash of 64 bits for each word of a text, in order: (W,)."""
    if len(text) <= CHUNK_CHARACTERS:
        return _chunk_hashes(text.casefold())[0]
    starts = range(0, len(text), CHUNK_CHARACTERS)
    return np.concatenate([_chunk_hashes(text[start : start + CHUNK_CHARACTERS].casefold())[0] for start in starts])


class _HashCache:
    """The hashes of the latest texts, up to `CACHED_CHARACTERS`.

    `quality`, `decontaminate` and `dedup` hash the same records, each a whole batch before the next step does.
    """

    def __init__(self) -> None:
        self._hashes: dict[tuple[str, ...], tuple[Hashes, ...]] = {}
        self._characters = 0

    def hashes(self, texts: tuple[str, ...]) -> tuple[Hashes, ...]:
        found = self._hashes.get(texts)
        if found is None:
            while self._hashes and self._characters > CACHED_CHARACTERS:
                oldest = next(iter(self._hashes))
                self._characters -= sum(map(len, oldest))
                del self._hashes[oldest]
            found = self._hashes[texts] = _hashes_of_each(texts)
            self._characters += sum(map(len, texts))
        return found


_cache = _HashCache()


def hashes_of(record: Record) -> tuple[Hashes, ...]:
    """`word_hashes` of each message's text."""
    return _cache.hashes(tuple(message.content for message in record.messages))


def _hashes_of_each(texts: tuple[str, ...]) -> tuple[Hashes, ...]:
    """`word_hashes` of each text, computed on all texts joined: most turns are short, and numpy's calls cost."""
    folded = [text.casefold() for text in texts]
    ends = list(itertools.accumulate(len(text) + 1 for text in folded))  # each with the line break after it
    if not ends or ends[-1] > CHUNK_CHARACTERS:
        return tuple(word_hashes(text) for text in texts)
    hashes, starts = _chunk_hashes("\n".join(folded))
    places = [0, *np.searchsorted(starts, ends).tolist()]
    return tuple(hashes[begin:end] for begin, end in itertools.pairwise(places))


def phrase_hashes(words: Hashes, length: int) -> Hashes:
    """A hash for each run of `length` words: (W - length + 1,), empty if there are fewer words."""
    count = len(words) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = words[:count].copy()
    for offset in range(1, length):
        total *= np.uint64(MULTIPLIER)
        total += words[offset : offset + count]
    return _mix(total)


def _chunk_hashes(text: str) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """The words' hashes, and where each word begins: (W,) each. The text must be folded."""
    ideographs = np.empty(0, np.int64)
    if text.isascii():  # the same result from a quarter of the memory
        data = text.encode("ascii")
        values = _ascii_values().take(np.frombuffer(data, np.uint8))
        is_letter = np.frombuffer(data.translate(_ascii_letters()), np.bool_)
    else:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        values = _scrambled(points)
        kinds = _character_kinds().take(np.minimum(points, CODE_POINTS))
        is_letter = kinds == LETTER
        ideographs = np.flatnonzero(kinds == IDEOGRAPH)
    edges = np.flatnonzero(is_letter[1:] != is_letter[:-1]) + 1
    if len(values) and is_letter[0]:
        edges = np.concatenate(([0], edges))
    if len(edges) % 2:
        edges = np.concatenate((edges, [len(values)]))
    starts, ends = edges[::2], edges[1::2]
    if len(ideographs):
        starts = np.concatenate((starts, ideographs))
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], np.concatenate((ends, ideographs + 1))[order]
    powers, inverses = _powers(1 << len(values).bit_length())
    # Prefix sums of letter * multiplier**place; the difference of two is a word's hash, then shifted to place 0.
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
    is_letter: bytes = (_character_kinds()[:0x100] == LETTER).tobytes()
    return is_letter


def _scrambled(points: npt.NDArray[Any]) -> Hashes:
    """Code points spread over 64 bits, so that sums of neighbouring letters differ."""
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
def _character_kinds() -> npt.NDArray[np.uint8]:
    """`SEPARATOR`, `LETTER` or `IDEOGRAPH` for each code point, from fixed ranges: Python's own tables change.

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
