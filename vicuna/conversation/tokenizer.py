"""A tokenizer out of a folder, for the cleaner, the trainer, the worker and `vicuna template`.

The tokenizer is Hugging Face's; transformers is loaded when one is asked for.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

from vicuna.errors import VicunaError, require

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder; no code from there is run, and nothing is fetched.

    Raises:
        VicunaError: there is no folder, no tokenizer in it, or none that can be read.
    """
    check_tokenizer(folder)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers = require("transformers", "data")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file():
            _order_merges(tokenizer, folder / "tokenizer.model")
        return tokenizer
    except Exception as error:  # whatever the files' parsers raise: KeyError, TypeError, pyo3's own, ...
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise VicunaError(
            f"{folder}: its tokenizer cannot be read ({said}); copy its base model's files there again"
        ) from error


def _order_merges(tokenizer: Any, path: Path) -> None:
    """Put the merges of a sentencepiece model into the order of its scores.

    transformers 5 has them by id, which is another order for the pieces of several spaces in LLaMA's and Mistral's
    models: `a  b` became `▁▁` `b`, where sentencepiece, llama.cpp and transformers 4 say `▁` `▁b`, and a third of real
    texts got other tokens than those that the base model has learned.
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
    """See that there is a tokenizer, before something that takes long.

    Raises:
        VicunaError: there is no folder, or no tokenizer in it.
    """
    if not folder.is_dir():
        raise VicunaError(f"{folder}: no such folder; give one that holds a tokenizer")
    if not any((folder / name).is_file() for name in FILES):
        raise VicunaError(f"{folder} has no tokenizer ({FILES[0]} or {FILES[1]}); copy its base model's files there")
