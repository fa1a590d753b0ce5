"""A judging run that is killed: what was kept is not paid again."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.eval.builders import judge_arguments
from tests.eval.conftest import Request, Stub
from vicuna.io.jsonl import read_jsonl


def test_after_kill_9_nothing_kept_is_paid_again(stub: Stub, questions: Path, answers: Path, tmp_path: Path) -> None:
    concurrency, output = 4, tmp_path / "judgments.jsonl"

    def reply(_: Request, __: int) -> str:
        time.sleep(0.05)
        return "[[B]]"

    stub.reply = reply
    command = [sys.executable, "-m", "vicuna.eval", *judge_arguments(stub, questions, answers, output)]
    command += ["--concurrency", str(concurrency)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while len(stub.requests) < 10:
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    kept = output.read_text().count("\n")
    with output.open("a") as file:
        file.write('{"key": "torn')  # what a kill in the middle of a write leaves
    assert 0 < kept < 20
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    asked = Counter(stub.prompts())
    assert len(asked) == 20 and max(asked.values()) <= 2
    assert sum(asked.values()) - 20 <= concurrency, "only the calls in flight are paid again"
    rows = list(read_jsonl(output))
    assert len(rows) == 20 == len({row["key"] for row in rows})
