"""Repositories of the Hugging Face hub: what of one is needed, fetched into the hub's own cache or found there.

`resolve` calls it for names such as `owner/name@revision`; without a revision the newest is taken. Either way the
commit that was really used goes into manifests. Only what is needed is downloaded: one set of weights (safetensors or,
where there are none, `.bin`) and the small files beside it; never code. The hub's library verifies what it fetches, and
a broken download goes on when called again.
"""

import glob
import importlib.util
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from vicuna.errors import VicunaError, require
from vicuna.io.files import checked_name, ensure_free_space
from vicuna.io.log import info, warning
from vicuna.weights.files.checkpoint import WEIGHT_NAMES, read_index
from vicuna.weights.files.manifest import OUR_NAMES, is_copied_verbatim

HUB_ID = re.compile(r"(?P<id>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w][\w./-]*))?")
TOKEN = "HF_TOKEN"


@dataclass(frozen=True)
class Source:
    """A folder, and the repository and commit that it was downloaded from, if it was."""

    folder: Path
    origin: dict[str, str] | None = None


def origins(**sources: Source) -> dict[str, dict[str, str]]:
    """The parts that came from the hub, for a manifest."""
    return {part: source.origin for part, source in sources.items() if source.origin is not None}


def fetch_repository(name: str, *, weights: bool = True) -> Source:
    """The folder of a hub repository: downloaded, or found in the cache if the hub cannot be asked.

    Args:
        name: `owner/name` or `owner/name@revision`.
        weights: whether they are wanted, or only the small files beside them (config, tokenizer).

    Raises:
        VicunaError: the hub does not give it, and the cache does not have it whole.
    """
    found = HUB_ID.fullmatch(name)
    assert found is not None, f"{name} is no hub id"
    hub = require("huggingface_hub", "export")
    repository, revision = found["id"], found["revision"]
    if require("huggingface_hub.constants", "export").HF_HUB_OFFLINE:
        return _cached(name, weights, "HF_HUB_OFFLINE is set; unset it, or give a folder")
    errors = require("huggingface_hub.errors", "export")
    try:
        return _download(hub, repository, revision, weights)
    except errors.HfHubHTTPError as error:
        raise VicunaError(_refusal(errors, error, name)) from None
    except _connection_errors() as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the disk's
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        source = _cached(name, weights, f"the hub cannot be reached ({reason}); connect to it, or give a folder")
        warning(f"the hub cannot be reached ({reason}); taking {name} from its cache, commit {source.folder.name}")
        return source
    except errors.HFValidationError as error:
        raise VicunaError(f"{name} is no name of a repository ({error}); correct it, or give a folder") from None


def _download(hub: ModuleType, repository: str, revision: str | None, weights: bool) -> Source:
    found = hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in found.siblings or ()}

    def fetch_index(file_name: str) -> Collection[str]:
        return read_index(Path(hub.hf_hub_download(repository, file_name, revision=found.sha))).values()

    names = needed_files(sizes, fetch_index if weights else None)
    if not names:
        wanted = "weights that are read (safetensors or .bin)" if weights else "files beside weights"
        raise VicunaError(f"{repository} on the hub has no {wanted}; name another repository")
    absent = sorted(set(names) - sizes.keys())
    if absent:
        raise VicunaError(f"{repository} on the hub lacks {absent[0]}, which its index names; name another revision")
    missing = [each for each in names if not hub.try_to_load_from_cache(repository, each, revision=found.sha)]
    if missing:
        cache = Path(require("huggingface_hub.constants", "export").HF_HUB_CACHE)
        total = sum(sizes[each] for each in missing)
        ensure_free_space(cache, total, f"the download of {repository} to {cache}")
        info(f"downloading {repository} at {found.sha} ({len(missing)} files, {total / 2**30:.2f} GiB)")
    patterns = [glob.escape(each) for each in names]
    # By the revision's name, so that the cache learns which commit it stands for.
    folder = Path(hub.snapshot_download(repository, revision=revision, allow_patterns=patterns))
    if folder.name != found.sha:
        raise VicunaError(f"{repository} on the hub changed meanwhile (to {folder.name}); run the command again")
    return Source(folder, {"id": repository, "revision": found.sha})


def _cached(name: str, weights: bool, because: str) -> Source:
    """What an earlier download left. (The library itself finds a snapshot only if every file of it is there.)

    Args:
        because: why the hub is not asked, and the way out.
    """
    repository, _, revision = name.partition("@")
    cache = Path(require("huggingface_hub.constants", "export").HF_HUB_CACHE)
    cache /= f"models--{repository.replace('/', '--')}"
    ref = cache / "refs" / (revision or "main")
    commit = ref.read_text("utf-8").strip() if ref.is_file() else revision
    folder = cache / "snapshots" / commit
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit) or not folder.is_dir():
        raise VicunaError(f"{name} is no folder and is not in the hub's cache, and {because}")
    there = {file.name for file in folder.iterdir() if file.is_file()}
    needed = needed_files(there, (lambda index: read_index(folder / index).values()) if weights else None)
    absent = sorted(set(needed) - there)
    if absent or not needed:
        lacking = f"lacks {absent[0]}" if absent else "has no weights"
        raise VicunaError(f"{name} in the hub's cache {lacking}, and {because}")
    return Source(folder, {"id": repository, "revision": folder.name})


def _refusal(errors: ModuleType, error: Exception, name: str) -> str:
    """One sentence for each way in which the hub says no."""
    repository, _, revision = name.partition("@")
    page = f"{require('huggingface_hub.constants', 'export').ENDPOINT}/{repository}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name} is gated: accept its terms on {page}, and set {TOKEN} to a token of the account that has done so"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} on the hub has no revision {revision or 'main'}; its branches and tags are on {page}"
    if isinstance(error, errors.RepositoryNotFoundError) and status == 401:
        return (
            f"{name} is private, or there is no such repository (the hub tells strangers no more): set {TOKEN} to a "
            "token that may read it, or correct the name"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{name} is neither a folder here nor a repository on the hub; correct the name (a private repository that "
            f"the account of {TOKEN} may not read looks the same)"
        )
    if status in (401, 403):
        return f"the hub refuses {name} (status {status}): {TOKEN} is wrong or may not read it; set another"
    reason = " ".join(str(error).split())[:300]
    return f"the hub does not give {name} ({reason}); try again, or download it and give its folder"


def _connection_errors() -> tuple[type[Exception], ...]:
    """What the hub's library raises when nobody answers; which HTTP client stands below depends on its version."""
    clients = [importlib.import_module(name) for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]
    return (OSError, *(client.HTTPError for client in clients))


def needed_files(names: Collection[str], shards_of: Callable[[str], Collection[str]] | None = None) -> list[str]:
    """Those of a repository's files that a model, an adapter or a delta consists of.

    A repository may hold its weights more than once (`consolidated.safetensors` or `.bin` beside an index): the set
    that `CheckpointReader` would read is taken, and no other.

    Args:
        shards_of: the files that an index names; without it no weights are taken.
    """
    plain = [name for name in names if "/" not in name]
    ours = [name for name in names if name in OUR_NAMES or (name.startswith("files/") and name.count("/") == 1)]
    beside = [name for name in plain if is_copied_verbatim(name)]
    if shards_of is None:
        return _checked({*beside, *ours})
    first = next((name for name in WEIGHT_NAMES if name in plain), None)
    if first is not None:
        weights = [first, *(shards_of(first) if first.endswith(".json") else ())]
    else:  # an adapter, or files of another name
        known = [name for name in plain if not name.startswith("consolidated")]
        weights = [name for name in known if name.endswith(".safetensors")]
        weights = weights or [name for name in known if name.endswith(".bin")]
    if not weights and not ours:
        return []
    return _checked({*weights, *ours, *beside})


def _checked(names: Collection[str]) -> list[str]:
    return sorted(checked_name(name, "the repository", has_folders=True) for name in names)
