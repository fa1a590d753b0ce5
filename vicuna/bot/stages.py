"""Steps that are done once: run, timed, noted, and skipped when what they made is there and intact.

A step's note (`steps/NAME.json`) holds a fingerprint of what went in, the SHA-256 of every file that came out, and the
figures the step found. A step runs again when its inputs changed, or when a file is missing or was touched; what it
made before is removed first. A step that was cut short finds its unfinished work, and the commands go on from there.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vicuna import __version__
from vicuna.io import log
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import read_json, write_json

Figures = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One link of the chain.

    Attributes:
        name: its short name, also of its note.
        title: what it does, for a person.
        run: does it and returns its figures; `shown` among them is the line for the table.
        inputs: files and folders it reads, and settings it depends on.
        outputs: files and folders it makes, relative to the demo's folder.
        is_cheap: done anew each time, because what it finds lies outside the demo's folder.
    """

    name: str
    title: str
    run: Callable[[], Figures]
    inputs: tuple[Any, ...]
    outputs: tuple[str, ...]
    is_cheap: bool = False


@dataclass
class Done:
    """A step with its figures."""

    step: Step
    figures: Figures
    seconds: float
    was_skipped: bool = False


@dataclass
class Workspace:
    """The demo's folder and what has been done in it."""

    folder: Path
    done: dict[str, Done] = field(default_factory=dict)

    def run(self, step: Step, number: int, total: int) -> Done:
        """Do a step, or find it done."""
        fingerprint = self._fingerprint(step)
        heading = log.style(f"[{number}/{total}] {step.title}", "bold", stream=sys.stderr)
        if not step.is_cheap and (kept := self._kept(step, fingerprint)) is not None:
            log.info(f"{heading}: done before, intact")
            return self._note(kept)
        log.info(heading)
        if self._read_note(step) != {"fingerprint": fingerprint}:
            for name in step.outputs:
                remove(self.folder / name)
            write_json(self._note_path(step), {"fingerprint": fingerprint})
        started = time.monotonic()
        figures = step.run()
        seconds = time.monotonic() - started
        record = {
            "fingerprint": fingerprint,
            "outputs": dict(self._hashes(step)),
            "figures": figures,
            "seconds": seconds,
        }
        write_json(self._note_path(step), record)
        log.info(f"      {figures['shown']}  ({log.human_seconds(seconds)})")
        return self._note(Done(step, figures, seconds))

    def figures(self, name: str) -> Figures:
        """The figures of a step that is done."""
        return self.done[name].figures

    def _note(self, done: Done) -> Done:
        self.done[done.step.name] = done
        return done

    def _kept(self, step: Step, fingerprint: str) -> Done | None:
        record = self._read_note(step)
        is_whole = record.get("fingerprint") == fingerprint and "outputs" in record
        if not is_whole or record["outputs"] != dict(self._hashes(step)):
            return None
        return Done(step, record["figures"], record["seconds"], was_skipped=True)

    def _note_path(self, step: Step) -> Path:
        return self.folder / "steps" / f"{step.name}.json"

    def _read_note(self, step: Step) -> dict[str, Any]:
        path = self._note_path(step)
        note: dict[str, Any] = read_json(path) if path.exists() else {}
        return note

    def _hashes(self, step: Step) -> Iterator[tuple[str, str]]:
        for name in step.outputs:
            for path in files_under(self.folder / name):
                yield str(path.relative_to(self.folder)), sha256_file(path)
            if not (self.folder / name).exists():
                yield name, "missing"

    def _fingerprint(self, step: Step) -> str:
        digest = hashlib.sha256(f"{__version__} {step.name}".encode())
        for value in step.inputs:
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
    """Delete a file or folder that a step made."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def table(done: Mapping[str, Done]) -> str:
    """What was done, how long it took and what came of it, for the terminal."""
    rows = [
        (entry.step.name, f"{entry.seconds:.1f} s" + (" *" if entry.was_skipped else ""), entry.figures["shown"])
        for entry in done.values()
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"  {name:<{widths[0]}}  {seconds:>{widths[1]}}  {shown}" for name, seconds, shown in rows]
    total = sum(entry.seconds for entry in done.values() if not entry.was_skipped)
    if any(entry.was_skipped for entry in done.values()):
        lines.append("  (* done in an earlier run, found intact, skipped)")
    return "\n".join([*lines, f"  {'total':<{widths[0]}}  {total:>{widths[1] - 2}.1f} s"])
