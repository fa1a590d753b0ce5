"""Ranks exchange texts, fail together, and have a device each."""

from pathlib import Path

import pytest
import torch

from tests.train.builders import MakeOptions
from tests.train.launch import on_ranks
from vicuna.errors import UsageError, VicunaError
from vicuna.train.__main__ import main
from vicuna.train.ranks import Ranks, choose_device, join_ranks


def test_a_failure_ends_all_ranks_and_is_printed_once(
    make_options: MakeOptions, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = make_options(model=tmp_path / "missing")

    def work(_: int) -> None:
        raise SystemExit(main(["--model", str(options.model), "--data", str(options.data[0]), "--output-dir", "x"]))

    assert on_ranks(2, work) == [1 << 8] * 2
    assert capfd.readouterr().err.count("no such folder") == 1


def test_texts_and_sums_of_all_ranks_are_on_every_rank() -> None:
    texts = ["", "two words", "naïve 你好"]

    def work(rank: int) -> None:
        with join_ranks("cpu") as ranks:
            assert (ranks.rank, ranks.size, ranks.local_size, ranks.is_first) == (rank, 3, 3, rank == 0)
            assert ranks.all_gather(texts[rank]) == texts
            assert ranks.all_gather(str(rank), ranks.saving) == ["0", "1", "2"]
            assert ranks.all_reduce(torch.tensor([1.0, rank])).tolist() == [3.0, 3.0]
            assert ranks.any(rank == 2)
            assert not ranks.any(False)

    assert on_ranks(3, work) == [0, 0, 0]


def test_the_lowest_rank_that_fails_raises_and_the_others_leave_with_its_exit_code() -> None:
    def work(rank: int) -> None:
        with join_ranks("cpu") as ranks:
            with ranks.agreed():
                pass
            expected = UsageError if rank == 1 else SystemExit
            with pytest.raises(expected) as caught, ranks.agreed():
                if rank == 1:
                    raise UsageError("--flag")
                if rank == 2:
                    raise VicunaError("later")
            assert rank == 1 or (isinstance(caught.value, SystemExit) and caught.value.code == 2)

    assert on_ranks(3, work) == [0, 0, 0]


def test_a_process_alone_needs_no_group() -> None:
    ranks = Ranks()
    assert ranks.is_first and ranks.all_gather("text") == ["text"]
    assert ranks.all_reduce(torch.tensor(2.0)).item() == 2.0
    with pytest.raises(VicunaError, match="itself"), ranks.agreed():
        raise VicunaError("itself")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu:x", "--device tpu:x is unknown"),
        ("meta", "--device meta is not"),
        ("cuda:99", "this machine has"),
    ],
)
def test_devices_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_device(name)
    assert choose_device("cpu") == torch.device("cpu")
