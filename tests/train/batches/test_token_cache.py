"""Tokens are made once: the next run and the other ranks find them, and never those of something else."""

import errno
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.train.builders import make_records, write_records
from vicuna.conversation import get_template
from vicuna.errors import VicunaError
from vicuna.train.batches import token_cache, tokenize
from vicuna.train.batches.encode import encode_chunk
from vicuna.train.batches.token_cache import META, SUPERVISED, TOKENS, TokenizedConversations
from vicuna.train.batches.tokenize import tokenize_files


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_records(tmp_path / "records.jsonl", make_records(12))


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of records in every chunk that is tokenized while the test runs."""
    sizes: list[int] = []

    def counting(chunk: Any, *arguments: Any) -> Any:
        sizes.append(len(chunk))
        return encode_chunk(chunk, *arguments)

    monkeypatch.setattr(tokenize, "encode_chunk", counting)
    return sizes


def run(data: Path, tokenizer: Any, cache: Path | None, template: str = "chatml", **changes: Any) -> Any:
    return tokenize_files(
        [data],
        get_template(template),
        tokenizer,
        max_length=changes.pop("max_length", 2048),
        cache_dir=cache,
        **changes,
    )


def assert_equal(found: TokenizedConversations, expected: TokenizedConversations) -> None:
    assert (found.ids, found.lengths, found.too_long) == (expected.ids, expected.lengths, expected.too_long)
    assert torch.equal(found.input_ids, expected.input_ids)
    assert torch.equal(found.is_supervised, expected.is_supervised)
    assert found.fingerprint() == expected.fingerprint()


def folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def test_the_second_run_tokenizes_nothing(tmp_path: Path, data: Path, tokenizer: Any, made: list[int]) -> None:
    plain = run(data, tokenizer, None)
    cache = tmp_path / "cache"
    assert_equal(run(data, tokenizer, cache), plain)
    assert sum(made) == 24
    assert_equal(run(data, tokenizer, cache), plain)
    assert sum(made) == 24
    assert [path.name[0] for path in folders(cache)] != ["."]


def test_what_was_left_out_is_logged_by_the_second_run_too(
    tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    records = make_records(12)
    records[3]["messages"] = records[3]["messages"][:1]
    data = write_records(tmp_path / "records.jsonl", records)
    for _ in range(2):
        run(data, tokenizer, tmp_path / "cache", max_bad_share=0.5)
        assert "record record-3 has no reply" in capsys.readouterr().err
        with pytest.raises(VicunaError, match="--max-bad-share"):
            run(data, tokenizer, tmp_path / "cache")


def test_whatever_decides_the_tokens_makes_other_ones(
    tmp_path: Path, data: Path, tokenizer: Any, tiny_model: Path
) -> None:
    cache = tmp_path / "cache"
    run(data, tokenizer, cache)
    run(data, tokenizer, cache, template="vicuna_v1.1")
    run(data, tokenizer, cache, max_length=1024)
    other = AutoTokenizer.from_pretrained(tiny_model)
    other.add_tokens(["hello"])
    assert_equal(run(data, other, cache), run(data, other, None))
    write_records(data, make_records(11))
    assert len(run(data, tokenizer, cache).ids) == 11
    assert len(folders(cache)) == 5


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (TOKENS, lambda content: content[:-4]),
        (TOKENS, lambda content: bytes([content[0] ^ 1]) + content[1:]),
        (SUPERVISED, lambda content: content[:40] + bytes([1 - content[40]]) + content[41:]),
        (META, lambda content: content[: len(content) // 2]),
        (META, lambda _: b"[]"),
        (META, lambda content: content.replace(b'"lengths": [', b'"lengths": [1, ')),
    ],
)
def test_damaged_tokens_are_made_again(
    tmp_path: Path, data: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str], name: str, damage: Any
) -> None:
    cache = tmp_path / "cache"
    expected = run(data, tokenizer, cache)
    [folder] = folders(cache)
    expected = run(data, tokenizer, None)
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    capsys.readouterr()
    assert_equal(run(data, tokenizer, cache), expected)
    assert "are damaged; they are made again" in capsys.readouterr().err
    assert_equal(run(data, tokenizer, cache), expected)
    assert "are damaged" not in capsys.readouterr().err


def test_a_full_disk_keeps_nothing_and_loses_nothing(
    tmp_path: Path, data: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vicuna.train.batches.encode.CHUNK_BYTES", 1000)  # several chunks

    def full(*_: Any) -> str:
        raise OSError(errno.ENOSPC, "full", "tokens.bin")

    monkeypatch.setattr(json, "dumps", full)
    monkeypatch.setattr(token_cache, "cache_key", lambda *_: "key")
    monkeypatch.setattr(tokenize, "cache_key", lambda *_: "key")
    found = run(data, tokenizer, tmp_path / "cache")
    assert "not kept for the next run" in capsys.readouterr().err
    assert not folders(tmp_path / "cache")
    assert_equal(found, run(data, tokenizer, None))


def test_a_cache_that_cannot_be_a_folder_is_no_obstacle(tmp_path: Path, data: Path, tokenizer: Any) -> None:
    (tmp_path / "file").write_text("mine")
    assert_equal(run(data, tokenizer, tmp_path / "file" / "cache"), run(data, tokenizer, None))
    assert (tmp_path / "file").read_text() == "mine"


def test_of_several_ranks_one_tokenizes(tmp_path: Path, data: Path, tiny_model: Path, made: list[int]) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def work() -> None:
        tokens = run(data, AutoTokenizer.from_pretrained(tiny_model), tmp_path / "cache")
        answers.put((sum(made), tokens.fingerprint()))

    processes = [context.Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(size for size, _ in found) == [0, 0, 12]
    assert len({fingerprint for _, fingerprint in found}) == 1


def test_the_files_are_those_of_the_module_docstring(tmp_path: Path, data: Path, tokenizer: Any) -> None:
    tokens = run(data, tokenizer, tmp_path / "cache")
    [folder] = folders(tmp_path / "cache")
    assert {path.name for path in folder.iterdir()} == {TOKENS, SUPERVISED, META}
    assert (folder / TOKENS).stat().st_size == 4 * sum(tokens.lengths)
    assert json.loads((folder / META).read_text())["ids"] == tokens.ids
    tokens.input_ids[0] = 7  # a private mapping: the file stays as it is
    assert run(data, tokenizer, tmp_path / "cache").input_ids[0] != 7
