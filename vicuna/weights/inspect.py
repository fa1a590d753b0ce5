"""What a folder of weights holds: kind, size, tensors, template. `vicuna weights inspect` prints it."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from vicuna.conversation import load_template
from vicuna.log import human_bytes
from vicuna.weights.checkpoint import CheckpointReader
from vicuna.weights.delta import read_delta
from vicuna.weights.detect import has_manifest, kind_of


def inspect(path: Path) -> dict[str, Any]:
    """The facts about a model or delta, without reading its weights.

    Raises:
        VicunaError: the folder holds neither.
    """
    kind = kind_of(path)
    if has_manifest(path):
        manifest = read_delta(path)
        tensors = [tensor for shard in manifest.plan() for tensor in shard.tensors]
        facts: dict[str, Any] = {
            "made_by": manifest.tool,
            "template": manifest.template,
            "vocab_size": {"base": manifest.base_vocab_size, "target": manifest.target_vocab_size},
            "delta_bytes": sum(file.stat().st_size for file in path.rglob("*")),
            "num_tensors_stored_whole": sum(tensor.base_name is None for tensor in manifest.tensors),
        }
    else:
        with CheckpointReader(path) as reader:
            tensors, folder = list(reader.tensors.values()), reader.folder
        template = load_template(folder)
        facts = {"template": template.name if template else None}
    return {
        "path": str(path),
        "kind": kind,
        "num_parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "size_bytes": sum(tensor.size_bytes for tensor in tensors),
        "dtypes": dict(Counter(tensor.dtype for tensor in tensors)),
        **facts,
        "tensors": [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in tensors],
    }


def as_table(facts: dict[str, Any]) -> str:
    """The facts for a person: a line each, then a line per tensor."""
    lines = []
    for name, value in facts.items():
        if name == "tensors":
            continue
        shown = human_bytes(value) if name.endswith("_bytes") else f"{value:,}" if isinstance(value, int) else value
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {entry}" for key, entry in value.items())
        lines.append(f"{name.replace('_', ' '):<26}{'-' if shown is None else shown}")
    width = max((len(tensor["name"]) for tensor in facts["tensors"]), default=0)
    lines.append("")
    for tensor in facts["tensors"]:
        lines.append(f"{tensor['name']:<{width}}  {tensor['dtype']:<5}  {' x '.join(map(str, tensor['shape']))}")
    return "\n".join(lines)
