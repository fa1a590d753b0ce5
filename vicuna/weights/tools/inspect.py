"""Facts about a folder of weights: kind, size, tensors, template. `vicuna weights inspect` prints them."""

import math
from collections import Counter
from pathlib import Path

from vicuna.conversation import load_template
from vicuna.io.jsonl import JsonObject
from vicuna.io.log import human_bytes
from vicuna.io.terminal import MAX_CELL_CHARACTERS, printable
from vicuna.weights.delta.layout import read_delta
from vicuna.weights.files.checkpoint import CheckpointReader, check_exists
from vicuna.weights.files.detect import has_manifest, kind_of
from vicuna.weights.files.manifest import ADDITIVE, MODEL_MANIFEST, TensorRecord
from vicuna.weights.files.tensors import Tensor
from vicuna.weights.tools.adapter import CONFIG_NAME, Adapter


def inspect(path: Path) -> JsonObject:
    """The facts about a model, a delta or a LoRA adapter, without reading its weights.

    Raises:
        VicunaError: the folder does not exist, or holds none of them.
    """
    check_exists(path, "the folder of a model, a delta or a LoRA adapter")
    if (path / CONFIG_NAME).is_file():
        return _adapter(path)
    if has_manifest(path):
        return _delta(path)
    kind = kind_of(path)
    with CheckpointReader(path) as reader:
        tensors, folder = list(reader.tensors.values()), reader.folder
        files = "pickled (.bin)" if reader.is_pickled else "safetensors"
        tied = reader.aliases
    template = load_template(folder)
    return {
        **_facts(path, kind, tensors),
        "files": files,
        "template": template.name if template else None,
        "has_manifest": (folder / MODEL_MANIFEST).is_file(),
        **({"tied": tied} if tied else {}),
        "tensors": [_entry(tensor) for tensor in tensors],
    }


def as_table(facts: JsonObject) -> list[str]:
    """The facts for a person: a line each, then a line per tensor."""
    lines = []
    for name, value in facts.items():
        if name == "tensors":
            continue
        shown = human_bytes(value) if name.endswith("_bytes") else f"{value:,}" if type(value) is int else value
        if isinstance(value, bool):
            shown = "yes" if value else "no"
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {entry}" for key, entry in value.items())
        lines.append(f"{name.replace('_', ' '):<26}{'-' if shown in (None, '') else shown}")
    rows = [[printable(cell, limit=MAX_CELL_CHARACTERS) for cell in _cells(tensor)] for tensor in facts["tensors"]]
    columns = ["tensor", "dtype", "shape", "size"]
    if any(len(row) > len(columns) for row in rows):
        columns += ["delta", "of it", "difference to", "corrected"]
    rows.insert(0, columns)
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(columns))]
    right = (3, 4, 5, 7)  # columns of numbers
    lines.append("")
    for row in rows:
        cells = [f"{cell:>{widths[i]}}" if i in right else f"{cell:<{widths[i]}}" for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _facts(path: Path, kind: str, tensors: list[Tensor]) -> JsonObject:
    return {
        "path": str(path),
        "kind": kind,
        "num_parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "size_bytes": sum(tensor.size_bytes for tensor in tensors),
        "dtypes": dict(Counter(tensor.dtype for tensor in tensors)),
    }


def _delta(path: Path) -> JsonObject:
    manifest = read_delta(path)
    tensors = [tensor for shard in manifest.target_shards() for tensor in shard.tensors]
    is_additive = manifest.format == ADDITIVE
    return {
        **_facts(path, "additive delta" if is_additive else "exact delta", tensors),
        "tool": manifest.tool,
        "template": manifest.template,
        "vocab_size": {"base": manifest.base_vocab_size, "target": manifest.target_vocab_size},
        "sources": {part: "@".join(origin.values()) for part, origin in manifest.sources.items()},
        "delta_bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "num_tensors_stored_whole": sum(tensor.base_name is None for tensor in manifest.tensors),
        "num_numbers_corrected": sum(tensor.num_corrections for tensor in manifest.tensors),
        "tensors": [
            _entry(tensor) | _delta_entry(tensor, record, is_additive)
            for tensor, record in zip(tensors, manifest.tensors, strict=True)
        ],
    }


def _adapter(path: Path) -> JsonObject:
    with Adapter(path) as adapter:
        tensors = list(adapter.reader.tensors.values())
        return {
            **_facts(path, "LoRA adapter", tensors),
            "base": adapter.config.get("base_model_name_or_path"),
            "rank": adapter.config.get("r"),
            "alpha": adapter.config.get("lora_alpha"),
            "num_tensors_changed": len(adapter.changes),
            "tensors": [_entry(tensor) for tensor in tensors],
        }


def _entry(tensor: Tensor) -> JsonObject:
    entry = {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
    return {**entry, "size_bytes": tensor.size_bytes}


def _delta_entry(tensor: Tensor, record: TensorRecord, is_additive: bool) -> JsonObject:
    size = record.size_bytes + (tensor.size_bytes if is_additive else 0)
    base = None
    if record.base_name is not None and record.base_dtype is not None and record.base_shape is not None:
        base = str(Tensor(record.base_name, record.base_dtype, record.base_shape))
    return {"delta_bytes": size, "base": base, "num_corrections": record.num_corrections}


def _cells(tensor: JsonObject) -> list[str]:
    size = tensor["size_bytes"]
    cells = [
        str(tensor["name"]),
        tensor["dtype"],
        " x ".join(map(str, tensor["shape"])) or "1 number",
        human_bytes(size),
    ]
    if "delta_bytes" not in tensor:
        return cells
    base = tensor["base"] or "nothing, stored whole"
    plain = f"{tensor['name']} {tensor['dtype']} [{', '.join(map(str, tensor['shape']))}]"
    ratio = tensor["delta_bytes"] / size if size else 0.0
    shown = "the same tensor" if base == plain else base
    return [*cells, human_bytes(tensor["delta_bytes"]), f"{ratio:.0%}", shown, f"{tensor['num_corrections']:,}"]
