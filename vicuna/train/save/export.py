"""The trained model as a Hugging Face directory, `DIR/model`, which appears whole or not at all.

Weights have the names, the dtype and the files of the base, so that the two can be compared tensor by tensor; config
and tokenizer files are copied byte for byte (transformers 5 drops `tokenizer.model` when it saves, and renames config
keys that older programs read). Added are the template that the model was trained with, as `chat_template.jinja` and
`vicuna_template.json`, the options of the run, and its log.

Before: the last step of `loop`. After: `vicuna.make_delta`, serving, any program that reads Hugging Face models.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.distributed as dist
from tokenizers import Tokenizer as FastTokenizer

from vicuna.conversation import Template, load_tokenizer, save_template, stop_token_ids
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.errors import VerificationError, VicunaError
from vicuna.io import log
from vicuna.io.files import atomic_directory, ensure_free_space, leads_elsewhere
from vicuna.io.jsonl import JsonObject, write_json
from vicuna.io.model_files import read_model_json
from vicuna.train.model.conversation_model import CHUNK_ELEMENTS, DTYPES, ConversationModel
from vicuna.train.model.parallel import local_shard, shard_sizes
from vicuna.train.options import TrainOptions
from vicuna.train.ranks import Ranks
from vicuna.weights.files.checkpoint import INDEX_NAME, CheckpointReader, write_checkpoint
from vicuna.weights.files.tensors import Shard, Tensor

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


def check_room(base: Path, target: Path) -> None:
    """Check before the first step that the disk has room for the result.

    Raises:
        VicunaError: not enough disk.
    """
    with CheckpointReader(base) as reader:
        ensure_free_space(target, reader.total_bytes, f"the trained model {target}")


def export_model(
    model: ConversationModel,
    tokenizer: Tokenizer,
    template: Template,
    *,
    options: TrainOptions,
    target: Path,
    extra_files: Iterable[Path],
    ranks: Ranks,
) -> None:
    """Write the model; every rank calls it.

    Each file is written by one rank, the next file by the next. The writer receives the shards of one tensor after the
    other from the ranks that hold them, so that no rank ever holds more than its own shards and a few MiB. Then another
    rank reads the file back and compares the hash of every tensor.

    Args:
        options: of the run; names, dtypes, files and tokenizer are those of its base model.
        target: the directory to make.
        extra_files: copied into it: the options and the log of the run.

    Raises:
        VicunaError: `target` is there already; what was written cannot be read back.
        OSError: the disk refused.
    """
    base = options.model
    with ExitStack() as stack:
        with ranks.agreed():
            folder = stack.enter_context(atomic_directory(target)) if ranks.is_first else target
        folder = Path(ranks.all_gather(str(folder))[0])
        with CheckpointReader(base) as reader:
            with ranks.agreed():
                # Some checkpoints store a tied head as well: it is a name of the same weight.
                weights = dict(model.causal_lm.named_parameters(remove_duplicate=False))
                digests = write_weights(weights, reader.shards, reader, folder, ranks)
            with ranks.agreed():
                check_written(folder, reader.shards, digests, ranks)
                if ranks.is_first:
                    write_other_files(folder, reader.index, base, extra_files)
                    write_fast_tokenizer(folder)
                    write_stop_tokens(folder, template, tokenizer)
                    save_template(template, folder)
                    stack.close()


def write_weights(
    weights: Mapping[str, torch.Tensor],
    shards: Sequence[Shard],
    reader: CheckpointReader | None,
    folder: Path,
    ranks: Ranks,
) -> dict[str, str]:
    """Write every file of weights, each on one rank, which receives the others' shards; every rank calls it.

    Args:
        weights: by the names of the tensors in `shards`.
        reader: of the base, for tensors that are not among the weights.

    Returns:
        The SHA-256 of every tensor that this rank wrote.
    """
    digests: dict[str, str] = {}
    error: OSError | None = None
    for number, shard in enumerate(shards):
        writer = number % ranks.size
        if ranks.rank != writer:
            for tensor in shard.tensors:
                if tensor.name in weights:
                    _send(weights[tensor.name], tensor, writer, ranks)
            continue
        receiver = _ShardReceiver(weights, reader, shard.tensors, ranks)
        try:
            write_checkpoint(folder, [shard], None, receiver.of)
        except OSError as caught:
            error = caught
            receiver.drain()  # the other ranks' sends must be received, or they would wait for ever
        digests |= receiver.digests
    if error:
        raise error
    return digests


class _ShardReceiver:
    """The bytes of one file's tensors, in order, from the ranks that hold their shards."""

    def __init__(
        self,
        weights: Mapping[str, torch.Tensor],
        reader: CheckpointReader | None,
        tensors: Iterable[Tensor],
        ranks: Ranks,
    ) -> None:
        self.digests: dict[str, str] = {}
        self._weights, self._reader, self._ranks = weights, reader, ranks
        self._all = (chunk for tensor in tensors for chunk in self._chunks(tensor))

    def of(self, tensor: Tensor) -> Iterator[memoryview | bytes]:
        """The next tensor's bytes."""
        digest, missing = hashlib.sha256(), tensor.size_bytes
        while missing:
            chunk = next(self._all)
            digest.update(chunk)
            missing -= len(chunk)
            yield chunk
        self.digests[tensor.name] = digest.hexdigest()

    def drain(self) -> None:
        """Receive what is left from the other ranks, and drop it."""
        for _ in self._all:
            pass

    def _chunks(self, tensor: Tensor) -> Iterator[memoryview | bytes]:
        weight = self._weights.get(tensor.name)
        if weight is None:
            assert self._reader is not None, f"{tensor} is neither trained nor in the base"
            yield from self._reader.chunks(tensor.name)
            return
        assert tuple(weight.shape) == tensor.shape, f"{tensor} was trained as {tuple(weight.shape)}"
        for rank, num_rows in shard_sizes(weight):
            if rank in (None, self._ranks.rank):
                yield from _chunks(local_shard(weight), tensor)
            else:
                yield from _receive(num_rows * math.prod(tensor.shape[1:]), tensor, rank, self._ranks)


def _chunks(shard: torch.Tensor, tensor: Tensor) -> Iterator[memoryview]:
    """A trained weight's bytes in the base's dtype, a few MiB at a time."""
    for part in shard.detach().flatten().split(CHUNK_ELEMENTS):
        if part.numel():
            yield memoryview(_as_bytes(part, tensor).numpy())


def _as_bytes(part: torch.Tensor, tensor: Tensor) -> torch.Tensor:
    return part.to("cpu", DTYPES[tensor.dtype]).contiguous().view(torch.uint8)


def _send(weight: torch.Tensor, tensor: Tensor, writer: int, ranks: Ranks) -> None:
    if ranks.rank not in [rank for rank, _ in shard_sizes(weight)]:
        return
    for part in local_shard(weight).detach().flatten().split(CHUNK_ELEMENTS):
        if part.numel():
            dist.send(_as_bytes(part, tensor), writer, group=ranks.messages)


def _receive(num_elements: int, tensor: Tensor, sender: int, ranks: Ranks) -> Iterator[memoryview]:
    itemsize = DTYPES[tensor.dtype].itemsize
    for start in range(0, num_elements, CHUNK_ELEMENTS):
        part = torch.empty(min(CHUNK_ELEMENTS, num_elements - start) * itemsize, dtype=torch.uint8)
        dist.recv(part, sender, group=ranks.messages)
        yield memoryview(part.numpy())


def check_written(folder: Path, shards: Sequence[Shard], digests: dict[str, str], ranks: Ranks) -> None:
    """Read back every file, each on another rank than wrote it, and compare the hash of every tensor.

    Raises:
        VerificationError: one differs.
    """
    of_ranks = [json.loads(text) for text in ranks.all_gather(json.dumps(digests))]
    known = {name: digest for own in of_ranks for name, digest in own.items()}
    for number, shard in enumerate(shards):
        if (number + 1) % ranks.size != ranks.rank:
            continue
        with CheckpointReader(folder / shard.file_name) as written:
            for tensor in shard.tensors:
                digest = hashlib.sha256()
                for chunk in written.chunks(tensor.name):
                    digest.update(chunk)
                if digest.hexdigest() != known[tensor.name]:
                    raise VerificationError(f"{folder / shard.file_name}: {tensor.name} does not read back as written")


def write_other_files(folder: Path, index: bytes | None, base: Path, extra_files: Iterable[Path]) -> None:
    """Copy the index, the base's config and tokenizer files, and `extra_files`."""
    if index is not None:
        (folder / INDEX_NAME).write_bytes(index)
    for path in (*(base / name for name in COPIED_FILES), *extra_files):
        if path.parent == base and leads_elsewhere(path, base):
            log.warning(f"{path} is a link out of the model's folder; it is not copied")
        elif path.is_file():
            shutil.copyfile(path, folder / path.name)


def write_fast_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json` beside a bare `tokenizer.model`, so that other programs tokenize as in training.

    From `tokenizer.model` alone, transformers 5 reads another order of merges (`vicuna.conversation.load_tokenizer`).
    """
    path = folder / "tokenizer.json"
    if (folder / "tokenizer.model").is_file() and not path.is_file():
        backend = getattr(load_tokenizer(folder), "backend_tokenizer", None)
        if isinstance(backend, FastTokenizer):
            backend.save(str(path))


def write_stop_tokens(folder: Path, template: Template, tokenizer: Tokenizer) -> None:
    """Add the template's stop tokens to `eos_token_id` of `generation_config.json`, for other programs' `generate`."""
    config = read_generation_config(folder)
    ids = config.get("eos_token_id", tokenizer.eos_token_id)
    known = set(ids if isinstance(ids, list) else [] if ids is None else [ids])
    if missing := stop_token_ids(template, tokenizer) - known:
        write_json(folder / "generation_config.json", {**config, "eos_token_id": sorted(known | missing)})


def read_generation_config(folder: Path) -> JsonObject:
    """The content of `generation_config.json`; empty if there is none.

    Raises:
        VicunaError: it is not a JSON object.
    """
    path = folder / "generation_config.json"
    config = read_model_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        raise VicunaError(f"{path} holds a {type(config).__name__}, not a JSON object; copy it from the model again")
    return config
