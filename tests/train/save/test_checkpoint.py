"""A damaged checkpoint is passed over; one of another model is refused."""

import json
import os
from pathlib import Path

import pytest

from tests.train.builders import MakeOptions, digest, save_llama, stop_at_step
from vicuna.errors import VicunaError
from vicuna.train.loop import train
from vicuna.train.model.conversation_model import model_fingerprint
from vicuna.train.options import TrainOptions
from vicuna.train.save.checkpoint import whole_checkpoints


@pytest.mark.parametrize("damage", ["no mark", "cut file", "missing file", "garbled mark", "another bit"])
def test_a_broken_checkpoint_is_passed_over(
    make_options: MakeOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    clean = make_options(output_dir=tmp_path / "clean")
    train(clean)
    options = make_options(output_dir=tmp_path / "broken")
    stop_at_step(options, 5, monkeypatch)
    newest = whole_checkpoints(options.output_dir)[-1]
    if damage == "no mark":
        (newest / "COMPLETE").unlink()
    elif damage == "garbled mark":
        (newest / "COMPLETE").write_text("[")
    elif damage == "missing file":
        (newest / "optimizer-0-of-1.safetensors").unlink()
    elif damage == "cut file":
        os.truncate(newest / "model-0-of-1.safetensors", 1000)
    else:
        flip_a_bit(newest / "model-0-of-1.safetensors")
    assert (newest in whole_checkpoints(options.output_dir)) == (damage == "another bit")
    train(options)
    assert f"{newest} is passed over" in capsys.readouterr().err
    assert digest(options) == digest(clean)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def test_a_checkpoint_of_another_model_is_refused_by_name(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    options = make_options()
    train(options)
    other = save_llama(tmp_path / "other", bpe_tokenizer_directory, intermediate_size=64)
    (options.output_dir / "model").rename(tmp_path / "model")
    run = json.loads((options.output_dir / "run.json").read_text())
    changed = make_options(model=other)
    (options.output_dir / "run.json").write_text(json.dumps({**run, "model": identity_of(changed)}))
    with pytest.raises(VicunaError, match=r"mlp.*(has 48 rows, not 64|is saved as)"):
        train(changed)


def identity_of(options: TrainOptions) -> str:
    return model_fingerprint(options.model)
