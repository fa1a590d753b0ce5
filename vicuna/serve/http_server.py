"""A listening socket, and uvicorn on it until a signal ends it: what the controller and the chat page share."""

import contextlib
import errno
import resource
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from vicuna.errors import UsageError, VicunaError, require

MAX_FILES = 8_192


def listen(host: str, port: int, flag: str = "--port") -> socket.socket:
    """A listening socket, for a server here or in a child.

    Args:
        flag: the flag that `port` came from.

    Raises:
        UsageError: the port is no port, or the host no address of this machine.
        VicunaError: the port is taken, or needs rights that this user has not.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"{flag} {port}: choose a port from 0 to 65535; 0 takes a free one")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError):
        raise UsageError(f"--host '{host}' is not an address of this machine; use 127.0.0.1") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"--host '{host}' is not an address of this machine; use 127.0.0.1") from None
        raise VicunaError(f"cannot listen on {host}:{port} ({error.strerror}); choose another {flag}") from None
    return listener


def server_url(listener: socket.socket, host: str) -> str:
    """The URL of a server on this machine that was told to listen on `host`."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"


def settings(app: Any, **more: Any) -> uvicorn.Config:
    """uvicorn's settings, with what holds for every server of ours.

    Args:
        more: what holds for this one.

    Raises:
        VicunaError: the parser of requests is not installed.
    """
    require("httptools", "serve")
    from vicuna.serve.door.connection import Connection

    return uvicorn.Config(
        app,
        http=Connection,
        log_level="error",  # what it warns of is strangers' requests, of which there may be any number
        access_log=False,
        server_header=False,
        **more,
    )


class Server(uvicorn.Server):
    """uvicorn that says when it is ready, and ends in order on SIGTERM and Ctrl-C.

    Args:
        announce: called once requests are answered.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then call `announce`."""
        await super().startup(sockets=sockets)
        self._announce()

    def run_until_signal(self, listener: socket.socket) -> None:
        """Serve until SIGTERM, which is how a server ends, or Ctrl-C.

        A signal is noted from the first moment on: raised as an exception while uvicorn still imports its parts, it
        could get lost in one of Python's own callbacks.

        Raises:
            KeyboardInterrupt: on Ctrl-C, after everything has been shut down.
        """
        _take_all_files()
        received: set[int] = set()

        def stop(number: int, _: FrameType | None) -> None:
            received.add(number)
            self.should_exit = True

        earlier = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.run(sockets=[listener])  # it takes the signals over for a while, then hands on to `stop` what it got
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
        if signal.SIGINT in received:
            raise KeyboardInterrupt


def _take_all_files() -> None:
    """Open as many connections as the system lets us, not only as many as it offers at first (often 1,024)."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if most == resource.RLIM_INFINITY else min(most, MAX_FILES)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
