"""What the benches share: environments for the peers, the cost of a command, ratios on the screen and in a file.

A bench runs ours and the peer as whole processes, in turn, in one call, and prints ratios: seconds of one machine say
little on another. CPU time is that of the process and of all children it waited for; memory is the largest sum over
all its processes, in which shared pages count once.

Peers live in environments of their own under `~/.cache/vicuna-bench` (or `$VICUNA_BENCH_ENVIRONMENTS`), made when a
bench first needs them.
"""

import argparse
import fcntl
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vicuna.bot.memory import MemoryWatch

ROOT = Path(__file__).resolve().parents[2]
TORCH = "torch==2.13.0"

FASTCHAT = (
    *("fschat==0.2.36", TORCH, "transformers==4.46.3", "accelerate==1.1.1", "tokenizers==0.20.3"),
    *("huggingface_hub==0.36.0", "datasets==3.1.0", "sentencepiece", "protobuf", "numpy<2.3", "peft==0.13.2"),
    *("beautifulsoup4", "markdownify==0.11.6", "einops", "psutil"),
)
"""FastChat's last release with versions of its time that it runs with; torch is ours, so that both compute alike."""


FASTCHAT_LANGUAGE = ("pyicu", "pycld2", "morfessor", "polyglot", "six")
"""What FastChat's language filter needs; the first two are compiled (Debian: libicu-dev, pkg-config, g++)."""


class BenchError(Exception):
    """A command of a bench failed; the message holds the end of what it printed."""


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Args:
        cpu_seconds: user and system time of the process and the children it waited for.
        memory_bytes: peak of the whole process tree.
        stdout: what it printed.
    """

    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    stdout: str

    def line(self) -> str:
        """The cost in words."""
        return f"{self.cpu_seconds:8.1f} CPU-s {self.wall_seconds:8.1f} s wall {self.memory_bytes / 2**20:8.0f} MiB"


def environment(name: str, packages: Sequence[str]) -> Path:
    """The interpreter of an environment with exactly these packages asked for, made if it is not there.

    Raises:
        BenchError: pip failed.
    """
    key = hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()[:8]
    home = Path(os.environ.get("VICUNA_BENCH_ENVIRONMENTS") or Path.home() / ".cache" / "vicuna-bench")
    directory = home / f"{name}-{key}"
    interpreter, ready = directory / "bin" / "python", directory / "ready"
    home.mkdir(parents=True, exist_ok=True)
    with open(home / f"{name}-{key}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.is_file():
            say(f"making the environment {directory} (once)")
            run([sys.executable, "-m", "venv", "--clear", str(directory)])
            run([str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
            ready.touch()
    return interpreter


def add_packages(interpreter: Path, packages: Sequence[str]) -> bool:
    """Install packages that may fail to install into an environment; whether they are there."""
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    try:
        run(install)
    except BenchError as error:
        say(f"{', '.join(packages)} cannot be installed here: {str(error).splitlines()[-1]}")
        return False
    return True


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Cost:
    """Run a command to its end.

    Args:
        env: variables set on top of this process's; an interpreter of a peer should not see our `PYTHONPATH`.

    Raises:
        BenchError: its exit code is not 0.
    """
    started = time.monotonic()
    # Files, because a pipe would have to be emptied while the command runs.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env={**os.environ, **(env or {})}
        )
        with MemoryWatch(interval_seconds=0.05, pid=process.pid) as memory:
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_seconds = time.monotonic() - started
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    if process.returncode:
        raise BenchError(f"{' '.join(command)[:200]} ended with {process.returncode}:\n{''.join(texts)[-3000:]}")
    peak = max(memory.peak_bytes, usage.ru_maxrss * 1024)
    return Cost(wall_seconds, usage.ru_utime + usage.ru_stime, peak, texts[0])


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Cost by cost the median of several runs, and the output of the last."""
    return Cost(
        statistics.median(cost.wall_seconds for cost in costs),
        statistics.median(cost.cpu_seconds for cost in costs),
        int(statistics.median(cost.memory_bytes for cost in costs)),
        costs[-1].stdout,
    )


def in_turn(commands: Mapping[str, Callable[[], Cost]], repeats: int) -> dict[str, Cost]:
    """Run each `repeats` times, A B A B, so that a machine that slows down slows all of them; medians."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            costs[name].append(command())
            say(f"{name:<34}{costs[name][-1].line()}")
    return {name: median_cost(several) for name, several in costs.items()}


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """`--json FILE`, which every bench has."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the ratios and figures there")


def report(ratios: Mapping[str, float | None], figures: Mapping[str, object], target: Path | None) -> None:
    """Print the ratios; write them with the figures and the machine to `target`, if one was asked for."""
    for name, value in ratios.items():
        print(f"{name:<44}{'not measured' if value is None else f'{value:.2f}'}")
    if target is not None:
        machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "machine": platform.machine()}
        target.write_text(json.dumps({"ratios": ratios, "figures": figures, "machine": machine}, indent=2) + "\n")
