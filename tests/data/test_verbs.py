"""The verbs beside cleaning: sample, merge, stats and show."""

import json
from pathlib import Path
from typing import Any

import pytest

from vicuna.data.__main__ import main
from vicuna.io.jsonl import read_jsonl, write_jsonl


def row(identifier: str, *contents: str, **extra: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]
    return {"id": identifier, "messages": messages, **extra}


def clean(tmp_path: Path, name: str, rows: list[dict[str, Any]], *flags: str) -> Path:
    write_jsonl(tmp_path / f"{name}.jsonl", rows)
    assert main([str(tmp_path / f"{name}.jsonl"), "--output-dir", str(tmp_path / name), "--workers", "1", *flags]) == 0
    return tmp_path / name


def ids(path: Path) -> list[str]:
    return [item["id"] for item in read_jsonl(path)]


def fails(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line that the command says."""
    capsys.readouterr()
    assert main([str(argument) for argument in argv]) in (1, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return clean(tmp_path, "many", [row(f"r{number}", f"question {number}", "answer") for number in range(40)])


def test_a_sample_keeps_rows_and_order_and_depends_on_its_seed(tmp_path: Path, many: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        argv = ["sample", str(many), "--count", "10", "--seed", str(seed), "--output", str(tmp_path / f"{name}.jsonl")]
        assert main(argv) == 0
    first, again, other = ((tmp_path / f"{name}.jsonl").read_text() for name in "abc")
    assert first == again != other
    whole = list(read_jsonl(many / "records.jsonl"))
    chosen = list(read_jsonl(tmp_path / "a.jsonl"))
    assert [item for item in whole if item in chosen] == chosen
    assert len(chosen) == 10


def test_a_sample_by_ratio_of_a_json_array(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    (tmp_path / "s.json").write_text(json.dumps([{"id": str(at), "conversations": turns} for at in range(8)], indent=1))
    assert main(["sample", str(tmp_path / "s.json"), "--ratio", "0.5", "--output", str(tmp_path / "o.jsonl")]) == 0
    assert len(ids(tmp_path / "o.jsonl")) == 4


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--count", "41"], "41 of 40 records cannot be chosen"),
        (["--ratio", "0.001"], "0 of 40 records cannot be chosen"),
        (["--ratio", "1.5"], "--ratio 1.5: give a number above 0, up to 1"),
        ([], "give either --count or --ratio"),
        (["--count", "1", "--ratio", "1"], "give either --count or --ratio"),
    ],
)
def test_samples_that_cannot_be(
    tmp_path: Path, many: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert words in fails(capsys, "sample", many, "--output", tmp_path / "o.jsonl", *flags)
    assert not (tmp_path / "o.jsonl").exists()


def test_nothing_is_written_over_a_file(tmp_path: Path, many: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "o.jsonl").write_text("mine")
    for verb in (["sample", many, "--count", "1"], ["merge", many]):
        assert "is there already" in fails(capsys, *verb, "--output", tmp_path / "o.jsonl")
    assert (tmp_path / "o.jsonl").read_text() == "mine"


def test_a_file_with_a_bad_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps(row("a", "b", "c")) + '\n{"id": "x"}\n')
    line = fails(capsys, "merge", tmp_path / "bad.jsonl", "--output", tmp_path / "o.jsonl")
    assert "bad.jsonl, line 2: no conversation in a record" in line
    assert not (tmp_path / "o.jsonl").exists()


def test_merging_writes_each_record_once_under_an_id_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = clean(tmp_path, "first", [row("a", "one", "1"), row("b", "two", "2")])
    second = clean(tmp_path, "second", [row("a", "one", "1"), row("b", "other", "3"), row("c", "three", "3", mine=1)])
    capsys.readouterr()
    assert main(["merge", str(first), str(second), "--output", str(tmp_path / "o.jsonl")]) == 0
    rows = list(read_jsonl(tmp_path / "o.jsonl"))
    assert [item["id"] for item in rows] == ["a", "b", "b~2", "c"]
    assert rows[2]["original_id"] == "b"
    assert rows[3]["mine"] == 1
    assert "4 records" in (said := capsys.readouterr().out)
    assert "1 were there already, 1 got another id" in said


def test_merging_lets_nothing_in_that_another_cleaning_holds_out(tmp_path: Path, many: Path) -> None:
    rows = [row(f"r{number}", f"question {number}", "answer") for number in range(40)]
    held = clean(tmp_path, "held", rows, "--held-out-ratio", "0.3")
    kept_out = set(ids(held / "held_out.jsonl"))
    assert kept_out
    assert main(["merge", str(held), str(many), "--output", str(tmp_path / "o.jsonl")]) == 0
    assert set(ids(tmp_path / "o.jsonl")) == set(ids(many / "records.jsonl")) - kept_out


def test_a_cleaning_that_held_nothing_out_can_be_merged(tmp_path: Path) -> None:
    folder = clean(tmp_path, "one", [row("a", "one", "1")], "--held-out-ratio", "0.000001")
    assert (folder / "held_out.jsonl").read_bytes() == b""
    assert main(["merge", str(folder), "--output", str(tmp_path / "o.jsonl")]) == 0
    assert ids(tmp_path / "o.jsonl") == ["a"]


def test_merging_nothing_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no file to read" in fails(capsys, "merge", empty, "--output", tmp_path / "o.jsonl")
    assert not (tmp_path / "o.jsonl").exists()


def test_stats_are_those_of_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row("a#1", "12345", "123", original_id="a", language="en", num_tokens=10),
        row("a#2", "12345", "123", "1", "2", original_id="a", language="en", num_tokens=30),
        row("b", "1", "2", language="fr"),
    ]
    write_jsonl(tmp_path / "r.jsonl", rows)
    with (tmp_path / "r.jsonl").open("a") as file:
        file.write("{}\n")
    assert main(["stats", str(tmp_path / "r.jsonl"), "--json"]) == 0
    captured = capsys.readouterr()
    figures = json.loads(captured.out)
    assert (figures["records"], figures["conversations"], figures["unreadable"]) == (3, 2, 1)
    assert figures["messages_by_role"] == {"user": 4, "assistant": 4}
    assert figures["languages"] == {"en": 2, "fr": 1}
    assert figures["lengths"]["messages"] == {
        "records": 3, "total": 8, "mean": 2.7, "min": 2, "p10": 2, "median": 2, "p90": 4, "p99": 4, "max": 4,
    }  # fmt: skip
    assert figures["lengths"]["characters"]["total"] == 20
    assert (figures["lengths"]["tokens"]["records"], figures["lengths"]["tokens"]["total"]) == (2, 40)
    assert "1 could not be read; the first" in captured.err
    assert main(["stats", str(tmp_path / "r.jsonl")]) == 0
    table = capsys.readouterr().out
    assert "3 records of 2 conversations; messages: 4 user, 4 assistant" in table
    assert "tokens (of 2 records)" in table
    assert "66.7%" in table


def test_stats_count_tokens_as_the_trainer_does(
    tmp_path: Path, bpe_tokenizer_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--tokenizer", str(bpe_tokenizer_directory), "--template", "chatml"]
    folder = clean(tmp_path, "counted", [row("a", "one", "two"), row("b", "three", "four five")], *flags)
    numbers = [item["num_tokens"] for item in read_jsonl(folder / "records.jsonl")]
    capsys.readouterr()
    for argv in ([str(folder)], [str(tmp_path / "counted.jsonl"), *flags]):
        assert main(["stats", *argv, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["lengths"]["tokens"]["total"] == sum(numbers)
    assert "--template is missing" in fails(capsys, "stats", folder, *flags[:2])


@pytest.fixture
def told(tmp_path: Path) -> Path:
    rows = [
        row("plain", "hello", "hi there", language="en"),
        row("repaired", "first", "good", "second", "  "),
        row("gone", "", "nothing"),
        row("long", *("x", "y") * 4, language="fr"),
    ]
    return clean(tmp_path, "told", rows, "--skip", "language")  # the languages above stay


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(["show", *argv]) == 0
    return capsys.readouterr().out


def test_records_are_shown_with_roles_and_repairs(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "plain", "--in", str(told))
    assert text == "=== plain (told.jsonl:1, en, 2 messages)\nUSER\nhello\nASSISTANT\nhi there\n\n"
    text = shown(capsys, "--rule", "empty_answer", "--in", str(told))
    assert text.splitlines()[:2] == [
        "=== repaired (told.jsonl:2, 2 messages)",
        "--- repaired (told.jsonl:2, turn 3): repaired by empty, empty_answer: ''",
    ]
    assert "plain" not in text
    for argv in (["gone"], ["--rule", "empty_question"]):
        assert shown(capsys, *argv, "--in", str(told)) == (
            "--- gone (told.jsonl:3, turn 0): dropped by empty, empty_question: ''\n\n"
        )


def test_records_are_chosen_by_language_length_and_number(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, expected in (
        (["--language", "fr"], ["long"]),
        (["--min-messages", "3"], ["long"]),
        (["--limit", "2"], ["plain", "repaired"]),
        ([], ["plain", "repaired", "long"]),
    ):
        text = shown(capsys, *argv, "--in", str(told))
        assert [line.split()[1] for line in text.splitlines() if line.startswith("===")] == expected


def test_what_cannot_be_shown_is_named(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no such record" in fails(capsys, "show", "nobody", "--in", told)
    assert "--rule refusl found nothing there" in fails(capsys, "show", "--rule", "refusl", "--in", told)
    path = told.with_suffix(".jsonl")
    assert "is not the folder of a cleaning" in fails(capsys, "show", "--rule", "refusal", "--in", path)


def test_a_record_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "r.jsonl", [row("a\x1b]0;x\x07", "\x1b[2J red \u202e right", "tab\there\nline")])
    text = shown(capsys, "--in", str(tmp_path / "r.jsonl"))
    assert not set("\x1b\x07\u202e") & set(text)
    assert "\\x1b[2J red" in text
    assert "tab\there\nline" in text


def test_pieces_of_one_conversation_are_never_on_both_sides(tmp_path: Path, bpe_tokenizer_directory: Path) -> None:
    rows = [row(f"r{number}", *(f"{number} words words words {at}" for at in range(12))) for number in range(40)]
    flags = ["--tokenizer", str(bpe_tokenizer_directory), "--template", "chatml", "--max-tokens", "120"]
    folder = clean(tmp_path, "cut", rows, *flags, "--carry-over", "1", "--held-out-ratio", "0.3")
    train, held_out = (
        [item["original_id"] for item in read_jsonl(folder / f"{name}.jsonl")] for name in ("records", "held_out")
    )
    assert len(held_out) > len(set(held_out)) > 3  # several conversations, in pieces
    assert len(train) > len(set(train)) > 3
    assert not set(train) & set(held_out)
