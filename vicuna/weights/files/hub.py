"""A model or delta by name: a folder here, or a repository on the Hugging Face hub.

The commands call `find_source` with what the user wrote. A hub id may pin a revision, `owner/name@revision`; without
one the newest is taken. Either way the commit that was really used goes into the manifest. Only what is needed is
downloaded: safetensors or, where there are none, `.bin`; never code. Files land in the hub's own cache, verified by its
library, and an interrupted download is resumed by the next call.
"""

import glob
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from vicuna.errors import VicunaError, require
from vicuna.io.files import ensure_free_space
from vicuna.io.log import info
from vicuna.weights.files.manifest import DELTA_MANIFEST, OUR_NAMES, is_copied_verbatim

HUB_ID = re.compile(r"(?P<id>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w][\w./-]*))?")


@dataclass(frozen=True)
class Source:
    """A folder, and the repository and commit that it was downloaded from, if it was."""

    folder: Path
    origin: dict[str, str] | None = None


def find_source(name: str, *, weights: bool = True) -> Source:
    """The folder of a model or delta; a hub repository is downloaded.

    Args:
        name: a folder, or a hub id, `owner/name` or `owner/name@revision`.
        weights: whether to download the weights, or only the files beside them (config, tokenizer).

    Raises:
        VicunaError: there is no such folder, and the hub does not give it.
    """
    if Path(name).exists() or not (found := HUB_ID.fullmatch(name)):
        return Source(Path(name))  # what is wrong with it is reported where it is read
    return _download(name, found["id"], found["revision"], weights)


def origins(**sources: Source) -> dict[str, dict[str, str]]:
    """Repository and commit of the parts that came from the hub, for a manifest."""
    return {part: source.origin for part, source in sources.items() if source.origin is not None}


def _download(name: str, repository: str, revision: str | None, weights: bool) -> Source:
    hub, constants = require("huggingface_hub", "export"), require("huggingface_hub.constants", "export")
    try:
        if constants.HF_HUB_OFFLINE:
            return _cached(hub, repository, revision)
        found = hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in found.siblings or ()}
        names = needed_files(list(sizes))
        if not names:
            raise VicunaError(f"{repository} on the hub has no weights that are read (safetensors or .bin)")
        if not weights:
            names = [each for each in names if is_copied_verbatim(each)]
        missing = [each for each in names if not hub.try_to_load_from_cache(repository, each, revision=found.sha)]
        if missing:
            cache, total = Path(constants.HF_HUB_CACHE), sum(sizes[each] for each in missing)
            ensure_free_space(cache, total, f"the download of {repository} to {cache}")
            info(f"downloading {repository} at {found.sha} ({len(missing)} files, {total / 2**30:.2f} GiB)")
        patterns = [glob.escape(each) for each in names]
        folder = Path(hub.snapshot_download(repository, revision=revision, allow_patterns=patterns))
        if folder.name != found.sha:
            raise VicunaError(f"{name} on the hub changed meanwhile (to {folder.name}); run the command again")
    except _network_errors() as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the disk's
        reason = " ".join(str(error).split())[:300]
        raise VicunaError(
            f"{name} is no folder here, and the hub does not give it ({type(error).__name__}: {reason}); "
            "correct the name, or download it and give its folder"
        ) from None
    return Source(folder, {"id": repository, "revision": found.sha})


def _cached(hub: ModuleType, repository: str, revision: str | None) -> Source:
    """The folder of an earlier download, for processes that are told to stay offline (HF_HUB_OFFLINE)."""
    for name in ("config.json", DELTA_MANIFEST):
        if isinstance(found := hub.try_to_load_from_cache(repository, name, revision=revision), str):
            folder = Path(found).parent
            return Source(folder, {"id": repository, "revision": folder.name})
    raise VicunaError(f"{repository} is not in the hub's cache, and HF_HUB_OFFLINE is set; unset it or give a folder")


def _network_errors() -> tuple[type[Exception], ...]:
    """The exceptions of the hub's library; which HTTP client it uses depends on its version."""
    errors = require("huggingface_hub.errors", "export")
    clients = [importlib.import_module(name) for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]
    return (
        errors.HfHubHTTPError,
        errors.HFValidationError,
        errors.OfflineModeIsEnabled,
        OSError,  # of `requests`, and of the connection
        *(client.HTTPError for client in clients),
    )


def needed_files(names: list[str]) -> list[str]:
    """Those of a repository's files that a model or a delta consists of."""
    plain = [name for name in names if "/" not in name]
    ours = [name for name in names if name in OUR_NAMES or (name.startswith("files/") and name.count("/") == 1)]
    suffixes: tuple[str, ...] = (".safetensors", ".safetensors.index.json")
    if not any(name.endswith(".safetensors") for name in plain):
        suffixes = (".bin", ".bin.index.json")
    weights = [name for name in plain if name.endswith(suffixes)]
    if not weights and not ours:
        return []
    return sorted({*weights, *ours, *(name for name in plain if is_copied_verbatim(name))})
