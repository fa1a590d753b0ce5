"""A model wrapped for eight ranks: each holds its shards alone when it starts."""

import json
from pathlib import Path

import pytest
import torch
from transformers import PretrainedConfig

from tests.train.builders import MakeOptions, save_llama
from vicuna.train.model.conversation_model import load_model, read_config
from vicuna.train.options import TrainOptions
from vicuna.train.planner.hardware import get_shape
from vicuna.train.planner.memory import MemoryCounter


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
