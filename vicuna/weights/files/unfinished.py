"""An output folder that survives a kill: the same command resumes where the last run of it stopped.

The output is written to `.NAME.unfinished` beside the folder NAME that is wanted, and renamed when it is complete. A
journal in it has one line for each tensor that is written; a resumed run hashes the tensor's bytes again before it
keeps them, so lost or damaged bytes are written again. `shard_writer` and `delta` write through it.

    job.json        what is being made, of which inputs; another job starts afresh
    journal.jsonl   the tensors that are written, in order
    lock            held by the process that writes here
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vicuna.errors import VicunaError
from vicuna.io.files import WRITE_ERRORS, fsync_directory, make_folder, open_in_folder, write_in_folder
from vicuna.io.jsonl import JsonObject
from vicuna.io.locks import lock_file
from vicuna.io.log import info

JOB_NAME, JOURNAL_NAME, LOCK_NAME = "job.json", "journal.jsonl", "lock"


class UnfinishedFolder:
    """The folder that is being written, with the journal of the tensors that are written already."""

    def __init__(self, folder: Path, lines: list[bytes]) -> None:
        self.folder = folder
        self._lines = lines  # of an earlier run, not yet confirmed
        self._journal = open_in_folder(folder / JOURNAL_NAME, "ab")
        self._confirmed = 0  # bytes of the journal that are confirmed
        self._journal.truncate(sum(map(len, lines)))

    def next_noted(self, name: str) -> JsonObject | None:
        """The record that an earlier run noted next, if it is of this tensor. Check it, then `confirm` or discard."""
        record = json.loads(self._lines[0]) if self._lines else None
        return record if isinstance(record, dict) and record.get("name") == name else None

    def confirm(self) -> None:
        """Keep the next record: the tensor's bytes are as it says."""
        self._confirmed += len(self._lines.pop(0))

    def discard_rest(self) -> None:
        """Drop the records that are not confirmed: their tensors are written again."""
        if self._lines:
            self._lines.clear()
            self._journal.truncate(self._confirmed)

    def note(self, record: Mapping[str, Any]) -> None:
        """Note that a tensor is written, for a run that resumes this one."""
        self._journal.write(json.dumps(record).encode() + b"\n")
        self._journal.flush()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


@contextmanager
def resumable_directory(path: Path, job: Mapping[str, Any], *, resume: bool = True) -> Iterator[UnfinishedFolder]:
    """Fill a folder that gets the name `path` only when the block ends without an error.

    Ctrl-C, SIGTERM, kill -9 and a full disk leave the unfinished folder, and the next call with the same `job` resumes
    it. A VicunaError (a wrong base, a damaged file) removes it.

    Args:
        job: what is made and of what, as JSON values. An unfinished folder of a different job is emptied.
        resume: False begins afresh.

    Raises:
        VicunaError: `path` is a file or a folder that is not empty, or another process is writing it.
    """
    _check_empty(path)
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = unfinished_path(path)
    try:
        make_folder(folder)
        with _lock(folder, path):
            unfinished = UnfinishedFolder(folder, _begin(folder, job, resume))
            try:
                yield unfinished
            except VicunaError:
                shutil.rmtree(folder)
                raise
            finally:
                unfinished.close()
            _finish(folder, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in WRITE_ERRORS:
            error.filename = str(path)
        if folder.is_dir() and not isinstance(error, VicunaError | FileExistsError):
            info(f"what is done is kept in {folder}; the same command goes on there")
        raise


def unfinished_path(path: Path) -> Path:
    """Where the folder `path` is written until it is complete."""
    path = path.resolve()
    return path.parent / f".{path.name}.unfinished"


def unfinished_bytes(path: Path) -> int:
    """Size of what an earlier run has written of `path`: these bytes are kept or freed."""
    folder = unfinished_path(path)
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0


def identity(files: Iterable[Path]) -> list[list[Any]]:
    """Input files as a job lists them: name, size and time of change."""
    return [[file.name, (status := file.stat()).st_size, status.st_mtime_ns] for file in files]


def _check_empty(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise VicunaError(f"{path} is a file; choose another name for the folder")
    if path.is_dir() and any(path.iterdir()):
        raise VicunaError(f"{path} exists and is not empty; choose another folder or empty this one first")


@contextmanager
def _lock(folder: Path, path: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases even after kill -9."""
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_file(folder / LOCK_NAME, wait=False))
        except BlockingIOError:
            raise VicunaError(f"another process is writing {path}; wait for it or choose another folder") from None
        yield


def _begin(folder: Path, job: Mapping[str, Any], resume: bool) -> list[bytes]:
    """The journal of an earlier run of the same job; without one, the folder is emptied and `job` noted in it."""
    job, lines = json.loads(json.dumps(job)), None
    try:
        if resume and json.loads(_content(folder / JOB_NAME)) == job:
            lines = [line for line in _content(folder / JOURNAL_NAME).splitlines(True) if line.endswith(b"\n")]
            for line in lines:
                json.loads(line)
    except (OSError, ValueError, RecursionError, VicunaError):
        lines = None
    if lines:
        info(f"going on where an earlier run stopped: {len(lines)} tensors are there already")
        return lines
    for entry in folder.iterdir():
        if entry.name != LOCK_NAME:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    write_in_folder(folder / JOB_NAME, json.dumps(job).encode())
    return []


def _content(path: Path) -> bytes:
    with open_in_folder(path) as file:
        return file.read()


def _finish(folder: Path, path: Path) -> None:
    """Sync everything to disk, and give the folder its name."""
    ours = (JOURNAL_NAME, JOB_NAME, LOCK_NAME)
    for entry in sorted(folder.rglob("*"), reverse=True):
        if entry.is_dir():
            fsync_directory(entry)
        elif entry.name not in ours:
            with entry.open("rb") as file:
                os.fsync(file.fileno())
    for name in ours:
        (folder / name).unlink()
    fsync_directory(folder)
    os.replace(folder, path)
    fsync_directory(path.parent)
