"""The command `python -m vicuna.serve.web`."""

import pytest

pytest.importorskip("gradio", reason="the chat page needs pip install 'vicuna-kit[web]'")

from vicuna.serve.http_server import listen
from vicuna.serve.web import __main__ as web


def test_bad_flags_and_a_busy_port_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    busy = listen("127.0.0.1", 0)
    port = str(busy.getsockname()[1])
    with busy:
        cases = [
            (("--port", port), 1, f"cannot listen on 127.0.0.1:{port}"),
            (("--port", "70000"), 2, "--port 70000"),
            (("--host", "no.such.host.invalid"), 2, "--host 'no.such.host.invalid'"),
            (("--api-url", "nonsense"), 2, "--api-url 'nonsense' is not an address"),
            (("--concurrency", "0"), 2, "--concurrency 0"),
        ]
        for flags, code, words in cases:
            assert web.main(list(flags)) == code
            said = capsys.readouterr().err
            assert said.count("\n") == 1 and words in said
