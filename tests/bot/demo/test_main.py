"""The demo's folder: whose it is, and the peak memory noted in it."""

from pathlib import Path

import pytest

from vicuna.bot.demo.__main__ import MARKER, claim_folder, main, note_peak
from vicuna.errors import VicunaError
from vicuna.io.jsonl import write_json


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(VicunaError, match="holds files that no demo made"):
        claim_folder(tmp_path)
    assert main(["--output-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: --output-dir")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_demos_folder_is_taken_again(tmp_path: Path) -> None:
    claim_folder(tmp_path / "new")
    (tmp_path / "new" / "more").write_text("x")
    claim_folder(tmp_path / "new")


def test_the_largest_peak_is_kept(tmp_path: Path) -> None:
    write_json(tmp_path / MARKER, {"peak_bytes": 5})
    assert note_peak(tmp_path, 3) == 5
    assert note_peak(tmp_path, 7) == 7
    assert note_peak(tmp_path, 1) == 7


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"peak_bytes": "many"}'])
def test_a_note_that_no_demo_wrote(tmp_path: Path, note: str) -> None:
    (tmp_path / "vicuna_demo.json").write_text(note)
    with pytest.raises(VicunaError, match=r"vicuna_demo\.json"):
        claim_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["vicuna_demo.json"]
