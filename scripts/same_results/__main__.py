"""Shows that a change left the results as they were: runs two commits on the same inputs and compares what comes out.

    .venv/bin/python scripts/same_results HEAD~1                    # with the files as they are now, committed or not
    .venv/bin/python scripts/same_results v0.1 HEAD --data my.json --keep /tmp/both

For changes that should not change results: files moved, names changed, something made faster. The commands are public
ones (cleaning and its verbs, templates, a training of three steps, plans, deltas, casting, merging, GGUF both ways,
reports of an evaluation), each a process of this interpreter with the tree first on its path. Files are compared byte
for byte; the program's version, times and measured memory do not count (`compare.py` has their names).

A line for each file compared: `same`, or `differs` with the first difference. A command that fails is shown with the
end of what it said; one that only AFTER knows is `new` and does not count.

Exit code: 0 all is the same, 1 something is not, 2 wrong flags.
"""

import argparse
import io
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cases import Case, all_cases
from compare import LEFT_OUT_FILES, file_difference
from inputs import ROOT, make_inputs

ENDED_WELL = (0, 4)  # 4: records were set aside, as they should be
USAGE = 2
TIMEOUT_SECONDS = 300
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "NO_COLOR": "1",
    "PYTHONHASHSEED": "0",  # or what is written in the order of a set differs between two runs of one commit
    "COLUMNS": "120",
    "TZ": "UTC",
}


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (-1: it took too long) and the end of what it wrote to stderr."""

    code: int
    last_lines: str


@dataclass(frozen=True)
class Side:
    """One of the two trees, and the folder in which its commands run.

    Args:
        name: BEFORE or AFTER.
        tree: the source.
        folder: holds `inputs`, the same ones on both sides, and `out` with a folder for each case.
    """

    name: str
    tree: Path
    folder: Path

    def python(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        """Run the interpreter with this tree first on its path."""
        own = {"PYTHONPATH": str(self.tree), "VICUNA_HOME": str(self.folder / "home")}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=os.environ | ENVIRONMENT | own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
        )

    def run(self, case: Case) -> Ended:
        """Run a case in its names until one is known; its stdout is kept beside its files."""
        out = self.folder / "out" / case.name
        ended = Ended(USAGE, "")
        for command in case.commands:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            try:
                done = self.python(["-m", "vicuna", *shlex.split(command.replace("OUT", f"out/{case.name}"))])
            except subprocess.TimeoutExpired:
                return Ended(-1, f"took longer than {TIMEOUT_SECONDS} s")
            (out / "stdout").write_bytes(done.stdout)
            ended = Ended(done.returncode, "\n".join(done.stderr.decode("utf-8", "replace").splitlines()[-5:]))
            if ended.code != USAGE:
                break
        return ended

    def files(self, case: Case) -> set[str]:
        """What the case left, by its path in the case's folder."""
        out = self.folder / "out" / case.name
        return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


@dataclass
class Comparison:
    """Prints the lines and counts them."""

    sides: tuple[Side, Side]
    num_same: int = 0
    num_failed: int = 0

    def say(self, verdict: str, what: str, detail: str = "") -> None:
        """One line. `same` and `new` are well; everything else is not."""
        self.num_same += verdict == "same"
        self.num_failed += verdict not in ("same", "new")
        print(f"{verdict:<8} {what}{detail and f': {detail}'}", flush=True)

    def run(self, cases: Sequence[Case]) -> None:
        """Run each case on both sides at once, and compare what they left."""
        with ThreadPoolExecutor(2) as threads:
            for case in cases:
                before, after = threads.map(lambda side, case=case: side.run(case), self.sides)
                self._compare(case, before, after)

    def _compare(self, case: Case, before: Ended, after: Ended) -> None:
        if before.code == USAGE != after.code:
            self.say("new", case.name, f"BEFORE does not know it ({before.last_lines})")
        elif before.code != after.code:
            self.say("differs", case.name, f"exit code {before.code} and {after.code}")
            self._show(before, after)
        elif before.code not in ENDED_WELL:
            self.say("fails", case.name, f"exit code {before.code} on both sides, nothing was compared")
            self._show(before, after)
        else:
            self._compare_files(case)

    def _compare_files(self, case: Case) -> None:
        for name in sorted(set().union(*(side.files(case) for side in self.sides))):
            if Path(name).name not in LEFT_OUT_FILES:
                before, after = (side.folder / "out" / case.name / name for side in self.sides)
                difference = file_difference(before, after)
                self.say("differs" if difference else "same", f"{case.name} {name}", difference or "")

    def _show(self, *both: Ended) -> None:
        for side, ended in zip(self.sides, both, strict=True):
            if ended.code not in ENDED_WELL:
                for line in ended.last_lines.splitlines():
                    print(f"         {side.name}: {line}", flush=True)


def compare(sides: tuple[Side, Side], cases: Sequence[Case]) -> int:
    """Compare all cases; the exit code."""
    started = time.monotonic()
    comparison = Comparison(sides)
    comparison.run(cases)
    failed = f"{comparison.num_failed} do not pass" if comparison.num_failed else "nothing differs"
    print(f"{comparison.num_same} files are the same, {failed} ({time.monotonic() - started:.0f} s)")
    return 1 if comparison.num_failed or not comparison.num_same else 0


def main() -> int:
    """Make both trees and the inputs, run, compare."""
    parser = argparse.ArgumentParser(
        prog="scripts/same_results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", metavar="BEFORE", help="a commit")
    parser.add_argument("after", metavar="AFTER", nargs="?", help="another (default: the files as they are now)")
    parser.add_argument(
        "--data", metavar="FILE", type=Path, nargs="+", default=[], help="conversations of yours, to be cleaned as well"
    )
    parser.add_argument("--keep", metavar="DIR", type=Path, help="new folder for both results (default: thrown away)")
    options = parser.parse_args()
    commits = [None if name is None else commit(name) for name in (options.before, options.after)]
    for name, found in zip((options.before, options.after), commits, strict=True):
        if name is not None and found is None:
            parser.error(f"{name} is no commit of {ROOT}")
    for path in options.data:
        if not path.is_file():
            parser.error(f"--data {path} is no file")
    if options.keep is not None and options.keep.exists():
        parser.error(f"--keep {options.keep} is there already")
    with tempfile.TemporaryDirectory(prefix="vicuna-same-results-") as name:
        folder = (options.keep or Path(name)).resolve()
        sides = make_sides(folder, commits)
        make_inputs(folder / "inputs")
        for number, path in enumerate(options.data, 1):
            (folder / "inputs" / "files" / str(number)).mkdir(parents=True)
            shutil.copy(path, folder / "inputs" / "files" / str(number) / path.name)
        templates = sides[0].python(["-m", "vicuna", "template", "list"]).stdout.decode().splitlines()
        return compare(sides, all_cases([line.split()[0] for line in templates], options.data))


def commit(name: str) -> str | None:
    """The hash of a commit; None if there is no such."""
    return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip() or None


def git(*arguments: str) -> bytes:
    """What git prints, in this checkout."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], stdout=subprocess.PIPE).stdout


def make_sides(folder: Path, commits: Sequence[str | None]) -> tuple[Side, Side]:
    """Both trees, and the folders in which their commands run; both see the inputs under the same relative path."""
    made = []
    for name, of in zip(("BEFORE", "AFTER"), commits, strict=True):
        side = Side(name, folder / name.lower() / "tree", folder / name.lower())
        side.tree.mkdir(parents=True)
        (side.folder / "inputs").symlink_to(folder / "inputs")
        if of is None:
            copy_working_tree(side.tree)
        else:  # not a worktree of git's, which a kill would leave behind in its list
            tarfile.open(fileobj=io.BytesIO(git("archive", "--format=tar", of))).extractall(side.tree, filter="data")
        place = side.python(["-c", "import vicuna; print(vicuna.__file__)"])
        if not place.stdout.decode().startswith(str(side.tree)):
            sys.exit(f"{name} does not import its own vicuna: {(place.stdout + place.stderr).decode()[-300:]}")
        made.append(side)
    return made[0], made[1]


def copy_working_tree(target: Path) -> None:
    """The files that git knows or would add, as they are now."""
    for name in git("ls-files", "--cached", "--others", "--exclude-standard", "-z").decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


if __name__ == "__main__":
    sys.exit(main())
