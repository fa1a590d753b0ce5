"""Runs with the user's own word lists, by flag and by config file."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.data.builders import OWN_REFUSAL, SHIPPED_REFUSAL, Stop, digest, recording, write_lines
from vicuna.data import __main__ as program
from vicuna.data.__main__ import main
from vicuna.data.options import DataOptions
from vicuna.data.run import batches, engines
from vicuna.data.run.batches import clean_batch
from vicuna.data.run.work import work_path
from vicuna.data.steps.phrases import LIST_STEPS, shipped_list
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import read_json, read_jsonl, write_jsonl

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


def test_a_run_by_flags_or_config_is_recorded_whole_and_without_folders(tmp_path: Path, own: str) -> None:
    blocked = write_lines(tmp_path / "blocked.txt", "the Acme helper")
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
    write_lines(Path(own), "Here you are")
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


@pytest.mark.usefixtures("small_batches")
def test_parts_made_by_another_list_are_not_used(tmp_path: Path, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = sources(tmp_path, times=60), tmp_path / "out"
    for edit in (False, True):
        cleaned: list[int] = []
        monkeypatch.setattr(engines, "clean_batch", recording(cleaned, stop_at=3))
        with pytest.raises(Stop):
            run(source, out, "--refusals", own)
        if edit:
            write_lines(Path(own), "Here you are")
        cleaned.clear()
        monkeypatch.setattr(engines, "clean_batch", recording(cleaned))
        found = run(source, out, "--refusals", own)
        assert cleaned[0] == (0 if edit else 3)
        assert len(found) == 60 and all(name.startswith("good-" if edit else "own-") for name in found)


@pytest.mark.usefixtures("small_batches")
def test_a_list_changed_during_a_run_is_told(
    tmp_path: Path, own: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(one: batches.Batch, options: DataOptions) -> batches.Part:
        part = clean_batch(one, options)
        write_lines(Path(own), "Here you are")
        return part

    monkeypatch.setattr(engines, "clean_batch", change)
    out = tmp_path / "out"
    assert main([str(sources(tmp_path)), "--output-dir", str(out), "--refusals", own, "--workers", "1"]) == 1
    assert "a word list was changed while records were cleaned by it; run again" in capsys.readouterr().err
    assert not out.exists()


def refused(capsys: pytest.CaptureFixture[str], source: Path, *arguments: object) -> str:
    """The one line that a run ends with; it leaves nothing behind."""
    out = source.with_name("out")
    capsys.readouterr()
    assert main([str(source), "--output-dir", str(out), *map(str, arguments)]) in (1, 2)
    assert not out.exists() and not work_path(out).exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


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
