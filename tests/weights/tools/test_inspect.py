"""`vicuna weights inspect`: facts about a model and a delta."""

import json
from pathlib import Path

import pytest

from vicuna.weights.__main__ import main


@pytest.mark.parametrize(("name", "kind"), [("model", "model"), ("delta", "exact delta")])
def test_inspect(folders: dict[str, Path], name: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(folders[name]), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == kind
    assert facts["num_parameters"] == 2 * 33 * 16 + 16 * 16 + 2 * 16
    assert facts["dtypes"] == {"F16": 5}
    assert main(["inspect", str(folders[name])]) == 0
    assert "model.norm.weight" in capsys.readouterr().out
