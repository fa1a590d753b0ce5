"""One terminal conversation: its messages, its settings and what each command does.

Before: `vicuna.serve.chat` reads the flags. It asks and shows through `screen`, reaches the server through
`client.http`, and writes files through `client.transcript`.
"""

import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vicuna.conversation import Message
from vicuna.errors import UsageError, VicunaError, nearest
from vicuna.serve.client import transcript
from vicuna.serve.client.http import ApiClient, ApiError, ChatRequest
from vicuna.serve.client.reply import Reply
from vicuna.serve.terminal.screen import Terminal

# The commands of FastChat's terminal chat.
ALIASES = {
    "!!exit": "/exit",
    "!!reset": "/reset",
    "!!remove": "/undo",
    "!!regen": "/regen",
    "!!save": "/save",
    "!!load": "/load",
}


class Session:
    """One conversation and its settings.

    Args:
        model: its name; None takes the first that is alive.
        system: the system prompt; None leaves the model its own.
        max_tokens: of a reply.
        help: what /help shows.

    Attributes:
        messages: the conversation. It ends with a reply: a question without one goes back to the prompt.
    """

    def __init__(
        self,
        client: ApiClient,
        terminal: Terminal,
        *,
        model: str | None,
        system: str | None,
        temperature: float,
        top_p: float,
        max_tokens: int,
        help: str,
    ) -> None:
        self.messages: list[Message] = []
        self.model, self.system = model, system
        self._client = client
        self._terminal = terminal
        self._temperature, self._top_p, self._max_tokens = temperature, top_p, max_tokens
        self._help_text = help
        self._draft = ""  # what the prompt begins with
        self._has_failed = False
        self._commands = {
            "help": self._help,
            "model": self._model,
            "system": self._system,
            "regen": self._regenerate,
            "undo": self._undo,
            "reset": self._reset,
            "save": self._save,
            "load": self._load,
            "multi": self._multi,
        }

    def run(self) -> int:
        """Read and answer until the end; 1 if an unattended session failed to answer."""
        self._try(self._greet)
        while True:
            draft, self._draft = self._draft, ""
            try:
                text = self._terminal.ask(draft)
            except KeyboardInterrupt:
                if not self._terminal.is_interactive:
                    raise
                self._terminal.info("Ctrl-D or /exit leaves")
                continue
            except EOFError:
                break
            except VicunaError as error:
                self._fail(error)
                continue
            if read_command(text)[0] == "exit":
                break
            if text.strip():
                self._try(partial(self._handle, text))
        return 1 if self._has_failed and not self._terminal.is_interactive else 0

    def answer(self, question: str) -> None:
        """Ask the model, show the reply while it grows, and keep both.

        Raises:
            ApiError: nothing came; the question goes back to the prompt.
        """
        self._draft = question
        model = self._chosen_model()
        system = [Message("system", self.system)] if self.system else []
        asked = [*self.messages, Message("user", question)]
        request = ChatRequest(model, [*system, *asked], self._temperature, self._top_p, self._max_tokens)
        reply, failure = self._receive(request)
        if reply.text.strip():
            self.messages, self._draft = [*asked, Message("assistant", reply.text)], ""
            self._terminal.info(reply.summary())
        elif reply.finish_reason != "stopped":
            failure = failure or ApiError("the reply is empty")
        if failure:
            raise failure

    def _receive(self, request: ChatRequest) -> tuple[Reply, ApiError | None]:
        reply, failure = Reply(time.monotonic()), None
        with self._terminal.showing(reply) as redraw:
            try:
                with self._client.stream(request) as chunks:
                    for chunk in chunks:
                        reply.add(chunk, time.monotonic())
                        redraw()
            except KeyboardInterrupt:
                if not self._terminal.is_interactive:
                    raise
                reply.finish_reason = "stopped"
            except ApiError as error:
                reply.finish_reason, failure = "error", error
        return reply, failure

    def _chosen_model(self) -> str:
        if self.model is None:
            names = self._client.models()
            if not names:
                raise ApiError("no model is alive; start one with: vicuna serve --model PATH")
            self.model = names[0]
            if len(names) > 1:
                self._terminal.info(f"talking to {names[0]}; also alive: {', '.join(names[1:])}")
        return self.model

    def _greet(self) -> None:
        if self._terminal.is_interactive:
            self._terminal.info(f"{self._chosen_model()} at {self._client.api_url}. /help lists the commands.")

    def _try(self, action: Callable[[], object]) -> None:
        """Call `action`; a failure is shown and the session goes on."""
        try:
            action()
        except (VicunaError, OSError) as error:
            if isinstance(error, OSError) and error.filename is None:
                raise  # it is no file of the user's, so it is stdout that is gone
            self._fail(error)
        except KeyboardInterrupt:
            if not self._terminal.is_interactive:
                raise

    def _fail(self, error: Exception) -> None:
        self._has_failed = True
        self._terminal.error(error)

    def _handle(self, text: str) -> None:
        name, argument = read_command(text)
        if not name:
            self.answer(text)
        elif name in self._commands:
            self._commands[name](argument)
        else:
            known = nearest(name, [*self._commands, "exit"])
            raise UsageError(f"no command /{name}; {known}; begin with a space to send it as text")

    def _help(self, _: str) -> None:
        self._terminal.info(*self._help_text.splitlines())

    def _model(self, name: str) -> None:
        names = self._client.models()
        if not name:
            self._terminal.info(
                "\n".join(f"{'*' if known == self.model else ' '} {known}" for known in names) or "no model is alive"
            )
        elif name not in names:
            raise UsageError(f"no model '{name}' is alive; {nearest(name, names)}")
        else:
            self.model = name
            self._terminal.info(f"talking to {name}")

    def _system(self, text: str) -> None:
        if text:
            self.system = None if text == "default" else text
        self._terminal.info(f"system prompt: {self.system or '(the model its own)'}")

    def _regenerate(self, _: str) -> None:
        kept, question = transcript.before_last_question(self.messages)
        if not question:
            raise UsageError("nothing to answer again yet")
        before, self.messages = self.messages, kept
        try:
            self.answer(question)
        finally:
            if self.messages is kept:  # no word came: the old reply stays
                self.messages, self._draft = before, ""

    def _undo(self, _: str) -> None:
        kept, question = transcript.before_last_question(self.messages)
        if not question:
            raise UsageError("nothing to take back")
        self.messages, self._draft = kept, question
        self._terminal.info(f"took back the last question; {len(kept)} messages are left")

    def _reset(self, _: str) -> None:
        self.messages = []
        self._terminal.info("a new conversation")

    def _save(self, name: str) -> None:
        path = _path(name, "/save chat.json")
        overwrite = path.exists() and self._terminal.confirm(f"{path} exists; overwrite it?")
        system = [Message("system", self.system)] if self.system else []
        transcript.save([*system, *self.messages], path, overwrite=overwrite)
        self._terminal.info(f"wrote {len(self.messages)} messages to {path}")

    def _load(self, name: str) -> None:
        path = _path(name, "/load chat.json")
        messages = transcript.load(path)
        self.system = "\n\n".join(message.content for message in messages if message.role == "system") or None
        rest = [message for message in messages if message.role != "system"]
        self.messages, self._draft = transcript.split_unanswered(rest)
        self._terminal.info(f"loaded {len(self.messages)} messages from {path}")

    def _multi(self, _: str) -> None:
        is_multiline = self._terminal.toggle_multiline()
        self._terminal.info("Alt-Enter sends, Enter breaks the line" if is_multiline else "Enter sends")


def read_command(text: str) -> tuple[str, str]:
    """The command's name and argument, or ("", "") for a text that is meant for the model."""
    first, _, rest = text.strip("\n").partition(" ")
    match = re.fullmatch(r"/([a-z]+)\s*", ALIASES.get(first.strip(), first))
    return (match[1], rest.strip()) if match else ("", "")


def _path(name: str, example: str) -> Path:
    if not name:
        raise UsageError(f"which file? for example: {example}")
    return Path(name).expanduser()
