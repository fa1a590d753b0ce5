"""Plans that were made before, kept in `vicuna_home()`.

A plan takes seconds: torch is loaded, and a step is run on fake tensors. Where model and hardware are stated, and no
file is read, it follows from the options, the versions of the libraries and our own source files alone: a second plan
of the same run is read from the disk, without torch.

Before: `options`. After: `report`, for a plan that is not known.
"""

import dataclasses
import hashlib
import json
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vicuna.io.files import atomic_file, sha256_file, vicuna_home
from vicuna.io.jsonl import JsonObject
from vicuna.train.planner.options import PlanOptions

LIBRARIES = ("torch", "transformers")
SOURCES = ("*.py", "*.toml")
MAX_BYTES = 1 << 20  # of a plan; one has 3,000


def find_known(options: PlanOptions) -> JsonObject | None:
    """The plan of these options, as text and as JSON; None if it is not known, or depends on this machine or files."""
    if not _is_stated(options):
        return None
    with suppress(OSError, ValueError, RecursionError, PackageNotFoundError):
        path = _path(options)
        known = json.loads(path.read_text("utf-8")) if path.stat().st_size <= MAX_BYTES else None
        if isinstance(known, dict) and isinstance(known.get("text"), str) and isinstance(known.get("json"), dict):
            return known
    return None


def keep_known(options: PlanOptions, plan: JsonObject) -> None:
    """Keep a plan for the next time, where it follows from the options alone and the disk takes it."""
    if not _is_stated(options):
        return
    with suppress(OSError):
        path = _path(options)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, follows_link=False) as file:
            json.dump(plan, file)


def _is_stated(options: PlanOptions) -> bool:
    return options.model is None and options.gpu is not None and not options.data


def _path(options: PlanOptions) -> Path:
    folder = Path(__file__).parents[1]
    files = sorted(path for pattern in SOURCES for path in folder.rglob(pattern))
    facts: list[Any] = [
        {name: value for name, value in dataclasses.asdict(options).items() if name != "json"},
        [version(name) for name in LIBRARIES],
        [[str(path.relative_to(folder)), sha256_file(path)] for path in files],
    ]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]
    return vicuna_home() / "plans" / f"{key}.json"
