"""The demo's page: every figure and plot of the chain on one page, in the order in which it ran."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vicuna import __version__
from vicuna.bot.demo.chain import BASE, TEMPLATE, TUNED
from vicuna.bot.demo.examples import (
    AskedQuestion,
    asked_questions,
    best_example,
    cleaned_answer,
    identity_answers,
    rendered_record,
)
from vicuna.bot.stages import Workspace
from vicuna.io.jsonl import read_json
from vicuna.io.log import human_bytes, human_seconds
from vicuna.io.markup import Markup
from vicuna.material import material
from vicuna.report_page import Page, bar_chart, columns, read_chart


def write_page(path: Path, workspace: Workspace, *, judge: str | None, peak_bytes: int) -> None:
    """Write the page from the stages' figures and files."""
    page = Page("vicuna: the whole chain, end to end")
    page.add_paragraph(
        "A small language model (SmolLM2, 135 million weights) was fine-tuned on this machine, published as a delta, "
        "restored, served, asked and judged."
    )
    asked = asked_questions(workspace.folder / "eval" / "answers.jsonl")
    _add_opening(page, workspace, asked)
    _add_stages(page, workspace, peak_bytes)
    _add_clean(page, workspace)
    _add_train(page, workspace)
    _add_weights(page, workspace)
    _add_served(page, workspace)
    _add_judge(page, workspace, judge, asked)
    page.write(path)


def _add_opening(page: Page, workspace: Workspace, asked: list[AskedQuestion]) -> None:
    """What changed, what did not, and one question with the answers to it."""
    page.add_heading("Before and after")
    served = read_json(workspace.folder / "chat.json")
    question, answers = identity_answers(served)[0]
    page.add_paragraph(f"“{question}”")
    page.add_columns(_named(answers))
    num_steps = len(workspace.figures("train")["losses"])
    page.add_paragraph(
        f"{num_steps} training steps give a model a name and the manner of its conversations. They do not make it "
        "better than its base, which was trained on trillions of tokens: expect the base to do as well on the "
        "questions below, or better. Real fine-tuning takes tens of thousands of conversations and a larger model."
    )
    if (example := best_example(asked)) is not None:
        page.add_paragraph(f"“{example.question.text}” ({example.question.category})")
        page.add_columns(_named({model: answer.text for model, answer in example.answers.items()}))


def _named(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts of both models, the base's first, under what the models are."""
    titles = {BASE: f"{BASE} (base)", TUNED: f"{TUNED} (tuned)"}
    return {title: texts[model] for model, title in titles.items() if model in texts}


def _add_stages(page: Page, workspace: Workspace, peak_bytes: int) -> None:
    page.add_heading("What was done")
    rows = [
        (done.stage.name, done.stage.title, human_seconds(done.seconds), done.figures["shown"])
        for done in workspace.done.values()
    ]
    page.add_table(["stage", "what", "time", "result"], rows)
    peak = f" Peak memory of all processes together: {human_bytes(peak_bytes)}." if peak_bytes else ""
    page.add_paragraph(
        f"vicuna {__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}. "
        f"Every stage is one of the public commands; run the demo again and it skips what is there.{peak}",
        faint=True,
    )


def _add_clean(page: Page, workspace: Workspace) -> None:
    figures = workspace.figures("clean")
    page.add_heading("Shared conversations, cleaned")
    page.add_paragraph(figures["shown"])
    if figures["dropped"]:
        page.add_html(bar_chart(figures["dropped"], title="dropped records by rule"))
    records = workspace.folder / "data" / "records.jsonl"
    if (answer := cleaned_answer(material("data/sharegpt_sample.json"), records)) is not None:
        page.add_paragraph(f"An answer of {answer.record_id} as the chat page drew it, and as it is trained on:")
        page.add_columns({"the page's HTML": answer.html, "Markdown": answer.markdown})
    page.add_html(Markup('<p><a href="data/report.html">the cleaning report</a>: what was dropped and why</p>'))


def _add_train(page: Page, workspace: Workspace) -> None:
    figures = workspace.figures("train")
    page.add_heading("Fine-tuned")
    page.add_paragraph(
        f"All weights of SmolLM2-135M-Instruct, loss on the assistant's words only. Loss on conversations that were "
        f"held out: {figures['held_out_before']:.4f} before, {figures['held_out_after']:.4f} after "
        f"{len(figures['losses'])} steps."
    )
    rendering = rendered_record(workspace.folder / "data" / "records.jsonl", TEMPLATE)
    if rendering is not None:
        page.add_paragraph("A conversation as the model reads it; only what is marked is learned, end marks included:")
        page.add_marked_code(rendering.text, rendering.reply_spans)
    page.add_figure(read_chart(workspace.folder / "train/loss.svg"))  # drawn by the step before


def _add_weights(page: Page, workspace: Workspace) -> None:
    figures, verified = workspace.figures("delta"), workspace.figures("verify")
    page.add_heading("Published as a delta, restored bit by bit")
    sizes = {"fine-tuned model": figures["model_bytes"] / 2**20, "delta": figures["size_bytes"] / 2**20}
    page.add_html(bar_chart(sizes, title="size", unit="MiB"))
    page.add_paragraph("Base + delta has the trained model's SHA-256, file by file:")
    page.add_code("\n".join(f"{sha256}  {name}" for name, sha256 in verified["sha256"].items()))


def _add_served(page: Page, workspace: Workspace) -> None:
    found: dict[str, Any] = read_json(workspace.folder / "chat.json")
    page.add_heading("Served, and asked who it is")
    rows = [(question, *_named(answers).values()) for question, answers in identity_answers(found)]
    page.add_table(["question", f"{BASE} (base)", f"{TUNED} (tuned)"], rows)
    cut = found["cut"]
    page.add_heading("A reply that outlived its worker", level=3)
    page.add_paragraph(
        f"While this reply streamed, worker process {cut['killed_pid']} was ended with kill -9 at the mark ✂. "
        f"Process {found['replacement_pid']} took its place. {workspace.figures('chat')['outcome'].capitalize()}."
    )
    place = cut["killed_after_characters"]
    page.add_html(Markup("<pre>{}<b> ✂ </b>{}</pre>").format(cut["answer"][:place], cut["answer"][place:]))


def _add_judge(page: Page, workspace: Workspace, judge: str | None, asked: list[AskedQuestion]) -> None:
    report = workspace.figures("judge")["report"]
    page.add_heading("Answers, judged")
    if judge is None:
        page.add_paragraph(
            "The judge here is a rule-based stand-in on this machine. It shows that the pipeline works and says "
            "nothing about quality. Set OPENAI_API_KEY and run the demo again to ask a real judge."
        )
    for finding in report["findings"]:
        page.add_paragraph(finding)
    page.add_html(
        Markup('<p><a href="eval/report.html">the evaluation report</a>: every question, answer and verdict</p>')
    )
    for one in asked:
        texts = {model: answer.text for model, answer in one.answers.items()}
        page.add_details(f"{one.question.category}: {one.question.text}", columns(_named(texts)))
