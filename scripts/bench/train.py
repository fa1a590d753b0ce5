"""Training speed: ours beside FastChat's `train.py` and TRL's `SFTTrainer`.

The same small LLaMA, the same conversations, one epoch, about eight conversations an optimizer step, fp32, one thread
each, every trainer a process of its own. What counts is supervised tokens for a CPU-second of the training loop;
loading and tokenizing are left out for everybody. Every result is then measured on the same held-out conversations.

    .venv/bin/python scripts/bench/train.py --json figures.json
    .venv/bin/python scripts/bench/train.py --data real.json.gz
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # so that the bench also runs from elsewhere

import harness
from train_data import Material, make_material

HERE = Path(__file__).resolve().parent
TRL = (
    *("trl==1.16.0", harness.TORCH, "transformers==5.23.0", "accelerate==1.15.0", "datasets==5.2.0"),
    *("tokenizers==0.23.3", "sentencepiece", "protobuf", "numpy==2.3.5"),
)
ENV = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": ""}


@dataclass(frozen=True)
class Setting:
    """A trainer and how it is set; the conversations of an optimizer step are about eight in all of them."""

    name: str
    program: str
    job: dict[str, Any]


OURS = Setting("vicuna", "vicuna", {"flags": ["--row-length", "4096", "--gradient-accumulation-steps", "2"]})
FASTCHAT = Setting("FastChat, batches of 2", "fastchat", {"batch": 2, "accumulation": 4})
TRL_PACKED = Setting("TRL packed", "trl", {"batch": 1, "accumulation": 4, "packing": True, "strategy": None})
QUICK = (OURS, FASTCHAT, TRL_PACKED)
ALL = (
    OURS,
    Setting("vicuna, rows of 2,048", "vicuna", {"flags": ["--gradient-accumulation-steps", "4"]}),
    FASTCHAT,
    Setting("FastChat, batches of 1", "fastchat", {"batch": 1, "accumulation": 8}),
    Setting("TRL padded", "trl", {"batch": 2, "accumulation": 4, "packing": False, "strategy": None}),
    Setting(
        "TRL grouped by length", "trl", {"batch": 2, "accumulation": 4, "packing": False, "strategy": "group_by_length"}
    ),
    Setting("TRL one by one", "trl", {"batch": 1, "accumulation": 8, "packing": False, "strategy": None}),
    TRL_PACKED,
)


def main() -> int:
    """Make the material, run every setting, print the table and the ratios."""
    options = parse_arguments()
    pythons = {
        "vicuna": sys.executable,
        "fastchat": str(harness.environment("fastchat", harness.FASTCHAT)),
        "trl": str(harness.environment("trl", TRL)),
    }
    with tempfile.TemporaryDirectory(prefix="vicuna-bench-") as name:
        folder = Path(name)
        material = make_material(
            folder,
            conversations=options.conversations,
            max_length=options.max_length,
            seed=options.seed,
            data=options.data,
        )
        tokens = write_tokens(material, folder / "tokens.jsonl", options.max_length)
        files = {"model": str(material.model), "sharegpt": str(material.sharegpt), "records": str(material.records)}
        common = {**files, "tokens": str(tokens), "max_length": options.max_length, "lr": 1e-3, "bf16": options.bf16}
        figures: dict[str, list[dict[str, Any]]] = {}
        for repeat in range(options.repeats):
            for number, setting in enumerate(QUICK if options.quick else ALL):
                job = {**common, **setting.job, "output_dir": str(folder / f"out-{number}-{repeat}")}
                found = run(setting, job, pythons[setting.program], folder / "job.json")
                found["held_out_loss"] = held_out_loss(Path(found["model"]), material, options.max_length)
                harness.say(f"{setting.name:<26}{found['rate']:8.0f} supervised tokens/CPU-s")
                figures.setdefault(setting.name, []).append(found)
    medians = {name: median(several) for name, several in figures.items()}
    print_table(medians)
    harness.report(ratios(medians), medians, options.json)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--conversations", type=int, default=200, help="to train on (default: 200)")
    parser.add_argument("--max-length", type=int, default=2048, help="longest conversation in tokens (default: 2048)")
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="real conversations in the ShareGPT shape (.json[.gz])"
    )
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16, all of them (default: fp32)")
    parser.add_argument("--repeats", type=int, default=1, help="rounds over all settings; medians (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the model and of drawn conversations (default: 0)")
    parser.add_argument("--quick", action="store_true", help="48 conversations and one setting of each trainer")
    harness.add_json_option(parser)
    options = parser.parse_args()
    if options.quick:
        options.conversations = min(options.conversations, 48)
    return options


def write_tokens(material: Material, target: Path, max_length: int) -> Path:
    """The conversations as token ids and labels, for a trainer that would mask them otherwise."""
    from vicuna.conversation import encode, from_record, get_template, load_tokenizer

    template, tokenizer = get_template("vicuna_v1.1"), load_tokenizer(material.model)
    with target.open("w") as file:
        for line in material.records.open():
            encoding = encode(from_record(json.loads(line)).messages, template, tokenizer)
            assert len(encoding.input_ids) <= max_length
            file.write(json.dumps({"input_ids": encoding.input_ids, "labels": encoding.labels}) + "\n")
    return target


def run(setting: Setting, job: dict[str, Any], python: str, job_file: Path) -> dict[str, Any]:
    """One training; its figures."""
    job_file.write_text(json.dumps(job))
    env = ENV | ({"PYTHONPATH": str(harness.ROOT)} if setting.program == "vicuna" else {})
    cost = harness.run([python, str(HERE / f"train_with_{setting.program}.py"), str(job_file)], env=env)
    found: dict[str, Any] = json.loads(cost.stdout.splitlines()[-1])
    found |= {"whole_cpu_seconds": cost.cpu_seconds, "memory_bytes": cost.memory_bytes}
    return {**found, "rate": found["supervised"] / found["cpu_seconds"]}


def held_out_loss(model: Path, material: Material, max_length: int) -> float:
    """Nats per supervised token on conversations that nobody trained on, by our own code."""
    import torch

    from vicuna.conversation import get_template, load_tokenizer
    from vicuna.train.batches.dataset import ConversationDataset
    from vicuna.train.batches.tokenize import tokenize_files
    from vicuna.train.model.conversation_model import load_model, read_config

    torch.set_num_threads(1)
    tokenizer = load_tokenizer(material.model)
    tokens = tokenize_files([material.held_out], get_template("vicuna_v1.1"), tokenizer, max_length=max_length)
    dataset = ConversationDataset(tokens, torch.device("cpu"))
    network = load_model(model, read_config(model), torch.device("cpu")).eval()
    with torch.no_grad():
        total = sum(network(dataset.batch([(item,)])).item() for item in range(len(tokens.lengths)))
    return float(total / tokens.num_supervised)


def median(several: list[dict[str, Any]]) -> dict[str, float]:
    """Figure by figure."""
    return {name: statistics.median(found[name] for found in several) for name in several[0] if name != "model"}


def print_table(figures: dict[str, dict[str, float]]) -> None:
    """All settings, one a line."""
    print(
        f"{'trainer':<26}{'supervised':>11}{'computed':>10}{'CPU-s':>8}{'tokens/CPU-s':>14}{'MiB':>7}{'loss':>8}"
        f"{'held-out':>10}"
    )
    for name, found in figures.items():
        print(
            f"{name:<26}{found['supervised']:>11,.0f}{found['computed']:>10,.0f}{found['cpu_seconds']:>8.1f}"
            f"{found['rate']:>14,.0f}{found['memory_bytes'] / 2**20:>7,.0f}{found['loss']:>8.4f}"
            f"{found['held_out_loss']:>10.4f}"
        )


def ratios(figures: dict[str, dict[str, float]]) -> dict[str, float | None]:
    """Ours against each peer's best setting."""
    ours = figures[OURS.name]
    best = {
        peer: max((found for name, found in figures.items() if name.startswith(peer)), key=lambda found: found["rate"])
        for peer in ("FastChat", "TRL")
    }
    found: dict[str, float | None] = {}
    for peer, theirs in best.items():
        key = peer.lower()
        found[f"vs_{key}_supervised_tokens_per_s"] = ours["rate"] / theirs["rate"]
        found[f"vs_{key}_peak_memory"] = theirs["memory_bytes"] / ours["memory_bytes"]
        found[f"vs_{key}_held_out_loss"] = theirs["held_out_loss"] / ours["held_out_loss"]
    found["vs_trl_packed_supervised_tokens_per_s"] = ours["rate"] / figures[TRL_PACKED.name]["rate"]
    return found


if __name__ == "__main__":
    sys.exit(main())
