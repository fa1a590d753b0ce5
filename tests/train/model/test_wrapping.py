"""Adapters, checkpointing and sharding of a model; each of eight ranks holds its shards alone when it starts."""

import json
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh
from transformers import PretrainedConfig

from tests.train.builders import MakeOptions, save_llama, small_config
from vicuna.train.model.conversation_model import ConversationModel, build_model, load_model, read_config
from vicuna.train.model.lora import is_adapter
from vicuna.train.model.parallel import local_shard
from vicuna.train.model.wrapping import wrap_model
from vicuna.train.options import TrainOptions
from vicuna.train.planner.estimate import _fake_ranks
from vicuna.train.planner.hardware import get_shape
from vicuna.train.planner.memory import MemoryCounter


def test_no_rank_holds_more_than_its_shards_when_it_starts(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    """The real loading of a model sharded over eight ranks, of which this is one."""
    base = save_llama(tmp_path / "base", bpe_tokenizer_directory, hidden_size=128, intermediate_size=512)
    held = start_on_eight_ranks(base, make_options(model=base))
    assert held["beyond"] < held["layer"] / 2


@pytest.mark.slow
def test_no_rank_of_a_13b_run_holds_more_than_its_shards_when_it_starts(
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
    """Load a model as the first of eight ranks: bytes of its shards, of the largest layer, and of what else it held."""

    def cut(model: ConversationModel, mesh: DeviceMesh) -> None:
        wrap_model(model, options, checkpointing="none", mesh=mesh, bf16=True)

    with _fake_ranks(8) as mesh, MemoryCounter() as counter:
        model = load_model(base, read_config(base), torch.device("cpu"), lambda model: cut(model, mesh))
        shard = sum(local_shard(weight).nbytes for weight in model.parameters())
        layer = max(sum(weight.nbytes for weight in part.parameters()) for part in model.causal_lm.model.layers)
        num_weights = sum(weight.numel() for weight in model.parameters())
    beyond = counter.peak().num_bytes - shard
    return {"shard": shard, "layer": layer, "beyond": beyond, "num_weights": num_weights}


def test_an_adapter_is_added_before_the_layers_are_checkpointed(make_options: MakeOptions) -> None:
    options = make_options(lora=True, lora_targets=("q_proj",))
    model = build_model(small_config(num_hidden_layers=2))
    wrap_model(model, options, checkpointing="full", mesh=None, bf16=True)
    trained = [name for name, weight in model.named_weights().items() if weight.requires_grad]
    assert len(trained) == 2 * 2 and all(is_adapter(name) and "q_proj" in name for name in trained)
    assert all("checkpoint" in repr(layer.forward) for layer in model.causal_lm.model.layers)
    dtypes = {is_adapter(name): weight.dtype for name, weight in model.named_weights().items()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


def test_without_options_a_model_stays_as_it_is(make_options: MakeOptions) -> None:
    model, plain = build_model(small_config()), build_model(small_config())
    wrap_model(model, make_options(), checkpointing="none", mesh=None, bf16=True)
    assert model.named_weights().keys() == plain.named_weights().keys()
    assert all(weight.requires_grad and weight.dtype == torch.float32 for weight in model.parameters())
