"""The chat page in the browser: `python -m vicuna.serve.web`.

This file starts the server; the page itself is `layout`. It is a process of its own and talks to the API at `--api-url`
like any other client, through `client.http`.
"""

import os
from dataclasses import dataclass

from vicuna.errors import require
from vicuna.io import log
from vicuna.io.network import is_loopback
from vicuna.options import command, option, parse
from vicuna.serve.client.address import API_KEY_VARIABLE, DEFAULT_API_URL, checked_api_url
from vicuna.serve.http_server import Server, listen, server_url, settings


@dataclass(frozen=True)
class WebOptions:
    """Options of the chat page."""

    api_url: str = option(DEFAULT_API_URL, help="OpenAI-compatible server to talk to")
    host: str = option("127.0.0.1", help="address to listen on; 0.0.0.0 lets other machines in")
    port: int = option(7860, help="port to listen on; 0 takes a free one")
    allow_host: tuple[str, ...] = option(
        (), help="names that the page answers to besides this machine's own, as browsers show them", metavar="NAME"
    )
    concurrency: int = option(64, help="replies written at the same time, over all visitors", minimum=1)


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
    api_url = checked_api_url(options.api_url)
    listener = listen(options.host, options.port)  # before Gradio, which takes seconds to import
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    for module in ("gradio", "httpx", "httptools"):
        require(module, "web")
    from vicuna.serve.client.http import ApiClient
    from vicuna.serve.web.layout import build_app

    app = build_app(
        ApiClient(api_url), concurrency=options.concurrency, host=options.host, allow_host=options.allow_host
    )
    config = settings(
        app,
        # Open pages hold a heartbeat connection for ever; do not wait for them at the end.
        timeout_graceful_shutdown=2,
    )
    if not is_loopback(options.host):
        log.warning(f"--host {options.host}: everyone who reaches this machine can use the page and its API key")
    url = server_url(listener, options.host)
    Server(config, lambda: log.info(f"chat page: {url} (API: {api_url})")).run_until_signal(listener)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
