"""The terminal chat as people and programs meet it: as a process, through pipes and through a pty."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.stub_api import RICH_REPLY, StubApi

PROMPT = "\x1b[?2004h"  # prompt_toolkit is ready to read
COMMAND = [sys.executable, "-m", "vicuna.serve.chat"]


@pytest.fixture
def api() -> Iterator[StubApi]:
    with StubApi(("first", "second")) as server:
        yield server


def pipe(api: StubApi, text: str, *flags: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [*COMMAND, "--api-url", api.url, *flags]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=30, check=False, cwd=cwd, env=environment
    )


class Pty:
    """The chat on a terminal of its own."""

    def __init__(self, api_url: str, home: Path, *flags: str) -> None:
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            os.environ |= {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", "VICUNA_HOME": str(home), "COLUMNS": "100"}
            os.environ.pop("NO_COLOR", None)
            os.execv(sys.executable, [*COMMAND, "--api-url", api_url, *flags])
        self.output = ""

    def __enter__(self) -> "Pty":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def expect(self, text: str, timeout_seconds: float = 10.0) -> str:
        """Read on until `text` comes; what came before it is taken off."""
        deadline = time.monotonic() + timeout_seconds
        while text not in self.output:
            readable, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"{text!r} did not come; the terminal shows {self.output!r}"
            try:
                data = os.read(self._descriptor, 4096)
            except OSError:
                data = b""
            assert data, f"the chat ended before {text!r}: {self.output!r}"
            self.output += data.decode("utf-8", "replace")
        before, self.output = self.output.split(text, 1)
        return before

    def exit_code(self) -> int:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if select.select([self._descriptor], [], [], 0.05)[0]:
                try:
                    os.read(self._descriptor, 4096)
                except OSError:
                    pass
        raise AssertionError("the chat did not end")


def test_a_pipe_gets_replies_on_stdout_and_nothing_else(api: StubApi) -> None:
    done = pipe(api, "Hello\n\n   \ntour\n", "--system", "be brief", "--temperature", "0")
    assert done.stdout == "reply 1 in turn 1 to Hello ü\u2028✓\n" + RICH_REPLY
    assert "tokens/s" in done.stderr and "also alive: second" in done.stderr
    assert done.returncode == 0
    assert api.requests[1]["messages"][0] == {"role": "system", "content": "be brief"}
    assert [message["role"] for message in api.requests[1]["messages"]] == ["system", "user", "assistant", "user"]
    assert api.requests[0]["temperature"] == 0 and api.requests[0]["model"] == "first"


def test_a_server_error_keeps_the_session_and_shows_in_the_exit_code(api: StubApi) -> None:
    done = pipe(api, "one\nfail\ntwo\n", "--model", "second")
    assert done.stdout.splitlines()[0].startswith("reply 1 in turn 1 to one")
    assert "in turn 2 to two" in done.stdout  # the question that failed is not in the history
    assert "error: the server failed with 500 (the engine died)" in done.stderr
    assert done.returncode == 1


def test_a_reply_that_breaks_off_is_kept(api: StubApi) -> None:
    done = pipe(api, "cut\nnext\n")
    assert done.stdout.startswith("half an \n")
    assert "the reply broke off" in done.stderr
    assert api.requests[1]["messages"][1] == {"role": "assistant", "content": "half an "}


def test_letters_that_are_none(api: StubApi) -> None:
    command = [*COMMAND, "--api-url", api.url]
    for flags, line, content in (([], b"h\xffi\n", "h\ufffdi"), (["--style", "programmatic"], b'"\\ud800"\n', "?")):
        done = subprocess.run([*command, *flags], input=line, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert api.requests[-1]["messages"][-1]["content"] == content


def test_streams_that_are_gone(api: StubApi) -> None:
    """A reader that has left ends the chat without a word; one of stderr is not missed; a full disk is told once."""
    chat = " ".join([*COMMAND, "--api-url", api.url, "--model", "first"])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for line, expected in (
        (f"printf 'a\\nb\\n' | {chat} | true; echo ${{PIPESTATUS[1]}}", ("0\n", "")),
        (f"echo a | {chat} 2>/dev/full; echo $?", ("reply 2 in turn 1 to a ü\u2028✓\n0\n", "")),
        (f"echo a | {chat} >/dev/full", ("", "error: stdout: no space left on its disk; free some or choose")),
    ):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=environment)
        assert done.stdout == expected[0]
        assert done.stderr.startswith(expected[1]) and done.stderr.count("\n") <= 1


def test_a_key_that_no_header_takes(api: StubApi) -> None:
    environment = {**os.environ, "VICUNA_API_KEY": "schlüssel"}
    command = [*COMMAND, "--api-url", api.url]
    done = subprocess.run(command, input="a", capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr == "error: VICUNA_API_KEY holds characters that no HTTP header takes; set it again\n"


def test_no_server() -> None:
    with StubApi() as api:
        pass
    done = pipe(api, "Hello\n")
    assert done.stdout == "" and done.returncode == 1
    assert f"no server answers at {api.url}" in done.stderr


def test_commands_and_their_old_names(api: StubApi, tmp_path: Path) -> None:
    script = "one\ntwo\n!!remove\n!!save kept.json\n!!save kept.json\n/reset\n/load kept.json\n!!regen\n/undo\n"
    script += "/model second\n/model third\n/system be kind\nlast\n/nonsense\n/usr/bin is a path\n!!exit\nnever\n"
    done = pipe(api, script, cwd=tmp_path)
    saved = json.loads((tmp_path / "kept.json").read_text())
    assert [message["content"] for message in saved["messages"] if message["role"] == "user"] == ["one"]
    assert "kept.json" in done.stderr and "exists" in done.stderr
    assert "no model 'third' is alive; known: first, second" in done.stderr
    assert "no command /nonsense; known:" in done.stderr
    asked = [request["messages"][-1]["content"] for request in api.requests]
    assert asked == ["one", "two", "one", "last", "/usr/bin is a path"]
    assert api.requests[3]["model"] == "second"
    assert [message["content"] for message in api.requests[3]["messages"]] == ["be kind", "last"]


def test_programmatic_style_answers_each_line_with_one_object(api: StubApi) -> None:
    done = pipe(api, '"two\\nlines"\nno json\n"fail"\n', "--style", "programmatic")
    rows = [json.loads(line) for line in done.stdout.split("\n") if line]
    assert rows[0]["content"] == "reply 1 in turn 1 to two\nlines ü\u2028✓"
    assert rows[0]["finish_reason"] == "stop" and rows[0]["usage"] == {"prompt_tokens": 12, "completion_tokens": 6}
    assert "is not a JSON string" in rows[1]["error"]
    assert "the engine died" in rows[2]["error"]
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--temperature", "3"], "--temperature is 3.0; it must be between 0 and 2"),
        (["--top-p", "0"], "--top-p is 0.0; it must be above 0"),
        (["--max-tokens", "0"], "--max-tokens is 0"),
        (["--style", "loud"], "loud"),
    ],
)
def test_flags_out_of_range(api: StubApi, flags: list[str], words: str) -> None:
    done = pipe(api, "Hello\n", *flags)
    assert words in done.stderr and done.returncode == 2 and not api.requests


def test_ctrl_c_stops_only_the_reply_and_keeps_what_came(api: StubApi, tmp_path: Path) -> None:
    with Pty(api.url, tmp_path, "--style", "simple") as chat:
        chat.expect("/help lists the commands")
        chat.expect(PROMPT)
        chat.type("slow\r")
        chat.expect("word5 ")
        chat.type("\x03")
        chat.expect("stopped")
        assert api.left.wait(2)
        chat.expect(PROMPT)
        chat.type("and now?\r")
        chat.expect("in turn 2 to and now?")
        chat.expect(PROMPT)
        chat.type("\x03")
        chat.expect("Ctrl-D or /exit leaves")
        chat.expect(PROMPT)
        chat.type("\x04")
        assert chat.exit_code() == 0
    history = api.requests[1]["messages"]
    assert history[0] == {"role": "user", "content": "slow"}
    assert history[1]["content"].startswith("word0 word1 ")


def test_ctrl_c_before_the_first_word_returns_the_question(api: StubApi, tmp_path: Path) -> None:
    with Pty(api.url, tmp_path) as chat:
        chat.expect(PROMPT)
        chat.type("silent\r")
        chat.expect("…")
        assert api.asked.wait(5)
        chat.type("\x03")
        assert api.left.wait(5)
        chat.expect(PROMPT)
        chat.expect("silent")
        chat.type(" no more\r")
        chat.expect("in turn 1 to silent no more")


def test_rich_style_draws_markdown_and_asks_before_overwriting(api: StubApi, tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text("mine")
    with Pty(api.url, tmp_path) as chat:
        chat.expect(PROMPT)
        chat.type("tour\r")
        chat.expect("short tour")
        chat.expect("tokens/s")
        chat.expect(PROMPT)
        chat.type(f"/save {tmp_path}/mine.md\r")
        chat.expect("overwrite it? [y/N]")
        chat.type("n\r")
        chat.expect("error:")
        assert (tmp_path / "mine.md").read_text() == "mine"
        chat.expect(PROMPT)
        chat.type(f"/save {tmp_path}/mine.md\r")
        chat.expect("overwrite it? [y/N]")
        chat.type("y\r")
        chat.expect("wrote 2 messages")
        chat.expect(PROMPT)
        chat.type("/exit\r")
        assert chat.exit_code() == 0
    assert (tmp_path / "mine.md").read_text().startswith("## You\n\ntour")
    assert (tmp_path / "chat_history").stat().st_mode & 0o077 == 0


def test_several_lines(api: StubApi, tmp_path: Path) -> None:
    with Pty(api.url, tmp_path, "--style", "simple") as chat:
        chat.expect(PROMPT)
        chat.type("one\x1b\rtwo\r")
        chat.expect("tokens/s")
        chat.expect(PROMPT)
        chat.type("/multi\r")
        chat.expect("Alt-Enter sends")
        chat.expect(PROMPT)
        chat.type("three\rfour\x1b\r")
        chat.expect("tokens/s")
    assert [request["messages"][-1]["content"] for request in api.requests] == ["one\ntwo", "three\nfour"]


def test_a_dead_server_leaves_the_question_in_the_prompt(tmp_path: Path) -> None:
    with StubApi() as api:
        port, url = api.port, api.url
    with Pty(url, tmp_path) as chat:
        chat.expect("no server answers at")
        chat.expect(PROMPT)
        chat.type("hello\r")
        chat.expect("no server answers at")
        chat.expect(PROMPT)
        chat.expect("hello")
        with StubApi(port=port):
            chat.type("\r")
            chat.expect("in turn 1 to hello")
