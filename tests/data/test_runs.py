"""One result, whatever runs: any number of workers, any order of files, any engine, and after a kill."""

import gzip
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from vicuna.conversation import get_template, load_token_counter
from vicuna.data import __main__ as program
from vicuna.data import pipeline
from vicuna.data.__main__ import EXIT_SET_ASIDE, main
from vicuna.data.options import DataOptions
from vicuna.data.read.sources import find_sources
from vicuna.data.run import batches, engines
from vicuna.data.run.batches import clean_batch, cut_batches, forget_pipeline
from vicuna.data.run.work import Work, work_path
from vicuna.data.step_kinds import Keep, Outcome, Record, Step
from vicuna.errors import VicunaError
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import read_json, read_jsonl

SMALL = 6000  # bytes in a batch, so that little input has many


def conversation(number: int) -> dict[str, Any]:
    """A conversation; some ids and some texts come twice, some go on where another ends, some are cut short."""
    letters = random.Random(number % 97)
    texts = [
        f"<p>{' '.join(letters.choices('abcdefghijklmnop', k=60))} <b>!</b></p>"
        if turn % 2
        else f"q{number % 97} {turn}"
        for turn in range(2 * (1 + number % 3))
    ]
    roles = ("human", "gpt")
    turns = [{"from": roles[turn % 2], "value": text} for turn, text in enumerate(texts)]
    return {"id": f"c{number % 150}", "conversations": turns[: -1 if number % 19 == 18 else None]}


def write_inputs(folder: Path, total: int = 240) -> list[Path]:
    """The conversations, in files of every kind, some of them bad."""
    rows = [conversation(number) for number in range(total)]
    a, b, c, d = (rows[at : at + total // 4] for at in range(0, total, total // 4))
    folder.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in b)
    (folder / "a.json").write_text(json.dumps(a, indent=1))
    (folder / "b.jsonl").write_text(lines + '{"cut": \n')
    (folder / "c.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in c).encode(), mtime=0))
    (folder / "d.json.zst").write_bytes(zstandard.compress(json.dumps(d).encode()))
    (folder / "e.json").write_text(json.dumps(a[:20])[:-40])
    (folder / "empty.jsonl").write_text("")
    return sorted(folder.iterdir())


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(batches, "BATCH_BYTES", SMALL)
    monkeypatch.setattr(program, "BATCH_BYTES", SMALL)
    return write_inputs(tmp_path / "in")


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def digest(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir()}


@pytest.fixture
def expected(tmp_path: Path, inputs: list[Path], bpe_tokenizer_directory: Path) -> dict[str, str]:
    """What one process makes of the inputs in their order."""
    out = tmp_path / "expected"
    assert run(*inputs, "--output-dir", out, "--workers", 1, *options(bpe_tokenizer_directory)) == EXIT_SET_ASIDE
    counts = read_json(out / "manifest.json")["counts"]
    assert counts["records_in"] == 262 and counts["set_aside"] == 3
    assert counts["merged"] > 50 and counts["split"] > 10 and counts["held_out"] > 10 and counts["repaired"]
    assert {"duplicate", "continued", "malformed"} <= counts["rules"].keys()
    return digest(out)


def options(tokenizer: Path) -> list[object]:
    counting: list[object] = ["--tokenizer", tokenizer, "--template", "chatml", "--max-tokens", 150]
    return [*counting, "--held-out-ratio", 0.2]


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_workers_and_any_order_of_files(
    tmp_path: Path, inputs: list[Path], expected: dict[str, str], bpe_tokenizer_directory: Path, workers: int
) -> None:
    shuffled = random.Random(workers).sample(inputs, len(inputs))
    out = tmp_path / "out"
    arguments = ["--output-dir", out, "--workers", workers, *options(bpe_tokenizer_directory)]
    assert run(*shuffled, *arguments) == EXIT_SET_ASIDE
    assert digest(out) == expected
    assert not work_path(out).exists()


def test_a_folder_and_a_pattern_are_its_files(tmp_path: Path, inputs: list[Path]) -> None:
    given = {"files": inputs, "folder": [tmp_path / "in"], "pattern": [f"{tmp_path / 'in'}/*"]}
    results = []
    for name, arguments in given.items():
        assert run(*arguments, "--output-dir", tmp_path / name, "--workers", 1) == EXIT_SET_ASIDE
        results.append(digest(tmp_path / name))
    assert results[0] == results[1] == results[2]


class Engine:
    """Stands in for an engine that finishes in an order of its own, the last first as far as it may."""

    def __call__(self, given: Any, options: DataOptions) -> engines.CleanedBatches:
        for group in iter(lambda: list(itertools.islice(given, 4)), []):
            for one in reversed(group):
                yield batches.Batch(one.index, (), one.size_bytes), clean_batch(one, options)


def test_the_order_of_finishing_does_not_matter(
    tmp_path: Path,
    inputs: list[Path],
    expected: dict[str, str],
    bpe_tokenizer_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "in_process", Engine())
    out = tmp_path / "out"
    assert run(*inputs, "--output-dir", out, "--workers", 1, *options(bpe_tokenizer_directory)) == EXIT_SET_ASIDE
    assert digest(out) == expected


class Stop(Exception):
    """A kill, as far as a test can have one in its own process."""


def test_what_is_finished_is_not_done_again(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned: list[int] = []

    def clean(one: batches.Batch, options: DataOptions) -> batches.Part:
        if len(cleaned) == 3:
            raise Stop
        cleaned.append(one.index)
        return clean_batch(one, options)

    monkeypatch.setattr(engines, "clean_batch", clean)
    arguments = [*inputs, "--output-dir", tmp_path / "out", "--workers", 1]
    with pytest.raises(Stop):
        run(*arguments)
    assert sorted(path.name for path in work_path(tmp_path / "out").glob("*.part")) == [
        "000000.part",
        "000001.part",
        "000002.part",
    ]
    (work_path(tmp_path / "out") / "000001.part").write_bytes(b"damaged")
    first, cleaned[:] = list(cleaned), []
    monkeypatch.setattr(
        engines, "clean_batch", lambda one, options: cleaned.append(one.index) or clean_batch(one, options)
    )
    assert run(*arguments) == EXIT_SET_ASIDE
    assert first == [0, 1, 2] and cleaned[:2] == [1, 3] and 0 not in cleaned and 2 not in cleaned
    assert run(*inputs, "--output-dir", tmp_path / "fresh", "--workers", 1) == EXIT_SET_ASIDE
    assert digest(tmp_path / "out") == digest(tmp_path / "fresh")


def test_other_options_or_other_files_use_nothing_of_it(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert run(*inputs, "--output-dir", out, "--strict", "--workers", 1) == 1
    parts = len(list(work_path(out).glob("*.part")))
    assert parts > 2
    cleaned: list[int] = []
    monkeypatch.setattr(
        engines, "clean_batch", lambda one, options: cleaned.append(one.index) or clean_batch(one, options)
    )
    assert run(*inputs, "--output-dir", out, "--workers", 1, "--skip", "noise") == EXIT_SET_ASIDE
    assert cleaned[0] == 0
    assert run(*inputs, "--output-dir", out, "--strict", "--workers", 1) == 1
    inputs[0].write_bytes(inputs[0].read_bytes() + b"\n")
    cleaned.clear()
    assert run(*inputs, "--output-dir", out, "--workers", 1) == EXIT_SET_ASIDE
    assert cleaned[0] == 0


def test_only_one_run_at_a_time(tmp_path: Path, inputs: list[Path], capsys: Any) -> None:
    out = tmp_path / "out"
    sources = find_sources(tuple(inputs))
    with program.work_folder(DataOptions(tuple(inputs), out), sources):
        capsys.readouterr()
        assert run(*inputs, "--output-dir", out) == 1
        assert "another run writes it just now" in capsys.readouterr().err


def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path, inputs: list[Path], capsys: Any) -> None:
    work = work_path(tmp_path / "out")
    work.mkdir()
    (work / "thesis.txt").write_text("mine")
    assert run(*inputs, "--output-dir", tmp_path / "out") == 1
    assert "needed for unfinished work" in capsys.readouterr().err
    assert [path.name for path in work.iterdir()] == ["thesis.txt"]


def test_a_kill_between_any_two_files_of_the_work_is_no_obstacle(tmp_path: Path, inputs: list[Path]) -> None:
    work = work_path(tmp_path / "out")
    for names in (["lock"], ["lock", ".run.json.x1.tmp"], ["lock", "000001.part", ".000002.part.x2.tmp"]):
        work.mkdir()
        for name in names:
            (work / name).write_text("")
        assert run(*inputs, "--output-dir", tmp_path / "out", "--workers", 1) == EXIT_SET_ASIDE
        assert not work.exists()


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path, inputs: list[Path]) -> None:
    left = tmp_path / ".out.abc123.tmp"
    other = tmp_path / ".out.xyz.tmp"
    for folder, name in ((left, "records.jsonl"), (left, ".manifest.json.x.tmp"), (other, "novel.txt")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("half")
    assert run(*inputs, "--output-dir", tmp_path / "out", "--workers", 1) == EXIT_SET_ASIDE
    assert not left.exists() and other.exists()


SLOW = """
import sys, time
from vicuna.data import __main__ as program
from vicuna.data.run import batches, engines
program.BATCH_BYTES = batches.BATCH_BYTES = {size}
clean = batches.clean_batch
def slow(one, options):
    time.sleep(0.05)
    return clean(one, options)
batches.clean_batch = engines.clean_batch = slow
if __name__ == "__main__":
    sys.exit(program.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_at_a_random_moment_and_go_on(tmp_path: Path, inputs: list[Path], workers: int) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW.format(size=SMALL))
    out = tmp_path / "out"
    command = [sys.executable, str(script), *map(str, inputs), "--output-dir", str(out), "--workers", str(workers)]
    assert run(*inputs, "--output-dir", tmp_path / "fresh", "--workers", 1) == EXIT_SET_ASIDE
    expected = digest(tmp_path / "fresh")
    kills = 0
    for attempt in range(3):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for_parts(out, process)
        time.sleep(random.Random(attempt).random() * 0.5)
        if process.poll() is not None:
            continue
        children = children_of(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        wait_for_end(children)
        if out.exists():  # the kill came behind the last rename, so the result is whole
            assert digest(out) == expected
            shutil.rmtree(out)
    assert kills and run_again(command) == EXIT_SET_ASIDE
    assert digest(out) == expected
    assert not work_path(out).exists()


def run_again(command: list[str]) -> int:
    return subprocess.run(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False).returncode


def wait_for_parts(out: Path, process: "subprocess.Popen[bytes]") -> None:
    """Until the run has added a part to those that were there."""
    before = len(list(work_path(out).glob("*.part")))
    while process.poll() is None and len(list(work_path(out).glob("*.part"))) <= before:
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def wait_for_end(children: list[int]) -> None:
    """A worker whose program is gone ends by itself."""
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() and "Z" not in state(child) for child in children):
        assert time.monotonic() < deadline, "a worker outlives its program"
        time.sleep(0.02)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_worker_that_dies_is_told(tmp_path: Path, inputs: list[Path]) -> None:
    sources = find_sources(tuple(inputs))
    running = engines.process_pool(2)(cut_batches(sources), DataOptions(tuple(inputs), tmp_path / "out"))
    next(running)
    for child in children_of(os.getpid()):
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(child, signal.SIGKILL)
    with pytest.raises(VicunaError, match=r"a worker ended \(SIGKILL\) in batch .* fewer --workers"):
        list(running)


def test_what_a_worker_cannot_do_is_one_line(
    tmp_path: Path, inputs: list[Path], bpe_tokenizer_directory: Path, capsys: Any
) -> None:
    broken = tmp_path / "tokenizer"
    shutil.copytree(bpe_tokenizer_directory, broken)
    (broken / "tokenizer.json").write_text("{")
    for workers in (1, 2):
        capsys.readouterr()
        assert run(*inputs, "--output-dir", tmp_path / "out", "--workers", workers, *options(broken)) == 1
        assert "its tokenizer cannot be read" in capsys.readouterr().err.splitlines()[-1]
    assert not work_path(tmp_path / "out").exists()


def broken_step(rule: Exception) -> Step:
    def step(record: Record) -> Outcome:
        if record.id == "c7":
            raise rule
        return Keep(record)

    return Step("noise", 1, {}, step)


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError(), MemoryError(), AssertionError("odd"), VicunaError("no")]
)
def test_a_record_that_a_step_fails_on_is_set_aside(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Any, error: Exception
) -> None:
    monkeypatch.setattr(pipeline, "noise_step", lambda _: broken_step(error))
    forget_pipeline()
    out = tmp_path / "out"
    try:
        assert run(inputs[0], "--output-dir", out, "--strict", "--workers", 1) == 1
        assert "a.json:8: crashed (noise): byte " in capsys.readouterr().err
        assert run(inputs[0], "--output-dir", out, "--workers", 1) == EXIT_SET_ASIDE
    finally:
        forget_pipeline()
    (row,) = (row for row in read_jsonl(out / "dropped.jsonl") if row["rule"] == "crashed")
    assert (row["id"], row["step"], row["source"]) == ("c7", "noise", "a.json:8")
    assert type(error).__name__ in row["evidence"] and row["evidence"].startswith("byte ")
    assert read_json(out / "manifest.json")["counts"]["set_aside"] == 1
    assert "crashed: 1" in (out / "report.html").read_text()
    assert run("why", "c7", "--in", out) == 0
    assert "dropped by noise, crashed" in capsys.readouterr().out


def test_only_and_skip_choose_the_steps(tmp_path: Path, inputs: list[Path]) -> None:
    def steps(*arguments: object) -> list[str]:
        assert run(inputs[0], "--output-dir", tmp_path / "out", *arguments) == 0
        return [step["name"] for step in read_json(tmp_path / "out" / "manifest.json")["steps"]]

    everything = steps()
    assert steps("--only", "html") == ["read", "html"]
    rows = list(read_jsonl(tmp_path / "out" / "records.jsonl"))
    assert len(rows) == 60 and len({row["id"] for row in rows}) == 60
    assert rows[18]["messages"][-1]["role"] == "user" and "**!**" in rows[0]["messages"][1]["content"]
    assert steps("--only", "dedup", "html") == ["read", "html", "dedup"]
    assert steps("--skip", "dedup", "roles") == [name for name in everything if name not in ("dedup", "roles")]


def test_ids_that_come_twice_get_a_number(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    turns = [[("user", f"question {n}"), ("assistant", f"answer {n}")] for n in range(5)]
    messages = [[{"role": role, "content": text} for role, text in pair] for pair in turns]
    ids = ["a", "a~2", "a", "b", "a"]
    rows = [{"id": name, "messages": turns} for name, turns in zip(ids, messages, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(path, "--output-dir", tmp_path / "out") == 0
    found = [(row["id"], row.get("original_id")) for row in read_jsonl(tmp_path / "out" / "records.jsonl")]
    assert found == [("a", None), ("a~2", None), ("a~2~", "a"), ("b", None), ("a~3", "a")]


def test_a_file_that_grows_meanwhile_is_refused(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def write(work: Work, index: int, part: batches.Part) -> dict[str, Any]:
        inputs[1].write_bytes(inputs[1].read_bytes() + b"\n")
        return kept(work, index, part)

    kept = Work.write
    monkeypatch.setattr(Work, "write", write)
    assert run(*inputs, "--output-dir", tmp_path / "out", "--workers", 1) == 1
    assert f"{inputs[1]} was changed while it was read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_message_of_50_mb_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    big = {"id": "big", "conversations": [{"from": "human", "value": "x " * (25 << 20)}]}
    path.write_text(json.dumps([conversation(1), big, conversation(2)]))
    assert run(path, "--output-dir", tmp_path / "out", "--workers", 1) == EXIT_SET_ASIDE
    (row,) = read_jsonl(tmp_path / "out" / "dropped.jsonl")
    assert row["source"] == "in.json:2" and "larger than 8 MiB" in row["evidence"]


@pytest.mark.slow
def test_ray_gives_the_same(
    tmp_path: Path, inputs: list[Path], expected: dict[str, str], bpe_tokenizer_directory: Path
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    arguments = ["--output-dir", out, "--workers", 2, "--engine", "ray", *options(bpe_tokenizer_directory)]
    assert run(*inputs, *arguments) == EXIT_SET_ASIDE
    assert digest(out) == expected


def test_ray_is_asked_for_by_name(tmp_path: Path, inputs: list[Path], monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(*inputs, "--output-dir", tmp_path / "out", "--engine", "ray") == 1
    assert "ray is not installed: pip install 'vicuna[ray]'" in capsys.readouterr().err


def test_one_worker_gets_a_process_only_where_transformers_would_load_torch(
    tmp_path: Path, bpe_tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VICUNA_HOME", str(tmp_path / "remembered"))
    load_token_counter(get_template("chatml"), bpe_tokenizer_directory)
    plain = DataOptions((tmp_path,), tmp_path / "out", workers=1)
    counting = replace(plain, tokenizer=bpe_tokenizer_directory, template="chatml")
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # nothing is loaded from here on
    assert program._engine(plain, 10) is engines.in_process
    assert program._engine(counting, 10) is engines.in_process
    assert program._engine(replace(counting, template="hf"), 10) is not engines.in_process
    monkeypatch.setenv("VICUNA_HOME", str(tmp_path / "new"))
    assert program._engine(counting, 10) is not engines.in_process
