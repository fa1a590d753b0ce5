"""Token ids and masks of all examples, in memory or mapped from files that an earlier run has made.

    DIR/KEY/tokens.bin        int32, all examples end to end
    DIR/KEY/supervised.bin    one byte a token: whether it is supervised
    DIR/KEY/meta.json         ids, lengths, what was left out, and a hash of everything above; written last

The key is a hash of all that decides the tokens: data, tokenizer, template, longest length, and our source files. A
folder appears whole or not at all, is read back against its hash, and is made anew if that fails. Files are mapped, so
the ranks of a machine share one copy in memory.

Before: `tokenize` fills it. After: `dataset`.
"""

import dataclasses
import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

import vicuna.conversation
from vicuna.conversation import Template
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.data.read import arrays
from vicuna.errors import VicunaError, describe
from vicuna.io import log
from vicuna.io.files import atomic_directory, sha256_file
from vicuna.io.jsonl import read_json
from vicuna.io.locks import lock_file
from vicuna.train.batches import encode
from vicuna.train.batches.encode import Examples

TOKENS, SUPERVISED, META = "tokens.bin", "supervised.bin", "meta.json"


@dataclass(frozen=True)
class TokenizedConversations:
    """Examples end to end in flat tensors: 5 bytes a token, so 200 million tokens take 1 GB.

    Args:
        ids: the record ids.
        lengths: tokens of each example.
        input_ids: (sum of lengths,) int32.
        is_supervised: (sum of lengths,) bool: the token belongs to a reply and is predicted from the ones before it.
        too_long: ids of the records that were left out for their length.
        malformed: what is wrong with the others that were left out.
    """

    ids: list[str]
    lengths: list[int]
    input_ids: torch.Tensor
    is_supervised: torch.Tensor
    too_long: list[str]
    malformed: list[str]

    @property
    def num_supervised(self) -> int:
        """Supervised tokens."""
        return int(self.is_supervised.sum())

    def fingerprint(self) -> str:
        """SHA-256 over token ids, masks, lengths and their order."""
        digest = hashlib.sha256(array("q", self.lengths).tobytes())
        digest.update(self.input_ids.numpy())
        digest.update(self.is_supervised.numpy())
        return digest.hexdigest()


def concatenate(parts: Iterable[Examples]) -> TokenizedConversations:
    """The examples of all chunks, concatenated."""
    whole = Examples()
    for part in parts:
        whole.ids += part.ids
        whole.lengths += part.lengths
        whole.tokens.extend(part.tokens)
        whole.is_supervised.extend(part.is_supervised)
        whole.too_long += part.too_long
        whole.malformed += part.malformed
    is_empty = not whole.ids
    return TokenizedConversations(
        whole.ids,
        whole.lengths,
        torch.empty(0, dtype=torch.int32) if is_empty else torch.frombuffer(whole.tokens, dtype=torch.int32),
        torch.empty(0, dtype=torch.bool) if is_empty else torch.frombuffer(whole.is_supervised, dtype=torch.bool),
        whole.too_long,
        whole.malformed,
    )


def cache_key(paths: Sequence[Path], template: Template, tokenizer: Tokenizer, max_length: int) -> str:
    """A hash of everything that decides the tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    known = {
        "data": [[path.suffix == ".json", sha256_file(path)] for path in paths],
        "template": json.dumps(dataclasses.asdict(template), default=str, sort_keys=True),
        "tokenizer": backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
        "words": [type(tokenizer).__name__, str(tokenizer.special_tokens_map), str(tokenizer.chat_template)],
        "max_length": max_length,
        "code": [sha256_file(path) for path in _source_files()],
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def _source_files() -> list[Path]:
    """The source files that decide how a record becomes tokens."""
    folder = Path(vicuna.conversation.__file__).parent
    return [*sorted(folder.glob("*.py")), Path(encode.__file__), Path(arrays.__file__)]


class TokenCache:
    """The folder of one set of examples.

    Args:
        directory: holds a folder for each key.
        key: of these tokens (`cache_key`).
    """

    def __init__(self, directory: Path, key: str) -> None:
        self.directory, self.path = directory, directory / key

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of these tokens; other processes that want them wait.

        Where the folder cannot be written, or its file system has no locks, every process does the work itself.
        """
        with ExitStack() as stack:
            with suppress(OSError):
                self.directory.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock_file(self.directory / f".{self.path.name}.lock", wait=True))
            yield

    def load(self) -> TokenizedConversations | None:
        """The examples in the folder; None if there is none, or one that is damaged."""
        if not self.path.is_dir():
            return None
        try:
            found, fingerprint = self._read(self.path)
            if found.fingerprint() == fingerprint:
                return found
        except (VicunaError, OSError, RuntimeError, KeyError, TypeError, ValueError):
            pass
        log.warning(f"the tokens kept in {self.path} are damaged; they are made again")
        return None

    def fill(self, make: Callable[[], Iterable[Examples]]) -> TokenizedConversations:
        """Write the examples as they are made, and map the files. Where the disk refuses, they are made in memory."""
        try:
            with atomic_directory(self.path, overwrite=True, follows_link=False) as folder:
                self._write(folder, make())
            return self._read(self.path)[0]
        except OSError as error:  # of the cache; one of the data comes again below
            log.warning(f"{describe(error)}; the tokens are not kept for the next run")
            return concatenate(make())

    def _write(self, folder: Path, parts: Iterable[Examples]) -> None:
        meta = Examples()
        with (folder / TOKENS).open("wb") as tokens, (folder / SUPERVISED).open("wb") as is_supervised:
            for part in parts:
                part.tokens.tofile(tokens)
                is_supervised.write(part.is_supervised)
                meta.ids += part.ids
                meta.lengths += part.lengths
                meta.too_long += part.too_long
                meta.malformed += part.malformed
        fields = {name: getattr(meta, name) for name in ("ids", "lengths", "too_long", "malformed")}
        (folder / META).write_text(json.dumps({**fields, "fingerprint": ""}))
        fingerprint = self._read(folder)[0].fingerprint()
        (folder / META).write_text(json.dumps({**fields, "fingerprint": fingerprint}))

    @staticmethod
    def _read(folder: Path) -> tuple[TokenizedConversations, str]:
        meta = read_json(folder / META)
        size = sum(meta["lengths"])
        if [(folder / name).stat().st_size for name in (TOKENS, SUPERVISED)] != [4 * size, size]:
            raise ValueError("files of another size than meta.json says")

        def mapped(name: str, dtype: torch.dtype) -> torch.Tensor:
            # A private mapping: a write into it, by mistake, changes neither the file nor another rank's tokens.
            path = str(folder / name)
            return torch.from_file(path, shared=False, size=size, dtype=dtype) if size else torch.empty(0, dtype=dtype)

        tokens, is_supervised = mapped(TOKENS, torch.int32), mapped(SUPERVISED, torch.uint8).view(torch.bool)
        left_out = meta["too_long"], meta["malformed"]
        found = TokenizedConversations(meta["ids"], meta["lengths"], tokens, is_supervised, *left_out)
        return found, meta["fingerprint"]
