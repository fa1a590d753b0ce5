"""Writing a whole model folder: weights, other files, `config.json`, manifest. Used by `cast`, `lora` and `published`.

Weights are written tensor by tensor (`shard_writer`), the other files are copied, `config.json` gets the values that
have changed, and a manifest with every hash is written beside them, for `vicuna weights verify`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vicuna
from vicuna.io.files import ensure_free_space, sha256_file, write_in_folder
from vicuna.io.jsonl import JsonObject, write_json
from vicuna.io.log import Progress, info
from vicuna.io.model_files import read_model_json, read_model_object
from vicuna.weights.files.manifest import MODEL, MODEL_MANIFEST, Manifest, ShardRecord, TensorRecord
from vicuna.weights.files.other_files import copy_files
from vicuna.weights.files.shard_writer import Digests, ShardWriter
from vicuna.weights.files.tensors import Buffer, Shard, Tensor
from vicuna.weights.files.unfinished import resumable_directory, unfinished_bytes

CONFIG_NAME = "config.json"


@dataclass(frozen=True)
class NewModel:
    """What is to be written.

    Args:
        shards, index: the files of the weights, as `split_into_shards` gives them.
        data_of: gives a tensor's bytes.
        files: the files that are copied, by name.
        config: values to change in `config.json`.
        texts: files to write besides, by name; one may replace a copied file.
        sources: the parts that came from the hub, for the manifest.
    """

    shards: Sequence[Shard]
    index: bytes | None
    data_of: Callable[[Tensor], Iterable[Buffer]]
    files: Mapping[str, Path]
    config: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, dict[str, str]] = field(default_factory=dict)


def write_model(model: NewModel, target: Path, job: Mapping[str, Any], *, description: str, resume: bool) -> Manifest:
    """Write the folder `target`, which gets its name when it is whole.

    Args:
        job: what is made of what, as JSON values; a killed run of the same job is resumed (`unfinished`).
        description: what is being done, for the progress line.
        resume: False begins afresh.

    Returns:
        The manifest that is left in the folder.

    Raises:
        VicunaError: `target` holds something, the disk is too full, or the weights cannot be read.
    """
    needed = sum(shard.size_bytes for shard in model.shards) - unfinished_bytes(target)
    ensure_free_space(target, needed, f"the model {target}")
    total = sum(tensor.size_bytes for shard in model.shards for tensor in shard.tensors)
    with resumable_directory(target, job, resume=resume) as unfinished:
        with Progress(total, description=description, unit="B") as progress:
            writer = ShardWriter(unfinished, progress, model.data_of, _record)
            tensors, digests = writer.write(model.shards, model.index)
        files = copy_files(model.files, unfinished.folder)
        for name, text in model.texts.items():  # after the copies, since they may take the place of one
            write_in_folder(unfinished.folder / name, text.encode("utf-8"))
            files[name] = sha256_file(unfinished.folder / name)
        if CONFIG_NAME in files and model.config:
            change_config(unfinished.folder / CONFIG_NAME, model.config)
            files[CONFIG_NAME] = sha256_file(unfinished.folder / CONFIG_NAME)
        config = read_config(unfinished.folder)
        size, template = config.get("vocab_size"), _template(unfinished.folder)
        manifest = Manifest(
            format=MODEL,
            tool=f"vicuna {vicuna.__version__}",
            template=template,
            base_vocab_size=None,
            target_vocab_size=size if isinstance(size, int) else None,
            sources=dict(model.sources),
            weights_sha256=None,
            shards=tuple(
                ShardRecord(shard.file_name, digests[shard.file_name], shard.header.decode()) for shard in model.shards
            ),
            index=None if model.index is None else model.index.decode(),
            files=files,
            tensors=tuple(tensors),
        )
        manifest.write(unfinished.folder / MODEL_MANIFEST)
    return manifest


def read_config(folder: Path) -> JsonObject:
    """`config.json`; empty where there is none.

    Raises:
        VicunaError: it is not a JSON object.
    """
    path = folder / CONFIG_NAME
    return read_model_object(path) if path.is_file() else {}


def change_config(path: Path, changes: Mapping[str, Any]) -> None:
    """Set values of a `config.json` and log each change; without a change the file is not rewritten."""
    config = read_config(path.parent)
    for name, value in changes.items():
        if config.get(name) != value:
            info(f"config.json: {name} is {json.dumps(value)} now, it was {json.dumps(config.get(name))}")
    if any(config.get(name) != value for name, value in changes.items()):
        write_json(path, {**config, **changes}, follows_link=False)


def _record(tensor: Tensor, digests: Digests) -> TensorRecord:
    return TensorRecord(tensor.name, digests.sha256, digests.quick_sha256)


def _template(folder: Path) -> str | None:
    path = folder / "vicuna_template.json"
    value = read_model_json(path) if path.is_file() else None
    name = value.get("template") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None
