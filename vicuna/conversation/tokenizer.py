"""The tokenizer protocols, and loading a Hugging Face tokenizer from a folder.

`EncodingTokenizer` is what turns text into ids, `Tokenizer` all that training and serving use. transformers is imported
when a tokenizer is loaded.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vicuna.errors import VicunaError, require
from vicuna.io.model_files import check_model_files

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


class AddedToken(Protocol):
    """A token beside the vocabulary's own; `special` ones are control tokens."""

    @property
    def content(self) -> str:
        """Its text."""

    @property
    def special(self) -> bool:
        """Whether it is a control token."""


class EncodingTokenizer(Protocol):
    """As much of a Hugging Face tokenizer as turns text into ids."""

    name_or_path: str
    bos_token: str | None
    eos_token: str | None

    @property
    def all_special_tokens(self) -> Sequence[str]:
        """The texts of its control tokens."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, AddedToken]:
        """The tokens beside the vocabulary, by id."""

    def convert_tokens_to_ids(self, token: str, /) -> int | None:
        """The id of a token."""

    def __call__(
        self,
        texts: list[str],
        /,
        *,
        add_special_tokens: bool,
        split_special_tokens: bool = False,
        return_attention_mask: bool = True,
        verbose: bool = True,
    ) -> Mapping[str, Any]:
        """`input_ids`: (N,) lists of ids; and what else was asked for."""


class Tokenizer(EncodingTokenizer, Protocol):
    """As much of a Hugging Face tokenizer (`transformers.PreTrainedTokenizerBase`) as is used here."""

    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: str | dict[str, str] | None

    @property
    def special_tokens_map(self) -> Mapping[str, Any]:
        """Control tokens by their role, `eos_token` and the like."""

    def get_vocab(self) -> dict[str, int]:
        """Ids by token."""

    def convert_ids_to_tokens(self, ids: Sequence[int], /) -> list[str]:
        """The tokens of ids, as the vocabulary spells them."""

    def decode(self, ids: Sequence[int], /, **options: bool) -> str:
        """The text of ids."""


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a folder; no code from there is executed, and nothing is downloaded.

    Raises:
        VicunaError: there is no folder, no tokenizer in it, or none that can be read.
    """
    check_tokenizer(folder)
    check_model_files(folder)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers = require("transformers", "data")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file():
            _order_merges(tokenizer, folder / "tokenizer.model")
        loaded: Tokenizer = tokenizer
        return loaded
    except BaseException as error:  # whatever the files' parsers raise: KeyError, TypeError, pyo3's own panic, ...
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise VicunaError(
            f"{folder}: its tokenizer cannot be read ({said}); copy its base model's files there again"
        ) from error


def _order_merges(tokenizer: Any, path: Path) -> None:
    """Put the merges of a sentencepiece model into the order of its scores.

    transformers 5 has them by id, which is another order for the pieces of several spaces in LLaMA's and Mistral's
    models: `a  b` became `▁▁` `b`, where sentencepiece, llama.cpp and transformers 4 say `▁` `▁b`, and a third of real
    texts got other tokens than those that the base model was trained on.
    """
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    described = json.loads(backend.to_str()) if isinstance(backend, Tokenizer) else {}
    if described.get("model", {}).get("type") != "BPE":
        return
    processor = SentencePieceProcessor(model_file=str(path))
    scores = {processor.id_to_piece(index): processor.get_score(index) for index in range(processor.get_piece_size())}
    merges = described["model"]["merges"]
    ordered = sorted(merges, key=lambda pair: -scores.get("".join(pair), -math.inf))
    if ordered != merges:
        described["model"]["merges"] = ordered
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(described))


def check_tokenizer(folder: Path) -> None:
    """See that a folder holds a tokenizer, before something that takes long.

    Raises:
        VicunaError: there is no folder, or no tokenizer in it.
    """
    if not folder.is_dir():
        raise VicunaError(f"{folder}: no such folder; give one that holds a tokenizer")
    if not any((folder / name).is_file() for name in FILES):
        raise VicunaError(f"{folder} has no tokenizer ({FILES[0]} or {FILES[1]}); copy its base model's files there")
