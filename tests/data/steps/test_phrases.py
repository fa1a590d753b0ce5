"""Word lists: the shipped ones, the user's own, and both."""

from pathlib import Path

import pytest

from tests.data.builders import OWN_REFUSAL, SHIPPED_REFUSAL, clean_answer, data_options, repair_rules, write_lines
from vicuna.data.steps.phrases import chosen_phrases


def test_a_file_replaces_the_shipped_list_and_the_word_shipped_keeps_it(own: str) -> None:
    for given, shipped_is_found, own_is_found in (
        (("shipped",), True, False),
        ((own,), False, True),
        (("shipped", own), True, True),
        ((own, "shipped"), True, True),
        (("none",), False, False),
    ):
        assert (
            repair_rules(clean_answer("refusals", SHIPPED_REFUSAL, refusals=given)) == ["refusal"] * shipped_is_found
        ), given
        assert repair_rules(clean_answer("refusals", OWN_REFUSAL, refusals=given)) == ["refusal"] * own_is_found, given


def test_files_add_up(tmp_path: Path, own: str) -> None:
    more = write_lines(tmp_path / "more.txt", "No way")
    for answer in (OWN_REFUSAL, "No way!"):
        assert repair_rules(clean_answer("refusals", answer, refusals=(own, more))) == ["refusal"]


def test_a_file_may_be_called_as_the_words_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "shipped", "one")
    assert chosen_phrases("refusals", data_options(refusals=("./shipped",))) == ("one",)
