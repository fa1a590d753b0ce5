"""A tokenizer for counting only, cached from an earlier load, so that counting needs no transformers.

Loading a tokenizer through transformers takes two seconds and more in each of the cleaner's processes. What counting
needs of it is a `tokenizers.Tokenizer` and the names of its control tokens; these are cached in `vicuna_home()`, under
a hash of the tokenizer's files and of the libraries' versions, and load in a tenth of a second. The first time, and
where the two disagree on any probe, transformers' own tokenizer is used.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vicuna.conversation import words
from vicuna.conversation.counting import TokenCounter
from vicuna.conversation.templates import HF, Template
from vicuna.conversation.tokenizer import FILES, EncodingTokenizer, check_tokenizer, load_tokenizer
from vicuna.io.files import atomic_file, sha256_file, vicuna_home
from vicuna.io.jsonl import JsonObject
from vicuna.io.locks import lock_file

HASHED_FILES = (
    *FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
    "merges.txt",
)
FORMAT = 3
PROBES = (
    "",
    " ",
    "a",
    " a  b\n\n\tc",
    "x_y(1234) != 'é’ 中文 🙂'",
    "<s></s><|im_start|>user\nUSER: ASSISTANT:",
    "\r\n\x00 \u2028",
)


@dataclass(frozen=True)
class AddedToken:
    """A token that stands outside of the vocabulary's rules; `special` ones are control tokens."""

    content: str
    special: bool


class CountingTokenizer:
    """As much of a Hugging Face tokenizer as `tokens.Encoder` asks for."""

    def __init__(self, kept: JsonObject) -> None:
        from tokenizers import Tokenizer

        self.backend_tokenizer: Any = Tokenizer.from_str(kept["backend"])
        self.name_or_path: str = kept["name"]
        self.bos_token: str | None = kept["bos_token"]
        self.eos_token: str | None = kept["eos_token"]
        self.all_special_tokens: list[str] = kept["special_tokens"]
        self.added_tokens_decoder = {int(index): AddedToken(*token) for index, token in kept["added_tokens"].items()}
        words.set_words(self, kept["words"] and words.Words.from_json(kept["words"]))

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of a token."""
        found: int | None = self.backend_tokenizer.token_to_id(token)
        return found

    def __call__(
        self, texts: list[str], *, add_special_tokens: bool, split_special_tokens: bool = False, **_unused: Any
    ) -> dict[str, list[list[int]]]:
        """(N,) texts to lists of ids."""
        assert not add_special_tokens
        self.backend_tokenizer.encode_special_tokens = split_special_tokens
        found = self.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        return {"input_ids": [encoding.ids for encoding in found]}


def load_token_counter(template: Template, folder: Path) -> TokenCounter:
    """A counter of tokens as training has them, with the tokenizer in this folder.

    Raises:
        VicunaError: as `load_tokenizer`.
    """
    return TokenCounter(template, load_tokenizer(folder) if template.name == HF else _load(folder))


def needs_transformers(template: Template, folder: Path) -> bool:
    """Whether `load_token_counter` will load transformers, and with it torch where that is installed."""
    return template.name == HF or not _cache_path(folder).is_file()


def _load(folder: Path) -> EncodingTokenizer:
    """The tokenizer in a folder, for any template but `hf`, which transformers renders.

    Raises:
        VicunaError: as `load_tokenizer`.
    """
    check_tokenizer(folder)
    path = _cache_path(folder)
    if (found := _load_cached(path)) is not None:
        return found
    with _locked(path):
        return _load_cached(path) or _load_and_cache(folder, path)


def _load_cached(path: Path) -> CountingTokenizer | None:
    try:
        return CountingTokenizer(json.loads(path.read_text("utf-8")))
    except Exception:  # not there, or damaged in a way that only its parser knows
        return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Of several processes that start together, one loads the tokenizer; the others wait, and read its cache file."""
    with ExitStack() as stack:
        with suppress(OSError):  # then each process loads it, and nothing is cached
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_file(path.with_suffix(".lock"), wait=True))
        yield


def _load_and_cache(folder: Path, path: Path) -> EncodingTokenizer:
    """The tokenizer as transformers loads it; what counting needs of it is written to `path`."""
    tokenizer = load_tokenizer(folder)
    kept = _description(tokenizer)
    if kept is not None and _have_equal_ids(CountingTokenizer(kept), tokenizer):
        with suppress(OSError), atomic_file(path, follows_link=False) as file:
            json.dump(kept, file)
    return tokenizer


def _cache_path(folder: Path) -> Path:
    return vicuna_home() / "tokenizers" / f"{_cache_key(folder)}.json"


def _cache_key(folder: Path) -> str:
    files = {name: sha256_file(folder / name) for name in HASHED_FILES if (folder / name).is_file()}
    facts = [FORMAT, files, version("transformers"), version("tokenizers"), sha256_file(Path(words.__file__))]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("ascii")).hexdigest()


def _description(tokenizer: EncodingTokenizer) -> JsonObject | None:
    """What counting needs of a tokenizer; None if it is not of the `tokenizers` library."""
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    backend.no_truncation()
    backend.no_padding()
    found = words.words_of(tokenizer)
    return {
        "backend": backend.to_str(),
        "name": str(tokenizer.name_or_path),
        "bos_token": tokenizer.bos_token,
        "eos_token": tokenizer.eos_token,
        "special_tokens": tokenizer.all_special_tokens,
        "added_tokens": {
            str(index): [token.content, token.special] for index, token in tokenizer.added_tokens_decoder.items()
        },
        "words": found and found.to_json(),
    }


def _have_equal_ids(one: EncodingTokenizer, other: EncodingTokenizer) -> bool:
    def ids(tokenizer: EncodingTokenizer, is_split: bool) -> object:
        return tokenizer(list(PROBES), add_special_tokens=False, split_special_tokens=is_split)["input_ids"]

    return all(ids(one, is_split) == ids(other, is_split) for is_split in (True, False))
