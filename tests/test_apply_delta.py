"""`vicuna apply-delta` and `vicuna make-delta` with FastChat's flags."""

import subprocess
from pathlib import Path

import pytest

from tests.weights.builders import numbers, tuned, write_model
from vicuna.apply_delta import main as apply_main
from vicuna.make_delta import main as make_main


def test_the_commands_with_fastchats_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_model(tmp_path / "base", numbers(0))
    target = write_model(tmp_path / "target", tuned(numbers(0)))
    delta, again = str(tmp_path / "d"), str(tmp_path / "again")
    assert make_main(["--base-model-path", str(base), "--target-model-path", str(target), "--delta-path", delta]) == 0
    assert apply_main(["--base", str(base), "--target", again, "--delta", delta]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    done = subprocess.run(["sha256sum", "--check"], input=line, text=True, capture_output=True, check=False)
    assert done.returncode == 0
    assert apply_main(["--base", str(target), "--target", str(tmp_path / "no"), "--delta", delta]) == 3
