"""Chat in the terminal: `vicuna chat`.

This file reads the flags; the conversation is `terminal.session`, what is shown of it `terminal.screen`. Replies go
to stdout, everything else to stderr, so that pipes work: `echo "Hello" | vicuna chat`.
"""

from dataclasses import dataclass
from typing import Literal

from vicuna.errors import UsageError, require
from vicuna.options import command, option, parse
from vicuna.serve.client.address import API_KEY_VARIABLE, DEFAULT_API_URL, checked_api_url

HELP = """/help          this list
/model [NAME]  show the models that are alive, or choose one
/system [TEXT] show or set the system prompt; /system default drops it
/regen         answer the last question again
/undo          take the last question and its reply back
/reset         begin a new conversation
/save FILE     write the conversation: .json OpenAI messages, .sharegpt.json, .md
/load FILE     continue a saved conversation
/multi         Enter breaks the line and Alt-Enter sends, until /multi again
/exit          leave (also Ctrl-D)
Alt-Enter breaks the line. Ctrl-C stops a reply and keeps what came.
A line that begins with a space is never a command."""


@dataclass(frozen=True)
class ChatOptions:
    """Options of the terminal chat."""

    api_url: str = option(DEFAULT_API_URL, help="OpenAI-compatible server to talk to")
    model: str | None = option(None, help="model to talk to; without it the first one that is alive")
    system: str | None = option(None, help="system prompt; without it the model's own")
    temperature: float = option(0.7, help="randomness, 0 to 2; 0 always takes the likeliest token")
    top_p: float = option(1.0, help="probability mass to sample from, above 0 to 1")
    max_tokens: int = option(1024, help="longest reply, in tokens", aliases=("--max-new-tokens",))
    style: Literal["rich", "simple", "programmatic"] | None = option(
        None,
        help="rich: live Markdown; simple: plain text; programmatic: a JSON string per line in, a JSON object per "
        "line out. Without it: rich on a terminal, simple otherwise",
    )


@command
def main(argv: list[str] | None = None) -> int:
    """Chat until /exit or the end of the input."""
    options = parse(
        ChatOptions,
        argv,
        prog="vicuna chat",
        description="Chat with a model of an OpenAI-compatible server. "
        f"An API key, if the server wants one, is read from {API_KEY_VARIABLE}.",
        epilog="commands:\n" + HELP,
    )
    _check(options)
    api_url = checked_api_url(options.api_url)
    for module in ("httpx", "prompt_toolkit", "rich"):
        require(module, "serve")
    from vicuna.serve.client.http import ApiClient
    from vicuna.serve.terminal.screen import open_terminal
    from vicuna.serve.terminal.session import Session

    session = Session(
        ApiClient(api_url),
        open_terminal(options.style),
        model=options.model,
        system=options.system,
        temperature=options.temperature,
        top_p=options.top_p,
        max_tokens=options.max_tokens,
        help=HELP,
    )
    return session.run()


def _check(options: ChatOptions) -> None:
    if not 0 <= options.temperature <= 2:
        raise UsageError(f"--temperature is {options.temperature}; it must be between 0 and 2")
    if not 0 < options.top_p <= 1:
        raise UsageError(f"--top-p is {options.top_p}; it must be above 0 and at most 1")
    if options.max_tokens < 1:
        raise UsageError(f"--max-tokens is {options.max_tokens}; it must be at least 1")


if __name__ == "__main__":
    raise SystemExit(main(None))
