"""Generated checkpoints for `weights.py`: a base and a fine-tune of it, valid LLaMA models of a wanted size.

Run as a process of its own, so that the memory it takes is not counted for what is measured. The numbers are normal
with standard deviation 0.02, the fine-tune's steps normal with 2e-4 (some thousand AdamW steps at 2e-5). They are drawn
from pools, since a fresh billion of them would take longer than what is measured.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vicuna.weights.files.checkpoint import CheckpointReader, write_checkpoint
from vicuna.weights.files.numbers import cast, to_float32
from vicuna.weights.files.tensors import Tensor, split_into_shards

HIDDEN, INNER, HEADS, KEYS, ROWS = 2048, 5632, 32, 4, 32000  # TinyLlama's shapes
POOL = 1 << 23
STEP = 2e-4


def config(num_layers: int) -> dict[str, object]:
    sizes = {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": num_layers, "vocab_size": ROWS}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": KEYS, "tie_word_embeddings": False}
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16", **sizes, **heads}


def shapes(num_layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (ROWS, HIDDEN)
    for i in range(num_layers):
        layer = f"model.layers.{i}."
        for name, rows in (("q", HIDDEN), ("k", HIDDEN * KEYS // HEADS), ("v", HIDDEN * KEYS // HEADS), ("o", HIDDEN)):
            yield f"{layer}self_attn.{name}_proj.weight", (rows, HIDDEN)
        yield f"{layer}mlp.gate_proj.weight", (INNER, HIDDEN)
        yield f"{layer}mlp.up_proj.weight", (INNER, HIDDEN)
        yield f"{layer}mlp.down_proj.weight", (HIDDEN, INNER)
        yield f"{layer}input_layernorm.weight", (HIDDEN,)
        yield f"{layer}post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (ROWS, HIDDEN)


def write(folder: Path, gib: float, *, tuned: bool) -> None:
    """A checkpoint of about `gib` GiB in fp16: the base, or the fine-tune of it."""
    per_layer = sum(int(np.prod(shape)) for name, shape in shapes(1) if ".layers." in name)
    num_layers = max(1, round((gib * 2**29 - 2 * ROWS * HIDDEN) / per_layer))
    pool = np.random.default_rng(0).standard_normal(POOL, "<f4") * 0.02
    steps = np.random.default_rng(1).standard_normal(POOL, "<f4") * STEP

    def data_of(tensor: Tensor) -> Iterator[bytes]:
        random = np.random.default_rng(len(tensor.name) * 7919 + int(np.prod(tensor.shape)) + sum(tensor.name.encode()))
        left = int(np.prod(tensor.shape))
        while left:
            count = min(left, POOL // 2)
            places = random.integers(0, POOL // 2, 2)
            values = pool[places[0] :][:count] + (1 if tensor.name.endswith("norm.weight") else 0)
            if tuned:
                in_fp16 = cast(values.astype("<f4").tobytes(), "F32", "F16")
                values = to_float32(in_fp16, "F16") + steps[places[1] :][:count]
            yield cast(values.astype("<f4").tobytes(), "F32", "F16")
            left -= count

    folder.mkdir(parents=True)
    tensors = [Tensor(name, "F16", shape) for name, shape in shapes(num_layers)]
    shards, index = split_into_shards(tensors, max_shard_bytes=10**9)
    write_checkpoint(folder, shards, index, data_of)
    (folder / "config.json").write_text(json.dumps(config(num_layers)))
    import mistral_common

    tokenizer = Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"
    shutil.copyfile(tokenizer, folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": True}))


def count_differences(one: Path, two: Path) -> int:
    """Numbers whose bits differ between two checkpoints of the same tensors."""
    differences = 0
    with CheckpointReader(one) as a, CheckpointReader(two) as b:
        for name in a.tensors:
            for x, y in zip(a.chunks(name), b.chunks(name), strict=True):
                differences += int(np.count_nonzero(np.frombuffer(x, "<u2") != np.frombuffer(y, "<u2")))
    return differences


if __name__ == "__main__":
    if sys.argv[1] == "compare":
        print(count_differences(Path(sys.argv[2]), Path(sys.argv[3])))
    else:
        write(Path(sys.argv[2]), float(sys.argv[3]), tuned=sys.argv[1] == "tuned")
