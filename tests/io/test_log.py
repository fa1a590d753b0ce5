"""Progress, and figures for people."""

import io
import sys

import pytest

from vicuna.io.log import Progress, human_bytes, human_seconds


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(4, description="cleaning", unit="records") as progress:
        for _ in range(4):
            progress.update(loss=0.51234567, stage="b")
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text.startswith("cleaning: 100% 4/4 records, ")
    assert "loss 0.5123, stage b" in text
    assert "\r" not in text


def test_the_last_line_comes_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vicuna.io.log.LINE_INTERVAL_SECONDS", 0.0)
    with Progress(2, description="work") as progress:
        progress.update()
        progress.update()
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(2 << 20, description="copying", unit="B") as progress:
        progress.update(1 << 20)
    text = terminal.getvalue()
    assert "\r" in text
    assert "copying: 50% 1.0 MiB/2.0 MiB" in text
    assert "left" in text
    assert text.endswith("\n")


def test_unknown_total_and_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), Progress(None, description="reading") as progress:
        progress.update(3)
        raise RuntimeError
    assert capsys.readouterr().err == ""
    assert progress.line().startswith("reading: 3 it")


def test_what_a_field_says_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(2, description="read\x1b[2Jing") as progress:
        progress.update(1, file="a\rb\x1b]52;c;eA==\x07")
    text = stream.getvalue().replace("\r\033[K", "").replace("\n", "")
    assert text.isprintable()
    assert "\\x1b[2J" in text


def test_human_numbers() -> None:
    assert [human_bytes(size) for size in (0, 1023, 1536, 3 << 30)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]
    assert [human_seconds(time) for time in (0.04, 59, 125, 7800)] == ["0.0 s", "59.0 s", "2 min 05 s", "2 h 10 min"]
