"""The chat page: its parts, and what each click does.

Opened through `web`; drawn with `web_style`, guarded by `web_guard`. The conversation lives in the visitor's browser
(its local storage), so a refresh keeps it and the server keeps nothing. Every click sends that conversation along and
gets a new view of it back; while a reply grows, one task per browser session reads it from the API through
`api_client`, and Stop, a new visit or a closed tab cancels the task, which closes the connection upstream.
"""

import asyncio
import html
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from fastapi import FastAPI

from vicuna.conversation import Message
from vicuna.serve import web_style
from vicuna.serve.api_client import ApiClient, ApiError, ChatRequest
from vicuna.serve.reply import Reply
from vicuna.serve.transcript import EXPORTS, before_last_question, read_messages, split_unanswered
from vicuna.serve.web_guard import AsgiApp, Guard

# How often a growing reply is redrawn; the eye sees no difference, the browser does.
REDRAW_SECONDS = 0.08
MODELS_REFRESH_SECONDS = 5.0
STORAGE_KEY = "vicuna-chat"
# Gradio scrambles local storage with this word, which it also sends to the page: it hides nothing, but it must stay
# the same for the history to outlive a restart of the server.
STORAGE_SECRET = "vicuna"

# Fenced and inline code; the group makes `split` return code at the odd positions.
CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)

DEFAULTS: dict[str, Any] = {"model": None, "system": "", "temperature": 0.7, "top_p": 1.0, "max_tokens": 1024}


@dataclass(frozen=True)
class Settings:
    """What a visitor chose; the order is that of the page's inputs."""

    model: str | None
    system: str
    temperature: float
    top_p: float
    max_tokens: int

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
                await asyncio.wait({task}, timeout=REDRAW_SECONDS)
                yield reply
            if task.cancelled():
                reply.finish_reason = "stopped"
            else:
                task.result()
            yield reply
        finally:
            # Also reached when the visitor leaves and Gradio drops this generator.
            del self._tasks[session]
            task.cancel()


class ChatPage:
    """What the page's events do. Outputs are always (question box, chat, notice, stored conversation)."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._replies = Replies(client)

    async def send(self, request: gr.Request, question: str, stored: Any, *settings: Any) -> AsyncIterator[Any]:
        """Ask a new question."""
        if not question.strip():
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
            return
        messages, _ = split_unanswered(read_messages(stored))
        async for outputs in self._answer(messages, messages, question, Settings(*settings), request):
            yield outputs

    async def retry(self, request: gr.Request, stored: Any, *settings: Any) -> AsyncIterator[Any]:
        """Answer the last question again; the old reply stays if that fails."""
        messages = read_messages(stored)
        kept, question = before_last_question(messages)
        async for outputs in self._answer(messages, kept, question, Settings(*settings), request):
            yield outputs

    async def edit(self, request: gr.Request, edited: gr.EditData, stored: Any, *settings: Any) -> AsyncIterator[Any]:
        """Ask an earlier question in other words; what followed it is dropped once the new reply begins."""
        messages = read_messages(stored)
        kept = messages[: _index(edited.index)]
        async for outputs in self._answer(
            messages, kept, unshield_tags(str(edited.value)), Settings(*settings), request
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
        yield box("", is_writing=True), view(asked, "…"), notice(f"Asking {settings.model} …"), store(asked, settings)
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
            yield box(question), view(before), notice(text, "bad"), store(before, settings)
            return
        answered = [*asked, Message("assistant", reply.text)]
        line = notice(" · ".join(filter(None, [error, reply.summary()])), "bad" if error else "")
        yield box(), view(answered), line, store(answered, settings)

    def stop(self, request: gr.Request) -> None:
        """Stop the reply being written: the Stop button, Escape, or a closed tab."""
        self._replies.stop(request.session_hash or "")

    def undo(self, stored: Any, *settings: Any) -> Any:
        """Take the last question and its reply back; the question returns to its box."""
        kept, question = before_last_question(read_messages(stored))
        return box(question), view(kept), notice(""), store(kept, Settings(*settings))

    def clear(self, *settings: Any) -> Any:
        """Begin a new conversation."""
        return gr.skip(), [], notice(""), store([], Settings(*settings))

    def restore(self, stored: Any) -> Any:
        """After a refresh: the chat, and the settings as they were; a question that lost its reply is asked anew."""
        messages, unanswered = split_unanswered(read_messages(stored))
        saved = stored if isinstance(stored, dict) else {}
        settings = [saved.get(name, default) for name, default in DEFAULTS.items() if name != "model"]
        return box(unanswered), view(messages), *settings

    async def refresh_models(self, chosen: str | None, stored: Any) -> Any:
        """The picker with the models that are alive, and a line that says how many."""
        try:
            names = await self._client.models_async()
        except ApiError as error:
            return gr.skip(), health(str(error), is_alive=False)
        last = stored.get("model") if isinstance(stored, dict) else None
        chosen = chosen or (last if last in names else None) or (names[0] if names else None)
        if chosen is None:
            return gr.skip(), health("no model is alive yet", is_alive=False)
        gone = chosen not in names
        choices = [
            (f"{name} (gone)" if name not in names else name, name) for name in [*names, *([chosen] if gone else [])]
        ]
        text = f"{chosen} is gone; choose another" if gone else f"{len(names)} model{'s' * (len(names) != 1)} alive"
        return gr.Dropdown(choices=choices, value=chosen), health(text, is_alive=not gone)


def view(messages: Sequence[Message], growing: str | None = None) -> list[dict[str, str]]:
    """The messages as the chat shows them, with the reply that is still growing."""
    shown = [
        {"role": message.role, "content": shield_tags(message.content) if message.role == "user" else message.content}
        for message in messages
    ]
    return [*shown, {"role": "assistant", "content": growing}] if growing is not None else shown


def box(question: str | None = None, *, is_writing: bool = False) -> Any:
    """The question box: with a Stop button while a reply is written, with Send otherwise."""
    value = {} if question is None else {"value": question}
    return gr.Textbox(submit_btn=not is_writing, stop_btn=is_writing, **value)


def store(messages: Sequence[Message], settings: Settings) -> dict[str, Any]:
    """What the browser keeps: the conversation and the settings."""
    rows = [{"role": message.role, "content": message.content} for message in messages]
    return {"messages": rows, **vars(settings)}


def shield_tags(question: str) -> str:
    """A typed question as Markdown in which `<div>` stays a word; code is shown as typed without help."""
    parts = CODE.split(question)
    return "".join(
        part if position % 2 else re.sub(r"(?<!\\)<(?=[a-zA-Z/!])", r"\<", part) for position, part in enumerate(parts)
    )


def unshield_tags(shown: str) -> str:
    """The question behind `shield_tags`, as it comes back from the chat's edit box."""
    parts = CODE.split(shown)
    return "".join(
        part if position % 2 else re.sub(r"\\<(?=[a-zA-Z/!])", "<", part) for position, part in enumerate(parts)
    )


def notice(text: str, kind: str = "") -> str:
    """The line under the chat."""
    return f'<div class="notice {kind}" role="status">{html.escape(text)}</div>'


def health(text: str, *, is_alive: bool) -> str:
    """The line under the model picker, with its green or red dot."""
    return f'<div class="health {"alive" if is_alive else "dead"}">{html.escape(text)}</div>'


def build_page(client: ApiClient) -> gr.Blocks:
    """The page with its events wired."""
    page = ChatPage(client)
    with gr.Blocks(title="Vicuna", fill_height=True, analytics_enabled=False) as blocks:
        stored = gr.BrowserState({}, storage_key=STORAGE_KEY, secret=STORAGE_SECRET)
        with gr.Row(elem_id="top"):
            gr.HTML("<h1>Vicuna</h1><p>Chat with the models of your own server.</p>", elem_id="title")
            with gr.Column(min_width=220, elem_id="picker"):
                model = gr.Dropdown([], label="Model", show_label=False, container=False, allow_custom_value=True)
                alive = gr.HTML(health("looking for models …", is_alive=False))
        chat = gr.Chatbot(
            elem_id="chat",
            show_label=False,
            scale=1,
            height="100%",
            layout="bubble",
            editable="user",
            buttons=["copy", "copy_all"],
            # Shows a tag that HTML does not know, as in vector<int>, instead of swallowing it.
            allow_tags=True,
            allow_file_downloads=False,
            group_consecutive_messages=False,
            latex_delimiters=web_style.LATEX_DELIMITERS,
            placeholder=web_style.PLACEHOLDER,
        )
        line = gr.HTML(notice(""), elem_id="line")
        question = gr.Textbox(
            elem_id="question",
            placeholder="Ask something",
            label="Your question",
            show_label=False,
            container=False,
            autofocus=True,
            lines=1,
            max_lines=12,
            submit_btn=True,
        )
        with gr.Sidebar(position="right", open=False, width=300, elem_id="settings"):
            gr.Markdown("### Settings")
            system = gr.Textbox(label="System prompt", lines=4, placeholder="The model's own default", value="")
            temperature = gr.Slider(0, 2, DEFAULTS["temperature"], step=0.05, label="Temperature")
            top_p = gr.Slider(0.05, 1, DEFAULTS["top_p"], step=0.05, label="Top-p")
            max_tokens = gr.Slider(1, 8192, DEFAULTS["max_tokens"], step=1, label="Max tokens of a reply")
            gr.Markdown("### Save this chat")
            exports = {name: gr.Button(name, size="sm") for name in EXPORTS}
            gr.Markdown("### Look")
            look = gr.Button("Dark or light", size="sm")
            file = gr.JSON(visible="hidden")

        settings = [model, system, temperature, top_p, max_tokens]
        outputs = [question, chat, line, stored]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        question.submit(page.send, [question, stored, *settings], outputs, **quiet)
        chat.retry(page.retry, [stored, *settings], outputs, **quiet)
        chat.edit(page.edit, [stored, *settings], outputs, **quiet)
        chat.undo(page.undo, [stored, *settings], outputs, **quiet)
        chat.clear(page.clear, settings, outputs, **quiet)
        # Past the queue, so that it works however many replies are being written.
        question.stop(page.stop, None, None, queue=False, **quiet)
        blocks.unload(page.stop)
        for name, button in exports.items():
            button.click(_exporter(name), stored, file, **quiet).then(None, file, None, js=web_style.DOWNLOAD_JS)
        look.click(None, None, None, js=web_style.TOGGLE_DARK_JS)
        blocks.load(page.restore, stored, [question, chat, system, temperature, top_p, max_tokens], **quiet)
        models = [model, alive]
        blocks.load(page.refresh_models, [model, stored], models, **quiet)
        gr.Timer(MODELS_REFRESH_SECONDS).tick(page.refresh_models, [model, stored], models, **quiet)
    return blocks


def build_app(client: ApiClient, *, concurrency: int) -> AsgiApp:
    """The page as a guarded ASGI app."""
    blocks = build_page(client).queue(default_concurrency_limit=concurrency, api_open=False)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=web_style.theme(),
        head=web_style.HEAD,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        max_file_size=1,
        ssr_mode=False,
        show_error=True,
        enable_monitoring=False,
        mcp_server=False,
    )
    return Guard(app)


def _exporter(name: str) -> Any:
    def export(stored: Any) -> dict[str, str]:
        extension, write = EXPORTS[name]
        return {"name": f"chat-{time.strftime('%Y-%m-%d-%H%M')}.{extension}", "text": write(read_messages(stored))}

    return export


def _index(index: int | tuple[int, int]) -> int:
    return index if isinstance(index, int) else index[0]
