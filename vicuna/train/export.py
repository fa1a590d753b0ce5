"""The trained model as a Hugging Face directory, `DIR/model`, which appears whole or not at all.

Weights have the names, the dtype and the shards of the base, so that the two can be compared tensor by tensor; config
and tokenizer files are copied byte for byte (transformers 5 drops `tokenizer.model` when it saves, and renames config
keys that older programs read). New beside them: the template that the model was trained with, as `chat_template.jinja`
and `vicuna_template.json`, how it was trained, and its log.

Before: the last step of `loop`. After: `vicuna.make_delta`, serving, any program that reads Hugging Face models.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from vicuna.conversation import Template, save_template, stop_token_ids
from vicuna.errors import VicunaError
from vicuna.files import atomic_directory, ensure_free_space
from vicuna.jsonl import read_json, write_json
from vicuna.train.model import ConversationModel
from vicuna.weights.checkpoint import CheckpointReader, write_checkpoint
from vicuna.weights.shard import Tensor

COPIED_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "LICENSE",
    "LICENSE.txt",
)
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
CHUNK_ELEMENTS = 1 << 22


def check_export(model: ConversationModel, base: Path, target: Path) -> None:
    """See before the first step that the result can be written in the form of the base, and will find room.

    Raises:
        VicunaError: not enough disk; weights of a name or a dtype that the base's files do not share.
    """
    with CheckpointReader(base) as reader:
        for name in model.named_weights():
            if name not in reader.tensors:
                raise VicunaError(
                    f"{base} stores {name} under another name; load it once with transformers and save it"
                )
            if (dtype := reader.tensors[name].dtype) not in DTYPES:
                raise VicunaError(f"{base} stores {name} as {dtype}; cast it to one of {', '.join(DTYPES)} first")
        ensure_free_space(target, reader.total_bytes, f"the trained model {target}")


def export_model(
    model: ConversationModel,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    *,
    base: Path,
    target: Path,
    extra_files: Iterable[Path],
) -> None:
    """Write the model.

    Args:
        base: the model that training started from; names, dtypes, shards and tokenizer come from it.
        target: the directory to make.
        extra_files: copied into it: the options and the log of the run.

    Raises:
        VicunaError: `target` is there already.
        OSError: the disk refused.
    """
    # Some checkpoints store a tied head as well: it is a name of the same weight.
    weights = dict(model.causal_lm.named_parameters(remove_duplicate=False))
    with CheckpointReader(base) as reader:

        def data_of(tensor: Tensor) -> Iterable[bytes]:
            weight = weights.get(tensor.name)
            return reader.chunks(tensor.name) if weight is None else _chunks(weight, tensor)

        with atomic_directory(target) as temporary:
            write_checkpoint(temporary, reader.shards, reader.index, data_of)
            for path in (*(base / name for name in COPIED_FILES), *extra_files):
                if path.is_file():
                    shutil.copyfile(path, temporary / path.name)
            _write_stop_tokens(temporary, template, tokenizer)
            save_template(template, temporary)


def _chunks(weight: torch.Tensor, tensor: Tensor) -> Iterable[bytes]:
    """A trained weight's bytes in the base's dtype, a few MiB at a time."""
    assert tuple(weight.shape) == tensor.shape, f"{tensor} was trained as {tuple(weight.shape)}"
    for part in weight.detach().flatten().split(CHUNK_ELEMENTS):
        yield part.to("cpu", DTYPES[tensor.dtype]).contiguous().view(torch.uint8).numpy().tobytes()


def _write_stop_tokens(folder: Path, template: Template, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let `generate` of other programs end a reply where this template ends it."""
    config = read_generation_config(folder)
    ids = config.get("eos_token_id", tokenizer.eos_token_id)
    known = set(ids if isinstance(ids, list) else [] if ids is None else [ids])
    if missing := stop_token_ids(template, tokenizer) - known:
        write_json(folder / "generation_config.json", {**config, "eos_token_id": sorted(known | missing)})


def read_generation_config(folder: Path) -> dict[str, Any]:
    """What `generation_config.json` says, if there is one.

    Raises:
        VicunaError: it is not a JSON object.
    """
    path = folder / "generation_config.json"
    config = read_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        raise VicunaError(f"{path} holds a {type(config).__name__}, not a JSON object; copy it from the model again")
    return config
