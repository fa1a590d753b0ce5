"""Apply an additive delta that has no manifest, as LMSYS and others published them in 2023.

Called by `apply`. The result is `base + delta` in the delta's dtype, as FastChat's tool computes it, and what usually
fails with these deltas is handled: buffers that old checkpoints have and new ones have not, a vocabulary with one more
row, old class names. Without a manifest a wrong base of the right shape cannot be recognized, nor the result verified.
A warning says so, and the result gets a manifest of its own hashes, so that copies of it can be verified.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from vicuna.errors import VerificationError
from vicuna.io.jsonl import JsonObject
from vicuna.io.log import info, warning
from vicuna.io.model_files import read_model_json
from vicuna.weights.delta.additive import add
from vicuna.weights.delta.pairs import EMBEDDING, HEAD, VOCABULARY, can_be_base, cast_base, find_base, read_base
from vicuna.weights.files.checkpoint import CHUNK_BYTES, CheckpointReader
from vicuna.weights.files.detect import refuse_delta
from vicuna.weights.files.manifest import Manifest
from vicuna.weights.files.new_model import NewModel, read_config, write_model
from vicuna.weights.files.other_files import TOKENIZER_NAMES, other_files
from vicuna.weights.files.tensors import ROPE_BUFFER_SUFFIX, Buffer, Tensor, split_into_shards
from vicuna.weights.files.threads import map_in_threads
from vicuna.weights.files.unfinished import identity

PAD = "[PAD]"  # the token that Vicuna v0 added
V0_ROWS = 32001
OLD_CLASS_NAMES = {"LLaMATokenizer": "LlamaTokenizer", "LLaMAForCausalLM": "LlamaForCausalLM"}


def apply_published(
    base: Path,
    delta: Path,
    target: Path,
    *,
    trim_vocabulary: bool = False,
    resume: bool = True,
    sources: Mapping[str, dict[str, str]] | None = None,
) -> Manifest:
    """Write the model `target`: `base + delta`.

    Rows that the base's embedding and head lack count as zeros; rows that the delta lacks are an error, unless
    `trim_vocabulary` says to leave them out. Tensors that only the delta has are copied.

    Raises:
        VerificationError: base and delta do not fit each other; the message names the tensor.
        VicunaError: something cannot be read, or `target` holds something.
    """
    refuse_delta(base)
    with CheckpointReader(base) as base_reader, CheckpointReader(delta) as delta_reader:
        tensors = [tensor for tensor in delta_reader.tensors.values() if not tensor.name.endswith(ROPE_BUFFER_SUFFIX)]
        check_fit(base_reader, delta_reader, tensors, trim_vocabulary=trim_vocabulary)

        def data_of(tensor: Tensor) -> Iterator[Buffer]:
            found = find_base(tensor, base_reader)
            if found is None:
                return delta_reader.chunks(tensor.name)

            def chunks() -> Iterator[tuple[bytes, bytes]]:
                for start in range(0, tensor.size_bytes, CHUNK_BYTES):
                    difference = delta_reader.read(tensor.name, start, CHUNK_BYTES)
                    yield difference, read_base(base_reader, found, tensor, start, len(difference))

            def add_chunks(chunk: tuple[bytes, bytes]) -> Buffer:
                difference, base_data = chunk
                return add(cast_base(base_data, found, tensor, len(difference)), difference, tensor.dtype)

            return map_in_threads(add_chunks, chunks())

        shards, index = split_into_shards(tensors)
        files = _files(base_reader.folder, delta_reader.folder)
        config, texts = _repairs(base_reader, tensors, files)
        new = NewModel(shards, index, data_of, files, config=config, texts=texts, sources=sources or {})
        job = {"apply": identity(delta_reader.files), "base": identity(base_reader.files), "trim": trim_vocabulary}
        warning(f"{delta} has no manifest: whether {base} is its base, and the result its author's, cannot be checked")
        return write_model(new, target, job, description="applying the delta", resume=resume)


def check_fit(base: CheckpointReader, delta: CheckpointReader, tensors: list[Tensor], *, trim_vocabulary: bool) -> None:
    """See that base and delta have tensors of the same names and shapes, where the sum needs them.

    Raises:
        VerificationError: they have not; the message names the first tensor, both shapes and the likely cause.
    """
    added = []
    for tensor in tensors:
        found = base.tensors.get(tensor.name) or find_base(tensor, base)
        if found is None:
            added.append(tensor.name)
        elif not can_be_base(tensor, found):
            raise VerificationError(
                f"{delta.path} does not fit {base.path}: the delta has {tensor}, the base has {found}; it is of "
                "another size or architecture, or the delta of another model: give the base that it was made from"
            )
        elif found.shape != tensor.shape:
            _check_rows(base, delta, tensor, found, trim_vocabulary)
    if len(added) == len(tensors):
        raise VerificationError(
            f"{delta.path} and {base.path} have no tensor in common (the delta has {tensors[0].name}); "
            "give the base that the delta was made from"
        )
    if added:
        info(f"tensors that only the delta has are copied: {', '.join(added[:5])}{' ...' if added[5:] else ''}")
    names = {tensor.name for tensor in tensors}
    for tensor in base.tensors.values():
        is_tied = tensor.name == HEAD and read_config(delta.folder).get("tie_word_embeddings") is True
        if tensor.name not in names and not tensor.name.endswith(ROPE_BUFFER_SUFFIX) and not is_tied:
            raise VerificationError(
                f"{delta.path} lacks the tensor {tensor} of {base.path}; the delta is incomplete or of another model, "
                "fetch it again or give its base"
            )


def _check_rows(
    base: CheckpointReader, delta: CheckpointReader, tensor: Tensor, found: Tensor, trim_vocabulary: bool
) -> None:
    if tensor.shape[0] > found.shape[0]:
        info(f"{tensor.name}: rows {found.shape[0]} to {tensor.shape[0] - 1} are the delta's alone; the base has none")
    elif trim_vocabulary:
        info(f"{tensor.name}: rows {tensor.shape[0]} to {found.shape[0] - 1} of the base are left out")
    else:
        raise VerificationError(
            f"{delta.path} does not fit {base.path}: the delta has {tensor}, the base has {found}; somebody added "
            f"tokens to this base: give the original, or leave rows from {tensor.shape[0]} out with --trim-vocabulary"
        )


def _files(base: Path, delta: Path) -> dict[str, Path]:
    """The delta's files; where it has no tokenizer or no config, the base's."""
    own, others = other_files(delta), other_files(base)
    if any(name in own for name in TOKENIZER_NAMES):
        others = {name: path for name, path in others.items() if not _is_of_tokenizer(name)}
    elif any(name in others for name in TOKENIZER_NAMES):
        info(f"the tokenizer is the base's, {base}: the delta has none")
    return {**others, **own}


def _is_of_tokenizer(name: str) -> bool:
    return name in TOKENIZER_NAMES or "token" in name or name in ("merges.txt", "chat_template.jinja")


def _repairs(
    base: CheckpointReader, tensors: list[Tensor], files: Mapping[str, Path]
) -> tuple[JsonObject, dict[str, str]]:
    """Corrections of outdated files: values to change in config.json, and other files' new texts by name."""
    config: JsonObject = {}
    texts: dict[str, str] = {}
    rows = {tensor.name: tensor.shape[0] for tensor in tensors if tensor.name in VOCABULARY}
    known = read_config(files["config.json"].parent) if "config.json" in files else {}
    if EMBEDDING in rows and known.get("vocab_size", rows[EMBEDDING]) != rows[EMBEDDING]:
        config["vocab_size"] = rows[EMBEDDING]
    if known.get("architectures") == ["LLaMAForCausalLM"]:
        config["architectures"] = ["LlamaForCausalLM"]
    name = "tokenizer_config.json"
    value = read_model_json(files[name]) if name in files else None
    if isinstance(value, dict) and value.get("tokenizer_class") in OLD_CLASS_NAMES:
        value["tokenizer_class"] = OLD_CLASS_NAMES[value["tokenizer_class"]]
        texts[name] = json.dumps(value, indent=2) + "\n"
        info(f"{name}: tokenizer_class is {value['tokenizer_class']} now; the old name is not known any more")
    found = base.tensors.get(EMBEDDING)
    has_one_more = found is not None and rows.get(EMBEDDING) == found.shape[0] + 1
    if has_one_more and "tokenizer.model" in files and not {"added_tokens.json", "tokenizer.json"} & files.keys():
        texts["added_tokens.json"] = json.dumps({PAD: rows[EMBEDDING] - 1}) + "\n"
        info(f"added_tokens.json names the row that was added: {PAD}")
    if rows.get(EMBEDDING) == V0_ROWS:
        info("32,001 rows: this is a Vicuna v0, which is prompted with the template vicuna_v0")
    return config, texts
