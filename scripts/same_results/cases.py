"""The command lines that `same_results` runs in both trees, all of them verbs of `vicuna`.

They run in a folder that holds `inputs`. `OUT` stands for the case's own folder, of which every file is compared;
`out/NAME` is that of an earlier case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HOSTILE = "inputs/hostile.json inputs/shapes.jsonl.gz"
PIECES, BYTES = "--tokenizer inputs/pieces-tokenizer", "--tokenizer inputs/bytes-tokenizer"
TRAIN = (
    "train --data inputs/records.jsonl --output-dir OUT --max-steps 3 --save-steps 0 --learning-rate 1e-3 --device cpu"
)
GGUF_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_k_m")
WHY_IDS = ("refusal", "mail-and-phone-alone", "long", "again~2")
# Templates whose tokens and labels are shown as well, with whose tokens. Each loads a tokenizer, which takes seconds.
LABELLED = {"vicuna_v1.1": PIECES, "llama-2": PIECES, "chatml": BYTES, "hf": BYTES}
LISTS = ("refusals", "refusal_turns", "blocked", "error_messages", "leftovers")


@dataclass(frozen=True)
class Case:
    """A command, or one command line for each of the names that its flags have had.

    Args:
        name: also that of its folder.
        commands: the arguments of `vicuna`. The first counts that a tree does not answer with exit code 2 (usage).
    """

    name: str
    commands: tuple[str, ...]


def all_cases(templates: Sequence[str], files: Sequence[Path]) -> list[Case]:
    """Every case, in an order in which each finds what it needs.

    Args:
        templates: names of the conversation templates.
        files: the user's own, to be cleaned as well.
    """
    return [
        Case(name, (command,))
        for part in (_data(files), _data_verbs(), _templates(templates), _training(), _weights(), _gguf(), _eval())
        for name, command in part.items()
    ]


def _data(files: Sequence[Path]) -> dict[str, str]:
    pages = f"data inputs/pages.json {HOSTILE} --output-dir OUT"
    cut = f"{PIECES} --template vicuna_v1.1 --max-tokens 600 --over-long cut --carry-over 1 --held-out-ratio 0.1"
    cases = {
        "data-sample": "data inputs/sharegpt_sample.json inputs/identity.jsonl --output-dir OUT --workers 1",
        "data-pages": f"{pages} --workers 1",
        "data-pages-2-workers": f"{pages} --workers 2",
        "data-cut": f"{pages} {cut} --workers 2",
        "data-chatml": f"{pages} {BYTES} --template chatml --max-tokens 900 --over-long keep --workers 1",
        "data-strict-choice": f"{pages} --pii drop --languages en de --near-duplicates 0.5 --repeated-part 0.3 "
        "--refusals none --held-out-ratio 0.3 --workers 1",
        "data-loose-choice": f"{pages} --pii keep --near-duplicates 0 --skip-languages de und --decontaminate "
        "inputs/questions.jsonl --workers 1",
    }
    for number, path in enumerate(files, 1):
        cases[f"data-file-{number}"] = f"data inputs/files/{number}/{path.name} --output-dir OUT --workers 2"
        cases[f"data-file-{number}-cut"] = f"data inputs/files/{number}/{path.name} --output-dir OUT {cut} --workers 2"
    return cases


def _data_verbs() -> dict[str, str]:
    return {
        "data-stats": "data stats out/data-cut",
        "data-stats-json": f"data stats out/data-pages inputs/identity.jsonl {BYTES} --template chatml --json",
        **{f"data-why-{identifier}": f"data why {identifier} --in out/data-cut" for identifier in WHY_IDS},
        "data-show": "data show --in out/data-cut --min-messages 4 --limit 20",
        "data-show-rule": "data show --in out/data-pages --rule refusal",
        "data-sample-verb": "data sample out/data-pages inputs/identity.jsonl --count 40 --output OUT/sample.jsonl",
        "data-merge": "data merge out/data-pages out/data-sample --output OUT/merged.jsonl",
        **{f"data-list-{name}": f"data lists {name}" for name in LISTS},
    }


def _templates(names: Sequence[str]) -> dict[str, str]:
    record = "inputs/eval_records.jsonl"
    cases = {"templates": "template list"}
    for name in names:
        if name != "hf":  # which has no text of its own
            cases[f"template-{name}"] = f"template show {name} --record {record}"
            cases[f"template-{name}-jinja"] = f"template show {name} --jinja"
        if name in LABELLED:
            cases[f"template-{name}-labels"] = f"template show {name} --record {record} {LABELLED[name]}"
    return cases


def _training() -> dict[str, str]:
    plan = "train --plan --json --gpu a100-80gb:8"
    return {
        "train": f"{TRAIN} --model inputs/pieces-base --eval-data inputs/eval_records.jsonl --max-length 512",
        "train-unpacked": f"{TRAIN} --model inputs/bytes-base --template chatml --no-packing --max-length 700 "
        "--max-bad-share 0.5 --rows-per-step 4 --optim adamw_8bit --share-prefix off --no-bf16",
        "train-lora": f"{TRAIN} --model inputs/pieces-base --lora --lora-r 4 --max-length 512 --bf16",
        "plan": f"{plan} --model inputs/pieces-base --data inputs/records.jsonl --max-length 512",
        "plan-13b": f"{plan} --model-shape llama-13b --rows-per-step 128 --num-conversations 70000 "
        "--num-tokens 207000000",
    }


def _weights() -> dict[str, str]:
    """Deltas and merges are of models that the inputs hold, so that a change of the training does not show in them."""
    deltas = {"exact": ("exact", "pieces", "-bf16"), "exact-fp32": ("exact", "bytes", "")}
    deltas |= {"additive": ("additive", "pieces", "-fp16"), "additive-fp32": ("additive", "bytes", "")}
    cases = {}
    for name, (kind, model, ending) in deltas.items():
        base, tuned = f"inputs/{model}-base{ending}", f"inputs/{model}-tuned{ending}"
        cases[f"delta-{name}"] = f"make-delta --base {base} --target {tuned} --delta OUT/delta --format {kind} --json"
        cases[f"apply-{name}"] = f"apply-delta --base {base} --delta out/delta-{name}/delta --target OUT/model"
        cases[f"inspect-{name}"] = f"weights inspect out/delta-{name}/delta --json"
    return {
        **cases,
        "verify": "weights verify out/apply-exact/model",
        "inspect": "weights inspect inputs/pieces-base --json",
        "cast-bf16": "weights cast inputs/pieces-base --target OUT/model --dtype bfloat16 --max-shard-gb 0.002",
        "cast-fp16": "weights cast inputs/bytes-tuned --target OUT/model --dtype float16",
        "merge-lora": "weights merge-lora --base inputs/pieces-base-bf16 --adapter inputs/adapter --target OUT/model",
        "merge-lora-fp32": "weights merge-lora --base inputs/pieces-base --adapter inputs/adapter --target OUT/model",
    }


def _gguf() -> dict[str, str]:
    export = "export gguf --output OUT/model.gguf"
    exports = {f"gguf-{kind}": f"{export} --model inputs/pieces-tuned --type {kind}" for kind in GGUF_TYPES}
    imported = ("gguf-f32", "gguf-bf16", "gguf-q8_0", "gguf-q4_k_m", "gguf-bytes")
    return {
        **exports,
        "gguf-bytes": f"{export} --model inputs/bytes-tuned-bf16 --type q8_0 --name tiny --license mit",
        **{f"import-{name}": f"import gguf out/{name}/model.gguf --output-dir OUT/model" for name in imported},
    }


def _eval() -> dict[str, str]:
    return {
        f"report-{mode}": f"eval report --judgments inputs/{mode}_judgments.jsonl --answers inputs/answers.jsonl "
        "--output OUT/report.html --json OUT/report.json"
        for mode in ("pair", "single")
    }
