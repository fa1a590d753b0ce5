"""The step `dedup`: of records that are duplicates one stays, and the others are merged into it.

Three kinds of duplicates, found in this order:

- equal roles and texts, whatever the ids: the earliest record stays;
- a conversation that another one continues (it was shared again later): the longest stays;
- near duplicates, by the words of all turns: the earliest stays.

`make_keys` makes what is compared of one record, without other records, so any worker may run it. `find_duplicates`
compares the keys of all records, in order. The step comes after all steps that change texts and before `split`, so
whole conversations are compared.

Near duplicates have a Jaccard similarity of their sets of word 5-grams above a threshold, estimated by MinHash and
looked up in bands (Broder 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3). 5-grams and
rows of 8 are those of FineWeb (Penedo et al. 2024, arXiv:2406.17557); unlike there, records with a band in common are
then compared by their whole signatures.
"""

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vicuna.data.step_kinds import Finding, Record
from vicuna.data.steps.shingles import Hashes, hashes_of, phrase_hashes, word_hashes

RULES = {
    "duplicate": "the same roles and texts as an earlier record, whose id is given",
    "continued": "another record has all of this conversation and goes on; its id is given",
    "near_duplicate": "nearly the same words as an earlier record, whose id is given",
}
HASH_BYTES = 16
PHRASE_WORDS = 5
NUM_PERMUTATIONS = 128
BLOCK_PHRASES = 1024  # with the permutations 512 KiB at a time: inside a core's cache
COMPARED_AT_ONCE = 1 << 14  # signatures, so that a bucket of any size takes 4 MiB
RECALL = 0.9  # the part of the pairs just as similar as the threshold that the bands must find


@dataclass(frozen=True, slots=True)
class Keys:
    """What one record is compared by.

    Attributes:
        id: the record's id, for the evidence.
        prefixes: for each round, a hash of 16 bytes of everything up to its end, joined; the last one is the whole.
        signature: `NUM_PERMUTATIONS` numbers of 16 bits, little-endian; empty if the record has too few words.
    """

    id: str
    prefixes: bytes
    signature: bytes

    def to_bytes(self) -> bytes:
        """The keys as bytes, for a part's file."""
        name = self.id.encode("utf-8", "surrogatepass")
        return b"".join(
            (len(name).to_bytes(4), len(self.prefixes).to_bytes(4), name, self.prefixes, self.signature),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "Keys":
        """The reverse of `to_bytes`."""
        middle = 8 + int.from_bytes(data[:4])
        end = middle + int.from_bytes(data[4:8])
        return cls(data[8:middle].decode("utf-8", "surrogatepass"), data[middle:end], data[end:])


def make_keys(record: Record, *, needs_signature: bool = True) -> Keys:
    """What `find_duplicates` compares of a record.

    Args:
        needs_signature: whether near duplicates will be searched; the signature takes most of the time.
    """
    if not needs_signature:
        return Keys(record.id, _prefixes(record), b"")
    word_arrays = [
        words
        for words, message in zip(hashes_of(record), record.messages, strict=True)
        if message.role in ("user", "assistant")  # many conversations share their system text
    ]
    return Keys(
        record.id, _prefixes(record), signature(np.concatenate(word_arrays) if word_arrays else word_hashes(""))
    )


def find_duplicates(all_keys: Iterable[Keys], threshold: float = 0.8) -> dict[int, Finding]:
    """Which records are merged, and into which others.

    Args:
        all_keys: of all records, in canonical order; a record's number is its place there, counted from 0.
        threshold: the similarity from which two records are near duplicates, above 0 and up to 1; 0: find none.

    Returns:
        For each merged record's number the finding, with the id of the one that stays as evidence.
    """
    table = _KeyTable(all_keys)
    merged_into: dict[int, tuple[str, int]] = {}
    merged_into.update((number, ("duplicate", other)) for number, other in table.equal())
    merged_into.update((number, ("continued", other)) for number, other in table.continued(merged_into.keys()))
    if threshold:
        near = table.near(threshold, merged_into.keys())
        merged_into.update((number, ("near_duplicate", other)) for number, other in near)
    return {
        number: Finding(rule, table.ids[_survivor(other, merged_into)]) for number, (rule, other) in merged_into.items()
    }


def _survivor(number: int, merged_into: dict[int, tuple[str, int]]) -> int:
    """The record that stays in the end: one that others were merged into may be merged itself, by a later rule."""
    while number in merged_into:
        number = merged_into[number][1]
    return number


class _KeyTable:
    """The keys of all records in arrays, about 300 bytes for a record with its id."""

    def __init__(self, all_keys: Iterable[Keys]) -> None:
        self.ids: list[str] = []
        self.prefixes: list[bytes] = []
        signatures = bytearray()
        self.signed: list[int] = []  # the numbers of the records that have a signature
        for number, key in enumerate(all_keys):
            self.ids.append(key.id)
            self.prefixes.append(key.prefixes)
            if key.signature:
                self.signed.append(number)
                signatures += key.signature
        self.signatures = np.frombuffer(signatures, "<u2").reshape(-1, NUM_PERMUTATIONS)

    def equal(self) -> Iterator[tuple[int, int]]:
        """Each record that equals an earlier one, with the earliest."""
        first: dict[bytes, int] = {}
        for number, prefixes in enumerate(self.prefixes):
            earliest = first.setdefault(prefixes[-HASH_BYTES:], number)
            if earliest != number:
                yield number, earliest

    def continued(self, merged: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Each record that others continue, with the longest of those."""
        merged_numbers = set(merged)
        whole = {
            prefixes[-HASH_BYTES:]: number
            for number, prefixes in enumerate(self.prefixes)
            if number not in merged_numbers
        }
        longest: dict[int, int] = {}
        for number, prefixes in enumerate(self.prefixes):
            if number in merged_numbers:
                continue
            for at in range(0, len(prefixes) - HASH_BYTES, HASH_BYTES):
                shorter = whole.get(prefixes[at : at + HASH_BYTES])
                if shorter is not None and (
                    shorter not in longest or len(self.prefixes[longest[shorter]]) < len(prefixes)
                ):
                    longest[shorter] = number
        yield from sorted(longest.items())

    def near(self, threshold: float, merged: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Each near duplicate of an earlier record that stays, with that record."""
        merged_numbers = set(merged)
        rows = np.array([row for row, number in enumerate(self.signed) if number not in merged_numbers], np.int64)
        signatures = self.signatures[rows]
        numbers = [self.signed[row] for row in rows]
        buckets = _buckets(signatures, band_rows(threshold))
        needed = threshold * NUM_PERMUTATIONS
        is_merged = np.zeros(len(rows), bool)
        for row in sorted(buckets):
            if is_merged[row]:
                continue
            later = np.unique(np.concatenate([bucket[bucket > row] for bucket in buckets[row]]))
            later = later[~is_merged[later]]
            for start in range(0, len(later), COMPARED_AT_ONCE):
                others = later[start : start + COMPARED_AT_ONCE]
                same = np.count_nonzero(signatures[others] == signatures[row], axis=1)
                for other in others[same >= needed]:
                    is_merged[other] = True
                    yield numbers[other], numbers[row]


def band_rows(threshold: float) -> int:
    """How many numbers of a signature make a band: as many as still find `RECALL` of the pairs at the threshold.

    Two signatures of similarity s share one of the 128 / r bands of r rows with the chance 1 - (1 - s**r) ** (128 / r).
    """
    for rows in (32, 16, 8, 4, 2):
        if 1 - (1 - threshold**rows) ** (NUM_PERMUTATIONS // rows) >= RECALL:
            return rows
    return 1


def _buckets(signatures: npt.NDArray[np.uint16], rows: int) -> dict[int, list[npt.NDArray[np.int64]]]:
    """For each row that shares a band with another, the rows of each such band, in order."""
    found: dict[int, list[npt.NDArray[np.int64]]] = defaultdict(list)
    for start in range(0, NUM_PERMUTATIONS, rows):
        band = np.ascontiguousarray(signatures[:, start : start + rows]).view(f"V{2 * rows}").ravel()
        _, group, sizes = np.unique(band, return_inverse=True, return_counts=True)
        order = np.argsort(group, kind="stable")
        for bucket in np.split(order, np.cumsum(sizes)[:-1]) if len(sizes) < len(band) else ():
            if len(bucket) > 1:
                for row in bucket:
                    found[int(row)].append(bucket)
    return found


def signature(words: Hashes) -> bytes:
    """The MinHash signature of the 5-grams of these words; empty if there are fewer than five."""
    phrases = phrase_hashes(words, PHRASE_WORDS).astype(np.uint32)
    if not len(phrases):
        return b""
    factors, offsets = _permutations()
    smallest = np.full(NUM_PERMUTATIONS, 0xFFFFFFFF, np.uint32)
    for start in range(0, len(phrases), BLOCK_PHRASES):
        block = phrases[start : start + BLOCK_PHRASES]
        product = _scratch()[: NUM_PERMUTATIONS * len(block)].reshape(NUM_PERMUTATIONS, len(block))
        np.multiply(factors, block, out=product)  # modulo 2**32
        product += offsets
        np.minimum(smallest, np.minimum.reduce(product, axis=1), out=smallest)
    # The smallest of many numbers always begins with zero bits; the low 16 bits differ.
    return smallest.astype("<u2").tobytes()


@functools.cache
def _scratch() -> npt.NDArray[np.uint32]:
    """Memory for one block under all permutations; allocating it for each block costs a fifth of the time."""
    return np.empty(NUM_PERMUTATIONS * BLOCK_PHRASES, np.uint32)


@functools.cache
def _permutations() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Factors and offsets: x * factor + offset modulo 2**32 is a permutation for every odd factor. Never changed."""
    stream = hashlib.shake_128(b"permutations of word 5-grams").digest(8 * NUM_PERMUTATIONS)
    numbers = np.frombuffer(stream, "<u4").astype(np.uint32).reshape(2, NUM_PERMUTATIONS, 1)
    return numbers[0] | np.uint32(1), numbers[1]


def _prefixes(record: Record) -> bytes:
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    found: list[bytes] = []
    is_asked = False
    for message in record.messages:
        if message.role == "user" and is_asked:
            found.append(digest.copy().digest())
        is_asked = is_asked or message.role == "user"
        text = message.content.strip().encode("utf-8", "surrogatepass")
        digest.update(f"{message.role} {len(text)} ".encode() + text)  # lengths keep one from running into the next
    found.append(digest.digest())
    return b"".join(found)
