"""`vicuna data lists`: the shipped word lists."""

from pathlib import Path

import pytest

from tests.data.builders import data_options
from vicuna.data.__main__ import main
from vicuna.data.steps.phrases import LIST_STEPS, chosen_phrases, shipped_list, shipped_phrases


def test_a_copy_of_a_shipped_list_is_that_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in LIST_STEPS:
        assert main(["lists", name.replace("_", "-")]) == 0
        copy = tmp_path / f"{name}.txt"
        copy.write_bytes(b"\xef\xbb\xbf" + capsys.readouterr().out.replace("\n", "\r\n").encode())
        assert chosen_phrases(name, data_options(**{name: (str(copy),)})) == shipped_phrases(name) != ()
    assert main(["lists"]) == 0
    shown = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}\n" in shown for name in LIST_STEPS)
    assert str(shipped_list("refusals").parent) in shown
    assert main(["lists", "refusal"]) == 2
    assert "did you mean 'refusals'?" in capsys.readouterr().err
