"""Engines: workers that die or fail, and Ray by name."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.data.builders import children_of, run_command
from tests.data.inputs import split_flags
from vicuna.data.options import DataOptions
from vicuna.data.read.sources import find_sources
from vicuna.data.run import engines
from vicuna.data.run.batches import cut_batches
from vicuna.data.run.work import work_path
from vicuna.errors import VicunaError


def test_a_worker_that_dies_is_told(tmp_path: Path, inputs: list[Path]) -> None:
    sources = find_sources(tuple(inputs))
    running = engines.process_pool(2)(cut_batches(sources), DataOptions(tuple(inputs), tmp_path / "out"))
    next(running)
    for child in children_of(os.getpid()):
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(child, signal.SIGKILL)
    with pytest.raises(VicunaError, match=r"a worker ended \(SIGKILL\) in batch .* fewer --workers"):
        list(running)


def test_what_a_worker_cannot_do_is_one_line(
    tmp_path: Path, inputs: list[Path], bpe_tokenizer_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "tokenizer"
    shutil.copytree(bpe_tokenizer_directory, broken)
    (broken / "tokenizer.json").write_text("{")
    for workers in (1, 2):
        capsys.readouterr()
        assert run_command(*inputs, "--output-dir", tmp_path / "out", "--workers", workers, *split_flags(broken)) == 1
        assert "tokenizer.json:1:2: not JSON" in capsys.readouterr().err.splitlines()[-1]
    assert not work_path(tmp_path / "out").exists()


def test_ray_is_asked_for_by_name(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run_command(*inputs, "--output-dir", tmp_path / "out", "--engine", "ray") == 1
    assert "ray is not installed: pip install 'vicuna-kit[ray]'" in capsys.readouterr().err
