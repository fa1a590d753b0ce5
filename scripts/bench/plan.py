"""What the planner says of the runs that people ask about, and how long it takes to say it, as a table.

    .venv/bin/python scripts/bench/plan.py            # all rows
    .venv/bin/python scripts/bench/plan.py --json FILE

Each row is one `python -m vicuna.train --plan ... --json`, a whole process on this machine's CPU; its seconds are CPU
seconds, imports included.
"""

import argparse
import json
import resource
import subprocess
import sys
from typing import Any

from harness import add_json_option, report

VICUNA = "--num-conversations 70000 --num-tokens 207000000 --rows-per-step 128"
"""Vicuna's data as published: 70,000 conversations; 125,000 of them are about 370M tokens."""
RUNS = {
    "7B, 8 x A100-80": f"--model-shape llama-7b --gpu a100-80gb:8 {VICUNA}",
    "7B, 4 x A100-80": f"--model-shape llama-7b --gpu a100-80gb:4 {VICUNA}",
    "7B, 4 x A100-40": f"--model-shape llama-7b --gpu a100-40gb:4 {VICUNA}",
    "13B, 8 x A100-80": f"--model-shape llama-13b --gpu a100-80gb:8 {VICUNA}",
    "13B, 8 x A100-80, 2 rows of 2,048": (
        f"--model-shape llama-13b --gpu a100-80gb:8 {VICUNA} --per-device-train-batch-size 2"
    ),
    "13B, 8 x A100-40": f"--model-shape llama-13b --gpu a100-40gb:8 {VICUNA}",
    "13B, 4 x A100-80": f"--model-shape llama-13b --gpu a100-80gb:4 {VICUNA}",
    "13B, 8 x H100-80": f"--model-shape llama-13b --gpu h100-80gb:8 {VICUNA}",
    "13B, 1 x A100-80": f"--model-shape llama-13b --gpu a100-80gb {VICUNA}",
    "8B (Llama 3), 8 x H100-80": f"--model-shape llama-3-8b --gpu h100-80gb:8 {VICUNA}",
    "7B LoRA, 1 x RTX 4090": f"--model-shape llama-7b --gpu rtx-4090 {VICUNA} --lora",
    "13B QLoRA, 1 x RTX 4090": f"--model-shape llama-13b --gpu rtx-4090 {VICUNA} --qlora",
    "7B, 1 x RTX 4090": f"--model-shape llama-7b --gpu rtx-4090 {VICUNA}",
}
GIB = 1 << 30


def main() -> int:
    """Plan every run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_json_option(parser)
    parser.add_argument("--only", help="plan the runs whose name has this in it", default="")
    arguments = parser.parse_args()
    print("| run | GiB of each GPU | checkpointing | tokens/s of each | hours | cheapest | CPU-s to plan |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    figures = {}
    for name, flags in RUNS.items():
        if arguments.only not in name:
            continue
        told, seconds = plan(flags.split())
        figures[name] = {"plan": told, "cpu_seconds": seconds}
        print(f"| {name} | {row(told)} | {seconds:.1f} |", flush=True)
    report({}, figures, arguments.json)
    return 0


def plan(flags: list[str]) -> tuple[dict[str, Any] | str, float]:
    """What the command says, and its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "vicuna.train", "--plan", "--json", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip()), seconds


def row(told: dict[str, Any] | str) -> str:
    """The cells of a plan, or its refusal in their place."""
    if isinstance(told, str):
        return f"{told.removeprefix('error: ')} | | | | "
    prices = told["dollars"]
    cheapest = f"${min(price['total'] for price in prices):,.0f}" if prices else "no price known"
    memory = f"{told['needed_bytes'] / GIB:.1f} of {told['available_bytes'] / GIB:.1f}"
    speed = f"{told['tokens_per_second_per_gpu']:,.0f} | {told['hours']:.1f}"
    return f"{memory} | {told['activation_checkpointing']} | {speed} | {cheapest}"


if __name__ == "__main__":
    sys.exit(main())
