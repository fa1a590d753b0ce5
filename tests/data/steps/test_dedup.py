"""Duplicates: equal, continued, near; which one stays, and that nothing but the records decides it."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.data.builders import random_text, record
from vicuna.data.step_kinds import Finding
from vicuna.data.steps.dedup import NUM_PERMUTATIONS, Keys, band_rows, find_duplicates, make_keys, signature
from vicuna.data.steps.shingles import (
    phrase_hashes,
    word_hashes,
)


def changed(words: str, num_changes: int) -> str:
    """The text with some words replaced, spread evenly."""
    parts = words.split()
    for place in range(num_changes):
        parts[(2 * place + 1) * len(parts) // (2 * num_changes)] = f"other{place}"
    return " ".join(parts)


def decided(*conversations: tuple[str, ...], threshold: float = 0.8) -> dict[int, tuple[str, str]]:
    made = [make_keys(record(*lines, id=str(number))) for number, lines in enumerate(conversations)]
    return {number: (finding.rule, finding.evidence) for number, finding in find_duplicates(made, threshold).items()}


def test_equal_conversations_leave_the_earliest() -> None:
    one, other = ("u: q", "a: r"), ("u: qa", "a: r")
    assert decided(one, other, ("u: q", "a: r \n"), one) == {2: ("duplicate", "0"), 3: ("duplicate", "0")}


@pytest.mark.parametrize(
    "other",
    [("u: q r", "a: x"), ("u: q", "a: x y"), ("s: x", "u: q", "a: x"), ("u: q a: x", "a: "), ("u: Q", "a: x")],
)
def test_other_texts_and_roles_are_not_equal(other: tuple[str, ...]) -> None:
    assert decided(("u: q", "a: x"), other) == {}


def test_a_conversation_that_goes_on_stays() -> None:
    short, middle, long = (
        ("u: a", "a: b"),
        ("u: a", "a: b", "u: c", "a: d"),
        ("u: a", "a: b", "u: c", "a: d", "u: e", "a: f"),
    )
    fork = ("u: a", "a: b", "u: x", "a: y")
    assert decided(short, long, fork, middle) == {0: ("continued", "1"), 3: ("continued", "1")}
    # Of two that go on equally far, the earlier one is named.
    assert decided(short, fork, middle) == {0: ("continued", "1")}
    assert decided(short, fork, long) == {0: ("continued", "2")}
    assert decided(short, middle, long) == {0: ("continued", "2"), 1: ("continued", "2")}
    # A conversation that only begins with the same words of a round goes on from nothing.
    assert decided(("u: a", "a: b"), ("u: a", "a: bc", "u: d", "a: e")) == {}


def test_what_a_record_was_merged_into_may_be_merged_too() -> None:
    short = ("u: a", f"a: {random_text(1)}")
    long = (*short, "u: b", f"a: {random_text(2)}")
    near = ("u: a", f"a: {changed(random_text(1), 2)}", "u: b", f"a: {random_text(2)}")
    assert decided(near, long, short, short) == {
        1: ("near_duplicate", "0"),
        2: ("continued", "0"),
        3: ("duplicate", "0"),
    }


def test_near_duplicates_leave_the_earliest_and_others_alone() -> None:
    conversations = [
        ("u: tell me", f"a: {words}")
        for words in (random_text(1), random_text(2), changed(random_text(1), 4), random_text(3))
    ]
    assert decided(*conversations) == {2: ("near_duplicate", "0")}
    assert decided(*reversed(conversations)) == {3: ("near_duplicate", "1")}
    assert decided(*conversations, threshold=0) == {}
    assert decided(*conversations, threshold=1) == {}


def test_case_punctuation_and_layout_do_not_matter() -> None:
    words = random_text(4)
    other = words.upper().replace(" ", ",\n  ")
    assert decided(("u: q", f"a: {words}"), ("u: q", f"a: {other}")) == {1: ("near_duplicate", "0")}


def test_no_chain_of_small_changes_merges_what_differs() -> None:
    steps = [random_text(5)]
    for place in range(0, 400, 25):
        parts = steps[-1].split()
        parts[place : place + 6] = [f"step{place}x{index}" for index in range(6)]
        steps.append(" ".join(parts))
    found = decided(*(("u: q", f"a: {words}") for words in steps))
    assert found
    assert all(int(kept) not in found for _, kept in found.values())
    for number, (_, kept) in found.items():
        left, right = (set(phrase_hashes(word_hashes(steps[at]), 5).tolist()) for at in (number, int(kept)))
        assert len(left & right) / len(left | right) > 0.65  # the threshold, less four standard errors


def test_short_conversations_are_never_nearly_equal() -> None:
    assert signature(word_hashes("only four words here")) == b""
    assert decided(("u: 2 + 2?", "a: 4"), ("u: 2 + 3?", "a: 4")) == {}
    assert decided(("u: What is 12 times 12 please?", "a: 144"), ("u: What is 12 times 13 please?", "a: 156")) == {}


def test_the_estimate_is_as_good_as_its_theory_says() -> None:
    squares = []
    for seed in range(60):
        before = random_text(seed)
        after = changed(before, 1 + seed % 20)
        left, right = (set(phrase_hashes(word_hashes(words), 5).tolist()) for words in (before, after))
        similarity = len(left & right) / len(left | right)
        one, other = (np.frombuffer(signature(word_hashes(words)), "<u2") for words in (before, after))
        same = np.count_nonzero(one == other)
        variance = similarity * (1 - similarity) / NUM_PERMUTATIONS
        squares.append((same / NUM_PERMUTATIONS - similarity) ** 2 / variance)
    assert 0.6 < sum(squares) / len(squares) < 1.6


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_find_nine_of_ten_pairs_at_the_threshold(threshold: float) -> None:
    rows = band_rows(threshold)
    assert 1 - (1 - threshold**rows) ** (NUM_PERMUTATIONS // rows) >= 0.9 or rows == 1


def test_keys_survive_the_way_through_a_file() -> None:
    for given in (record("u: q", "a: " + random_text(1), id="ü\ud800"), record("u: q", "a: r", id="")):
        made = make_keys(given)
        assert Keys.from_bytes(made.to_bytes()) == made
    assert find_duplicates([]) == {}
    assert find_duplicates([made, made]) == {1: Finding("duplicate", "")}


def test_keys_are_the_same_in_every_process() -> None:
    code = (
        "from tests.data.builders import record; from vicuna.data.steps.dedup import make_keys;"
        "print(make_keys(record('u: Wie geht es dir, Straße?', 'a: 我喜欢猫 and dogs, so it goes')).to_bytes().hex())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert len(seen) == 1
    # Written out, so that a change of machine or numpy that changes a decision is seen.
    assert seen.pop().endswith(EXPECTED_END)


EXPECTED_END = "421604811fec09734"
