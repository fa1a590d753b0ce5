"""Writes checkpoints while training goes on: the ranks copy their rows aside, and a thread of each brings them to disk.

The life of a checkpoint:

1. `save` waits for the one before it, copies this rank's rows into host memory and starts the thread. Where the host
   has no room for the copy, or the run is about to end, it writes at once instead.
2. Rank 0 sees that there is room on the disk and makes a temporary folder; all ranks write their files into it.
3. Each tells the others the sizes and hashes of its files, or what went wrong.
4. If nothing did, rank 0 syncs and renames the folder, writes COMPLETE and deletes the oldest checkpoints.

What goes wrong loses this checkpoint only: the earlier ones are whole, the run goes on, and says so.

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
from typing import Any, Self, TypeVar

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
    """Saves the checkpoints of one run. Use as a context manager: at its end nothing is left half written.

    Args:
        ranks: this process among the others; all of them call `save` after the same steps.
        keep: how many whole checkpoints are kept.
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
        if kind is None or issubclass(kind, Exception):  # Ctrl-C means now
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
            at_once: return when it is on the disk.
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
        """Return when the checkpoint that is being written is on the disk."""
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
        """The state in host memory, where training does not change it."""
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
        if key not in self._pinned:  # to pin memory takes longer than to fill it
            self._pinned[key] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return self._pinned[key].copy_(tensor, non_blocking=True)

    def _write_and_remember(self, path: Path, step: int, state: State) -> None:
        try:
            self._write(path, step, state)
        except BaseException as error:
            self._error = error

    def _write(self, path: Path, step: int, state: State) -> None:
        error = ""
        folder, refusal = self._shared(lambda: str(self._begin(path, state)))
        marks: dict[str, Any] = {}
        if not refusal:
            try:
                marks = _twice(lambda: write_state(Path(folder), state, self.ranks.rank, self.ranks.size))
            except OSError as caught:
                error = describe(caught)
        reports = [json.loads(said) for said in self._exchange(json.dumps([error, marks]))]
        refusal = refusal or next((error for error, _ in reports if error), "")
        if not self.ranks.is_first:
            return
        if not refusal:
            try:
                self._finish(
                    Path(folder), path, step, {name: mark for _, part in reports for name, mark in part.items()}
                )
            except OSError as caught:
                refusal = describe(caught)
        if refusal:
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
            whole = whole_checkpoints(path.parent.parent)
            kept = f"{whole[-1].name} is still whole" if whole else "there is none before it"
            log.warning(f"checkpoint {path} could not be saved: {refusal}; {kept}, and the run goes on")

    def _begin(self, path: Path, state: State) -> Path:
        """Rank 0: room on the disk and a temporary folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        _delete_broken(path.parent)
        size = sum(part.tensor.nbytes for parts in state.values() for part in parts.values())
        self._make_room(path, size * self.ranks.size)
        folder = path.parent / f".{path.name}.{os.getpid()}.tmp"
        folder.mkdir()
        return folder

    def _make_room(self, path: Path, size_bytes: int) -> None:
        """Rank 0: of several old checkpoints all but the newest may go to make room for this one."""
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

    def _finish(self, folder: Path, path: Path, step: int, marks: dict[str, Any]) -> None:
        """Rank 0: name the checkpoint, mark it as whole, delete old ones."""
        write_json(folder / STATE, {"step": step, "num_ranks": self.ranks.size})
        marks[STATE] = {"size": (folder / STATE).stat().st_size, "sha256": sha256_file(folder / STATE)}
        fsync_directory(folder)
        delete(path)  # one that is not whole
        shutil.move(folder, path)  # copies where the file system cannot rename
        fsync_directory(path.parent)
        _twice(lambda: write_json(path / COMPLETE, marks))
        for old in whole_checkpoints(path.parent.parent)[: -self.keep]:
            _delete_whole(old)

    def _exchange(self, text: str) -> list[str]:
        return self.ranks.exchange(text, self.ranks.saving)

    def _shared(self, work: Callable[[], str]) -> tuple[str, str]:
        """What `work` gives on rank 0, and what it refused, on all ranks."""
        said = ["", ""]
        if self.ranks.is_first:
            try:
                said[0] = work()
            except (OSError, VicunaError) as error:
                said[1] = describe(error)
        result, refusal = json.loads(self._exchange(json.dumps(said))[0])
        return result, refusal


def _delete_whole(path: Path) -> None:
    (path / COMPLETE).unlink(missing_ok=True)  # first: what is half deleted must not look whole
    shutil.rmtree(path, ignore_errors=True)


def _delete_broken(directory: Path) -> None:
    """What a kill in the middle of a save, or of deleting an old checkpoint, left behind."""
    for path in leftovers(directory, ["step-*"]):
        delete(path)
    for path in directory.glob("step-*"):
        if not is_whole(path):
            shutil.rmtree(path, ignore_errors=True)


def _twice(work: Callable[[], T]) -> T:
    """Do it again if the file system refused once, as a mounted bucket may; not if it is full or closed to us."""
    try:
        return work()
    except OSError as error:
        if error.errno in FINAL_ERRORS:
            raise
        log.warning(f"{describe(error)}; trying once more")
        time.sleep(RETRY_SECONDS)
        return work()
