"""A plan that was made before is the same plan, without making it."""

import json
from pathlib import Path

import pytest

from vicuna.options import parse
from vicuna.train.__main__ import main
from vicuna.train.planner import known_plans
from vicuna.train.planner.known_plans import find_known, keep_known
from vicuna.train.planner.options import PlanOptions

STATED = ["--plan", "--model-shape", "llama-3-2-1b", "--gpu", "a100-80gb", "--max-length", "256"]


def options(*flags: str) -> PlanOptions:
    return parse(PlanOptions, list(flags), prog="vicuna train", description="")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_plans, "vicuna_home", lambda: tmp_path)


def test_the_second_time_it_is_the_same_and_is_not_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(STATED) == 0
    made = capsys.readouterr().out
    assert "memory of each" in made

    def again(_: PlanOptions) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("vicuna.train.planner.report.make_plan", again)
    assert main(STATED) == 0
    assert capsys.readouterr().out == made
    assert main([*STATED, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"]


def test_other_options_versions_and_sources_are_another_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keep_known(options(*STATED), {"text": "a", "json": {}})
    assert find_known(options(*STATED)) == {"text": "a", "json": {}}
    assert find_known(options(*STATED, "--json")) == {"text": "a", "json": {}}
    assert find_known(options(*STATED, "--lora")) is None
    with monkeypatch.context() as patch:
        patch.setattr(known_plans, "version", lambda _: "9.9")
        assert find_known(options(*STATED)) is None
    monkeypatch.setattr(known_plans, "sha256_file", lambda _: "other")
    assert find_known(options(*STATED)) is None
    assert len(list((tmp_path / "plans").iterdir())) == 1


def test_what_depends_on_the_machine_or_on_files_is_not_kept(tmp_path: Path) -> None:
    for flags in (["--plan", "--model-shape", "llama-7b"], ["--plan", "--model", str(tmp_path), "--gpu", "a100-80gb"]):
        keep_known(options(*flags), {"text": "a", "json": {}})
        assert find_known(options(*flags)) is None
    assert not (tmp_path / "plans").exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"text": 1, "json": {}}', "[" * 100_000, '"' + "x" * (1 << 20) + '"']
)
def test_a_damaged_plan_is_made_anew(content: str, tmp_path: Path) -> None:
    keep_known(options(*STATED), {"text": "a", "json": {}})
    [path] = (tmp_path / "plans").iterdir()
    path.write_text(content)
    assert find_known(options(*STATED)) is None
