"""The folder that a cleaning writes.

`records.jsonl` to train on, `held_out.jsonl` to evaluate with, `dropped.jsonl` and `repairs.jsonl` (what was left out
or changed, and why), `manifest.json` (counts, options and hashes), `report.html` and its figures in `report.json`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from vicuna import __version__
from vicuna.data.read.sources import Source
from vicuna.data.run.reduce import Reducer, RowFile
from vicuna.errors import VicunaError
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import JsonObject, read_json

PROGRAM = "vicuna.data"
FORMAT = 1  # of the manifest
ROW_FILES: tuple[RowFile, ...] = ("records", "held_out", "dropped", "repairs")
MANIFEST, REPORT, REPORT_DATA = "manifest.json", "report.html", "report.json"
OUR_FILES = frozenset({*(f"{name}.jsonl" for name in ROW_FILES), MANIFEST, REPORT, REPORT_DATA})


def check_folder(folder: Path, inputs: tuple[Path, ...]) -> None:
    """Check that `folder` is free, or holds an earlier result and nothing else.

    Raises:
        VicunaError: it is a file, or holds anything that a cleaning did not write, or an input.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    way_out = "choose another --output-dir or move it away"
    if not folder.is_dir():
        raise VicunaError(f"--output-dir {folder} is a file; {way_out}")
    for path in inputs:
        if path.resolve().parent == folder.resolve() or path.resolve() == folder.resolve():
            raise VicunaError(f"--output-dir {folder} holds the input {path.name}; choose another --output-dir")
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    for path in sorted(folder.iterdir()):
        if manifest is None or path.name not in OUR_FILES:
            raise VicunaError(f"--output-dir {folder} holds {path.name}, which no cleaning wrote; {way_out}")
        expected = manifest["outputs"].get(path.name, {}).get("sha256")
        if expected is not None and sha256_file(path) != expected:
            raise VicunaError(f"--output-dir {folder}: {path.name} was changed after its cleaning; {way_out}")


def read_manifest(folder: Path) -> JsonObject:
    """The manifest of an earlier result.

    Raises:
        VicunaError: there is none, or it is not ours.
    """
    if not (folder / MANIFEST).is_file():
        raise VicunaError(f"{folder} holds no {MANIFEST}; name the --output-dir of a cleaning")
    value: JsonObject = read_json(folder / MANIFEST)
    outputs = value.get("outputs") if isinstance(value, dict) and value.get("program") == PROGRAM else None
    if not isinstance(outputs, dict) or not all(isinstance(facts, dict) for facts in outputs.values()):
        raise VicunaError(f"{folder / MANIFEST} was not written by {PROGRAM}; name the folder of a cleaning")
    return value


@contextmanager
def row_files(folder: Path, names: Iterable[RowFile]) -> Iterator[dict[RowFile, IO[bytes]]]:
    """The files of all `names`, open for writing."""
    with ExitStack() as stack:
        yield {name: stack.enter_context((folder / f"{name}.jsonl").open("wb")) for name in names}


def manifest_of(folder: Path, reducer: Reducer, sources: Sequence[Source], options: JsonObject) -> JsonObject:
    """The manifest of the row files in `folder`. It has no time and no absolute path: same input, same bytes.

    Raises:
        AssertionError: the counts do not add up, so the program is wrong.
    """
    steps = reducer.steps
    reducer.counts.check(steps)
    names = [name for name in ROW_FILES if (folder / f"{name}.jsonl").exists()]
    return {
        "program": PROGRAM,
        "format": FORMAT,
        "version": __version__,
        "options": options,
        "inputs": [
            {"name": source.name, "size_bytes": source.size_bytes, "sha256": source.sha256} for source in sources
        ],
        "outputs": {f"{name}.jsonl": describe_file(folder / f"{name}.jsonl") for name in names},
        "counts": reducer.counts.to_dict(),
        "steps": [vars(step) for step in steps],
    }


def describe_file(path: Path) -> JsonObject:
    """Size and hash of an output file, and the number of rows if it is of JSON lines."""
    facts: JsonObject = {"size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
    if path.suffix == ".jsonl":
        with path.open("rb") as file:
            facts["rows"] = sum(1 for _ in file)
    return facts
