"""The output directory: of one run, held by one process; others are refused and the difference named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.train.builders import (
    MakeOptions,
    digest,
    make_records,
    save_llama,
    steps_logged,
    stop_at_step,
    write_records,
)
from vicuna.errors import VicunaError
from vicuna.train.loop import train
from vicuna.train.prepare import prepare
from vicuna.train.ranks import Ranks
from vicuna.train.save.checkpoint import whole_checkpoints
from vicuna.train.save.output import RUN, claim_output_directory


def test_a_run_that_never_took_a_step_does_not_hold_the_folder(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    short = save_llama(tmp_path / "short", bpe_tokenizer_directory)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(VicunaError, match="lacks 9 weights"):
        train(make_options(model=short))
    assert train(make_options()).model is not None


def test_a_folder_with_somebody_elses_files_is_left_alone(make_options: MakeOptions, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    (out / ".model.abc.tmp").mkdir()  # another program may be in the middle of it
    for content in ('{"name": "my project"}', "[]"):
        (out / "run.json").write_text(content)
        with pytest.raises(VicunaError, match="not a training run"):
            train(make_options(overwrite_output_dir=True))
    assert {path.name for path in out.iterdir()} == {"model", ".model.abc.tmp", "run.json"}


def test_what_does_not_change_the_weights_may_change(
    make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at_step(make_options(), 3, monkeypatch)
    options = make_options(save_steps=1, logging_steps=2, save_total_limit=1)
    assert train(options).model is not None


def test_another_run_is_refused_and_the_difference_named(
    make_options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bpe_tokenizer_directory: Path
) -> None:
    stop_at_step(make_options(), 3, monkeypatch)
    other_model = save_llama(tmp_path / "other", bpe_tokenizer_directory, seed=1)
    other_data = write_records(tmp_path / "other.jsonl", make_records(5, seed=3))
    for changes, message in (
        ({"learning_rate": 2e-3}, "differs: learning_rate was 0.001, is 0.002; choose another"),
        ({"model": other_model}, "differs: model is another;"),
        ({"data": (other_data,)}, "differs: data is another;"),
        ({"template": "chatml"}, r"differs: template was vicuna_v1\.1, is chatml;"),
        ({"resume": "never"}, "already holds a run; choose another directory, --resume auto, or"),
    ):
        with pytest.raises(VicunaError, match=message):
            train(make_options(**changes))
    assert len(whole_checkpoints(make_options().output_dir)) == 2


def test_overwriting_deletes_only_what_a_run_writes(make_options: MakeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    options = make_options()
    stop_at_step(options, 3, monkeypatch)
    (options.output_dir / "notes.txt").write_text("mine")
    train(make_options(overwrite_output_dir=True, learning_rate=2e-3))
    assert (options.output_dir / "notes.txt").read_text() == "mine"
    assert steps_logged(options) == [1, 2, 3, 4, 5, 6]


def test_the_base_is_never_overwritten_by_its_own_result(make_options: MakeOptions) -> None:
    first = make_options()
    train(first)
    with pytest.raises(VicunaError, match="lies in --output-dir, which would be overwritten"):
        train(make_options(model=first.output_dir / "model", overwrite_output_dir=True))
    assert digest(first)


def test_two_runs_cannot_share_a_directory(make_options: MakeOptions) -> None:
    options = make_options()
    run = prepare(options, Ranks())
    with (
        claim_output_directory(options, run.identity),
        pytest.raises(VicunaError, match="is in use by another run"),
    ):
        train(options)
    train(options)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_left_alone(make_options: MakeOptions, overwrite: bool) -> None:
    options = make_options(overwrite_output_dir=overwrite)
    options.output_dir.mkdir()
    (options.output_dir / "notes.txt").write_text("mine")
    with pytest.raises(VicunaError, match="is not empty and not a training run"):
        train(options)
    assert [path.name for path in options.output_dir.iterdir()] == ["notes.txt"]


def test_a_run_goes_on_with_another_share_prefix(make_options: MakeOptions) -> None:
    """And so does one that was left before there was such an option."""
    options = make_options(share_prefix="off")
    train(options)
    shutil.rmtree(options.output_dir / "model")
    run_file = options.output_dir / RUN
    identity = json.loads(run_file.read_text())
    assert "share_prefix" not in identity
    assert train(replace(options, share_prefix="auto")).model == options.output_dir / "model"
