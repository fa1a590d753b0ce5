"""`python -m vicuna.data` as a user meets it: files in, files out, sums that add up, mistakes in one line."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vicuna.data.__main__ import EXIT_SET_ASIDE, main
from vicuna.data.pipeline import is_held_out
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import read_json, read_jsonl


def conversation(identifier: str, *texts: str) -> dict[str, Any]:
    roles = ("human", "gpt")
    return {"id": identifier, "conversations": [{"from": roles[i % 2], "value": text} for i, text in enumerate(texts)]}


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Some good conversations, and one for each fate."""
    rows: list[Any] = [
        conversation(f"good-{n}", f"q{n}", f"<p>r{n} <b>!</b></p>", "more", "<p>s</p>") for n in range(40)
    ]
    rows += [
        conversation("again", "q0", "r0 **!**", "more", "s"),
        conversation("good-1", "the same id", "another text"),
        conversation("empty"),
        conversation("error", "q", "Too many requests in 1 hour. Try again later."),
        conversation("cut", "q", "a good answer", "and?", ""),
        conversation("long", *(word for n in range(9) for word in (f"question {n}", "answer " * 30))),
        {"id": "odd", "turns": []},
        "no record",
    ]
    path = tmp_path / "in.json"
    path.write_text(json.dumps(rows), "utf-8")
    return path


@pytest.fixture
def counting(bpe_tokenizer_directory: Path) -> list[str]:
    return ["--tokenizer", str(bpe_tokenizer_directory), "--template", "chatml", "--max-tokens", "200"]


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_counts_add_up_and_hashes_are_true(tmp_path: Path, collection: Path, counting: list[str]) -> None:
    out = tmp_path / "out"
    assert run(collection, "--output-dir", out, *counting, "--held-out-ratio", 0.2) == EXIT_SET_ASIDE
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
    assert run(collection, "--output-dir", tmp_path / "out") == EXIT_SET_ASIDE
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


def test_two_runs_write_the_same_bytes(tmp_path: Path, collection: Path, counting: list[str]) -> None:
    for name in ("one", "two"):
        assert run(collection, "--output-dir", tmp_path / name, *counting, "--held-out-ratio", 0.2) == EXIT_SET_ASIDE
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_pieces_of_one_conversation_stay_on_one_side(tmp_path: Path, counting: list[str]) -> None:
    texts = [word for n in range(9) for word in (f"question {n}", "answer " * 30)]
    rows = [conversation(f"c{n}", f"hello {n}", *texts[1:]) for n in range(30)]
    path = tmp_path / "in.json"
    path.write_text(json.dumps(rows), "utf-8")
    counting += ["--near-duplicates", "0"]
    assert run(path, "--output-dir", tmp_path / "out", *counting, "--held-out-ratio", 0.4) == 0
    sides = [
        {row["original_id"] for row in read_jsonl(tmp_path / "out" / name)}
        for name in ("records.jsonl", "held_out.jsonl")
    ]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    # Cleaned records cleaned again keep their side.
    again = tmp_path / "again"
    assert run(tmp_path / "out" / "held_out.jsonl", "--output-dir", again, "--held-out-ratio", 0.4) == 1
    assert read_json(again / "manifest.json")["counts"]["records_out"] == 0


def test_the_held_out_share_is_about_the_ratio() -> None:
    share = sum(is_held_out(f"id-{n}", 0.1) for n in range(5000)) / 5000
    assert 0.085 < share < 0.115
    assert not any(is_held_out(f"id-{n}", 0.0) for n in range(100))


def test_pieces_that_an_earlier_tool_cut_stay_together() -> None:
    for name in ("QWJhYvA", "03iMgaN", "2pwdGxJ"):
        assert len({is_held_out(f"{name}_{n}", 0.5) for n in range(50)}) == 1


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
    assert run(path, "--output-dir", tmp_path / "out") == 0
    assert list(read_jsonl(tmp_path / "out" / "records.jsonl")) == [row | {"language": "und"}]


def test_why_tells_the_story(tmp_path: Path, collection: Path, counting: list[str], capsys: Any) -> None:
    out = tmp_path / "out"
    assert run(collection, "--output-dir", out, *counting) == EXIT_SET_ASIDE
    capsys.readouterr()
    for identifier, words in {
        "again": "merged into another by dedup, duplicate: good-0",
        "error": "dropped by errors, error_message: Too many requests",
        "cut": "turn 3): repaired by empty, empty_answer",
        "long": "long#2 (in.json:46): in records.jsonl",
        "good-1~2": "in records.jsonl with 2 messages",
    }.items():
        assert run("why", identifier, "--in", out) == 0
        assert words in capsys.readouterr().out
    assert run("why", "nobody", "--in", out) == 1
    assert "no record 'nobody'" in capsys.readouterr().err


def test_the_report_names_every_rule_and_escapes_what_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(conversation("<script>alert(1)</script>", "q", "Network error")) + "\n", "utf-8")
    assert run(path, "--output-dir", tmp_path / "out") == 1  # nothing is left, but the report says why
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "error_message: 1" in page and "&lt;script&gt;" in page
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")


def test_an_earlier_result_is_replaced_whole(tmp_path: Path, collection: Path) -> None:
    out = tmp_path / "out"
    assert run(collection, "--output-dir", out, "--held-out-ratio", 0.2) == EXIT_SET_ASIDE
    assert run(collection, "--output-dir", out) == EXIT_SET_ASIDE
    assert not (out / "held_out.jsonl").exists()
    assert len(list(read_jsonl(out / "records.jsonl"))) == read_json(out / "manifest.json")["counts"]["kept"]


def refuses(capsys: Any, words: str, code: int, *arguments: object) -> None:
    """The command ends with `code` and one line that holds `words`."""
    capsys.readouterr()
    assert run(*arguments) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("cleaning:", "writing:"))]
    assert len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0], lines


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path, collection: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine", "utf-8")
    refuses(capsys, "notes.txt, which no cleaning wrote", 1, collection, "--output-dir", out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    (out / "notes.txt").unlink()
    assert run(collection, "--output-dir", out) == EXIT_SET_ASIDE
    (out / "notes.txt").write_text("mine", "utf-8")
    refuses(capsys, "notes.txt, which no cleaning wrote", 1, collection, "--output-dir", out)
    (out / "notes.txt").unlink()
    with (out / "records.jsonl").open("a") as file:
        file.write("{}\n")
    refuses(capsys, "records.jsonl was changed", 1, collection, "--output-dir", out)
    refuses(capsys, "is a file", 1, collection, "--output-dir", collection)
    refuses(capsys, "holds the input in.json", 1, collection, "--output-dir", tmp_path)


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, collection: Path, capsys: Any) -> None:
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
    assert run(collection, "--output-dir", out) == EXIT_SET_ASIDE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.json", "in.json", "out"]


def test_a_result_that_somebody_changed_is_named(tmp_path: Path, collection: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert run(collection, "--output-dir", out) == EXIT_SET_ASIDE
    (out / "dropped.jsonl").write_text('{"other": 1}\n')
    assert run("why", "good-1", "--in", out) == 1
    assert f"{out / 'dropped.jsonl'} was changed after its cleaning" in capsys.readouterr().err
    (out / "manifest.json").write_text('{"program": "vicuna.data", "outputs": {"records.jsonl": 3}}')
    assert run("why", "good-1", "--in", out) == 1
    assert run(collection, "--output-dir", out) == 1
    assert capsys.readouterr().err.count("manifest.json was not written by vicuna.data") == 2


def test_file_names_that_are_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.jsonl"
    path.write_text(json.dumps(conversation("a", "q", "r")) + "\n", "utf-8")
    assert run(path, "--output-dir", tmp_path / "out") == 0
    assert read_json(tmp_path / "out" / "manifest.json")["inputs"][0]["name"] == path.name
