"""The folder beside the result that stores finished parts, so that a run that was killed goes on where it stopped.

`OUTPUT_DIR.work/run.json` has the run's key: a hash of the options, the input files and this program's own files. A run
with another key uses no part in it and clears the folder. A part that is not whole by its hash is made again. One run
at a time may use the folder.
"""

import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import vicuna
from vicuna.data.options import EXECUTION_OPTIONS, DataOptions
from vicuna.data.read.sources import Source
from vicuna.data.run.batches import BATCH_BYTES, BATCH_RECORDS, Part, read_keys
from vicuna.data.steps.decontaminate import shipped_questions
from vicuna.data.steps.dedup import Keys
from vicuna.data.steps.phrases import describe_lists
from vicuna.errors import VicunaError
from vicuna.io.files import atomic_file, make_folder, open_in_folder, sha256_file
from vicuna.io.jsonl import JsonObject, read_json, write_json
from vicuna.io.locks import lock_file
from vicuna.options import to_dict

RUN, LOCK = "run.json", "lock"
PROGRAM = "vicuna.data work"
WORK_FILE = re.compile(r"lock|run\.json|\d{6,}\.part|\.(run\.json|\d{6,}\.part)\..*\.tmp")
RESULT_FILE = re.compile(r"\.?(records|held_out|dropped|repairs|manifest|report)\.(jsonl|json|html)(\..*\.tmp)?")
LARGEST_FILE = 64 << 20  # of a tokenizer's folder; weights are larger


class Work:
    """The stored parts of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, index: int) -> Path:
        """Where a batch's part is."""
        return self.folder / f"{index:06d}.part"

    def clear(self) -> None:
        """Delete all parts, and the run's key."""
        for path in self.folder.iterdir():
            if path.name not in (RUN, LOCK):
                path.unlink()
        (self.folder / RUN).unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder with all that is in it."""
        self.clear()
        shutil.rmtree(self.folder)

    def write(self, index: int, part: Part) -> JsonObject:
        """Write a part to the disk and return its head, as `head` would."""
        head = {
            "num_records": part.num_records,
            "num_readable": part.num_readable,
            "problem": part.problem,
            "keys": len(part.keys),
            "rows": len(part.rows),
            "sha256": part.sha256(),
        }
        with atomic_file(self.path(index), "wb", follows_link=False) as file:
            file.write(json.dumps(head).encode("ascii") + b"\n")
            file.write(part.keys)
            file.write(part.rows)
        return head

    def head(self, index: int) -> JsonObject | None:
        """A stored part's head: counts, sizes, problem and hash. None if there is no such part, or it is damaged."""
        try:
            with open_in_folder(self.path(index)) as file:
                head: JsonObject = json.loads(file.readline())
                digest = hashlib.sha256()
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except (OSError, ValueError, VicunaError):
            return None
        return head if digest.hexdigest() == head.get("sha256") else None

    def keys(self, index: int) -> Iterator[tuple[str, Keys | None]]:
        """The keys of a part, as `batches.read_keys` gives them."""
        with open_in_folder(self.path(index)) as file:
            left = json.loads(file.readline())["keys"]

            def read(size: int) -> bytes:
                nonlocal left
                data = file.read(min(size, left))
                left -= len(data)
                return data

            yield from read_keys(read)

    @contextmanager
    def rows(self, index: int) -> Iterator[IO[bytes]]:
        """The file of a part, open at its first row."""
        with open_in_folder(self.path(index)) as file:
            head = json.loads(file.readline())
            file.seek(head["keys"], os.SEEK_CUR)
            yield file


def work_path(output_dir: Path) -> Path:
    """The folder for the parts of a result."""
    output = output_dir.resolve()
    return output.with_name(f"{output.name}.work")


@contextmanager
def work_folder(options: DataOptions, sources: Sequence[Source]) -> Iterator[Work]:
    """The folder of this run, with the parts that an earlier try has left; removed when the block ends without error.

    Raises:
        VicunaError: another run uses it, or there is something else under its name.
    """
    output, folder = options.output_dir.resolve(), work_path(options.output_dir)
    _check(folder)
    make_folder(folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_file(folder / LOCK, wait=False))
        except BlockingIOError:
            raise VicunaError(
                f"--output-dir {options.output_dir}: another run writes it just now; wait for it, or choose another"
            ) from None
        _clear_leftovers(output)
        work = Work(folder)
        run = {"program": PROGRAM, "run": run_key(options, sources)}
        if not (folder / RUN).is_file() or read_json(folder / RUN) != run:
            work.clear()
            write_json(folder / RUN, run, follows_link=False)
        try:
            yield work
        except BaseException:
            if not any(folder.glob("*.part")):
                work.remove()
            raise
        work.remove()


def _check(folder: Path) -> None:
    """Raise VicunaError if the folder is not ours: told by the names in it, as a kill may come before run.json."""
    if not folder.exists() and not folder.is_symlink():
        return
    is_ours = (
        folder.is_dir() and not folder.is_symlink() and all(WORK_FILE.fullmatch(path.name) for path in folder.iterdir())
    )
    if is_ours and (folder / RUN).is_file():
        run = read_json(folder / RUN)
        is_ours = isinstance(run, dict) and run.get("program") == PROGRAM
    if not is_ours:
        raise VicunaError(f"{folder} is needed for unfinished work, but is something else; move it away")


def _clear_leftovers(output: Path) -> None:
    """Remove what a run that was killed while it wrote the result has left beside it, under temporary names."""
    for path in output.parent.glob(f".{glob.escape(output.name)}.*"):
        # `.old` holds the earlier result while the new one takes its place: the only one, until that is done
        is_left = path.suffix == ".tmp" or (path.suffix == ".old" and output.exists())
        if is_left and path.is_dir() and all(RESULT_FILE.fullmatch(entry.name) for entry in path.iterdir()):
            shutil.rmtree(path, ignore_errors=True)


def run_key(options: DataOptions, sources: Sequence[Source]) -> str:
    """A hash of everything that the parts depend on."""
    shaping_options = {name: value for name, value in to_dict(options).items() if name not in EXECUTION_OPTIONS}
    facts = {
        "options": shaping_options,
        "inputs": [[os.fsencode(source.name).hex(), source.size_bytes, source.sha256] for source in sources],
        "batches": [BATCH_BYTES, BATCH_RECORDS],
        "tokenizer": _hashes(options.tokenizer) if options.tokenizer is not None else {},
        "questions": [sha256_file(path) for path in (shipped_questions(), *options.decontaminate)],
        "lists": describe_lists(options),
        "program": program_hashes(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("ascii")).hexdigest()


def program_hashes() -> dict[str, str]:
    """The version, and a hash of each file that a result depends on: parts that other code has made are not used."""
    package = Path(vicuna.__file__).parent
    return {"version": vicuna.__version__} | _hashes(package / "data") | _hashes(package / "conversation")


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {
        str(path.relative_to(folder.parent)): sha256_file(path)
        for path in files
        if path.stat().st_size <= LARGEST_FILE and not path.name.endswith(".safetensors")
    }
