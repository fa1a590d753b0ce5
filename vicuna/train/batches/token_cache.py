"""Token ids and masks of all conversations, in memory or mapped from files that an earlier run has made.

    DIR/KEY/tokens.bin     int32, all conversations end to end
    DIR/KEY/learned.bin    one byte a token: whether it is to be learned
    DIR/KEY/meta.json      ids, lengths, what was left out, and a hash of everything above; written last

The key is a hash of all that decides the tokens: data, tokenizer, template, longest length, and our code. A folder
appears whole or not at all, is read back against its hash, and is made anew if that fails. Files are mapped, so the
ranks of a machine share one copy in memory.

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
from typing import Any

import torch

import vicuna.conversation
from vicuna.conversation import Template
from vicuna.errors import VicunaError, describe
from vicuna.io import log
from vicuna.io.files import atomic_directory, sha256_file
from vicuna.io.jsonl import read_json
from vicuna.io.locks import lock_file
from vicuna.train.batches import encode
from vicuna.train.batches.encode import Samples

TOKENS, LEARNED, META = "tokens.bin", "learned.bin", "meta.json"


@dataclass(frozen=True)
class TokenizedConversations:
    """Conversations end to end in flat tensors: 5 bytes a token, so 200 million tokens take 1 GB.

    Args:
        ids: the record ids.
        lengths: tokens of each conversation.
        input_ids: (sum of lengths,) int32.
        is_learned: (sum of lengths,) bool: the token belongs to a reply and is predicted from the ones before it.
        too_long: ids of the records that were left out for their length.
        malformed: what is wrong with the others that were left out.
    """

    ids: list[str]
    lengths: list[int]
    input_ids: torch.Tensor
    is_learned: torch.Tensor
    too_long: list[str]
    malformed: list[str]

    @property
    def num_supervised(self) -> int:
        """Tokens that the loss looks at."""
        return int(self.is_learned.sum())

    def fingerprint(self) -> str:
        """SHA-256 over everything that training sees: token ids, masks, lengths and their order."""
        digest = hashlib.sha256(array("q", self.lengths).tobytes())
        digest.update(self.input_ids.numpy())
        digest.update(self.is_learned.numpy())
        return digest.hexdigest()


def in_memory(pieces: Iterable[Samples]) -> TokenizedConversations:
    """All pieces in one."""
    whole = Samples()
    for piece in pieces:
        whole.ids += piece.ids
        whole.lengths += piece.lengths
        whole.tokens.extend(piece.tokens)
        whole.is_learned.extend(piece.is_learned)
        whole.too_long += piece.too_long
        whole.malformed += piece.malformed
    is_empty = not whole.ids
    return TokenizedConversations(
        whole.ids,
        whole.lengths,
        torch.empty(0, dtype=torch.int32) if is_empty else torch.frombuffer(whole.tokens, dtype=torch.int32),
        torch.empty(0, dtype=torch.bool) if is_empty else torch.frombuffer(whole.is_learned, dtype=torch.bool),
        whole.too_long,
        whole.malformed,
    )


def cache_key(paths: Sequence[Path], template: Template, tokenizer: Any, max_length: int) -> str:
    """A hash of everything that decides the tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    known = {
        "data": [[path.suffix == ".json", sha256_file(path)] for path in paths],
        "template": json.dumps(dataclasses.asdict(template), default=str, sort_keys=True),
        "tokenizer": backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
        "words": [type(tokenizer).__name__, str(tokenizer.special_tokens_map), str(tokenizer.chat_template)],
        "max_length": max_length,
        "code": [sha256_file(path) for path in _code()],
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def _code() -> list[Path]:
    """The files that turn a record into tokens, and the library's version with them."""
    folder = Path(vicuna.conversation.__file__).parent
    return [*sorted(folder.glob("*.py")), Path(encode.__file__)]


class TokenCache:
    """One folder of tokens.

    Args:
        directory: holds a folder for each key.
        key: of these tokens (`cache_key`).
    """

    def __init__(self, directory: Path, key: str) -> None:
        self.directory, self.path = directory, directory / key

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the other processes that want these tokens waiting.

        A folder that cannot be written, or a file system without locks, keeps nobody: each then does the work.
        """
        with ExitStack() as stack:
            with suppress(OSError):
                self.directory.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock_file(self.directory / f".{self.path.name}.lock", wait=True))
            yield

    def load(self) -> TokenizedConversations | None:
        """What lies there, if it is whole."""
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

    def fill(self, make: Callable[[], Iterable[Samples]]) -> TokenizedConversations:
        """Make the pieces, write them as they come, and map them. Where the disk refuses, they are made in memory."""
        try:
            with atomic_directory(self.path, overwrite=True) as folder:
                self._write(folder, make())
            return self._read(self.path)[0]
        except OSError as error:  # of the cache; one of the data comes again below
            log.warning(f"{describe(error)}; the tokens are not kept for the next run")
            return in_memory(make())

    def _write(self, folder: Path, pieces: Iterable[Samples]) -> None:
        meta = Samples()
        with (folder / TOKENS).open("wb") as tokens, (folder / LEARNED).open("wb") as is_learned:
            for piece in pieces:
                piece.tokens.tofile(tokens)
                is_learned.write(piece.is_learned)
                meta.ids += piece.ids
                meta.lengths += piece.lengths
                meta.too_long += piece.too_long
                meta.malformed += piece.malformed
        rows = {name: getattr(meta, name) for name in ("ids", "lengths", "too_long", "malformed")}
        (folder / META).write_text(json.dumps({**rows, "fingerprint": ""}))
        fingerprint = self._read(folder)[0].fingerprint()
        (folder / META).write_text(json.dumps({**rows, "fingerprint": fingerprint}))

    @staticmethod
    def _read(folder: Path) -> tuple[TokenizedConversations, str]:
        meta = read_json(folder / META)
        size = sum(meta["lengths"])
        if [(folder / name).stat().st_size for name in (TOKENS, LEARNED)] != [4 * size, size]:
            raise ValueError("files of another size than meta.json says")

        def mapped(name: str, dtype: torch.dtype) -> torch.Tensor:
            # A private mapping: whoever writes into it, by mistake, changes neither the file nor another rank's tokens.
            path = str(folder / name)
            return torch.from_file(path, shared=False, size=size, dtype=dtype) if size else torch.empty(0, dtype=dtype)

        tokens, is_learned = mapped(TOKENS, torch.int32), mapped(LEARNED, torch.uint8).view(torch.bool)
        left_out = meta["too_long"], meta["malformed"]
        return TokenizedConversations(meta["ids"], meta["lengths"], tokens, is_learned, *left_out), meta["fingerprint"]
