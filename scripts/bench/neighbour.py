"""Training beside a busy neighbour: steps a second alone, and with another process on one of the same cores.

Training's threads wait for each other after each kernel, and by default they spin while they wait: a neighbour takes
the core of one, and the others burn theirs. Every kind of waiting is a process of its own, because OpenMP reads it from
the environment when it is loaded. What `python -m vicuna.train` sets is the kind "ours".

    .venv/bin/python scripts/bench/neighbour.py --cores 2 --json figures.json
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KINDS: dict[str, dict[str, str]] = {
    "spinning": {},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"},
    "spin 10,000": {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"},
    "spin 30,000": {"GOMP_SPINCOUNT": "30000", "KMP_BLOCKTIME": "1"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "ours": {"OURS": "1"},
}
BUSY = "while True:\n    pass"
WARM_STEPS = 3
TOKENS, HIDDEN, LAYERS = 512, 384, 6


def main() -> int:
    """Measure every kind and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", type=int, default=2, help="cores of the training, each with a thread")
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(steps_per_second(given.seconds))
        return 0
    cores = sorted(os.sched_getaffinity(0))[: given.cores]
    figures = {}
    for name, environment in KINDS.items():
        alone = measure(environment, cores, given.seconds)
        with neighbour(cores[0]):
            beside = measure(environment, cores, given.seconds)
        figures[name] = {"alone": round(alone, 2), "beside": round(beside, 2), "share": round(beside / alone, 2)}
        print(
            f"{name:12} alone {alone:6.2f} steps/s, beside a neighbour {beside:6.2f}: {beside / alone:.0%}", flush=True
        )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(environment: dict[str, str], cores: list[int], seconds: float) -> float:
    """Steps a second of a training process on these cores."""
    command = [sys.executable, __file__, "--worker", "--seconds", str(seconds)]
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run(
        command,
        env={**bare, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return float(done.stdout.split()[-1])


@contextmanager
def neighbour(core: int) -> Iterator[None]:
    """Another process that takes as much of this core as it gets."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], preexec_fn=lambda: os.sched_setaffinity(0, [core]))
    try:
        yield
    finally:
        process.kill()
        process.wait()


def steps_per_second(seconds: float) -> float:
    """Of a small model's training in this process."""
    if os.environ.pop("OURS", None):
        from vicuna.train.waiting import wait_without_spinning

        wait_without_spinning()
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(HIDDEN, 6, 4 * HIDDEN, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False), nn.Linear(HIDDEN, 8_192))
    optimizer = torch.optim.AdamW(model.parameters())
    inputs, labels = torch.randn(1, TOKENS, HIDDEN), torch.randint(8_192, (TOKENS,))
    num_steps, started = 0, 0.0
    while not started or time.monotonic() < started + seconds:
        if num_steps == WARM_STEPS and not started:
            num_steps, started = 0, time.monotonic()
        functional.cross_entropy(model(inputs)[0], labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        num_steps += 1
    return num_steps / (time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
