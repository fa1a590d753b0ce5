"""The estimate of a step's memory against what real runs allocate, counted and as torch's own profiler sees it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils._python_dispatch import _disable_current_modes

from tests.train.builders import WIDE_SHAPE, MakeOptions, make_records, save_llama, small_config, write_records
from tests.train.launch import on_ranks
from vicuna.train import loop
from vicuna.train.loop import train
from vicuna.train.model import attention
from vicuna.train.options import TrainOptions
from vicuna.train.planner import preflight
from vicuna.train.planner.estimate import Setting, _largest, _measure_peaks, estimate_memory
from vicuna.train.planner.hardware import GIB, get_shape
from vicuna.train.planner.memory import MemoryCounter
from vicuna.train.planner.preflight import make_preflight
from vicuna.train.ranks import join_ranks


@pytest.fixture
def wide_options(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> Callable[..., TrainOptions]:
    """A model whose eight layers weigh more than anything else in its step."""
    base = save_llama(tmp_path / "wide", bpe_tokenizer_directory, num_attention_heads=4, **WIDE_SHAPE)
    data = write_records(tmp_path / "many.jsonl", make_records(120))

    def make(**changes: Any) -> TrainOptions:
        settings = {"model": base, "data": (data,), "max_steps": 3, "save_steps": 0, "row_length": 512, "bf16": False}
        return make_options(**(settings | changes))

    return make


def estimated_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the next run rehearse however roomy the machine is, and note what it expects."""
    found: list[int] = []

    def noted(run: Any) -> Any:
        with _disable_current_modes():  # the rehearsal is not to be counted with the run
            seen = make_preflight(run)
        assert seen.fit is not None
        found.append(seen.fit.memory.peak_bytes)
        return seen

    monkeypatch.setattr(preflight, "ROOMY", 0.0)
    monkeypatch.setattr(loop, "make_preflight", noted)
    return found


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("none", {}), ("selective", {"bf16": True}), ("full", {"gradient_accumulation_steps": 3})],
)
def test_one_process_allocates_what_was_estimated(
    wide_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, Any]
) -> None:
    estimated = estimated_bytes(monkeypatch)
    with MemoryCounter() as counter:
        train(wide_options(activation_checkpointing=kind, **changes))
    assert estimated[0] == pytest.approx(counter.peak().num_bytes, rel=0.1)


@pytest.mark.parametrize(
    "changes", [{"gradient_accumulation_steps": 2}, pytest.param({"bf16": True}, marks=pytest.mark.slow)]
)
def test_two_ranks_allocate_what_was_estimated(
    wide_options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    def work(rank: int) -> None:
        estimated = estimated_bytes(monkeypatch)
        with MemoryCounter() as counter:
            # Rows that share differ more in size, and a step begins with its largest, before it holds gradients.
            train(wide_options(share_prefix="off", **changes))
        (tmp_path / f"{rank}.json").write_text(json.dumps([estimated[0], counter.peak().num_bytes]))

    assert on_ranks(2, work) == [0, 0]
    for rank in range(2):
        estimated, allocated = json.loads((tmp_path / f"{rank}.json").read_text())
        assert estimated == pytest.approx(allocated, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "num_ranks"),
    [("none", 4), *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in ("none", "selective", "full"))],
)
def test_two_numbers_of_layers_give_the_peak_of_the_whole_model(
    make_options: MakeOptions, kind: str, num_ranks: int
) -> None:
    config = small_config(num_hidden_layers=11)
    setting = Setting(num_ranks, "cuda", True, kind, (300, 200, 12), 300, True)
    options = make_options()
    whole = _largest(_measure_peaks(config, options, setting, 11), options, 11)
    estimate = estimate_memory(config, options, setting)
    assert estimate.peak_bytes == pytest.approx(whole.peak_bytes, rel=1e-3)
    for part, size in whole.parts.items():
        assert estimate.parts[part] == pytest.approx(size, rel=0.02, abs=whole.peak_bytes / 200)


@pytest.mark.slow
def test_13b_on_eight_ranks(make_options: MakeOptions) -> None:
    """Weights, gradients and Adam's moments are an eighth of 16 bytes a weight; the rest is near what is published."""
    config, options = get_shape("llama-13b"), make_options()
    num_weights = 13_015_864_320
    full = estimate_memory(config, options, Setting(8, "cuda", True, "full", (2048,), 2048, True))
    assert full.parts["weights"] == pytest.approx(4 * num_weights / 8, rel=1e-3)
    assert full.parts["optimizer"] == pytest.approx(8 * num_weights / 8, rel=1e-3)
    assert full.parts["gradients"] == pytest.approx(4 * num_weights / 8, rel=1e-3)
    assert 26 < full.peak_bytes / GIB < 30
    none = estimate_memory(config, options, Setting(8, "cuda", True, "none", (2048, 2048), 4096, False))
    selective = estimate_memory(config, options, Setting(8, "cuda", True, "selective", (2048, 2048), 4096, False))
    assert full.peak_bytes < selective.peak_bytes < none.peak_bytes
    assert 40 < none.peak_bytes / GIB < 60


def test_the_loss_is_counted_by_itself(make_options: MakeOptions) -> None:
    """Its chunk of logits, on a vocabulary that outweighs everything else."""
    config = small_config(vocab_size=200_000, hidden_size=16, num_hidden_layers=1)
    estimate = estimate_memory(config, make_options(), Setting(1, "cpu", False, "none", (300,), 300))
    chunk = 4 * 83 * 200_000  # fp32 logits of the tokens that a chunk takes
    assert estimate.phase == "loss"
    assert chunk <= estimate.parts["loss"] < 8 * chunk


def test_offload_leaves_what_a_layer_needs(make_options: MakeOptions) -> None:
    config, setting = small_config(), Setting(1, "cuda", True, "full", (512,), 512, True)
    here = estimate_memory(config, make_options(fsdp="on"), setting)
    away = estimate_memory(config, make_options(cpu_offload=True), setting)
    assert away.peak_bytes < here.peak_bytes / 2
    assert away.host_bytes == pytest.approx(here.state_bytes, rel=0.05)


def test_an_estimate_leaves_the_process_group_as_it_was(make_options: MakeOptions) -> None:
    """An estimate inside a group of ranks leaves that group as it was."""
    with join_ranks("cpu", alone_in_group=True) as ranks:
        estimate_memory(small_config(), make_options(fsdp="on"), Setting(1, "cpu", False, "none", (64,), 64))
        assert ranks.any(True)


def test_an_estimate_for_cuda_uses_the_kernels_of_cuda(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "BlockAttention", None)  # it is for a CPU
    for bf16 in (False, True):
        setting = Setting(1, "cuda", bf16, "none", (64, 40), 64, shared=(0, 20))
        assert estimate_memory(small_config(), make_options(), setting).peak_bytes > 0
