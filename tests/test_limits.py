"""The page of all limits is what the code says."""

import subprocess
import sys
from pathlib import Path

import limits
import pytest


def test_the_page_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, limits.__file__, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_limit_is_found_with_its_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "roomy"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "walls.py").write_text(
        "MAX_BYTES, MAX_PARTS = 3 << 20, 7  # of a letter\n"
        "# As many as fit\n# through the slot.\nMAX_LETTERS = 12_000\n"
        'LARGEST_STAMP = 2.5\n"""Nobody\n prints larger ones."""\nMAX_POST_BOXES: int = 4\nOTHER = 1\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(limits, "ROOT", tmp_path)
    monkeypatch.setattr(limits, "PACKAGE", package)
    assert [(one.name, limits.shown(one.value, one.name), one.meaning) for one in limits.limits()] == [
        ("MAX_BYTES", "3 MiB", "of a letter"),
        ("MAX_PARTS", "7", "of a letter"),
        ("MAX_LETTERS", "12,000", "As many as fit through the slot."),
        ("LARGEST_STAMP", "2.5", "Nobody prints larger ones."),
        ("MAX_POST_BOXES", "4", "post boxes"),
    ]
    assert "| `MAX_BYTES` | 3 MiB | of a letter | [roomy/walls.py](../roomy/walls.py) |" in limits.page()
