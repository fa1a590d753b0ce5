"""Deltas as they were published in 2023: LLaMA-7B's names and quirks at a sixteenth of its width."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.weights.builders import write_raw
from vicuna.apply_delta import main as apply_main
from vicuna.errors import VerificationError, VicunaError
from vicuna.weights.__main__ import main as weights_main
from vicuna.weights.delta.apply import apply_delta
from vicuna.weights.files.checkpoint import CheckpointReader

torch = pytest.importorskip("torch")

LAYERS, WIDTH, INNER, ROWS = 32, 32, 86, 32000  # 7B: 32, 4096, 11008, 32000


def names(rows: int) -> dict[str, tuple[int, ...]]:
    """All 323 tensors of a LLaMA-7B as transformers 4.28 saved it: 291 and the 32 buffers `inv_freq`."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (rows, WIDTH)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        shapes |= {f"{layer}self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"}
        shapes[f"{layer}self_attn.rotary_emb.inv_freq"] = (4,)
        shapes |= {f"{layer}mlp.{name}_proj.weight": (INNER, WIDTH) for name in ("gate", "up")}
        shapes[f"{layer}mlp.down_proj.weight"] = (WIDTH, INNER)
        shapes |= {f"{layer}{name}_layernorm.weight": (WIDTH,) for name in ("input", "post_attention")}
    return {**shapes, "model.norm.weight": (WIDTH,), "lm_head.weight": (rows, WIDTH)}


def weights(rows: int, *, is_delta: bool, seed: int) -> dict[str, Any]:
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in names(rows).items():
        values = torch.randn(shape, generator=random) * (0.002 if is_delta else 0.02)
        if name.endswith("norm.weight") and not is_delta:
            values += 1
        state[name] = torch.ones(4) / 2 if name.endswith("inv_freq") else values.half()  # inv_freq stayed fp32
    return state


def save_bins(folder: Path, state: dict[str, Any], num_shards: int, **config: Any) -> Path:
    folder.mkdir()
    shards: list[dict[str, Any]] = [{} for _ in range(num_shards)]
    for i, (name, value) in enumerate(state.items()):
        shards[i * num_shards // len(state)][name] = value
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards, 1):
        file = f"pytorch_model-{i:05d}-of-{num_shards:05d}.bin"
        torch.save(shard, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    value = {"architectures": ["LLaMAForCausalLM"], "model_type": "llama", "torch_dtype": "float16"} | config
    (folder / "config.json").write_text(json.dumps(value))
    (folder / "tokenizer.model").write_bytes(b"sentencepiece, let us say")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LLaMATokenizer", "bos_token": ""}))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As transformers writes LLaMA today: safetensors, without the buffers."""
    state = weights(ROWS, is_delta=False, seed=0)
    raw = {
        name: ("F16", tuple(value.shape), value.numpy().tobytes())
        for name, value in state.items()
        if not name.endswith("inv_freq")
    }
    folder = write_raw(tmp_path_factory.mktemp("published") / "base", raw, shard_bytes=2 << 20)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": ROWS}))
    return folder


@pytest.fixture(scope="module")
def deltas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("deltas")
    return {
        "v0": save_bins(folder / "v0", weights(ROWS + 1, is_delta=True, seed=1), 3, vocab_size=ROWS + 1),
        "v1.1": save_bins(folder / "v1.1", weights(ROWS, is_delta=True, seed=2), 2, vocab_size=ROWS),
    }


def halves(reader: CheckpointReader, name: str) -> Any:
    return torch.frombuffer(bytearray(reader.read(name)), dtype=torch.float16).reshape(reader.tensors[name].shape)


@pytest.mark.parametrize("version", ["v0", "v1.1"])
def test_a_release_applies_as_its_own_tool_would(
    base: Path, deltas: dict[str, Path], tmp_path: Path, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--base-model-path", str(base), "--delta-path", str(deltas[version]), "--low-cpu-mem"]
    assert apply_main([*flags, "--target-model-path", str(tmp_path / "model")]) == 0
    assert "has no manifest" in capsys.readouterr().err
    state = weights(ROWS + (version == "v0"), is_delta=True, seed=1 if version == "v0" else 2)
    with CheckpointReader(base) as old, CheckpointReader(tmp_path / "model") as new:
        assert len(new.tensors) == 291
        assert new.tensors.keys() == {name for name in state if not name.endswith("inv_freq")}
        for name in new.tensors:
            expected = state[name].clone()  # FastChat's line: param.data += delta.state_dict()[name]
            expected[: old.tensors[name].shape[0]] += halves(old, name)
            assert torch.equal(halves(new, name), expected), name
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["vocab_size"] == ROWS + (version == "v0")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (tmp_path / "model" / "tokenizer.model").read_bytes() == (deltas[version] / "tokenizer.model").read_bytes()
    tokenizer = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert tokenizer == {"tokenizer_class": "LlamaTokenizer", "bos_token": ""}
    added = tmp_path / "model" / "added_tokens.json"
    assert json.loads(added.read_text()) == {"[PAD]": 32000} if version == "v0" else not added.exists()
    assert weights_main(["verify", str(tmp_path / "model")]) == 0
    assert weights_main(["verify", str(tmp_path / "model"), "--quick"]) == 0


def test_buffers_on_the_bases_side_are_ignored_too(deltas: dict[str, Path], tmp_path: Path) -> None:
    base = save_bins(tmp_path / "base", weights(ROWS, is_delta=False, seed=0), 2, vocab_size=ROWS)
    manifest = apply_delta(base, deltas["v1.1"], tmp_path / "model")
    assert len(manifest.tensors) == 291


def test_a_base_with_a_row_too_many(deltas: dict[str, Path], tmp_path: Path) -> None:
    """The best known complaint: `size of tensor a (32001) must match b (32000)`."""
    base = save_bins(tmp_path / "base", weights(ROWS + 1, is_delta=False, seed=0), 1, vocab_size=ROWS + 1)
    with pytest.raises(
        VerificationError, match=r"embed_tokens\.weight F16 \[32000, 32\], the base has .*\[32001, 32\]"
    ):
        apply_delta(base, deltas["v1.1"], tmp_path / "model")
    assert not list(tmp_path.glob(".model*")) and not (tmp_path / "model").exists()
    apply_delta(base, deltas["v1.1"], tmp_path / "model", trim_vocabulary=True)
    with CheckpointReader(tmp_path / "model") as reader:
        assert reader.tensors["lm_head.weight"].shape == (ROWS, WIDTH)


def test_what_does_not_fit_is_named(base: Path, deltas: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(VerificationError, match=r"does not fit .*give the base that it was made from"):
        apply_delta(write_raw(tmp_path / "wide", {"model.norm.weight": ("F16", (4,), np.ones(4, "<f2").tobytes())}),
                    deltas["v1.1"], target)  # fmt: skip
    short = weights(ROWS, is_delta=True, seed=2)
    del short["model.layers.7.mlp.up_proj.weight"]
    with pytest.raises(VerificationError, match=r"lacks the tensor model\.layers\.7\.mlp\.up_proj\.weight"):
        apply_delta(base, save_bins(tmp_path / "short", short, 1), target)
    with pytest.raises(VerificationError, match="no tensor in common"):
        other = {"transformer.norm.weight": torch.zeros(3)}
        apply_delta(base, save_bins(tmp_path / "other", other, 1), target)
    assert not target.exists()


def test_a_delta_is_no_base_and_a_model_no_delta(base: Path, deltas: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(VicunaError, match="is a delta, not a model"):
        apply_delta(deltas["v1.1"], deltas["v1.1"], tmp_path / "model")
    with pytest.raises(VicunaError, match="is a model, not a delta"):
        apply_delta(base, base, tmp_path / "model")


def test_tensors_of_the_delta_alone_are_kept(base: Path, tmp_path: Path) -> None:
    """FastChat's tool drops them silently (LLaVA's projector)."""
    state = weights(ROWS, is_delta=True, seed=2) | {"model.mm_projector.weight": torch.ones(4, 4).half()}
    apply_delta(base, save_bins(tmp_path / "delta", state, 1), tmp_path / "model")
    with CheckpointReader(tmp_path / "model") as reader:
        assert torch.equal(halves(reader, "model.mm_projector.weight"), torch.ones(4, 4).half())
