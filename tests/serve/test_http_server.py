"""What the controller and the chat page share: a port of their own, and an end in order."""

import os
import signal
import socket
from typing import Any

import pytest
import uvicorn

from vicuna.errors import UsageError, VicunaError
from vicuna.serve.http_server import Server, listen, server_url


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """An application that nobody asks."""


def server(number: signal.Signals) -> Server:
    """One that is sent a signal as soon as it answers."""
    config = uvicorn.Config(nothing, log_level="warning", lifespan="off")
    return Server(config, lambda: os.kill(os.getpid(), number))


def test_sigterm_is_a_good_end_and_ctrl_c_is_told_on() -> None:
    earlier = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with listen("127.0.0.1", 0) as listener:
        server(signal.SIGTERM).run_until_signal(listener)
    with listen("127.0.0.1", 0) as listener, pytest.raises(KeyboardInterrupt):
        server(signal.SIGINT).run_until_signal(listener)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == earlier


def test_a_signal_before_the_server_runs_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    told = server(signal.SIGTERM)
    run = told.run

    def signalled(**keywords: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        run(**keywords)

    monkeypatch.setattr(told, "run", signalled)
    with listen("127.0.0.1", 0) as listener:
        told.run_until_signal(listener)


@pytest.mark.parametrize(
    ("host", "port", "error", "message"),
    [
        ("127.0.0.1", -1, UsageError, "--web-port -1: choose a port from 0 to 65535"),
        ("127.0.0.1", 65536, UsageError, "--web-port 65536: choose"),
        ("no.such.invalid", 0, UsageError, "--host 'no.such.invalid' is not an address of this machine"),
        ("x" * 300, 0, UsageError, "is not an address of this machine"),
        ("192.0.2.1", 0, UsageError, "--host '192.0.2.1' is not an address of this machine"),
    ],
)
def test_places_where_nobody_can_listen(host: str, port: int, error: type[VicunaError], message: str) -> None:
    with pytest.raises(error, match=message):
        listen(host, port, "--web-port")


def test_a_busy_port_is_named_with_its_flag() -> None:
    with listen("127.0.0.1", 0) as busy, pytest.raises(VicunaError, match="choose another --web-port"):
        listen("127.0.0.1", busy.getsockname()[1], "--web-port")


def test_addresses() -> None:
    with listen("0.0.0.0", 0) as listener:
        assert server_url(listener, "0.0.0.0") == f"http://127.0.0.1:{listener.getsockname()[1]}"
    with socket.socket() as listener:
        assert server_url(listener, "::1") == "http://[::1]:0"
