"""What happens beside the training: a full disk, a wrong folder, a signal at the wrong moment, nobody who reads."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import save_llama
from vicuna.errors import VicunaError
from vicuna.train import loop
from vicuna.train.loop import train
from vicuna.train.options import TrainOptions
from vicuna.train.save.checkpoint import whole_checkpoints
from vicuna.train.signals import StopSignal
from vicuna.train.watch import metrics

MakeOptions = Callable[..., TrainOptions]


def test_help_and_a_bad_flag_need_no_torch() -> None:
    check = "import sys; from vicuna.train.__main__ import main; code = main({}); print(code, 'torch' in sys.modules)"
    for arguments, expected in ((["--help"], "0 False"), (["--nope"], "2 False")):
        done = subprocess.run([sys.executable, "-c", check.format(arguments)], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == expected


def test_an_export_that_fails_loses_no_step(make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    options = make_options(save_steps=0)
    export = loop.export_model

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "full", "model")

    monkeypatch.setattr(loop, "export_model", full)
    with pytest.raises(OSError):
        train(options)
    assert [path.name for path in whole_checkpoints(options.output_dir)] == ["step-00000006"]
    monkeypatch.setattr(loop, "export_model", export)
    assert train(options).model == options.output_dir / "model"


def test_a_signal_during_the_export_waits_for_the_model(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = make_options(save_steps=0)
    export = loop.export_model

    def signalled(*arguments: Any, **keywords: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        export(*arguments, **keywords)

    monkeypatch.setattr(loop, "export_model", signalled)
    result = train(options)
    assert result.stopped_by is None
    assert (options.output_dir / "model" / "model.safetensors").is_file()
    assert "SIGINT: all steps are done; writing the model" in capsys.readouterr().err


def test_an_ignored_signal_stays_ignored() -> None:
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.received is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, earlier)


def test_under_torchrun_a_signal_that_comes_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with StopSignal() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert stop.received == signal.SIGTERM


def test_ctrl_c_saves_although_nobody_reads_the_log_any_more(make_options: MakeOptions) -> None:
    options = make_options()
    command = [sys.executable, "-m", "vicuna.train", "--model", options.model, "--data", options.data[0]]
    command += ["--output-dir", options.output_dir, "--max-steps", "100000", "--save-steps", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    rows = options.output_dir / "train_log.jsonl"
    deadline = time.monotonic() + 120
    while not (rows.is_file() and rows.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.stderr is not None
    process.stderr.close()  # `2>&1 | tee log`, and the same Ctrl-C ends tee
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert len(whole_checkpoints(options.output_dir)) == 1


def test_a_full_disk_under_the_log_does_not_end_the_run(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = make_options()
    append, calls = metrics.append_jsonl, []

    def full_for_a_while(path: Path, row: dict[str, Any]) -> None:
        calls.append(row)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "full", str(path))
        append(path, row)

    monkeypatch.setattr(metrics, "append_jsonl", full_for_a_while)
    train(options)
    rows = [json.loads(line) for line in (options.output_dir / "train_log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert "no space left on its disk" in capsys.readouterr().err


def test_a_run_that_never_took_a_step_does_not_hold_the_folder(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    short = save_llama(tmp_path / "short", bpe_tokenizer_directory)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(VicunaError, match="lacks 9 weights"):
        train(make_options(model=short))
    assert train(make_options()).model is not None


def test_weights_of_another_shape_are_named(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    wide = save_llama(tmp_path / "wide", bpe_tokenizer_directory)
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(VicunaError, match=r"down_proj.weight is \[32, 48\], its config.json wants \[32, 64\]"):
        train(make_options(model=wide))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("generation_config.json", "[", "generation_config.json:1:2: not JSON"),
        ("generation_config.json", "[]", "holds a list, not a JSON object"),
        ("config.json", '{"model_type": "llama", "hidden_size": "x"}', "config.json cannot be read .*hidden_size"),
        ("model.safetensors", "", "0 bytes cannot hold its header"),
    ],
)
def test_a_damaged_base_is_refused_before_the_first_step(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path, name: str, content: str, message: str
) -> None:
    base = save_llama(tmp_path / "base", bpe_tokenizer_directory)
    (base / name).write_text(content)
    with pytest.raises(VicunaError, match=message) as caught:
        train(make_options(model=base))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "train_log.jsonl").exists()


def test_a_folder_with_somebody_elses_files_is_left_alone(make_options: MakeOptions, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    (out / ".model.abc.tmp").mkdir()  # another program may be in the middle of it
    for content in ('{"name": "my project"}', "[]"):
        (out / "run.json").write_text(content)
        with pytest.raises(VicunaError, match="not a training run"):
            train(make_options(overwrite_output_dir=True))
    assert {path.name for path in out.iterdir()} == {"model", ".model.abc.tmp", "run.json"}
