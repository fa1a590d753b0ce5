"""Messages name the thing and the way out."""

import errno
import sys

import pytest

from vicuna.errors import VicunaError, describe, nearest, require


def test_the_nearest_name_is_suggested_if_one_is_close() -> None:
    assert nearest("trian", ["train", "data"]) == "known: data, train; did you mean 'train'?"
    assert nearest("xyzzy", ["train", "data"]) == "known: data, train"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\n lines"), "two lines"),
        (ValueError(), "ValueError"),
        (
            OSError(errno.ENOSPC, "full", "/disk/x"),
            "/disk/x: no space left on its disk; free some or choose another disk",
        ),
        (
            OSError(errno.EADDRINUSE, "in use"),
            "a file or address: the address is in use; choose another port",
        ),
        (OSError(errno.EPIPE, "Broken pipe", b"/x\n"), "'/x\\n': Broken pipe"),
    ],
)
def test_one_line(error: Exception, text: str) -> None:
    assert describe(error) == text


def test_a_missing_module_names_its_extra() -> None:
    assert require("json", "any") is __import__("json")
    with pytest.raises(VicunaError, match=r"no_such_module is not installed: pip install 'vicuna-kit\[train\]'"):
        require("no_such_module", "train")


def test_a_module_that_lacks_another_one_is_not_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "half_installed.py").write_text("import no_such_module")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        require("half_installed", "train")
