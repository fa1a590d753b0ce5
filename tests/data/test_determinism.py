"""One result, byte for byte: for any number of workers, any order of files and of finishing, and any engine."""

import itertools
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.data.builders import digest, run_command
from tests.data.inputs import split_flags
from vicuna.data.__main__ import EXIT_SET_ASIDE
from vicuna.data.options import DataOptions
from vicuna.data.run import engines
from vicuna.data.run.batches import Batch, clean_batch
from vicuna.data.run.work import work_path


def test_two_runs_write_the_same_bytes(tmp_path: Path, collection: Path, counting: list[str]) -> None:
    for name in ("one", "two"):
        assert (
            run_command(collection, "--output-dir", tmp_path / name, *counting, "--held-out-ratio", 0.2)
            == EXIT_SET_ASIDE
        )
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_workers_and_any_order_of_files(
    tmp_path: Path, inputs: list[Path], expected: dict[str, str], bpe_tokenizer_directory: Path, workers: int
) -> None:
    shuffled = random.Random(workers).sample(inputs, len(inputs))
    out = tmp_path / "out"
    arguments = ["--output-dir", out, "--workers", workers, *split_flags(bpe_tokenizer_directory)]
    assert run_command(*shuffled, *arguments) == EXIT_SET_ASIDE
    assert digest(out) == expected
    assert not work_path(out).exists()


def test_a_folder_and_a_pattern_are_its_files(tmp_path: Path, inputs: list[Path]) -> None:
    given: dict[str, list[object]] = {
        "files": [*inputs],
        "folder": [tmp_path / "in"],
        "pattern": [f"{tmp_path / 'in'}/*"],
    }
    results = []
    for name, arguments in given.items():
        assert run_command(*arguments, "--output-dir", tmp_path / name, "--workers", 1) == EXIT_SET_ASIDE
        results.append(digest(tmp_path / name))
    assert results[0] == results[1] == results[2]


def in_reverse(given: Iterable[Batch], options: DataOptions) -> engines.CleanedBatches:
    """An engine that finishes four batches at a time, the last of them first."""
    rest = iter(given)
    for group in iter(lambda: list(itertools.islice(rest, 4)), []):
        for batch in reversed(group):
            yield Batch(batch.index, (), batch.size_bytes), clean_batch(batch, options)


def test_the_order_of_finishing_does_not_matter(
    tmp_path: Path,
    inputs: list[Path],
    expected: dict[str, str],
    bpe_tokenizer_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "in_process", in_reverse)
    out = tmp_path / "out"
    assert (
        run_command(*inputs, "--output-dir", out, "--workers", 1, *split_flags(bpe_tokenizer_directory))
        == EXIT_SET_ASIDE
    )
    assert digest(out) == expected


@pytest.mark.slow
def test_ray_gives_the_same(
    tmp_path: Path, inputs: list[Path], expected: dict[str, str], bpe_tokenizer_directory: Path
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    arguments = ["--output-dir", out, "--workers", 2, "--engine", "ray", *split_flags(bpe_tokenizer_directory)]
    assert run_command(*inputs, *arguments) == EXIT_SET_ASIDE
    assert digest(out) == expected
