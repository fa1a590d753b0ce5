"""The command: what it prints, its exit codes, and that help and bad flags need no torch."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train.builders import MakeOptions
from vicuna.train.__main__ import main
from vicuna.train.save.checkpoint import whole_checkpoints


def test_the_command_prints_the_result(
    tiny_model: Path, records_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model_name_or_path", str(tiny_model), "--data_path", str(records_file), "--output_dir"]
    arguments += [str(tmp_path / "out"), "--max_steps", "2", "--held-out", str(records_file)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert f"model: {tmp_path / 'out/model'}" in out
    assert "held-out loss: " in out
    assert main([*arguments[:-1], str(tmp_path / "missing.jsonl")]) == 1
    assert main(["--model", "x"]) == 2


def test_the_command_says_where_the_adapter_is(lora_options: MakeOptions, capsys: pytest.CaptureFixture[str]) -> None:
    options = lora_options()
    arguments = ["--model", options.model, "--data", *options.data, "--output-dir", options.output_dir]
    arguments += ["--lora", "--max-steps", 2, "--learning-rate", 0.01, "--token-cache", "off"]
    for _ in range(2):  # the second finds it
        assert main([str(argument) for argument in arguments]) == 0
        assert f"adapter: {options.output_dir / 'adapter'}; vicuna weights merge-lora" in capsys.readouterr().out


def test_help_and_a_bad_flag_need_no_torch() -> None:
    check = "import sys; from vicuna.train.__main__ import main; code = main({}); print(code, 'torch' in sys.modules)"
    for arguments, expected in ((["--help"], "0 False"), (["--nope"], "2 False")):
        done = subprocess.run([sys.executable, "-c", check.format(arguments)], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == expected


def test_planning_needs_no_torch_until_the_flags_are_good() -> None:
    check = "import sys; from vicuna.train.__main__ import main; code = main({}); print(code, 'torch' in sys.modules)"
    for arguments, expected in ((["--plan", "--help"], "0 False"), (["--plan"], "2 False")):
        done = subprocess.run([sys.executable, "-c", check.format(arguments)], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == expected


def test_a_config_file_cannot_turn_a_run_into_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text("plan = true\n")
    arguments = ["--model", "m", "--data", "d.jsonl", "--output-dir", str(tmp_path / "out")]
    assert main([*arguments, "--config", str(tmp_path / "run.toml")]) == 2
    assert "--plan is a flag of the command line" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_exit_codes_of_the_real_command(make_options: MakeOptions, number: signal.Signals, code: int) -> None:
    options = make_options(max_steps=100_000, save_steps=0)
    command = [sys.executable, "-m", "vicuna.train", "--model", str(options.model), "--data", str(options.data[0])]
    command += ["--output-dir", str(options.output_dir), "--max-steps", "100000", "--save-steps", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = options.output_dir / "train_log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert f"stopped by {number.name}; the same command goes on from" in error
    assert "Traceback" not in error
    assert len(whole_checkpoints(options.output_dir)) == 1
