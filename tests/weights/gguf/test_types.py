"""Block types: the mixture of types is llama.cpp's."""

from typing import Any

from vicuna.weights.gguf.types import FILE_TYPES, ModelShape, tensor_type


def test_the_mixture_of_types_is_llama_cpps() -> None:
    model = ModelShape(32, False)
    shape = (4096, 4096)

    def kind(name: str, layer: str = "q4_k_m", **changes: Any) -> str:
        return tensor_type(FILE_TYPES[layer], name, changes.get("shape", shape), changes.get("model", model)).name

    more = [n for n in range(32) if kind(f"blk.{n}.attn_v.weight") == "Q6_K"]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert more == [n for n in range(32) if kind(f"blk.{n}.ffn_down.weight", "q5_k_m") == "Q6_K"]
    assert kind("output.weight") == "Q6_K" and kind("output.weight", "q8_0") == "Q8_0"
    assert kind("output.weight", "q4_0") == "Q6_K"
    assert kind("token_embd.weight") == "Q4_K"
    assert kind("token_embd.weight", model=ModelShape(32, True)) == "Q6_K"
    assert kind("blk.5.attn_v.weight", model=ModelShape(80, False, True)) == "Q6_K"
    assert kind("blk.11.attn_v.weight", model=ModelShape(80, False, True)) == "Q5_K"
    assert kind("blk.0.attn_norm.weight", shape=(4096,)) == "F32"
    assert kind("blk.0.attn_q.bias", "f16", shape=(4096,)) == "F32"
    assert [kind("blk.8.ffn_up.weight", layer, shape=(64, 576)) for layer in ("q4_k_m", "q5_k_m", "q6_k")] == [
        "Q5_0", "Q5_1", "Q8_0",
    ]  # fmt: skip
    assert kind("blk.8.ffn_up.weight", shape=(64, 40)) == "F16" == kind("output.weight", "q8_0", shape=(64, 40))
