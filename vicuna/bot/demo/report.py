"""The demo's page: every figure and plot of the chain on one page, in the order in which it ran."""

import os
import platform
from pathlib import Path
from typing import Any

from vicuna import __version__
from vicuna.bot.demo.chain import BASE, TUNED
from vicuna.bot.stages import Workspace
from vicuna.io.jsonl import read_json, read_jsonl
from vicuna.io.log import human_bytes, human_seconds
from vicuna.io.markup import Markup
from vicuna.report_page import Page, bar_chart, table


def write_page(path: Path, workspace: Workspace, *, judge: str | None, peak_bytes: int) -> None:
    """Write the page from the stages' figures and files."""
    page = Page("vicuna: the whole chain, end to end")
    page.add_paragraph(
        f"vicuna {__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}. "
        "Every stage is one of the public commands; run the demo again and it skips what is there.",
        faint=True,
    )
    rows = [
        (done.stage.name, done.stage.title, human_seconds(done.seconds), done.figures["shown"])
        for done in workspace.done.values()
    ]
    page.add_table(["stage", "what", "time", "result"], rows)
    if peak_bytes:
        page.add_paragraph(f"Peak memory of all processes together: {human_bytes(peak_bytes)}.")
    _add_clean(page, workspace)
    _add_train(page, workspace)
    _add_weights(page, workspace)
    _add_served(page, workspace)
    _add_judge(page, workspace, judge)
    page.write(path)


def _add_clean(page: Page, workspace: Workspace) -> None:
    figures = workspace.figures("clean")
    page.add_heading("Shared conversations, cleaned")
    page.add_paragraph(figures["shown"])
    if figures["dropped"]:
        page.add_html(bar_chart(figures["dropped"], title="dropped records by rule"))
    page.add_html(Markup('<p><a href="data/report.html">the cleaning report</a>: what was dropped and why</p>'))


def _add_train(page: Page, workspace: Workspace) -> None:
    figures = workspace.figures("train")
    page.add_heading("Fine-tuned")
    page.add_paragraph(
        f"All weights of SmolLM2-135M-Instruct, loss on the assistant's words only. Loss on conversations that were "
        f"held out: {figures['held_out_before']:.4f} before, {figures['held_out_after']:.4f} after "
        f"{len(figures['losses'])} steps."
    )
    page.add_figure(Markup((workspace.folder / "train/loss.svg").read_text("utf-8")))  # drawn by the step before


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
    questions = dict.fromkeys(answer["question"] for answer in found["answers"])
    said = {(answer["question"], answer["model"]): answer["answer"] for answer in found["answers"]}
    page.add_table(
        ["question", f"{BASE} (base)", f"{TUNED} (tuned)"],
        [(question, said[question, BASE], said[question, TUNED]) for question in questions],
    )
    cut = found["cut"]
    page.add_heading("A reply that outlived its worker", level=3)
    page.add_paragraph(
        f"While this reply streamed, worker process {cut['killed_pid']} was ended with kill -9 at the mark ✂. "
        f"Process {found['replacement_pid']} took its place. {workspace.figures('chat')['outcome'].capitalize()}."
    )
    place = cut["killed_after_characters"]
    page.add_html(Markup("<pre>{}<b> ✂ </b>{}</pre>").format(cut["answer"][:place], cut["answer"][place:]))


def _add_judge(page: Page, workspace: Workspace, judge: str | None) -> None:
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
    answers = list(read_jsonl(workspace.folder / "eval" / "answers.jsonl"))
    texts: dict[int, dict[str, str]] = {}
    for answer in answers:
        texts.setdefault(answer["question_id"], {})[answer["model_id"]] = answer["text"]
    for question, by_model in texts.items():
        page.add_details(f"question {question}", table(["model", "answer"], list(by_model.items())))
