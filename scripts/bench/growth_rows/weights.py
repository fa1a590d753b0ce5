"""Rows of the weights room: deltas, casts, merges, GGUF, verification: by size, and by the number of tensors."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from growth_rows.inputs import HIDDEN, llama_shapes, write_llama, write_many_tensors
from growth_rows.measuring import Row, Work
from tests.weights.builders import write_model
from vicuna import cli
from vicuna.weights.files.manifest import MODEL_MANIFEST

LAYERS = (8, 32, 128)  # of 2.1 MB each
TENSORS = (300, 1_200, 4_800)
Make = Callable[[int, Path], tuple[Path, Path]]


def rows() -> list[Row]:
    """All rows of the room."""
    by_size = [
        ("make-delta, exact", _make_delta("exact"), ("verb make-delta",)),
        ("make-delta, additive", _make_delta("additive"), ()),
        ("apply-delta, exact", _apply_delta("exact"), ("verb apply-delta",)),
        ("apply-delta, additive", _apply_delta("additive"), ()),
        ("weights cast", _cast, ("verb weights cast",)),
        ("weights merge-lora", _merge_lora, ("verb weights merge-lora",)),
        ("weights verify", _verify, ("verb weights verify",)),
        ("export gguf", _export, ("verb export gguf",)),
        ("import gguf", _import, ("verb import gguf",)),
    ]
    return [
        *(
            Row(f"{name}: size", functools.partial(prepare, _layers), LAYERS, "layers", covers, memory_bound=0.35)
            for name, prepare, covers in by_size
        ),
        *(
            Row(f"{name}: tensors", functools.partial(prepare, _tensors), TENSORS, "tensors")
            for name, prepare, _ in by_size
            if name.split()[0] not in ("export", "import") and "merge" not in name
        ),
        Row("export check: size", _check, (4, 16, 64), "layers", ("verb export check",)),
        Row("weights inspect: tensors", _inspect, TENSORS, "tensors", ("verb weights inspect",)),
    ]


def _layers(size: int, room: Path) -> tuple[Path, Path]:
    return write_llama(room / "base", size), write_llama(room / "tuned", size, seed=1)


def _tensors(size: int, room: Path) -> tuple[Path, Path]:
    return write_many_tensors(room / "base", size), write_many_tensors(room / "tuned", size, seed=1)


def _run(*words: object) -> None:
    status = cli.main([str(word) for word in words])
    assert status == 0, f"vicuna {' '.join(map(str, words))} ended with {status}"


def _command(*words: object) -> Work:
    return lambda: _run(*words)


def _make_delta(form: str) -> Callable[[Make, int, Path], Work]:
    def prepare(make: Make, size: int, room: Path) -> Work:
        base, tuned = make(size, room)
        return _command("make-delta", "--base", base, "--target", tuned, "--delta", room / "delta", "--format", form)

    return prepare


def _apply_delta(form: str) -> Callable[[Make, int, Path], Work]:
    def prepare(make: Make, size: int, room: Path) -> Work:
        base, tuned = make(size, room)
        _run("make-delta", "--base", base, "--target", tuned, "--delta", room / "delta", "--format", form)
        return _command("apply-delta", "--base", base, "--target", room / "made", "--delta", room / "delta")

    return prepare


def _cast(make: Make, size: int, room: Path) -> Work:
    return _command("weights", "cast", make(size, room)[0], "--target", room / "made", "--dtype", "bfloat16")


def _verify(make: Make, size: int, room: Path) -> Work:
    model = make(size, room)[0]
    _run("weights", "cast", model, "--target", room / "made", "--dtype", "bfloat16")
    assert (room / "made" / MODEL_MANIFEST).is_file()
    return _command("weights", "verify", room / "made")


def _merge_lora(make: Make, size: int, room: Path) -> Work:
    base = make(size, room)[0]
    draw, rank = np.random.default_rng(1), 8
    factors = {}
    for name in llama_shapes(size):
        if ".self_attn." in name:
            start = f"base_model.model.{name.removesuffix('.weight')}"
            factors[f"{start}.lora_A.weight"] = draw.standard_normal((rank, HIDDEN), np.float32) * np.float32(0.02)
            factors[f"{start}.lora_B.weight"] = draw.standard_normal((HIDDEN, rank), np.float32) * np.float32(0.02)
    adapter = room / "adapter"
    write_model(adapter, factors, "F32")
    (adapter / "model.safetensors").rename(adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": [f"{x}_proj" for x in "qkvo"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return _command("weights", "merge-lora", "--base", base, "--adapter", adapter, "--target", room / "made")


def _export(make: Make, size: int, room: Path) -> Work:
    return _command("export", "gguf", "--model", make(size, room)[0], "--output", room / "model.gguf", "--type", "q8_0")


def _check(size: int, room: Path) -> Work:
    model = _layers(size, room)[0]
    _run("export", "gguf", "--model", model, "--output", room / "model.gguf", "--type", "f16")
    return _command("export", "check", "--model", model, "--gguf", room / "model.gguf")


def _import(make: Make, size: int, room: Path) -> Work:
    _run("export", "gguf", "--model", make(size, room)[0], "--output", room / "model.gguf", "--type", "f16")
    return _command("import", "gguf", room / "model.gguf", "--target", room / "made")


def _inspect(size: int, room: Path) -> Work:
    return _command("weights", "inspect", write_many_tensors(room / "model", size))
