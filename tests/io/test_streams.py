"""Closed, full and broken streams, and streams of few letters, of a real command."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

VICUNA = [sys.executable, "-m", "vicuna"]


def run(shell: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which $V is the command; Python buffers its stdout as it does for a user."""
    command = ["bash", "-c", f"V='{' '.join(VICUNA)}'; {shell}"]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment(**variables))


def environment(**variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**clean, "LC_ALL": "C.UTF-8", **variables}


@pytest.mark.parametrize("settings", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_reader_that_leaves_is_no_failure(settings: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*VICUNA, "template", "list"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment(**settings))
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_behind_stdout_is_told() -> None:
    done = run("$V template list > /dev/full")
    assert (done.returncode, done.stderr) == (
        1,
        "error: stdout: no space left on its disk; free some or choose another disk\n",
    )


def test_closed_streams_are_used_by_nothing_else(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n')
    done = run(f"$V data {rows} --output-dir {tmp_path}/out <&- >&- 2>&-")
    assert done.returncode == 0
    assert (tmp_path / "out" / "records.jsonl").read_text().count("\n") == 1
    assert run("$V template show 2>&-").stdout == ""  # not the error, which has no place to go


@pytest.mark.parametrize("settings", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "latin-1"}])
def test_letters_that_stdout_cannot_spell(tmp_path: Path, settings: dict[str, str]) -> None:
    (tmp_path / "r.jsonl").write_text('{"messages": [{"role": "user", "content": "\\u4f60"}]}\n')
    done = run(f"$V template show plain --record {tmp_path}/r.jsonl", **settings)
    assert done.returncode == 0
    assert r"\u4f60" in done.stdout


def test_work_goes_on_when_nobody_reads_stderr() -> None:
    program = "from vicuna.io import log; log.info('one'); log.warning('two'); print('done')"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_sigterm_leaves_nothing_unfinished(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from vicuna.io.files import atomic_directory; from vicuna.options import command\n"
        "@command\n"
        "def main(argv):\n"
        "    with atomic_directory(Path(sys.argv[1]) / 'out') as folder:\n"
        "        (folder / 'half').touch()\n"
        "        time.sleep(60)\n"
        "sys.exit(main(None))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".out.*/half")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    assert process.communicate(timeout=30)[1] == "ended by SIGTERM\n"
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []
