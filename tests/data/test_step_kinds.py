"""Records: their messages chosen, their rows written."""

from dataclasses import replace

from tests.data.builders import record, turns
from vicuna.data.step_kinds import EVIDENCE_CHARACTERS, excerpt


def test_select_keeps_the_turns_of_the_messages() -> None:
    chosen = record("s: x", "u: q", "a: r", "u: s", "a: t").select([0, 3, 4])
    assert turns(chosen) == ["s: x", "u: s", "a: t"]
    assert chosen.turns == (0, 3, 4)


def test_a_row_has_the_records_other_keys_and_the_id_it_came_with() -> None:
    given = replace(record("u: q", "a: r"), extra={"topic": 1})
    row = {"id": "one", "source": "test.json:one", "topic": 1}
    assert {key: value for key, value in given.to_row().items() if key != "messages"} == row
    assert replace(given, id="one#2").to_row()["original_id"] == "one"
    assert replace(given, extra={"source": "elsewhere"}).to_row()["source"] == "elsewhere"


def test_excerpts_are_short() -> None:
    assert excerpt("short") == "short"
    assert len(excerpt("x" * 1000)) == EVIDENCE_CHARACTERS + 1
