"""Reading a LoRA adapter as peft saves it: which tensors of the base it changes, and how.

`lora` merges adapters. A folder holds `adapter_config.json` and `adapter_model.safetensors` (or
`.bin`), whose tensors are named after the base's: `base_model.model.` + module + `.lora_A.weight` (rank x in) and
`.lora_B.weight` (out x rank), `.lora_embedding_A` (rank x rows) and `.lora_embedding_B` (size x rank) for embeddings,
`.lora_magnitude_vector` with DoRA, and whole tensors (`modules_to_save`, biases) under their plain names.
Source: peft `utils/save_and_load.py` and `tuners/lora/layer.py`.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject
from vicuna.io.model_files import LARGEST_NUMBER, check_regex, is_number, read_model_json, shown
from vicuna.weights.files.checkpoint import CheckpointReader, check_exists
from vicuna.weights.files.numbers import Floats, cast
from vicuna.weights.files.tensors import FLOATS

CONFIG_NAME = "adapter_config.json"
MAX_PATTERNS = 1_000  # of alpha_pattern
MAX_PATTERN_REPEATS = 2  # in one of them
MAX_MODULES = 10_000  # of target_modules
FILE_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
LOW_RANK = re.compile(r"(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<side>[AB])(\.(?!bias$)[^.]+)??(\.weight)?")
MAGNITUDE = re.compile(r"(?P<module>.+)\.lora_magnitude_vector(\.[^.]+)??(\.weight)?")
WHOLE = re.compile(r"(?P<module>.+?)(\.base_layer|\.modules_to_save(\.default)?)?\.(?P<kind>weight|bias)")
# Settings of peft that adding a product of two matrices to a weight does not reproduce, and why.
UNMERGEABLE = {
    "fan_in_fan_out": "stores its weights transposed, which no LLaMA layer does",
    "layer_replication": "repeats layers of the base",
    "target_parameters": "changes parameters that are no layer's weight",
    "trainable_token_indices": "trains single tokens' embeddings",
    "lora_bias": "has a bias in its low-rank layers",
    "use_qalora": "is a QA-LoRA adapter",
    "use_bdlora": "is a block-diagonal adapter",
    "arrow_config": "mixes several adapters by the input",
    "kasa_config": "has singular values of its own",
    "alora_invocation_tokens": "is active only behind its invocation tokens",
}


@dataclass
class TensorChange:
    """How an adapter changes one tensor of the base, by names of the adapter's tensors.

    Attributes:
        whole: the tensor that replaces the base's.
        low_rank: the factors, by "A" and "B".
        is_embedding: whether the factors are those of an embedding, which are transposed.
        magnitude: DoRA's length of each row.
        scaling: factor of the product of the two.
    """

    whole: str | None = None
    low_rank: dict[str, str] = field(default_factory=dict)
    is_embedding: bool = False
    magnitude: str | None = None
    scaling: float = 0.0


class Adapter:
    """An adapter's changes by the base's tensor names. Use as a context manager.

    Raises:
        VicunaError: a file is missing or damaged, or the adapter is of a kind that cannot be merged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _read_config(folder)
        self._alpha_patterns = [
            (re.compile(rf"(.*\.)?({pattern})"), value)
            for pattern, value in (self.config.get("alpha_pattern") or {}).items()
        ]
        path = next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)
        if path is None:
            raise VicunaError(f"{folder} has no {FILE_NAMES[0]}; the adapter was not saved whole, save it again")
        self.reader = CheckpointReader(path)
        self.changes: dict[str, TensorChange] = {}
        for name in self.reader.tensors:
            self._add(name)
        for name, change in self.changes.items():
            if change.low_rank or change.magnitude:
                self._check_pair(name, change)

    def __enter__(self) -> "Adapter":
        return self

    def __exit__(self, *error: object) -> None:
        self.reader.__exit__(None, None, None)

    def floats(self, name: str) -> Floats:
        """A tensor of the adapter as fp32 numbers."""
        tensor = self.reader.tensors[name]
        data = cast(self.reader.read(name), tensor.dtype, "F32")
        values: Floats = np.frombuffer(data, "<f4").reshape(tensor.shape)
        return values

    def _add(self, name: str) -> None:
        tensor = self.reader.tensors[name]
        if tensor.dtype not in FLOATS or not name.startswith(PREFIX):
            raise VicunaError(f"{self.folder}: tensor {tensor} is not what a LoRA adapter holds; save it again")
        plain = name.removeprefix(PREFIX)
        if found := LOW_RANK.fullmatch(plain):
            change = self._change(found["module"] + ".weight")
            change.low_rank[found["side"]] = name
            change.is_embedding = bool(found["kind"])
        elif found := MAGNITUDE.fullmatch(plain):
            self._change(found["module"] + ".weight").magnitude = name
        elif found := WHOLE.fullmatch(plain):
            self._change(f"{found['module']}.{found['kind']}").whole = name
        else:
            raise VicunaError(
                f"{self.folder}: tensor {name!r} cannot be merged; merge this adapter with peft's merge_and_unload"
            )

    def _change(self, name: str) -> TensorChange:
        return self.changes.setdefault(name, TensorChange())

    def _check_pair(self, name: str, change: TensorChange) -> None:
        for side in "AB":
            if side not in change.low_rank:
                raise VicunaError(
                    f"{self.folder} changes {name!r} but has no lora_{side} for it; "
                    "the adapter was not saved whole, save it again"
                )
        a, b = (self.reader.tensors[change.low_rank[side]] for side in "AB")
        for tensor in (a, b):
            if len(tensor.shape) != 2 or tensor.size_bytes == 0:
                raise VicunaError(
                    f"{self.folder}: tensor {tensor} is no matrix; "
                    "the adapter was not gathered before it was saved, save it again"
                )
        if a.shape[0] != b.shape[1]:
            raise VicunaError(f"{self.folder}: {a} and {b} have different ranks; save the adapter again")
        if change.magnitude and change.is_embedding:
            raise VicunaError(f"{self.folder}: DoRA on the embedding {name!r} is not merged here; use peft")
        change.scaling = self._scaling(name.removesuffix(".weight"), a.shape[0])

    def _scaling(self, module: str, rank: int) -> float:
        alpha = self.config["lora_alpha"]
        for pattern, value in self._alpha_patterns:
            if pattern.fullmatch(module):
                alpha = value
                break
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def check_adapter(folder: Path) -> None:
    """See that an adapter is complete: it has every low-rank pair, and no tensor is empty, zero or not finite.

    (Adapters saved from sharded training can be empty or zero without an error at saving.)

    Raises:
        VicunaError: it is not; the message names the tensor.
    """
    with Adapter(Path(folder)) as adapter:
        if not any(change.low_rank for change in adapter.changes.values()):
            raise VicunaError(f"{folder} has no lora_A and lora_B; the adapter was not saved whole, save it again")
        modules = adapter.config.get("target_modules")
        named = [name.removesuffix(".weight") for name in adapter.changes if name.endswith(".weight")]
        endings = {ending for name in named for ending in _endings(name)}  # `a.b.c`, `b.c` and `c` of each
        for module in modules if isinstance(modules, list) else ():
            if module not in endings:
                raise VicunaError(
                    f"{folder} has no tensor for its target module {shown(module)}; save the adapter again"
                )
        for name, tensor in adapter.reader.tensors.items():
            is_zero = True
            for chunk in adapter.reader.chunks(name):
                values = np.frombuffer(cast(chunk, tensor.dtype, "F32"), "<f4")
                if not np.isfinite(values).all():
                    raise VicunaError(f"{folder}: tensor {name!r} holds numbers that are not finite; train it again")
                is_zero = is_zero and not values.any()
            if is_zero and not name.endswith(".bias"):
                raise VicunaError(
                    f"{folder}: tensor {name!r} is all zeros: the adapter learned nothing or was not gathered "
                    "before it was saved; save it again"
                )


def _endings(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _read_config(folder: Path) -> JsonObject:
    check_exists(folder, "the folder of a LoRA adapter as peft saves it")
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise VicunaError(f"{folder} has no {CONFIG_NAME}; give the folder of a LoRA adapter as peft saves it")
    config = read_model_json(path)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise VicunaError(f"{path}: peft_type is {shown(kind)}; only LORA can be merged")
    for key, reason in UNMERGEABLE.items():
        if config.get(key):
            raise VicunaError(f"{path}: this adapter {reason} ({key}); merge it with peft's merge_and_unload")
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict) or len(patterns) > MAX_PATTERNS:
        raise VicunaError(f"{path}: alpha_pattern is {shown(patterns)}; it takes a table of at most {MAX_PATTERNS}")
    for alpha in (config.get("lora_alpha"), *patterns.values()):
        if not is_number(alpha):
            raise VicunaError(
                f"{path}: lora_alpha is {shown(alpha)}; it takes a number from 0 to {LARGEST_NUMBER:g}; save the "
                "adapter again"
            )
    for pattern in patterns:
        check_regex(pattern, f"{path}: alpha_pattern", max_repeats=MAX_PATTERN_REPEATS)
        try:
            re.compile(rf"(.*\.)?({pattern})")
        except (re.error, OverflowError, RecursionError) as error:
            raise VicunaError(f"{path}: alpha_pattern has {shown(pattern)}, no expression ({error})") from None
    modules = config.get("target_modules")
    if isinstance(modules, list) and (len(modules) > MAX_MODULES or not all(isinstance(one, str) for one in modules)):
        raise VicunaError(f"{path}: target_modules has {len(modules):,} entries; it takes {MAX_MODULES:,} names")
    return config
