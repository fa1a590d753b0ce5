"""The chat page in the browser: `python -m vicuna.serve.web`.

This file starts the server; the page itself is `web_page`. It stands in a process of its own and talks to the API at
`--api-url` like any other client, through `api_client`.
"""

import os
import socket
from dataclasses import dataclass

import uvicorn

from vicuna import log
from vicuna.errors import UsageError, VicunaError, require
from vicuna.options import command, option, parse
from vicuna.serve.address import API_KEY_VARIABLE, DEFAULT_API_URL, checked_api_url, is_loopback


@dataclass(frozen=True)
class WebOptions:
    """Options of the chat page."""

    api_url: str = option(DEFAULT_API_URL, help="OpenAI-compatible server to talk to")
    host: str = option("127.0.0.1", help="address to listen on; 0.0.0.0 lets other machines in")
    port: int = option(7860, help="port to listen on; 0 takes a free one")
    concurrency: int = option(64, help="replies written at the same time, over all visitors")


@command
def main(argv: list[str] | None = None) -> int:
    """Serve the chat page until Ctrl-C."""
    options = parse(
        WebOptions,
        argv,
        prog="python -m vicuna.serve.web",
        description="A chat page for an OpenAI-compatible server. "
        f"An API key, if the server wants one, is read from {API_KEY_VARIABLE}.",
    )
    if options.concurrency < 1:
        raise UsageError(f"--concurrency is {options.concurrency}; it must be at least 1")
    api_url = checked_api_url(options.api_url)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported
    for module in ("gradio", "httpx"):
        require(module, "web")
    listener = listen(options.host, options.port)
    from vicuna.serve.api_client import ApiClient
    from vicuna.serve.web_page import build_app

    config = uvicorn.Config(
        build_app(ApiClient(api_url), concurrency=options.concurrency),
        log_level="warning",
        # Open pages hold a heartbeat connection for ever; do not wait for them at the end.
        timeout_graceful_shutdown=2,
    )
    port = listener.getsockname()[1]
    shown_host = "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host
    log.info(f"chat page: http://{f'[{shown_host}]' if ':' in shown_host else shown_host}:{port} (API: {api_url})")
    if not is_loopback(options.host):
        log.warning(f"--host {options.host}: everyone who reaches this machine can use the page and its API key")
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UsageError: `port` or `host` cannot be one.
        VicunaError: the port is taken, or the host is not this machine's.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port is {port}; it must be between 0 and 65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except socket.gaierror:
        raise UsageError(f"--host {host!r} is not an address of this machine; use 127.0.0.1") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise VicunaError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None
    return listener


if __name__ == "__main__":
    raise SystemExit(main(None))
