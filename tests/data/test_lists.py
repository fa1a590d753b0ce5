"""The user's own word lists: in place of the shipped ones or beside them, by flag and by config file."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.data.builders import record, turns
from vicuna.data import __main__ as program
from vicuna.data.__main__ import main
from vicuna.data.options import DataOptions
from vicuna.data.pipeline import make_pipeline
from vicuna.data.run import batches, engines
from vicuna.data.run.batches import clean_batch
from vicuna.data.run.work import run_key, work_path
from vicuna.data.step_kinds import Drop, Keep, Outcome
from vicuna.data.steps.phrases import LIST_STEPS, chosen_phrases, shipped_list, shipped_phrases
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import read_json, read_jsonl, write_jsonl

SHIPPED_REFUSAL = "I'm sorry, but I can't assist with that."
OWN_REFUSAL = "Computer says no."


def options(**given: Any) -> DataOptions:
    return DataOptions((), Path("out"), **given)


def clean(step: str, answer: str, **given: Any) -> Outcome:
    """What a step made from the options does with a conversation's second answer."""
    (made,) = make_pipeline(options(only=(step,), **given)).before
    return made.run(record("u: q", "a: fine", "u: and?", f"a: {answer}"))


def rules(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Keep)
    return [finding.rule for finding in outcome.repairs]


def write(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return str(path)


@pytest.fixture
def own(tmp_path: Path) -> str:
    return write(tmp_path / "own.txt", "# mine", "", "  computer   SAYS  no")


def test_a_file_replaces_the_shipped_list_and_the_word_shipped_keeps_it(own: str) -> None:
    for given, shipped_is_found, own_is_found in (
        (("shipped",), True, False),
        ((own,), False, True),
        (("shipped", own), True, True),
        ((own, "shipped"), True, True),
        (("none",), False, False),
    ):
        assert rules(clean("refusals", SHIPPED_REFUSAL, refusals=given)) == ["refusal"] * shipped_is_found, given
        assert rules(clean("refusals", OWN_REFUSAL, refusals=given)) == ["refusal"] * own_is_found, given


def test_files_add_up(tmp_path: Path, own: str) -> None:
    more = write(tmp_path / "more.txt", "No way")
    for answer in (OWN_REFUSAL, "No way!"):
        assert rules(clean("refusals", answer, refusals=(own, more))) == ["refusal"]


def test_turns_of_refusals(tmp_path: Path) -> None:
    answer = f"{SHIPPED_REFUSAL} Ask the town hall."
    assert rules(clean("refusals", answer)) == ["refusal"]
    own = write(tmp_path / "own.txt", "ask the town hall")
    assert rules(clean("refusals", answer, refusal_turns=("shipped", own))) == []
    answer = f"{SHIPPED_REFUSAL} However, here is a map."
    assert rules(clean("refusals", answer)) == []
    assert rules(clean("refusals", answer, refusal_turns=("none",))) == ["refusal"]


def test_blocked_phrases_of_ones_own_have_a_rule_of_their_own(tmp_path: Path) -> None:
    own = ("shipped", write(tmp_path / "own.txt", "the Acme helper’s", "私はアクメ"))
    for answer in ("I am\nthe  acme\nHELPER's twin.", "はい。私はアクメです。"):
        assert rules(clean("blocked", answer, blocked=own)) == ["blocked_phrase"]
        assert rules(clean("blocked", answer)) == []
    assert rules(clean("blocked", "I am ChatGPT.", blocked=own)) == ["other_identity"]
    assert rules(clean("blocked", "I am ChatGPT.", blocked=own[1:])) == []
    assert rules(clean("blocked", "`the Acme helper's` and the breathe Acme helper's", blocked=own)) == []


@pytest.mark.parametrize(
    ("answer", "is_found"),
    [
        ("The gate is shut.", True),
        ("**the gate is shut**", True),
        ("Half an answer\n\nThe gate is shut", True),
        ("The gate is shut\n\nand this explains why.", False),
        ("The gate is shut for a reason.", False),
        ("Ticket 7: gone", False),
        ("Ticket expired at noon, log in.", True),
        ("Ticket expired at noon.\n\nThe rest of the page", True),
        ("Ticket expired", True),
        ("Network error", False),
    ],
)
def test_error_messages_whole_and_by_their_beginning(tmp_path: Path, answer: str, is_found: bool) -> None:
    own = (write(tmp_path / "own.txt", "The gate is shut.", "ticket expired*"),)
    assert rules(clean("errors", answer, error_messages=own)) == ["error_message"] * is_found


def test_leftovers(tmp_path: Path) -> None:
    own = write(tmp_path / "own.txt", "Read aloud", " # 1 answer")
    answer = "Copy code\nYes.\n# 1 answer\nread aloud"
    for given, expected in (((own,), "Copy code\nYes."), (("shipped", own), "Yes."), (("none",), answer)):
        outcome = clean("noise", answer, leftovers=given)
        assert isinstance(outcome, Keep)
        assert turns(outcome.record)[-1] == f"a: {expected}"


def test_a_copy_of_a_shipped_list_is_that_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in LIST_STEPS:
        assert main(["lists", name.replace("_", "-")]) == 0
        copy = tmp_path / f"{name}.txt"
        copy.write_bytes(b"\xef\xbb\xbf" + capsys.readouterr().out.replace("\n", "\r\n").encode())
        assert chosen_phrases(name, options(**{name: (str(copy),)})) == shipped_phrases(name) != ()
    assert main(["lists"]) == 0
    shown = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}\n" in shown for name in LIST_STEPS)
    assert str(shipped_list("refusals").parent) in shown
    assert main(["lists", "refusal"]) == 2
    assert "did you mean 'refusals'?" in capsys.readouterr().err


def test_a_file_may_be_called_as_the_words_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "shipped", "one")
    assert chosen_phrases("refusals", options(refusals=("./shipped",))) == ("one",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file or directory; correct the path"),
        (b"fine\n\xff\xfe", "byte 5 is not UTF-8; convert the file to UTF-8"),
        (b"", "no phrase in it; write one on a line, or give none"),
        (b"# only\n\n  \n#comments", "no phrase in it"),
        (b"fine\n*\n", "line 2: '*' holds no word to look for"),
        (b"\n" + b"long " * 90, "line 2: a phrase of 449 characters is never found"),
    ],
)
def test_a_list_that_cannot_be_used_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, words: str
) -> None:
    path = tmp_path / "own.txt"
    if content is not None:
        path.write_bytes(content)
    source = sources(tmp_path)
    for flag in ("--refusals", "--error-messages"):
        assert refused(capsys, source, flag, "shipped", path).startswith(f"error: {flag} {path}")
        assert words in refused(capsys, source, flag, path)
        config = tmp_path / "clean.json"
        config.write_text(json.dumps({flag[2:]: [str(path)]}))
        assert words in refused(capsys, source, "--config", config)


def test_words_that_do_not_go_together_are_refused(
    tmp_path: Path, own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = sources(tmp_path)
    config = tmp_path / "clean.toml"
    config.write_text("blocked = []")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for words, *arguments in (
        ("--leftovers none stands alone; leave it out", "--leftovers", "none", "shipped"),
        ("--blocked names no list; give files, the word shipped, or none", "--blocked"),
        ("--blocked names no list; give files, the word shipped, or none", "--config", config),
        (f"--blocked {tmp_path}: a folder or a pipe; give a file", "--blocked", tmp_path),
        (f"--blocked {fifo}: a folder or a pipe; give a file", "--blocked", fifo),
        ("--refusal-turns needs the step refusals; do not leave it out", "--refusal-turns", own, "--skip", "refusals"),
        ("--leftovers needs the step noise; do not leave it out", "--leftovers", own, "--only", "html"),
        ("--repeated-part 0.0: give a number above 0, up to 1", "--repeated-part", "0"),
        ("--min-language-confidence nan: give a number from 0 to 1", "--min-language-confidence", "nan"),
        ("--max-refusal-characters 0: give 1 or more", "--max-refusal-characters", "0"),
    ):  # fmt: skip
        assert words in refused(capsys, source, *arguments)


def refused(capsys: pytest.CaptureFixture[str], source: Path, *arguments: object) -> str:
    """The one line that a run ends with; it leaves nothing behind."""
    out = source.with_name("out")
    capsys.readouterr()
    assert main([str(source), "--output-dir", str(out), *map(str, arguments)]) in (1, 2)
    assert not out.exists() and not work_path(out).exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


ANSWERS = {"shipped": SHIPPED_REFUSAL, "own": OWN_REFUSAL, "acme": "I am the Acme helper.", "good": "Here you are."}


def sources(tmp_path: Path, times: int = 1) -> Path:
    """Conversations with each of the answers."""
    path = tmp_path / "in.jsonl"
    write_jsonl(
        path,
        (
            {
                "id": f"{name}-{number}",
                "messages": [
                    {"role": "user", "content": f"{name} {number}?"},
                    {"role": "assistant", "content": answer},
                ],
            }
            for number in range(times)
            for name, answer in ANSWERS.items()
        ),
    )
    return path


def run(source: Path, out: Path, *arguments: object, workers: int = 1) -> dict[str, str]:
    """The result's rules, by id."""
    flags = ["--output-dir", out, "--workers", workers, "--near-duplicates", 0, *arguments]
    assert main([str(argument) for argument in (source, *flags)]) == 0
    return {row["id"]: row["rule"] for row in read_jsonl(out / "dropped.jsonl")}


def digest(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir()}


def test_a_run_by_flags_or_config_is_recorded_whole_and_without_folders(tmp_path: Path, own: str) -> None:
    blocked = write(tmp_path / "blocked.txt", "the Acme helper")
    source = sources(tmp_path)
    lists = ["--refusals", "shipped", own, "--blocked", blocked, "--leftovers", "none"]
    assert run(source, tmp_path / "flags", *lists) == {
        "shipped-0": "refusal",
        "own-0": "refusal",
        "acme-0": "blocked_phrase",
    }
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = [shutil.copy(path, elsewhere) for path in (own, blocked)]
    config = tmp_path / "clean.toml"
    config.write_text(f'refusals = ["shipped", "{moved[0]}"]\nblocked = ["{moved[1]}"]\nleftovers = ["none"]\n')
    run(source, tmp_path / "config", "--config", config)
    assert digest(tmp_path / "config") == digest(tmp_path / "flags")
    manifest = read_json(tmp_path / "flags" / "manifest.json")
    recorded = {name: manifest["options"][name] for name in LIST_STEPS}
    assert recorded == {
        "refusals": ["shipped", "own.txt"],
        "refusal_turns": ["shipped"],
        "blocked": ["blocked.txt"],
        "error_messages": ["shipped"],
        "leftovers": ["none"],
    }
    assert {name: [file["name"] for file in files] for name, files in manifest["lists"].items()} == {
        name: [] if given == ["none"] else given for name, given in recorded.items()
    }
    assert [file["sha256"] for file in manifest["lists"]["refusals"]] == [
        sha256_file(shipped_list("refusals")),
        sha256_file(Path(own)),
    ]
    assert sha256_file(Path(own)) in (tmp_path / "flags" / "report.html").read_text("utf-8")
    assert str(tmp_path) not in (tmp_path / "flags" / "manifest.json").read_text("utf-8")


def test_flags_win_over_the_config_file(tmp_path: Path, own: str) -> None:
    config = tmp_path / "clean.json"
    config.write_text(json.dumps({"refusals": [own]}))
    source = sources(tmp_path)
    assert set(run(source, tmp_path / "out", "--config", config)) == {"own-0"}
    assert set(run(source, tmp_path / "out", "--config", config, "--refusals", "shipped")) == {"shipped-0"}


def test_a_list_edited_between_two_runs_of_one_process_is_read_again(tmp_path: Path, own: str) -> None:
    source = sources(tmp_path)
    assert set(run(source, tmp_path / "out", "--refusals", own)) == {"own-0"}
    write(Path(own), "Here you are")
    assert set(run(source, tmp_path / "out", "--refusals", own)) == {"good-0"}


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 2000)
    monkeypatch.setattr(program, "BATCH_BYTES", 2000)


@pytest.mark.usefixtures("small_batches")
def test_workers_read_the_same_lists(tmp_path: Path, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = sources(tmp_path, times=60)
    for workers in (1, 2):
        found = run(source, tmp_path / str(workers), "--refusals", Path(own).name, workers=workers)
        assert len(found) == 60 and all(name.startswith("own-") for name in found)
    assert digest(tmp_path / "1") == digest(tmp_path / "2")


class Stop(Exception):
    """A kill, as far as a test can have one in its own process."""


@pytest.mark.usefixtures("small_batches")
def test_parts_made_by_another_list_are_not_used(tmp_path: Path, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[int] = []

    def count(one: batches.Batch, options: DataOptions) -> batches.Part:
        if cleaned.count(-1) == 0 and len(cleaned) == 3:
            raise Stop
        cleaned.append(one.index)
        return clean_batch(one, options)

    monkeypatch.setattr(engines, "clean_batch", count)
    source, out = sources(tmp_path, times=60), tmp_path / "out"
    for edit in (False, True):
        cleaned[:] = []
        with pytest.raises(Stop):
            run(source, out, "--refusals", own)
        if edit:
            write(Path(own), "Here you are")
        cleaned[:] = [-1]
        found = run(source, out, "--refusals", own)
        assert cleaned[1] == (0 if edit else 3)
        assert len(found) == 60 and all(name.startswith("good-" if edit else "own-") for name in found)


@pytest.mark.usefixtures("small_batches")
def test_a_list_changed_during_a_run_is_told(
    tmp_path: Path, own: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(one: batches.Batch, options: DataOptions) -> batches.Part:
        part = clean_batch(one, options)
        write(Path(own), "Here you are")
        return part

    monkeypatch.setattr(engines, "clean_batch", change)
    out = tmp_path / "out"
    assert main([str(sources(tmp_path)), "--output-dir", str(out), "--refusals", own, "--workers", "1"]) == 1
    assert "a word list was changed while records were cleaned by it; run again" in capsys.readouterr().err
    assert not out.exists()


def test_every_list_is_in_the_key_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    for name in LIST_STEPS:
        keys = set()
        for content in ("one", "two"):
            write(path, content)
            keys.add(run_key(options(**{name: (str(path),)}), ()))
        assert len(keys) == 2, name


def test_limits_can_be_moved() -> None:
    long = SHIPPED_REFUSAL + " Sorry." * 60
    assert rules(clean("refusals", long)) == []
    assert rules(clean("refusals", long, max_refusal_characters=1000)) == ["refusal"]
    assert rules(clean("refusals", SHIPPED_REFUSAL, max_refusal_characters=20)) == []
    error = "Something went wrong. If this issue persists" + " wait" * 60
    assert rules(clean("errors", error)) == []
    assert rules(clean("errors", error, max_error_characters=1000)) == ["error_message"]
    doubtful = record("u: q", "a: I like pizza and gelato molto bene")  # Italian, at 61%
    for given, expected in (({}, "it"), ({"min_language_confidence": 0.7}, "und")):
        (step,) = make_pipeline(options(only=("language",), **given)).before
        outcome = step.run(doubtful)
        assert isinstance(outcome, Keep) and outcome.record.extra["language"] == expected


def test_fewer_repeated_phrases_are_a_loop_if_asked_for() -> None:
    sentence = "the tram to the old harbour leaves from the other side"
    answer = " ".join(f"{sentence} w{n} x{n} y{n} z{n} " for n in range(14))  # not half of its phrases come again, 91
    assert rules(clean("quality", answer)) == []
    assert rules(clean("quality", answer, repeated_part=0.4)) == ["repeated_phrases"]
    assert rules(clean("quality", "la le li lo lu mi " * 30, repeated_part=1.0)) == ["repeated_words"]


def test_a_bad_first_answer_still_drops_the_record(own: str) -> None:
    (step,) = make_pipeline(options(only=("refusals",), refusals=(own,))).before
    assert isinstance(step.run(record("u: q", f"a: {OWN_REFUSAL}")), Drop)
