"""A tokenizer out of a folder, for the cleaner, the trainer, the worker and `vicuna template`.

The tokenizer is Hugging Face's; transformers is loaded when one is asked for.
"""

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
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever the files' parsers raise: KeyError, TypeError, pyo3's own, ...
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise VicunaError(
            f"{folder}: its tokenizer cannot be read ({said}); copy its base model's files there again"
        ) from error


def check_tokenizer(folder: Path) -> None:
    """See that there is a tokenizer, before something that takes long.

    Raises:
        VicunaError: there is no folder, or no tokenizer in it.
    """
    if not folder.is_dir():
        raise VicunaError(f"{folder}: no such folder; give one that holds a tokenizer")
    if not any((folder / name).is_file() for name in FILES):
        raise VicunaError(f"{folder} has no tokenizer ({FILES[0]} or {FILES[1]}); copy its base model's files there")
