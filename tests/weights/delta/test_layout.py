"""The folder of a delta: what is missing, cut short or listed wrongly is found."""

from pathlib import Path

import pytest

from vicuna.errors import VerificationError, VicunaError
from vicuna.weights.__main__ import main as weights_main
from vicuna.weights.delta.apply import apply_delta
from vicuna.weights.delta.make import make_delta
from vicuna.weights.files.manifest import SUMS_NAME, WEIGHTS_NAME


def test_a_hash_listed_twice_is_found(tmp_path: Path, base: Path, delta: Path) -> None:
    sums = delta / SUMS_NAME
    sums.write_text(sums.read_text() * 2)
    with pytest.raises(VerificationError, match="SHA256SUMS is damaged"):
        apply_delta(base, delta, tmp_path / "again")


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_delta_is_found(tmp_path: Path, base: Path, delta: Path, keep: int) -> None:
    path = delta / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(VerificationError, match="bytes instead of"):
        apply_delta(base, delta, tmp_path / "again")


def test_a_missing_file_is_named(tmp_path: Path, base: Path, delta: Path) -> None:
    (delta / "files" / "tokenizer.json").unlink()
    with pytest.raises(VerificationError, match=r"tokenizer\.json"):
        apply_delta(base, delta, tmp_path / "again")


def test_half_a_download_is_a_damaged_delta_and_no_model(
    tmp_path: Path, delta: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (delta / "vicuna_delta.json").unlink()
    for verb in ("verify", "inspect"):
        assert weights_main([verb, str(delta)]) == 3
        assert "lacks its vicuna_delta.json; the delta is damaged" in capsys.readouterr().err
    with pytest.raises(VicunaError, match="is a delta, not a model"):
        make_delta(delta, tmp_path / "target", tmp_path / "again")
