"""Stages of a chain of commands: each is run once, timed, and skipped when its outputs are there and intact.

A stage's note (`steps/NAME.json`) holds a fingerprint of its inputs, the SHA-256 of every output file, and the figures
that it found. A stage runs again when its inputs changed, or when an output file is missing or was changed; its old
outputs are removed first. A stage that was interrupted keeps its unfinished outputs, and the commands resume from them.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vicuna import __version__
from vicuna.io import log
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import read_json, write_json
from vicuna.io.terminal import style

Figures = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One command of the chain, or several that belong together.

    Attributes:
        name: also the name of its note.
        title: what it does, as printed.
        run: runs it and returns its figures; `shown` among them is the line for the table.
        inputs: files and folders that it reads, and settings that it depends on.
        outputs: files and folders that it makes, relative to the workspace's folder.
        is_cheap: run each time, because what it finds lies outside the workspace's folder.
    """

    name: str
    title: str
    run: Callable[[], Figures]
    inputs: tuple[Any, ...]
    outputs: tuple[str, ...]
    is_cheap: bool = False


@dataclass
class Done:
    """A finished stage with its figures."""

    stage: Stage
    figures: Figures
    seconds: float
    was_skipped: bool = False


@dataclass
class Workspace:
    """A folder, its stages' notes, and the stages that are done in this run."""

    folder: Path
    done: dict[str, Done] = field(default_factory=dict)

    def run(self, stage: Stage, number: int, total: int) -> Done:
        """Run a stage, or skip it if it was run before and its outputs are intact."""
        fingerprint = self._fingerprint(stage)
        heading = style(f"[{number}/{total}] {stage.title}", "bold")
        if not stage.is_cheap and (kept := self._kept(stage, fingerprint)) is not None:
            log.info([heading, ": done before, intact"])
            return self._note(kept)
        log.info(heading)
        if self._read_note(stage) != {"fingerprint": fingerprint}:
            for name in stage.outputs:
                remove(self.folder / name)
            write_json(self._note_path(stage), {"fingerprint": fingerprint}, follows_link=False)
        started = time.monotonic()
        figures = stage.run()
        seconds = time.monotonic() - started
        record = {
            "fingerprint": fingerprint,
            "outputs": dict(self._hashes(stage)),
            "figures": figures,
            "seconds": seconds,
        }
        write_json(self._note_path(stage), record, follows_link=False)
        log.info(f"      {figures['shown']}  ({log.human_seconds(seconds)})")
        return self._note(Done(stage, figures, seconds))

    def figures(self, name: str) -> Figures:
        """The figures of a stage that is done."""
        return self.done[name].figures

    def _note(self, done: Done) -> Done:
        self.done[done.stage.name] = done
        return done

    def _kept(self, stage: Stage, fingerprint: str) -> Done | None:
        record = self._read_note(stage)
        is_whole = record.get("fingerprint") == fingerprint and "outputs" in record
        if not is_whole or record["outputs"] != dict(self._hashes(stage)):
            return None
        return Done(stage, record["figures"], record["seconds"], was_skipped=True)

    def _note_path(self, stage: Stage) -> Path:
        return self.folder / "steps" / f"{stage.name}.json"

    def _read_note(self, stage: Stage) -> dict[str, Any]:
        path = self._note_path(stage)
        note: dict[str, Any] = read_json(path) if path.exists() else {}
        return note

    def _hashes(self, stage: Stage) -> Iterator[tuple[str, str]]:
        for name in stage.outputs:
            for path in files_under(self.folder / name):
                yield str(path.relative_to(self.folder)), sha256_file(path)
            if not (self.folder / name).exists():
                yield name, "missing"

    def _fingerprint(self, stage: Stage) -> str:
        digest = hashlib.sha256(f"{__version__} {stage.name}".encode())
        for value in stage.inputs:
            if isinstance(value, Path):
                for path in files_under(value):
                    digest.update(f"{path.name} {sha256_file(path)}".encode())
            else:
                digest.update(json.dumps(value, sort_keys=True).encode())
        return digest.hexdigest()


def files_under(path: Path) -> list[Path]:
    """The file itself, or every file in a folder, in a fixed order."""
    if path.is_dir():
        return sorted(entry for entry in path.rglob("*") if entry.is_file())
    return [path] if path.exists() else []


def remove(path: Path) -> None:
    """Delete a file or folder that a stage made."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def table(done: Mapping[str, Done]) -> str:
    """Name, time and result of each stage, for the terminal."""
    rows = [
        (entry.stage.name, f"{entry.seconds:.1f} s" + (" *" if entry.was_skipped else ""), entry.figures["shown"])
        for entry in done.values()
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"  {name:<{widths[0]}}  {seconds:>{widths[1]}}  {shown}" for name, seconds, shown in rows]
    total = sum(entry.seconds for entry in done.values() if not entry.was_skipped)
    if any(entry.was_skipped for entry in done.values()):
        lines.append("  (* done in an earlier run, found intact, skipped)")
    return "\n".join([*lines, f"  {'total':<{widths[0]}}  {total:>{widths[1] - 2}.1f} s"])
