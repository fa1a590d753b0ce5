"""`python -m vicuna.data` as a user meets it: files in, files out, counts that add up, mistakes in one line."""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data.builders import refuses, run_command, sharegpt_row
from tests.data.inputs import numbered_row
from vicuna.conversation import get_template, load_token_counter
from vicuna.data import __main__ as program
from vicuna.data.__main__ import EXIT_SET_ASIDE
from vicuna.data.options import DataOptions
from vicuna.data.run import batches, engines
from vicuna.data.run.work import Work
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import read_json, read_jsonl


def test_counts_add_up_and_hashes_are_true(tmp_path: Path, collection: Path, counting: list[str]) -> None:
    out = tmp_path / "out"
    assert run_command(collection, "--output-dir", out, *counting, "--held-out-ratio", 0.2) == EXIT_SET_ASIDE
    manifest = read_json(out / "manifest.json")
    counts = manifest["counts"]
    records, held_out = list(read_jsonl(out / "records.jsonl")), list(read_jsonl(out / "held_out.jsonl"))
    dropped, repairs = list(read_jsonl(out / "dropped.jsonl")), list(read_jsonl(out / "repairs.jsonl"))
    assert counts["records_in"] == 48 == counts["kept"] + counts["dropped"] + counts["merged"]
    assert counts["set_aside"] == 2
    assert (counts["dropped"], counts["merged"], counts["split"]) == (4, 1, 1)
    assert len(records) == counts["records_out"] and len(held_out) == counts["held_out"] > 0
    assert Counter(row["rule"] for row in dropped) == counts["rules"]
    assert counts["rules"] == {"duplicate": 1, "no_turns": 1, "error_message": 1, "malformed": 2}
    assert Counter(row["rule"] for row in repairs) == counts["repairs"] == {"empty_answer": 1}
    assert counts["tokens"] == sum(row["num_tokens"] for row in records + held_out)
    assert max(row["num_tokens"] for row in records + held_out) <= 200
    assert len({row["id"] for row in records + held_out}) == len(records) + len(held_out)
    assert manifest["inputs"][0]["sha256"] == sha256_file(collection)
    for name, facts in manifest["outputs"].items():
        assert facts["sha256"] == sha256_file(out / name)
    assert sorted(path.name for path in out.iterdir()) == sorted([*manifest["outputs"], "manifest.json"])


def test_the_record_is_the_shape_the_trainer_reads(tmp_path: Path, collection: Path) -> None:
    assert run_command(collection, "--output-dir", tmp_path / "out") == EXIT_SET_ASIDE
    assert next(read_jsonl(tmp_path / "out" / "records.jsonl")) == {
        "id": "good-0",
        "messages": [
            {"role": "user", "content": "q0"},
            {"role": "assistant", "content": "r0 **!**"},
            {"role": "user", "content": "more"},
            {"role": "assistant", "content": "s"},
        ],
        "source": "in.json:1",
        "language": "und",
    }
    assert not (tmp_path / "out" / "held_out.jsonl").exists()


def test_plain_records_pass_untouched(tmp_path: Path) -> None:
    row = {
        "id": "x",
        "messages": [
            {"role": "system", "content": "  be kind "},
            {"role": "user", "content": "\t<p>a</p>  "},
            {"role": "assistant", "content": "<p>kept</p> as _it_ *is*"},
        ],
        "source": "elsewhere",
        "topic": "en",
    }
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(row) + "\n", "utf-8")
    assert run_command(path, "--output-dir", tmp_path / "out") == 0
    assert list(read_jsonl(tmp_path / "out" / "records.jsonl")) == [row | {"language": "und"}]


def test_an_earlier_result_is_replaced_whole(tmp_path: Path, collection: Path) -> None:
    out = tmp_path / "out"
    assert run_command(collection, "--output-dir", out, "--held-out-ratio", 0.2) == EXIT_SET_ASIDE
    assert run_command(collection, "--output-dir", out) == EXIT_SET_ASIDE
    assert not (out / "held_out.jsonl").exists()
    assert len(list(read_jsonl(out / "records.jsonl"))) == read_json(out / "manifest.json")["counts"]["kept"]


def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, collection: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, bad = tmp_path / "out", tmp_path / "bad.json"
    bad.write_text("hello", "utf-8")
    refuses(capsys, "no record can be read; the first: bad.json:1: malformed", 1, bad, "--output-dir", out)
    refuses(capsys, "bad.json:1: malformed", 1, collection, bad, "--output-dir", out, "--strict")
    refuses(capsys, "in.json:47: malformed (read): byte", 1, collection, "--output-dir", out, "--strict")
    refuses(capsys, "no such file", 1, collection, tmp_path / "none.json", "--output-dir", out)
    refuses(capsys, "--max-tokens needs both", 2, collection, "--output-dir", out, "--max-tokens", 9)
    refuses(capsys, "--template needs both", 2, collection, "--output-dir", out, "--template", "chatml")
    refuses(capsys, "from 0 to below 1", 2, collection, "--output-dir", out, "--held-out-ratio", 1)
    refuses(capsys, "no such step; known: ", 2, collection, "--output-dir", out, "--only", "htm")
    refuses(capsys, "needs --tokenizer", 2, collection, "--output-dir", out, "--skip", "split")
    refuses(capsys, "leave no step", 2, collection, "--output-dir", out, "--only", "html", "--skip", "html")
    both = ["--tokenizer", tmp_path, "--template"]
    refuses(capsys, "unknown conversation template", 1, collection, "--output-dir", out, *both, "nope")
    refuses(capsys, "has no tokenizer", 1, collection, "--output-dir", out, *both, "chatml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.json", "in.json", "out.work"]
    assert run_command(collection, "--output-dir", out) == EXIT_SET_ASIDE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.json", "in.json", "out"]


def test_file_names_that_are_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.jsonl"
    path.write_text(json.dumps(sharegpt_row("a", "q", "r")) + "\n", "utf-8")
    assert run_command(path, "--output-dir", tmp_path / "out") == 0
    assert read_json(tmp_path / "out" / "manifest.json")["inputs"][0]["name"] == path.name


def test_a_file_that_grows_meanwhile_is_refused(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(work: Work, index: int, part: batches.Part) -> dict[str, Any]:
        inputs[1].write_bytes(inputs[1].read_bytes() + b"\n")
        return kept(work, index, part)

    kept = Work.write
    monkeypatch.setattr(Work, "write", write)
    assert run_command(*inputs, "--output-dir", tmp_path / "out", "--workers", 1) == 1
    assert f"{inputs[1]} was changed while it was read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_message_of_50_mb_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    big = {"id": "big", "conversations": [{"from": "human", "value": "x " * (25 << 20)}]}
    path.write_text(json.dumps([numbered_row(1), big, numbered_row(2)]))
    assert run_command(path, "--output-dir", tmp_path / "out", "--workers", 1) == EXIT_SET_ASIDE
    (row,) = read_jsonl(tmp_path / "out" / "dropped.jsonl")
    assert row["source"] == "in.json:2" and "larger than 8 MiB" in row["evidence"]


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
