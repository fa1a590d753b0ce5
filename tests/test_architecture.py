"""The architecture page says what the code says."""

from pathlib import Path

import architecture
import pytest


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert architecture.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_page_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(architecture, "ROOT", tmp_path)
    monkeypatch.setattr(architecture, "PAGE", tmp_path / "docs" / "architecture.md")
    monkeypatch.setattr(architecture, "page", lambda: "new\n")
    assert architecture.main(["--check"]) == 1
    assert "docs/architecture.md is not what the code says" in capsys.readouterr().err
    assert architecture.main([]) == 0
    assert architecture.main(["--check"]) == 0


def test_floors() -> None:
    arrows = {"top": {"middle", "ground"}, "middle": {"ground"}, "beside": {"ground"}, "ground": set[str]()}
    assert architecture.floors(arrows) == [["ground"], ["beside", "middle"], ["top"]]
    assert "    top --> middle" in architecture.diagram(arrows)
    assert "    top --> ground" not in architecture.diagram(arrows)
    with pytest.raises(ValueError, match="circle: a, b"):
        architecture.floors({"a": {"b"}, "b": {"a"}})
