"""Markup planted in every text of every input that ends on a page: no element and no attribute of the page is of it.

Each page is made twice, with markup and with harmless words in the same places; the elements and attributes of both
must be the same. The five kinds: the cleaning report, the training charts, the demo's page, the evaluation report, and
what of the chat page is ours.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.data.builders import messages_row, run_command
from vicuna.bot.demo.report import write_page
from vicuna.bot.stages import Done, Stage, Workspace
from vicuna.eval.__main__ import main as run_eval
from vicuna.io.jsonl import write_json, write_jsonl
from vicuna.io.markup import fill
from vicuna.report_page import Page, line_chart, read_chart

PLANTS = (
    "\"'><img src=x onerror=alert(1)>",
    '</title></style></svg></summary></pre><script>alert(1)</script>"',
    "' onmouseover='alert(1)' x=\" style=\"a\" \u2028<!--",
    "javascript:alert(1)//]]>{{ 7*7 }}{% include 'x' %}<svg onload=alert(1)>",
    "&lt;script&gt;&#60;b&#62;\x00<b>",
)
HARMLESS = "harmless"
IDS = [str(number) for number in range(len(PLANTS))]


class Elements(HTMLParser):
    """The elements of a page with the names of their attributes, and the values of those that may do something."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.addresses: list[str] = []
        self.styles: list[str] = []
        self.policies: list[str] = []
        self._is_style = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(sorted(name for name, _ in attrs))))
        values = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action", "xlink:href")]
        self._is_style = tag == "style"
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policies.append(values["content"] or "")

    def handle_data(self, data: str) -> None:
        if self._is_style:
            self.styles.append(data)

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._is_style = False

    def handle_comment(self, data: str) -> None:  # noqa: ARG002
        self.found.append(("comment", ()))


def check(planted: str, harmless: str) -> None:
    """See that two pages have the same elements, and none that could run anything."""
    found, expected = Elements(planted), Elements(harmless)
    assert found.found == expected.found
    names = {name for _, attributes in found.found for name in attributes}
    assert not {name for name in names if name.startswith("on") or name == "style"}
    assert not {"script", "iframe", "object", "embed", "base", "form", "img", "link"} & {tag for tag, _ in found.found}
    assert all(re.fullmatch(r"[\w%./-]+", address) for address in found.addresses)
    if "<html" in planted:
        check_policy(found)


def check_policy(page: Elements) -> None:
    (policy,) = page.policies
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for style in set(page.styles):
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy, "the policy of page.html names the styles by their hashes"


def planted_in(value: Any, plant: str, keep: frozenset[str]) -> Any:
    """A value with every text in it replaced by the plant, but for fields that the reader knows."""
    if isinstance(value, dict):
        return {name: one if name in keep else planted_in(one, plant, keep) for name, one in value.items()}
    if isinstance(value, list):
        return [planted_in(one, plant, keep) for one in value]
    return f"{plant} {value}" if isinstance(value, str) else value


def judgments(mode: str) -> list[dict[str, Any]]:
    common = {
        "key": "k",
        "status": "scored",
        "category": "c",
        "judge": ["j", "p"],
        "prompt_hash": "h",
        "question_hash": None,
        "answers_hash": None,
        "first_reply": "f",
        "usage": None,
    }
    mark = "0123456789ab"
    prompt = f"[question {mark}]\nq\n[end question {mark}]\n[answer{{}} {mark}]\na\n[end answer{{}} {mark}]"
    if mode == "single":
        own = {"user_prompt": prompt.format("", ""), "judgment": "text"}
        return [
            {**common, **own, "question_id": f"q{n}", "model": model, "score": 5 + n, "cut_answers": [model]}
            for n in range(4)
            for model in ("m1", "m2")
        ]
    pair = {"model_1": "m1", "model_2": "m2", "cut_answers": ["m1"]}
    return [
        {
            **common,
            **pair,
            "question_id": f"q{n}",
            "category": f"c{n % 3}",
            "order": order,
            f"g{order}_user_prompt": prompt.format(" A", " A"),
            f"g{order}_judgment": "text",
            f"g{order}_winner": "model_1",
        }
        for n in range(6)
        for order in (1, 2)
    ]


@pytest.mark.parametrize("plant", PLANTS, ids=IDS)
@pytest.mark.parametrize("mode", ["pair", "single"])
@pytest.mark.parametrize("is_in_pieces", [False, True])
def test_evaluation_report(
    mode: str, is_in_pieces: bool, plant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_in_pieces:
        monkeypatch.setattr("vicuna.eval.reporting.browser.MAX_QUESTIONS_ON_PAGE", 1)
    keep = frozenset({"g1_winner", "g2_winner", "g1_user_prompt", "g2_user_prompt", "user_prompt", "status"})
    pages = []
    for name, text in (("planted", plant), ("harmless", HARMLESS)):
        rows = planted_in(judgments(mode), text, keep)
        for row in rows:
            for field in ("g1_user_prompt", "g2_user_prompt", "user_prompt"):
                if field in row:
                    row[field] = row[field].replace("\nq\n", f"\n{text} q\n").replace("\na\n", f"\n{text} a\n")
        file_name = re.sub(r"[/\0]", "_", f"{text}.jsonl")
        write_jsonl(tmp_path / name / file_name, rows)
        output = tmp_path / name / "r.html"
        assert run_eval(["report", "--judgments", str(tmp_path / name / file_name), "--output", str(output)]) == 0
        pages.append([output, *sorted((tmp_path / name / "r_questions").glob("*"))])
    assert len(pages[0]) == (2 if is_in_pieces else 1)
    for planted, harmless in zip(*pages, strict=True):
        check(planted.read_text("utf-8"), harmless.read_text("utf-8"))


@pytest.mark.parametrize("plant", PLANTS, ids=IDS)
def test_cleaning_report(plant: str, tmp_path: Path) -> None:
    pages = []
    for name, text in (("planted", plant), ("harmless", HARMLESS)):
        rows = [
            messages_row(f"{text} {number}", f"{text} why {number}?", f"{text} so {number}.") for number in range(4)
        ]
        rows += [messages_row(f"{text} copy", f"{text} why 0?", f"{text} so 0.")]
        rows += [messages_row(f"{text} error", "q", "Too many requests in 1 hour. Try again later.")]
        rows += [messages_row(f"{text} {number}", "", text) for number in range(4, 6)]
        path = tmp_path / name / re.sub(r"[/\0]", "_", f"{text}.jsonl")
        write_jsonl(path, rows)
        run_command(path, "--output-dir", tmp_path / name / "out")
        pages.append((tmp_path / name / "out" / "report.html").read_text("utf-8"))
    check(pages[0], pages[0])
    # Which rules find something depends on the texts; which kinds of elements there are does not.
    assert {tag for tag, _ in Elements(pages[0]).found} <= {tag for tag, _ in Elements(pages[1]).found}


@pytest.mark.parametrize("plant", PLANTS, ids=IDS)
def test_training_charts(plant: str) -> None:
    charts = [
        line_chart({text: [(0, 1), (1, 2)], f"{text} b": [(0, 3)]}, title=text, x_label=text, y_label=text)
        for text in (plant, HARMLESS)
    ]
    check(*charts)


@pytest.mark.parametrize("plant", PLANTS, ids=IDS)
def test_demo_page(plant: str, tmp_path: Path) -> None:
    pages = []
    for name, text in (("planted", plant), ("harmless", HARMLESS)):
        folder = tmp_path / name
        figures: dict[str, dict[str, Any]] = {
            "clean": {"dropped": {text: 3}, "shown": text},
            "train": {"held_out_before": 2.5, "held_out_after": 1.25, "losses": [3.0, 2.0], "shown": text},
            "delta": {"model_bytes": 4 << 20, "size_bytes": 1 << 20, "shown": text},
            "verify": {"sha256": {text: text}, "shown": text},
            "chat": {"outcome": text, "shown": text},
            "judge": {"report": {"findings": [text]}, "shown": text},
        }
        answers = [
            {"question": f"{text} Who are you?", "model": model, "answer": text} for model in ("smollm2", "vicuna")
        ]
        cut = {"answer": text, "killed_after_characters": 2, "killed_pid": text}
        write_json(folder / "chat.json", {"answers": answers, "cut": cut, "replacement_pid": text})
        rows = [{"question_id": 7, "model_id": model, "text": text} for model in ("vicuna", "smollm2")]
        write_jsonl(folder / "eval" / "answers.jsonl", rows)
        messages = [{"role": role, "content": text} for role in ("user", "assistant", "user", "assistant")]
        write_jsonl(folder / "data" / "records.jsonl", [{"id": text, "messages": messages}])
        (folder / "train").mkdir()
        (folder / "train" / "loss.svg").write_text(f"<svg><text>{text}</text></svg>", "utf-8")
        stages = {stage: Stage(stage, f"{text} {stage}", lambda: {}, (), ()) for stage in figures}
        done = {stage: Done(stages[stage], figures[stage], 1.0) for stage in figures}
        write_page(folder / "index.html", Workspace(folder, done), judge=None, peak_bytes=0)
        page = (folder / "index.html").read_text("utf-8")
        pages.append(re.sub(r"<figure>.*?</figure>", "<figure></figure>", page, flags=re.S))
    check(*pages)


def test_a_chart_from_a_file_is_ours_or_none(tmp_path: Path) -> None:
    path = tmp_path / "loss.svg"
    chart = line_chart(
        {"training": [(0, 1), (1, 2)], "held-out": [(0, 3)]}, title="Loss", x_label="step", y_label="nats"
    )
    path.write_text(chart, "utf-8")
    assert read_chart(path) == chart
    for hostile in (
        "<svg onload='alert(1)'></svg>",
        '<svg onload="alert(1)"></svg>',
        "<svg><script>alert(1)</script></svg>",
        '<svg><a href="javascript:alert(1)"><text>x</text></a></svg>',
        "<svg><style>@import 'http://x'</style></svg>",
        '<svg><rect fill="url(http://x)"/></svg>',
        '<svg><rect fill="&#117;rl(http://x)"/></svg>',
        "<svg><foreignObject><b>x</b></foreignObject></svg>",
        "</svg><img src=x>",
        "<!--",
        "x" * 5_000_000,
        "\udcff",
    ):
        path.write_bytes(hostile.encode("utf-8", "surrogateescape"))
        assert "no data" in read_chart(path)
    path.unlink()
    assert "no data" in read_chart(path)


@pytest.mark.parametrize("plant", PLANTS, ids=IDS)
def test_chat_page(plant: str) -> None:
    pytest.importorskip("gradio")
    from vicuna.serve.web.view import health, notice

    makers: list[Callable[[str], str]] = [
        notice,
        lambda text: notice(text, text),
        lambda text: health(text, is_alive=True),
    ]
    for make in makers:
        check(make(plant), make(HARMLESS))


@pytest.mark.parametrize("plant", PLANTS, ids=IDS)
def test_blocks_of_a_page(plant: str) -> None:
    def page(text: str) -> str:
        page = Page(text).add_heading(text).add_paragraph(text).add_code(text).add_columns({text: text})
        page.add_table([text, "b"], [[text, 1]]).add_details(text, fill("report_page/columns.html", texts={text: text}))
        return page.add_marked_code(f"{text}{text}", [(0, 1)]).render()

    check(page(plant), page(HARMLESS))


def templates() -> Iterator[Path]:
    package = Path(fill.__code__.co_filename).parents[1]
    yield from (path for path in package.rglob("*") if path.suffix in (".html", ".svg"))


def test_templates_run_nothing_and_build_no_style_from_data() -> None:
    for path in templates():
        text = path.read_text("utf-8")
        assert not re.search(r"<script|\son\w+=|\sstyle=|javascript:", text), path
        assert not any("{{" in style for style in re.findall(r"<style>.*?</style>", text, re.S)), path
        unquoted = re.search(r"<[^<>]*=(?![\"'])[^\s<>]*\{\{", text)
        assert not unquoted, f"{path}: an attribute without quotes holds data: {unquoted}"
