"""A worker's choices, and its end as a process."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serve.programs import Program
from vicuna.errors import UsageError, VicunaError
from vicuna.serve.engines.sim import ByteTokenizer
from vicuna.serve.worker import WorkerOptions, choose_template


def test_a_worker_s_name_and_template(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    model = str(tmp_path)
    with pytest.raises(VicunaError, match="give --template NAME"):
        choose_template(WorkerOptions(model=model), tokenizer)
    assert choose_template(WorkerOptions(model=model, template="alpaca"), tokenizer).name == "alpaca"
    (tmp_path / "vicuna_template.json").write_text('{"template": "vicuna_v1.1"}')
    assert choose_template(WorkerOptions(model=model), tokenizer).name == "vicuna_v1.1"
    with pytest.raises(UsageError, match=r"was trained with 'vicuna_v1.1'; leave the flag out"):
        choose_template(WorkerOptions(model=model, template="alpaca"), tokenizer)


def test_a_worker_ends_well_on_sigterm_and_with_130_on_ctrl_c(start: Callable[..., Program]) -> None:
    for number, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        flags = ["--engine", "sim", "--model", "a", "--controller", "http://127.0.0.1:1"]
        worker = start("vicuna.serve.worker", *flags, VICUNA_JOIN_TOKEN="x")
        worker.until(worker.has_logged("dialling again"))
        os.kill(worker.process.pid, number)
        assert worker.process.wait(10) == status
        assert "Traceback" not in worker.log.read_text()


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "ftp://x", "http://"])
def test_a_controller_address_that_is_none(start: Callable[..., Program], url: str) -> None:
    flags = ["--engine", "sim", "--model", "a", "--controller", url]
    worker = start("vicuna.serve.worker", *flags, VICUNA_JOIN_TOKEN="x")
    assert worker.process.wait(10) == 2
    assert worker.log.read_text() == f"error: --controller {url}: give a URL such as http://127.0.0.1:8000\n"
