"""Deltas, beside FastChat 0.2.36 and beside `cp` and `sha256sum`: memory, CPU, size, and numbers not restored.

    .venv/bin/python scripts/bench/weights.py --json weights.json

Makes a checkpoint of 2 GiB and a fine-tune of it (`weights_data.py`), lets both tools make and apply a delta of them,
and counts the numbers that do not come back. Ours is run once more on 4 GiB. Takes 20 GB of disk and twenty minutes;
the folder is emptied at the end.
"""

import argparse
import json
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from harness import FASTCHAT, Cost, add_json_option, environment, in_turn, report, run, say

DATA = Path(__file__).with_name("weights_data.py")
PYTHON = sys.executable


def ours(module: str, *flags: object) -> Cost:
    return run([PYTHON, "-m", f"vicuna.{module}", *map(str, flags)])


def fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2.05, help="size of the checkpoint (default: 2.05)")
    parser.add_argument("--large-gib", type=float, default=4.0, help="second size, ours only; 0: none (default: 4)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each command (default: 2)")
    parser.add_argument("--without-fastchat", action="store_true", help="leave the peer out")
    parser.add_argument("--work", type=Path, default=None, help="folder for the checkpoints (default: temporary)")
    add_json_option(parser)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="weights-bench.", dir=options.work))
    try:
        ratios, figures = measure(options, work)
    finally:
        shutil.rmtree(work)
    report(ratios, figures, options.json)
    return 0


def measure(options: argparse.Namespace, work: Path) -> tuple[dict[str, float | None], dict[str, object]]:
    base, target, say_size = work / "base", work / "target", f"{options.gib} GiB"
    say(f"generating {say_size} twice")
    run([PYTHON, str(DATA), "base", str(base), str(options.gib)])
    run([PYTHON, str(DATA), "tuned", str(target), str(options.gib)])
    size = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    deltas = {kind: work / f"delta-{kind}" for kind in ("exact", "additive")}
    made = {}

    def make(kind: str) -> Cost:
        flags = ["--base", base, "--target", target, "--delta", fresh(deltas[kind]), "--format", kind, "--json"]
        cost = ours("make_delta", *flags)
        made[kind] = json.loads(cost.stdout)
        return cost

    def apply(kind: str) -> Cost:
        return ours("apply_delta", "--base", base, "--delta", deltas[kind], "--target", fresh(work / f"again-{kind}"))

    def copy() -> Cost:
        fresh(work / "copy")
        return run(
            ["sh", "-c", 'cp -r "$1" "$2" && sha256sum "$2"/*.safetensors', "sh", str(target), str(work / "copy")]
        )

    costs = in_turn({f"make {kind}": partial(make, kind) for kind in deltas}, options.repeats)
    costs |= in_turn(
        {"cp + sha256sum": copy, **{f"apply {kind}": partial(apply, kind) for kind in deltas}},
        options.repeats,
    )
    lost = {f"ours, {kind}": compare(target, work / f"again-{kind}") for kind in deltas}
    costs["verify"] = ours("weights", "verify", work / "again-exact")
    costs["verify --quick"] = ours("weights", "verify", work / "again-exact", "--quick")
    for name in ("copy", "again-exact", "again-additive", "delta-exact"):
        shutil.rmtree(work / name)
    if not options.without_fastchat:
        costs |= fastchat(work, base, target, deltas["additive"], lost)
    shutil.rmtree(deltas["additive"], ignore_errors=True)
    if options.large_gib:
        shutil.rmtree(base)
        shutil.rmtree(target)
        costs |= large(work, options.large_gib)
    copied = costs["cp + sha256sum"].cpu_seconds

    def ratio(one: str, two: str, what: str) -> float | None:
        return getattr(costs[one], what) / getattr(costs[two], what) if one in costs and two in costs else None

    ratios: dict[str, float | None] = {
        "apply additive / cp + sha256sum, CPU": costs["apply additive"].cpu_seconds / copied,
        "apply exact / cp + sha256sum, CPU": costs["apply exact"].cpu_seconds / copied,
        "FastChat / ours, apply additive, memory": ratio("FastChat apply", "apply additive", "memory_bytes"),
        "FastChat / ours, apply exact, memory": ratio("FastChat apply", "apply exact", "memory_bytes"),
        "FastChat / ours, make additive, memory": ratio("FastChat make", "make additive", "memory_bytes"),
        "FastChat / ours, apply additive, CPU": ratio("FastChat apply", "apply additive", "cpu_seconds"),
        "FastChat / ours, make additive, CPU": ratio("FastChat make", "make additive", "cpu_seconds"),
        "large / small, apply exact, memory": ratio("large apply exact", "apply exact", "memory_bytes"),
        "large / small, apply additive, memory": ratio("large apply additive", "apply additive", "memory_bytes"),
        "exact delta / model, size": made["exact"]["ratio"],
        "additive delta / model, size": made["additive"]["ratio"],
    }
    figures: dict[str, object] = {
        "model_bytes": size,
        "apply_exact_mb_per_cpu_second": size / 1e6 / costs["apply exact"].cpu_seconds,
        "numbers_not_restored": lost,
        "numbers": size // 2,
        "peak_mib": {name: round(cost.memory_bytes / 2**20) for name, cost in costs.items()},
        "cpu_seconds": {name: round(cost.cpu_seconds, 2) for name, cost in costs.items()},
    }
    for name, cost in costs.items():
        print(f"{name:<28}{cost.line()}")
    print(f"apply exact: {figures['apply_exact_mb_per_cpu_second']:.0f} MB of model per CPU-second")
    for name, count in lost.items():
        print(f"not restored, {name}: {count:,} of {size // 2:,} numbers")
    return ratios, figures


def fastchat(work: Path, base: Path, target: Path, our_delta: Path, lost: dict[str, int]) -> dict[str, Cost]:
    """FastChat's two tools on the same models, and its apply on our additive delta."""
    peer, env = str(environment("fastchat", FASTCHAT)), {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}

    def call(tool: str, *flags: object) -> Cost:
        cost = run([peer, "-m", f"fastchat.model.{tool}", *map(str, flags)], env=env)
        say(f"FastChat {tool:<25}{cost.line()}")
        return cost

    flags = ["--base-model-path", base]
    costs = {
        "FastChat make": call("make_delta", *flags, "--target-model-path", target, "--delta-path", work / "theirs")
    }
    theirs = ["--delta-path", work / "theirs", "--target-model-path", work / "their-target"]
    costs["FastChat apply"] = call("apply_delta", *flags, *theirs)
    lost["FastChat"] = compare(target, work / "their-target")
    shutil.rmtree(work / "their-target")
    shutil.rmtree(work / "theirs")
    call("apply_delta", *flags, "--delta-path", our_delta, "--target-model-path", work / "their-target")
    lost["FastChat's apply, our additive delta"] = compare(target, work / "their-target")
    shutil.rmtree(work / "their-target")
    return costs


def large(work: Path, gib: float) -> dict[str, Cost]:
    """Ours on a larger model: memory should not have grown."""
    base, target, costs = work / "large-base", work / "large-target", {}
    say(f"generating {gib} GiB twice")
    run([PYTHON, str(DATA), "base", str(base), str(gib)])
    run([PYTHON, str(DATA), "tuned", str(target), str(gib)])
    for kind in ("exact", "additive"):
        delta = work / "large-delta"
        flags = ["--base", base, "--delta", delta]
        costs[f"large make {kind}"] = ours("make_delta", *flags, "--target", target, "--format", kind)
        costs[f"large apply {kind}"] = ours("apply_delta", *flags, "--target", work / "large-again")
        shutil.rmtree(delta)
        shutil.rmtree(work / "large-again")
    return costs


def compare(one: Path, two: Path) -> int:
    return int(run([PYTHON, str(DATA), "compare", str(one), str(two)]).stdout)


if __name__ == "__main__":
    sys.exit(main())
