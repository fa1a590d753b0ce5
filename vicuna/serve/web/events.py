"""The event handlers of the chat page.

Before: `layout` wires them to the page's parts. After: `view` makes what is shown. Every event sends the conversation
along, out of the browser's storage, and gets a new view of it back. What it sends is checked here once more, by
`fields`. While a reply grows, one task per browser session
reads it from the API through `client.http`; Stop or a closed tab cancels the task, which closes the connection
upstream.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from vicuna.conversation import Message
from vicuna.io.jsonl import JsonObject
from vicuna.serve.client.http import ApiClient, ApiError, ChatRequest
from vicuna.serve.client.reply import Reply
from vicuna.serve.client.transcript import EXPORTS, before_last_question, split_unanswered
from vicuna.serve.web.fields import MAX_TOKENS, MODEL, QUESTION, SYSTEM, TEMPERATURE, TOP_P, checked, read_stored
from vicuna.serve.web.view import health, notice, question_box, unescape_tags, view

# How often a growing reply is redrawn: fast enough for the eye, seldom enough for the browser.
REDRAW_SECONDS = 0.08
LONG_CHARACTERS = 50_000  # a reply of so many is redrawn half as often, and so on: each time costs by its length

DEFAULTS: JsonObject = {"model": None, "system": "", "temperature": 0.7, "top_p": 1.0, "max_tokens": 1024}


@dataclass(frozen=True)
class Settings:
    """What a visitor chose; the order is that of the page's inputs."""

    model: str | None
    system: str
    temperature: float
    top_p: float
    max_tokens: int

    @classmethod
    def of(cls, *values: Any) -> "Settings":
        """The page's inputs, checked."""
        kinds = (MODEL, SYSTEM, TEMPERATURE, TOP_P, MAX_TOKENS)
        model, system, *numbers = (checked(value, field) for value, field in zip(values, kinds, strict=True))
        return cls(model, system or "", *numbers)

    def request(self, messages: Sequence[Message]) -> ChatRequest:
        """The request for a reply to `messages`, which end with the question."""
        if not self.model:
            raise ApiError("no model is alive; start one with: vicuna serve --model PATH")
        system = [Message("system", self.system.strip())] if self.system.strip() else []
        return ChatRequest(
            self.model, [*system, *messages], float(self.temperature), float(self.top_p), int(self.max_tokens)
        )


class Replies:
    """The replies being written, one per browser session."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def is_writing(self, session: str) -> bool:
        """Whether this visitor's last question is still being answered."""
        return session in self._tasks

    def stop(self, session: str) -> None:
        """End this visitor's reply, if one is being written; what came so far stays."""
        if session in self._tasks:
            self._tasks[session].cancel()

    async def write(self, session: str, request: ChatRequest) -> AsyncIterator[Reply]:
        """The growing reply, again and again until it is complete or stopped.

        Raises:
            ApiError: no server, a refusal, or a reply that broke off; the last `Reply` seen holds what came.
        """
        reply = Reply(time.monotonic())

        async def read() -> None:
            async with self._client.stream_async(request) as chunks:
                async for chunk in chunks:
                    reply.add(chunk, time.monotonic())

        task = self._tasks[session] = asyncio.create_task(read())
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=REDRAW_SECONDS * (1 + len(reply.text) / LONG_CHARACTERS))
                yield reply
            if task.cancelled():
                reply.finish_reason = "stopped"
            else:
                task.result()
            yield reply
        finally:
            # Also reached when the visitor leaves and Gradio drops this generator.
            if self._tasks.get(session) is task:
                del self._tasks[session]
            task.cancel()


class PageEvents:
    """The handlers. The outputs of most are (question box, chat, notice, stored conversation)."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._replies = Replies(client)

    async def send(self, request: gr.Request, question: str, stored: Any, *settings: Any) -> AsyncIterator[Any]:
        """Ask a new question."""
        question = checked(question, QUESTION) or ""
        if not question.strip():
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
            return
        messages, _ = split_unanswered(list(read_stored(stored).messages))
        async for outputs in self._answer(messages, messages, question, Settings.of(*settings), request):
            yield outputs

    async def retry(self, request: gr.Request, stored: Any, *settings: Any) -> AsyncIterator[Any]:
        """Answer the last question again; the old reply stays if that fails."""
        messages = list(read_stored(stored).messages)
        kept, question = before_last_question(messages)
        async for outputs in self._answer(messages, kept, question, Settings.of(*settings), request):
            yield outputs

    async def edit(self, request: gr.Request, edited: gr.EditData, stored: Any, *settings: Any) -> AsyncIterator[Any]:
        """Ask an earlier question in other words; what followed it is dropped once the new reply begins."""
        messages = list(read_stored(stored).messages)
        kept = messages[: _index(edited.index)]
        async for outputs in self._answer(
            messages, kept, unescape_tags(str(edited.value)), Settings.of(*settings), request
        ):
            yield outputs

    async def _answer(
        self, before: list[Message], kept: list[Message], question: str, settings: Settings, request: gr.Request
    ) -> AsyncIterator[Any]:
        """Write the reply to `question` after the `kept` messages.

        Without a word of reply the chat goes back to `before` and the question into its box.
        """
        session = request.session_hash or ""
        if self._replies.is_writing(session):
            yield (
                gr.skip(),
                view(before),
                notice("The last reply is still being written; press Stop first.", "bad"),
                gr.skip(),
            )
            return
        asked = [*kept, Message("user", question)]
        yield (
            question_box("", is_writing=True),
            view(asked, "…"),
            notice(f"Asking {settings.model} …"),
            store(asked, settings),
        )
        reply, error, drawn = Reply(0.0), "", ("", 0)
        try:
            async for reply in self._replies.write(session, settings.request(asked)):
                state = (reply.text, int(time.monotonic() - reply.started_at))
                if state == drawn:
                    continue
                drawn = state
                waiting = f"{settings.model} is {'writing' if reply.text else 'reading'} · {state[1]} s"
                yield gr.skip(), view(asked, reply.text or "…"), notice(waiting), gr.skip()
        except ApiError as failure:
            error = str(failure)
        if not reply.text.strip():
            word = error or (
                "Stopped before the first word." if reply.finish_reason == "stopped" else "The reply is empty."
            )
            text = f"{word[0].upper()}{word[1:]}"
            yield question_box(question), view(before), notice(text, "bad"), store(before, settings)
            return
        answered = [*asked, Message("assistant", reply.text)]
        line = notice(" · ".join(filter(None, [error, reply.summary()])), "bad" if error else "")
        yield question_box(), view(answered), line, store(answered, settings)

    def stop(self, request: gr.Request) -> None:
        """Stop the reply being written: the Stop button, Escape, or a closed tab."""
        self._replies.stop(request.session_hash or "")

    def undo(self, stored: Any, *settings: Any) -> Any:
        """Take the last question and its reply back; the question returns to its box."""
        kept, question = before_last_question(list(read_stored(stored).messages))
        return question_box(question), view(kept), notice(""), store(kept, Settings.of(*settings))

    def clear(self, *settings: Any) -> Any:
        """Begin a new conversation."""
        return gr.skip(), [], notice(""), store([], Settings.of(*settings))

    def export(self, name: str, stored: Any) -> dict[str, str]:
        """Name and text of the file that the browser then makes; `name` is one of `EXPORTS`."""
        extension, write = EXPORTS[name]
        kept = read_stored(stored)
        leading = [Message("system", kept.system.strip())] if kept.system and kept.system.strip() else []
        messages = [*leading, *kept.messages]
        return {"name": f"chat-{time.strftime('%Y-%m-%d-%H%M')}.{extension}", "text": write(messages)}

    def restore(self, stored: Any) -> Any:
        """After a refresh: the chat, and the settings as they were; a question that lost its reply is asked anew."""
        kept = read_stored(stored)
        messages, unanswered = split_unanswered(kept.messages)
        settings = []
        for name, default in DEFAULTS.items():
            if name != "model":
                value = getattr(kept, name)
                settings.append(default if value is None else value)
        return question_box(unanswered), view(messages), *settings

    async def refresh_models(self, chosen: str | None, stored: Any) -> Any:
        """The picker with the models that are alive, and a line that says how many."""
        try:
            names = await self._client.models_async()
        except ApiError as error:
            return gr.skip(), health(str(error), is_alive=False)
        last, chosen = read_stored(stored).model, checked(chosen, MODEL)
        chosen = chosen or (last if last in names else None) or (names[0] if names else None)
        if chosen is None:
            return gr.skip(), health("no model is alive yet", is_alive=False)
        gone = chosen not in names
        choices = [
            (f"{name} (gone)" if name not in names else name, name) for name in [*names, *([chosen] if gone else [])]
        ]
        text = f"{chosen} is gone; choose another" if gone else f"{len(names)} model{'s' * (len(names) != 1)} alive"
        return gr.Dropdown(choices=choices, value=chosen), health(text, is_alive=not gone)


def store(messages: Sequence[Message], settings: Settings) -> JsonObject:
    """What the browser keeps: the conversation and the settings."""
    kept = [{"role": message.role, "content": message.content} for message in messages]
    return {"messages": kept, **vars(settings)}


def _index(index: int | tuple[int, int]) -> int:
    return index if isinstance(index, int) else index[0]
