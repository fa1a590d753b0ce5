"""The estimate of a step's memory against what real runs allocate, counted and as torch's own profiler sees it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes
from transformers import LlamaConfig, PretrainedConfig

from tests.train.conftest import make_records, save_llama, write_records
from tests.train.launch import on_ranks
from vicuna.train import loop
from vicuna.train.loop import train
from vicuna.train.model import attention
from vicuna.train.model.conversation_model import load_model, read_config
from vicuna.train.options import TrainOptions
from vicuna.train.planner import preflight
from vicuna.train.planner.estimate import Setting, _largest, estimate_memory
from vicuna.train.planner.fit import Hardware, MicroBatch, find_fit
from vicuna.train.planner.hardware import GIB, Gpu, get_shape
from vicuna.train.planner.memory import MemoryCounter
from vicuna.train.planner.preflight import bound_bytes, make_preflight
from vicuna.train.ranks import join_ranks

MakeOptions = Callable[..., TrainOptions]
SHAPE = {"hidden_size": 128, "intermediate_size": 336, "num_hidden_layers": 8}


def small_config(**changes: Any) -> PretrainedConfig:
    return LlamaConfig(**({"vocab_size": 1024, "num_attention_heads": 4, "num_key_value_heads": 2} | SHAPE | changes))


@pytest.fixture
def wide_options(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> Callable[..., TrainOptions]:
    """A model whose eight layers weigh more than anything else in its step."""
    base = save_llama(tmp_path / "wide", bpe_tokenizer_directory, num_attention_heads=4, **SHAPE)
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


def test_counting_sees_what_the_allocator_gives(tmp_path: Path) -> None:
    """torch's profiler hears of every byte from the allocator itself."""
    with torch.profiler.profile(profile_memory=True) as profile, MemoryCounter() as counter:
        model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(6)))
        for _ in range(2):
            model(torch.randn(512, 256)).relu().sum().backward()
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    events = [
        event["args"]
        for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
        if event.get("name") == "[memory]"
    ]
    before = events[0]["Total Allocated"] - events[0]["Bytes"]
    allocated = max(event["Total Allocated"] for event in events) - before
    assert counter.peak().num_bytes == pytest.approx(allocated, rel=0.01)


@pytest.mark.parametrize(
    ("kind", "num_ranks"),
    [("none", 4), *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in ("none", "selective", "full"))],
)
def test_two_small_runs_tell_what_the_whole_model_takes(make_options: MakeOptions, kind: str, num_ranks: int) -> None:
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


def test_no_rank_holds_more_than_its_rows_when_it_starts(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    """The real loading of a model cut over eight ranks, of which this is one."""
    base = save_llama(tmp_path / "base", bpe_tokenizer_directory, hidden_size=128, intermediate_size=512)
    held = start_on_eight_ranks(base, make_options(model=base))
    assert held["beyond"] < held["layer"] / 2


@pytest.mark.slow
def test_no_rank_of_a_13b_run_holds_more_than_its_rows_when_it_starts(
    make_options: MakeOptions, tmp_path: Path
) -> None:
    """Four of forty layers, in files that take no room: zeros."""
    config = get_shape("llama-13b")
    config.num_hidden_layers = 4
    write_zeros(config, tmp_path / "13b")
    held = start_on_eight_ranks(tmp_path / "13b", make_options(model=tmp_path / "13b"))
    assert held["beyond"] < held["layer"] / 8
    assert held["shard"] == pytest.approx(4 * held["num_weights"] / 8, rel=0.01)


def write_zeros(config: PretrainedConfig, folder: Path) -> None:
    """A checkpoint of zeros in bfloat16, as a file with a hole."""
    from vicuna.train.model.conversation_model import build_model

    folder.mkdir()
    config.save_pretrained(folder)
    header, end = {}, 0
    for name, weight in build_model(config).named_weights().items():
        size = 2 * weight.numel()
        header[name] = {"dtype": "BF16", "shape": list(weight.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def start_on_eight_ranks(base: Path, options: TrainOptions) -> dict[str, int]:
    """Load a model as the first of eight ranks; bytes of its rows, of the largest whole layer, and held beyond rows."""
    from torch.distributed.device_mesh import DeviceMesh

    from vicuna.train.model.conversation_model import ConversationModel
    from vicuna.train.model.parallel import local_shard
    from vicuna.train.model.wrapping import wrap_model
    from vicuna.train.planner.estimate import _fake_ranks

    def cut(model: ConversationModel, mesh: DeviceMesh) -> None:
        wrap_model(model, options, checkpointing="none", mesh=mesh, bf16=True)

    with _fake_ranks(8) as mesh, MemoryCounter() as counter:
        model = load_model(base, read_config(base), torch.device("cpu"), lambda model: cut(model, mesh))
        shard = sum(local_shard(weight).nbytes for weight in model.parameters())
        layer = max(sum(weight.nbytes for weight in part.parameters()) for part in model.causal_lm.model.layers)
        num_weights = sum(weight.numel() for weight in model.parameters())
    beyond = counter.peak().num_bytes - shard
    return {"shard": shard, "layer": layer, "beyond": beyond, "num_weights": num_weights}


def test_the_ranks_meet_before_and_after_a_rehearsal(make_options: MakeOptions) -> None:
    """An estimate inside a group of ranks leaves that group as it was."""
    with join_ranks("cpu", alone_in_group=True) as ranks:
        estimate_memory(small_config(), make_options(fsdp="on"), Setting(1, "cpu", False, "none", (64,), 64))
        assert ranks.any(True)


def test_what_is_estimated_for_cuda_takes_the_way_that_cuda_takes(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "BlockAttention", None)  # it is for a CPU
    for bf16 in (False, True):
        setting = Setting(1, "cuda", bf16, "none", (64, 40), 64, shared=(0, 20))
        assert estimate_memory(small_config(), make_options(), setting).peak_bytes > 0
