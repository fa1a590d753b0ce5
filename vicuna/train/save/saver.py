"""Writes checkpoints while training goes on: each rank copies its shards to host memory, and a thread writes them.

The steps of a save:

1. `save` waits for the one before it, copies this rank's shards into host memory and starts the thread. Where the host
   has no room for the copy, or the run is about to end, it writes at once instead.
2. Rank 0 checks that there is room on the disk and makes a temporary folder; all ranks write their files into it.
3. The ranks gather the sizes and hashes of their files, or their errors.
4. Without errors, rank 0 syncs and renames the folder, writes COMPLETE and deletes the oldest checkpoints.

An error loses this checkpoint only: the earlier ones are whole, and the run goes on with a warning.

Before: `checkpoint` (the format). After: `loop` calls it.
"""

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import torch

from vicuna.errors import VicunaError, describe
from vicuna.io import log
from vicuna.io.files import ensure_free_space, fsync_directory, sha256_file
from vicuna.io.jsonl import write_json
from vicuna.io.machine import available_memory_bytes
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.ranks import Ranks
from vicuna.train.save.checkpoint import (
    COMPLETE,
    STATE,
    Manifest,
    Part,
    State,
    is_whole,
    state_of,
    whole_checkpoints,
    write_state,
)
from vicuna.train.save.output import delete, leftovers

T = TypeVar("T")
FINAL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
RETRY_SECONDS = 1.0


class CheckpointSaver:
    """Saves the checkpoints of one run. Use as a context manager: its exit waits for the thread.

    Args:
        ranks: this process among the others; all of them call `save` after the same steps.
        keep: the number of whole checkpoints that are kept.
        in_background: write while training goes on, if the host has memory for a copy.
    """

    def __init__(self, ranks: Ranks, *, keep: int, in_background: bool) -> None:
        self.ranks, self.keep, self.in_background = ranks, keep, in_background
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._pinned: dict[str, torch.Tensor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None or issubclass(kind, Exception):  # not for Ctrl-C
            self.wait()

    def save(
        self,
        path: Path,
        step: int,
        model: ConversationModel,
        optimizer: torch.optim.Optimizer,
        *,
        at_once: bool = False,
    ) -> None:
        """Save the state after `step` steps.

        Args:
            path: the checkpoint's folder.
            at_once: write without a thread; it is on the disk on return.
        """
        self.wait()
        state = state_of(model, optimizer, is_first=self.ranks.is_first)
        if at_once or not self._has_room_for_copy(state):
            self._write(path, step, state)
            return
        copy = self._copy(state)
        self._thread = threading.Thread(target=self._write_and_remember, args=(path, step, copy), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the thread that writes a checkpoint; raise its error, if any."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._error:
            error, self._error = self._error, None
            raise error

    def _has_room_for_copy(self, state: State) -> bool:
        size = sum(part.tensor.nbytes for parts in state.values() for part in parts.values())
        has_room = self.in_background and 2 * size * self.ranks.local_size < available_memory_bytes()
        return not self.ranks.any(not has_room)

    def _copy(self, state: State) -> State:
        """A copy of the state in host memory."""
        copied = {
            kind: {
                name: Part(self._copy_to_host(f"{kind}/{name}", part.tensor), part.first, part.total)
                for name, part in parts.items()
            }
            for kind, parts in state.items()
        }
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return copied

    def _copy_to_host(self, key: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type == "cpu":
            return tensor.clone()
        if key not in self._pinned:  # kept, because pinning memory takes longer than filling it
            self._pinned[key] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return self._pinned[key].copy_(tensor, non_blocking=True)

    def _write_and_remember(self, path: Path, step: int, state: State) -> None:
        try:
            self._write(path, step, state)
        except BaseException as error:
            self._error = error

    def _write(self, path: Path, step: int, state: State) -> None:
        error = ""
        folder, refusal = self._on_first_rank(lambda: str(self._make_folder(path, state)))
        own_files: Manifest = {}
        if not refusal:
            try:
                own_files = _retry_once(lambda: write_state(Path(folder), state, self.ranks.rank, self.ranks.size))
            except OSError as caught:
                error = describe(caught)
        reports = [json.loads(text) for text in self._all_gather(json.dumps([error, own_files]))]
        refusal = refusal or next((error for error, _ in reports if error), "")
        if not self.ranks.is_first:
            return
        if not refusal:
            try:
                manifest = {name: entry for _, files in reports for name, entry in files.items()}
                self._finish(Path(folder), path, step, manifest)
            except OSError as caught:
                refusal = describe(caught)
        if refusal:
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
            whole = whole_checkpoints(path.parent.parent)
            kept = f"{whole[-1].name} is still whole" if whole else "there is none before it"
            log.warning(f"checkpoint {path} could not be saved: {refusal}; {kept}, and the run goes on")

    def _make_folder(self, path: Path, state: State) -> Path:
        """On rank 0: check the room on the disk and make a temporary folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        _delete_broken(path.parent)
        size = sum(part.tensor.nbytes for parts in state.values() for part in parts.values())
        self._make_room(path, size * self.ranks.size)
        folder = path.parent / f".{path.name}.{os.getpid()}.tmp"
        folder.mkdir()
        return folder

    def _make_room(self, path: Path, size_bytes: int) -> None:
        """On rank 0: delete old checkpoints, but the newest, until the disk has room for this one."""
        while True:
            try:
                ensure_free_space(path, size_bytes, f"checkpoint {path.name}")
                return
            except VicunaError as error:
                whole = whole_checkpoints(path.parent.parent)
                if len(whole) < 2:
                    raise
                log.warning(f"{describe(error)}; {whole[0].name} is deleted for it")
                _delete_whole(whole[0])

    def _finish(self, folder: Path, path: Path, step: int, manifest: Manifest) -> None:
        """On rank 0: rename the folder, write the manifest, delete old checkpoints."""
        write_json(folder / STATE, {"step": step, "num_ranks": self.ranks.size}, follows_link=False)
        manifest[STATE] = {"size": (folder / STATE).stat().st_size, "sha256": sha256_file(folder / STATE)}
        fsync_directory(folder)
        delete(path)  # one that is not whole
        shutil.move(folder, path)  # copies where the file system cannot rename
        fsync_directory(path.parent)
        _retry_once(lambda: write_json(path / COMPLETE, manifest, follows_link=False))
        for old in whole_checkpoints(path.parent.parent)[: -self.keep]:
            _delete_whole(old)

    def _all_gather(self, text: str) -> list[str]:
        return self.ranks.all_gather(text, self.ranks.saving)

    def _on_first_rank(self, work: Callable[[], str]) -> tuple[str, str]:
        """Do `work` on rank 0; its result and its error ("" if none), on all ranks."""
        outcome = ["", ""]
        if self.ranks.is_first:
            try:
                outcome[0] = work()
            except (OSError, VicunaError) as error:
                outcome[1] = describe(error)
        result, refusal = json.loads(self._all_gather(json.dumps(outcome))[0])
        return result, refusal


def _delete_whole(path: Path) -> None:
    (path / COMPLETE).unlink(missing_ok=True)  # first, so that a half-deleted checkpoint is not whole
    shutil.rmtree(path, ignore_errors=True)


def _delete_broken(directory: Path) -> None:
    """Delete what a kill during a save, or during the deletion of an old checkpoint, left."""
    for path in leftovers(directory, ["step-*"]):
        delete(path)
    for path in directory.glob("step-*"):
        if not is_whole(path):
            shutil.rmtree(path, ignore_errors=True)


def _retry_once(work: Callable[[], T]) -> T:
    """Do it again after an error of the file system, as mounted buckets have; not if it is full or read-only."""
    try:
        return work()
    except OSError as error:
        if error.errno in FINAL_ERRORS:
            raise
        log.warning(f"{describe(error)}; trying once more")
        time.sleep(RETRY_SECONDS)
        return work()
