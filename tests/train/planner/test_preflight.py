"""A run logs what it will take, and is refused where it cannot fit."""

from pathlib import Path
from typing import Any

import pytest

from tests.train.builders import MakeOptions, make_records, small_config, write_records
from vicuna.errors import VicunaError
from vicuna.train.loop import train
from vicuna.train.planner import fit, preflight
from vicuna.train.planner.fit import Hardware, MicroBatch, find_fit
from vicuna.train.planner.hardware import Gpu
from vicuna.train.planner.preflight import bound_bytes


@pytest.mark.parametrize(
    ("changes", "lengths", "num_ranks", "bf16"),
    [
        ({}, (60,), 1, True),
        ({"tie_word_embeddings": True, "vocab_size": 30000}, (900, 148), 3, False),
        ({"hidden_size": 512, "num_hidden_layers": 4}, (900, 148), 1, True),
    ],
)
def test_the_bound_is_above_the_estimate(
    make_options: MakeOptions, changes: dict[str, Any], lengths: tuple[int, ...], num_ranks: int, bf16: bool
) -> None:
    config, options = small_config(**changes), make_options(activation_checkpointing="none")
    hardware = Hardware(Gpu("CPU", 1 << 50), num_ranks, "cpu")
    step = MicroBatch(lengths, sum(lengths), True, bf16)
    needed = find_fit(config, options, hardware, step).needed_bytes
    assert needed < bound_bytes(config, hardware, step) < 6 * needed


def test_a_run_says_what_it_will_take_and_is_refused_where_it_cannot_fit(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "ROOMY", 0.0)
    data = write_records(tmp_path / "data.jsonl", make_records(30))
    train(make_options(output_dir=tmp_path / "roomy", data=(data,)))
    assert "activation checkpointing: none" in capsys.readouterr().err
    monkeypatch.setattr(preflight, "hardware_here", _tight)
    monkeypatch.setattr(fit, "HOST_BYTES", 0)
    with pytest.raises(VicunaError, match=r"does not fit on 1 x CPU: it takes 0.0 GiB of 0.0"):
        train(make_options(data=(data,)))
    assert not (tmp_path / "out" / "train_log.jsonl").exists()


def _tight(*_: Any) -> fit.Hardware:
    return fit.Hardware(Gpu("CPU", 1 << 20), 1, "cpu")
