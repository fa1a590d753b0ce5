"""The cleaner on a large set: the peak of its memory, and the same bytes whatever the workers, the order and the kills.

    .venv/bin/python scripts/bench/data_memory.py --gigabytes 2              # memory; half an hour on two cores
    .venv/bin/python scripts/bench/data_memory.py --gigabytes 0.2 --same     # five runs, compared byte by byte

The set is drawn by `pages` and dealt anew: every conversation has rounds of others, so that many are near duplicates.
It lies in four files, two JSON arrays and two of JSON lines. Memory is the largest sum over all processes, looked at
twenty times a second, shared pages counted once.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import harness
from harness import Cost, say
from pages import conversations

from data import TEMPLATE, tokenizer_folder
from vicuna.io.files import sha256_file

DRAWN = 2072  # conversations, whose rounds are dealt
ENV = {"PYTHONPATH": str(harness.ROOT)}


def main() -> int:
    """Draw the set, clean it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the set (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="processes that clean (default: 2)")
    parser.add_argument("--kills", type=int, default=3, help="with --same: how often a run is killed (default: 3)")
    parser.add_argument("--same", action="store_true", help="compare results instead of measuring memory")
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary folder")
    harness.add_json_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vicuna-bench-", dir=options.folder) as name:
        folder = Path(name)
        files = draw_set(folder / "input", int(options.gigabytes * 1e9))
        tokenizer = tokenizer_folder(folder)
        if options.same:
            return compare(folder, files, tokenizer, options.kills)
        cost = clean(files, folder / "out", tokenizer, options.workers)
        counts = json.loads((folder / "out" / "manifest.json").read_text())["counts"]
        say(cost.line())
        print(
            f"records in {counts['records_in']:,}, out {counts['records_out']:,}, merged {counts['merged']:,}; ", end=""
        )
        print(f"rounds in {counts['rounds_in']:,}, out {counts['rounds_out']:,}, left out {counts['rounds_dropped']:,}")
        harness.report({"peak_memory_mib": cost.memory_bytes / 2**20}, {"cost": vars(cost), **counts}, options.json)
    return 0


def draw_set(folder: Path, size: int) -> list[Path]:
    """Four files of about `size` bytes together."""
    folder.mkdir()
    draw = random.Random(7)
    rounds = [
        ", ".join(map(json.dumps, turns[at : at + 2]))
        for turns in (record["conversations"] for record in conversations(DRAWN))
        for at in range(0, len(turns) - 1, 2)
    ]
    number = 0

    def records(wanted: int) -> Iterator[str]:
        nonlocal number
        while wanted > 0:
            number += 1
            chosen = draw.choices(rounds, k=min(12, 1 + int(draw.expovariate(0.6))))
            record = f'{{"id": "c{number}", "conversations": [{", ".join(chosen)}]}}'
            wanted -= len(record) + 2
            yield record

    files = []
    for name in ("one.json", "two.jsonl", "three.json", "four.jsonl"):
        path = folder / name
        is_array = path.suffix == ".json"
        with path.open("w", encoding="utf-8") as file:
            for index, record in enumerate(records(size // 4)):
                file.write(("[" if not index else ",\n") * is_array + record + "\n" * (not is_array))
            file.write("]\n" * is_array)
        files.append(path)
    say(f"{number:,} conversations, {sum(path.stat().st_size for path in files) / 1e9:.2f} GB")
    return files


def command(files: Sequence[Path], output: Path, tokenizer: Path, workers: int) -> list[str]:
    """The cleaner's command line."""
    return [
        *(sys.executable, "-m", "vicuna.data", *map(str, files), "--output-dir", str(output)),
        *("--tokenizer", str(tokenizer), "--template", TEMPLATE, "--max-tokens", "2048", "--held-out-ratio", "0.01"),
        *("--workers", str(workers)),
    ]


def clean(files: Sequence[Path], output: Path, tokenizer: Path, workers: int) -> Cost:
    """A run to its end."""
    return harness.run(command(files, output, tokenizer, workers), env=ENV)


def compare(folder: Path, files: Sequence[Path], tokenizer: Path, kills: int) -> int:
    """1, 2 and 5 workers, the files in another order, and a run that is killed: the same bytes or 1."""
    results: dict[str, dict[str, str]] = {}

    def keep(name: str, output: Path) -> None:
        results[name] = {path.name: sha256_file(path) for path in sorted(output.iterdir())}
        same = results[name] == next(iter(results.values()))
        say(f"{name}: {'the same' if same else 'ANOTHER RESULT'}")
        shutil.rmtree(output)

    for workers in (1, 2, 5):
        cost = clean(files, folder / "out", tokenizer, workers)
        keep(f"{workers} workers, {cost.cpu_seconds:.0f} CPU-s", folder / "out")
    clean(files[::-1], folder / "out", tokenizer, 2)
    keep("files in another order", folder / "out")
    draw = random.Random()
    for _ in range(kills):
        process = subprocess.Popen(
            command(files, folder / "out", tokenizer, 2),
            env={**os.environ, **ENV},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(draw.uniform(1, 1 + cost.wall_seconds / max(1, kills)))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    clean(files, folder / "out", tokenizer, 2)
    keep(f"killed {kills} times", folder / "out")
    names = {name for result in results.values() for name in result}
    different = sorted(name for name in names if len({result.get(name) for result in results.values()}) > 1)
    print(f"{len(names)} files, {len(results)} runs: {'all the same' if not different else ', '.join(different)}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
