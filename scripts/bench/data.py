"""The cleaner beside FastChat's: speed, memory, how faithful the Markdown is, what the splitter loses.

    .venv/bin/python scripts/bench/data.py --json data.json
    .venv/bin/python scripts/bench/data.py --pairs pairs.jsonl.gz     # real answers: {"markdown": ..., "html": ...}

Both clean the same generated ShareGPT pages (`pages`), each as whole processes: ours `python -m vicuna.data`, FastChat
the modules of its own recipe (`fastchat.data.prepare_all`), one after the other: clean_sharegpt, optional_clean
(its language filter; left out where its libraries cannot be compiled), split_long_conversation, filter_wrong_format,
split_train_test. Ours runs twice: with the steps that FastChat has too, and with all.

A round trip is exact if the page drawn from the Markdown that came out is the page that went in.
"""

import argparse
import gzip
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path

import harness
from harness import Cost, say
from pages import PAGES, YEARS, Answer, Writer, conversations

TEMPLATE = "vicuna_v1.1"
ONLY_OURS = ("privacy", "quality", "decontaminate")
CONVERT = """
import json, sys, time
{load}
htmls = json.load(open(sys.argv[1]))
start = time.process_time()
texts = [convert(html) for html in htmls]
json.dump({{"seconds": time.process_time() - start, "texts": texts}}, sys.stdout)
"""
OURS = CONVERT.format(load="from vicuna.data.html.walker import to_markdown as convert")
FASTCHAT = CONVERT.format(load="from fastchat.data.clean_sharegpt import html_to_markdown as convert")


def main() -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=2072, help="generated conversations (default: 2072)")
    parser.add_argument(
        "--answers", type=int, default=2000, help="generated answers for the round trip (default: 2000)"
    )
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="real answers for the round trip, .jsonl.gz")
    parser.add_argument("--max-tokens", type=int, default=2048, help="the splitter's budget (default: 2048)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, of which the median counts (default: 3)")
    harness.add_json_option(parser)
    options = parser.parse_args()

    fastchat = harness.environment("fastchat", harness.FASTCHAT)
    with tempfile.TemporaryDirectory(prefix="vicuna-bench-") as name:
        folder = Path(name)
        ratios, figures = round_trips(options, fastchat, folder)
        for part in (pipelines, splitters):
            more_ratios, more_figures = part(options, fastchat, folder)
            ratios |= more_ratios
            figures |= more_figures
    harness.report(ratios, figures, options.json)
    return 0


Found = tuple[dict[str, float | None], dict[str, object]]


def ours(*arguments: str) -> Cost:
    """A command of this checkout."""
    return harness.run([sys.executable, *arguments], env={"PYTHONPATH": str(harness.ROOT)})


# The round trip


def round_trips(options: argparse.Namespace, fastchat: Path, folder: Path) -> Found:
    """How many pages come back as they were, and how many are converted in a CPU-second."""
    writer = Writer(seed=1)
    sets = {"generated": [writer.answer() for _ in range(options.answers)]}
    if options.pairs is not None:
        with gzip.open(options.pairs, "rt", encoding="utf-8") as file:
            texts = [json.loads(line)["markdown"] for line in file]
        sets["real"] = [Answer(text, page) for text in texts for page in PAGES]
    figures: dict[str, object] = {}
    seconds: dict[str, float] = {}
    for name, answers in sets.items():
        pages = [answer.html for answer in answers]
        source = folder / f"{name}.json"
        source.write_text(json.dumps(pages))
        for who, python, program in (("ours", sys.executable, OURS), ("fastchat", str(fastchat), FASTCHAT)):
            env = {"PYTHONPATH": str(harness.ROOT)} if who == "ours" else {}
            result = json.loads(harness.run([python, "-c", program, str(source)], env=env).stdout)
            rates = exact_rates(answers, pages, result["texts"])
            seconds[f"{name} {who}"] = result["seconds"]
            figures[f"round trip, {name}, {who}"] = rates
            speed = len(pages) / result["seconds"]
            say(f"{name}, {who}: exact {rates['all']:.2%}, {speed:,.0f} answers per CPU-s  {_percents(rates)}")
    return {"vs_fastchat_html_answers_per_cpu_s": seconds["generated fastchat"] / seconds["generated ours"]}, figures


def exact_rates(answers: Sequence[Answer], pages: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    """The share of exact round trips: of all, by how the page was drawn, and of pages with formulas."""
    is_exact = [answer.page.draw(text) == page for answer, page, text in zip(answers, pages, texts, strict=True)]
    rates = {"all": sum(is_exact) / len(is_exact)}
    kinds: dict[str, Callable[[Answer], bool]] = {
        "one line": lambda answer: not answer.page.line_breaks,
        "line breaks": lambda answer: answer.page.line_breaks,
        "formulas": lambda answer: "katex" in answer.html,
    }
    kinds |= {str(year): partial(_is_of_year, year) for year in YEARS}
    for name, belongs in kinds.items():
        chosen = [exact for exact, answer in zip(is_exact, answers, strict=True) if belongs(answer)]
        rates[name] = sum(chosen) / max(1, len(chosen))
    return rates


def _is_of_year(year: int, answer: Answer) -> bool:
    return answer.page.year == year


def _percents(rates: dict[str, float]) -> str:
    return ", ".join(f"{name} {rate:.1%}" for name, rate in rates.items() if name != "all")


# The whole pipeline


def pipelines(options: argparse.Namespace, fastchat: Path, folder: Path) -> Found:
    """Cost of cleaning from pages to split records."""
    pages = conversations(options.conversations)
    source = folder / "pages.json"
    source.write_text(json.dumps(pages))
    say(f"{len(pages):,} conversations, {source.stat().st_size / 1e6:.0f} MB")
    tokenizer = tokenizer_folder(folder)
    has_language = harness.add_packages(fastchat, harness.FASTCHAT_LANGUAGE)

    def peer() -> Cost:
        def module(name: str, *arguments: str) -> Cost:
            return harness.run([str(fastchat), "-m", f"fastchat.data.{name}", *arguments])

        pages_, clean, language, split = (
            str(folder / f"{name}.json") for name in ("pages", "clean", "language", "split")
        )
        costs = [module("clean_sharegpt", "--in", pages_, "--out", clean)]
        if has_language:
            costs.append(module("optional_clean", "--in", clean, "--out", language, "--skip-lang", "ko"))
        costs += [
            module(
                *("split_long_conversation", "--in", language if has_language else clean, "--out", split),
                *("--model-name", str(tokenizer), "--max-length", str(options.max_tokens)),
            ),
            module("filter_wrong_format", "--in", split, "--out", str(folder / "format.json")),
            module("split_train_test", "--in", str(folder / "format.json"), "--ratio", "0.99"),
        ]
        return Cost(
            sum(cost.wall_seconds for cost in costs),
            sum(cost.cpu_seconds for cost in costs),
            max(cost.memory_bytes for cost in costs),
            "",
        )

    def cleaner(*more: str) -> Callable[[], Cost]:
        output = folder / f"cleaned{len(more)}"
        return lambda: ours(
            *("-m", "vicuna.data", str(source), "--output-dir", str(output), "--tokenizer", str(tokenizer)),
            *("--template", TEMPLATE, "--max-tokens", str(options.max_tokens), "--workers", "1"),
            *("--skip-languages", "ko", "--held-out-ratio", "0.01", *more),
        )

    same_steps = ("--near-duplicates", "0", "--skip", *ONLY_OURS)
    costs = harness.in_turn(
        {"FastChat": peer, "ours, FastChat's steps": cleaner(*same_steps), "ours, all steps": cleaner()},
        options.repeats,
    )
    for name, cost in costs.items():
        print(f"{name:<34}{cost.line()}  {len(pages) / cost.cpu_seconds:8,.0f} conversations per CPU-s")
    theirs, same, everything = costs.values()
    return {
        "vs_fastchat_pipeline_per_cpu_s": theirs.cpu_seconds / same.cpu_seconds,
        "vs_fastchat_pipeline_with_all_our_steps_per_cpu_s": theirs.cpu_seconds / everything.cpu_seconds,
        "vs_fastchat_peak_memory": theirs.memory_bytes / everything.memory_bytes,
    }, {name: vars(cost) for name, cost in costs.items()}


def tokenizer_folder(folder: Path) -> Path:
    """A real sentencepiece tokenizer of 32,000 pieces of the LLaMA kind, from the package mistral-common."""
    target = folder / "tokenizer"
    target.mkdir(exist_ok=True)
    with resources.as_file(resources.files("mistral_common") / "data" / "tokenizer.model.v1") as source:
        shutil.copy(source, target / "tokenizer.model")
    (target / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "legacy": false}')
    return target


# The splitter


def splitters(options: argparse.Namespace, _: Path, folder: Path) -> Found:
    """Rounds that were lost and pieces over the budget, from the same cleaned conversations."""
    from vicuna.conversation import TokenCounter, from_record, get_template, load_tokenizer

    cleaned = json.loads((folder / "clean.json").read_text())
    records = [{"id": row["id"], "messages": _messages(row["conversations"])} for row in cleaned]
    source, output = folder / "to_split.jsonl", folder / "split_by_us"
    source.write_text("".join(json.dumps(row) + "\n" for row in records))
    ours(
        *("-m", "vicuna.data", str(source), "--output-dir", str(output), "--tokenizer", str(folder / "tokenizer")),
        *("--template", TEMPLATE, "--max-tokens", str(options.max_tokens), "--only", "split", "--workers", "1"),
    )
    pieces = {
        "ours": [json.loads(line)["messages"] for line in (output / "records.jsonl").read_text().splitlines()],
        "fastchat": [_messages(row["conversations"]) for row in json.loads((folder / "split.json").read_text())],
    }
    counter = TokenCounter(get_template(TEMPLATE), load_tokenizer(folder / "tokenizer"))

    def count(messages: list[dict[str, str]]) -> int:
        return counter(from_record({"messages": messages}).messages)

    given = Counter(pair for row in records for pair in _rounds(row["messages"]))
    that_fit = Counter({pair: number for pair, number in given.items() if count(_turns(pair)) <= options.max_tokens})
    figures: dict[str, object] = {"rounds": given.total(), "rounds that fit": that_fit.total()}
    for who, found in pieces.items():
        lost = (that_fit - Counter(pair for piece in found for pair in _rounds(piece))).total()
        over = sum(count(piece) > options.max_tokens for piece in found)
        figures[f"splitter, {who}"] = {"pieces": len(found), "rounds lost": lost, "pieces over the budget": over}
        print(
            f"splitter, {who:<10}{len(found):6,} pieces: {lost:,} of {that_fit.total():,} rounds that fit are lost "
            f"({lost / that_fit.total():.1%}), {over:,} pieces are over the budget ({over / len(found):.1%})"
        )
    return {}, figures


def _messages(turns: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    roles = {"human": "user", "gpt": "assistant"}
    return [{"role": roles[turn["from"]], "content": turn["value"]} for turn in turns]


def _rounds(messages: Sequence[dict[str, str]]) -> list[tuple[str, str]]:
    return [(one["content"], two["content"]) for one, two in zip(messages[::2], messages[1::2], strict=False)]


def _turns(pair: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]


if __name__ == "__main__":
    sys.exit(main())
