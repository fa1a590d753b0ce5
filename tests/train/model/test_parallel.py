"""How a model is sharded, and what one of eight ranks holds when it starts: a fake group stands for the others."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig

from vicuna.train.model.conversation_model import ConversationModel, build_model, load_model, read_config
from vicuna.train.model.parallel import local_shard, shard_model, shard_sizes, shard_start
from vicuna.weights.files.tensors import Tensor, split_into_shards

NUM_RANKS = 8

MIB = 1 << 20


def in_child(work: Callable[[], None]) -> None:
    """Run `work` in a process of its own: a group, and a peak of memory, belong to a process."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def cut(model: ConversationModel, rank: int) -> None:
    """Shard a model as rank `rank` of eight would."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=NUM_RANKS)
    shard_model(model, init_device_mesh("cpu", (NUM_RANKS,)), bf16=True)


def sparse_llama(folder: Path, config: LlamaConfig) -> Path:
    """A checkpoint of any size that takes no room on the disk: its weights are holes, which read as zeros."""
    folder.mkdir()
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    weights = build_model(read_config(folder)).named_weights()
    tensors = [Tensor(name, "BF16", tuple(weight.shape)) for name, weight in weights.items()]
    shards, index = split_into_shards(tensors)
    for shard in shards:
        with (folder / shard.file_name).open("wb") as file:
            file.write(shard.preamble)
            file.truncate(shard.size_bytes)
    if index:
        (folder / "model.safetensors.index.json").write_bytes(index)
    return folder


def check_start(folder: Path, num_layers: int) -> None:
    """Start a run on the shape of a 13B model, and watch the memory of one rank."""
    config = LlamaConfig(
        hidden_size=5120,
        intermediate_size=13824,
        num_hidden_layers=num_layers,
        num_attention_heads=40,
        vocab_size=32000,
    )
    base = sparse_llama(folder, config)
    model = build_model(read_config(base))
    sizes = [weight.numel() for weight in model.causal_lm.model.layers[0].parameters()]
    layer_bytes = 4 * sum(sizes)
    whole_bytes = 4 * sum(weight.numel() for weight in model.parameters())

    def start() -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        before = memory("VmHWM")
        model = load_model(base, read_config(base), torch.device("cpu"), lambda model: cut(model, rank=3))
        held = sum(local_shard(weight).nbytes for weight in model.parameters())
        peak = memory("VmHWM") - before
        figures = {"whole": whole_bytes, "shard": held, "layer": layer_bytes, "peak": peak}
        print({name: f"{size / MIB:,.0f} MiB" for name, size in figures.items()})
        assert held == pytest.approx(whole_bytes / NUM_RANKS, rel=0.001)
        assert held * 0.99 < peak < held + 128 * MIB < held + layer_bytes
        assert all(isinstance(weight, DTensor) for weight in model.parameters())

    in_child(start)


def memory(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def test_starting_a_13b_shape_holds_one_eighth_and_less_than_a_layer_more(tmp_path: Path) -> None:
    check_start(tmp_path / "model", num_layers=2)


@pytest.mark.slow
def test_starting_the_whole_13b_holds_one_eighth_and_less_than_a_layer_more(tmp_path: Path) -> None:
    check_start(tmp_path / "model", num_layers=40)


@pytest.mark.parametrize("rank", [0, 4, 7])
def test_each_rank_reads_its_own_shards(tiny_model: Path, model: ConversationModel, rank: int) -> None:
    expected = model.named_weights()

    def check() -> None:
        sharded = load_model(tiny_model, read_config(tiny_model), torch.device("cpu"), lambda model: cut(model, rank))
        num_rows = 0
        for name, weight in sharded.named_weights().items():
            rows = local_shard(weight)
            start = shard_start(weight)
            assert torch.equal(rows, expected[name][start : start + len(rows)]), name
            assert shard_sizes(weight)[rank] == (rank, len(rows))
            assert sum(count for _, count in shard_sizes(weight)) == weight.shape[0]
            num_rows += len(rows)
        assert 0 < num_rows < sum(len(weight) for weight in expected.values()) / 7

    in_child(check)


def test_a_process_alone_holds_whole_tensors(model: ConversationModel) -> None:
    weight = model.causal_lm.lm_head.weight
    assert (shard_start(weight), local_shard(weight) is weight) == (0, True)
    assert shard_sizes(weight) == [(None, len(weight))]
