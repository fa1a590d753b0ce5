"""`vicuna make-delta`: one line or JSON about the delta that it made."""

import json
from pathlib import Path

import pytest

from tests.weights.builders import numbers, tuned, write_model
from vicuna.make_delta import main


def test_the_figures_as_a_line_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_model(tmp_path / "base", numbers(0))
    target = write_model(tmp_path / "target", tuned(numbers(0)))
    models = ["--base", str(base), "--target", str(target)]
    assert main([*models, "--delta", str(tmp_path / "one")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'one'}: 5 tensors, ")
    assert main([*models, "--delta", str(tmp_path / "two"), "--format", "additive", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["delta"] == str(tmp_path / "two") and facts["format"] == "additive" and facts["num_tensors"] == 5
    assert facts["ratio"] == round(facts["delta_bytes"] / facts["target_bytes"], 4) > 1


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--base", "x"]) == 2
    assert "--target" in capsys.readouterr().err
