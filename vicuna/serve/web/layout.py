"""The chat page: its parts, and which event belongs to which.

Before: `python -m vicuna.serve.web` starts the server. After: what the events do is `events`, what they show `view`.
The conversation lives in the visitor's browser (its local storage), so a refresh keeps it and the server
keeps nothing.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr
from fastapi import FastAPI

from vicuna.serve.client.http import ApiClient
from vicuna.serve.client.transcript import EXPORTS
from vicuna.serve.door.guard import Guard
from vicuna.serve.errors import ServerBusy
from vicuna.serve.web import fields, style
from vicuna.serve.web.events import DEFAULTS, PageEvents
from vicuna.serve.web.guard import PageGuard
from vicuna.serve.web.view import health, notice

MODELS_REFRESH_SECONDS = 5.0
STORAGE_KEY = "vicuna-chat"
# Gradio scrambles local storage with this word, which it also sends to the page: it hides nothing, but it must stay
# the same for the history to outlive a restart of the server.
STORAGE_SECRET = "vicuna"
MAX_SESSIONS = 1_000  # of visitors, of which Gradio keeps something; beyond them the oldest is forgotten
MAX_QUEUED = 500  # events that wait, of all visitors
MAX_UNREAD = 1_000  # messages that a visitor's browser has not fetched, before he may begin another event


def build_page(client: ApiClient) -> gr.Blocks:
    """The page with its events wired."""
    events = PageEvents(client)
    with gr.Blocks(title="Vicuna", fill_height=True, analytics_enabled=False) as blocks:
        stored = gr.BrowserState({}, storage_key=STORAGE_KEY, secret=STORAGE_SECRET)
        with gr.Sidebar(position="right", open=False, width=300, elem_id="settings"):
            gr.Markdown("### Settings")
            system = gr.Textbox(label="System prompt", lines=4, placeholder="The model's own default", value="")
            temperature = gr.Slider(
                fields.TEMPERATURE.least,
                fields.TEMPERATURE.most,
                DEFAULTS["temperature"],
                step=0.05,
                label="Temperature",
            )
            top_p = gr.Slider(0.05, 1, DEFAULTS["top_p"], step=0.05, label="Top-p")
            max_tokens = gr.Slider(
                fields.MAX_TOKENS.least,
                fields.MAX_TOKENS.most,
                DEFAULTS["max_tokens"],
                step=1,
                label="Max tokens of a reply",
            )
            gr.Markdown("### Save this chat")
            exports = {name: gr.Button(name, size="sm") for name in EXPORTS}
            gr.Markdown("### Look")
            look = gr.Button("Dark or light", size="sm")
            file = gr.JSON(visible="hidden")
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
            latex_delimiters=style.LATEX_DELIMITERS,
            placeholder=style.PLACEHOLDER,
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

        settings = [model, system, temperature, top_p, max_tokens]
        outputs = [question, chat, line, stored]

        def sent(inputs: Sequence[Any]) -> dict[str, Any]:
            """What is sent: text and numbers."""
            js = style.inputs_js(len(inputs)) if stored in inputs else None
            return {"inputs": list(inputs), "js": js, "show_progress": "hidden", "api_visibility": "private"}

        question.submit(events.send, outputs=outputs, **sent([question, stored, *settings]))
        chat.retry(events.retry, outputs=outputs, **sent([stored, *settings]))
        chat.edit(events.edit, outputs=outputs, **sent([stored, *settings]))
        chat.undo(events.undo, outputs=outputs, **sent([stored, *settings]))
        chat.clear(events.clear, outputs=outputs, **sent(settings))
        # Past the queue, so that it works however many replies are being written.
        question.stop(events.stop, outputs=None, queue=False, **sent([]))
        blocks.unload(events.stop)
        for name, button in exports.items():
            button.click(partial(events.export, name), outputs=file, **sent([stored])).then(
                None, file, None, js=style.DOWNLOAD_JS
            )
        look.click(None, None, None, js=style.TOGGLE_DARK_JS)
        restored = [question, chat, system, temperature, top_p, max_tokens]
        blocks.load(events.restore, outputs=restored, **sent([stored]))
        models = [model, alive]
        blocks.load(events.refresh_models, outputs=models, **sent([model, stored]))
        gr.Timer(MODELS_REFRESH_SECONDS).tick(events.refresh_models, outputs=models, **sent([model, stored]))
    return blocks


def event_fields(blocks: gr.Blocks) -> dict[int, fields.Event]:
    """What each event of the page takes, by its number: from the page's own table of events and their inputs."""
    events = {}
    for number, function in blocks.fns.items():
        if function.fn is None:  # the browser does it alone
            continue
        is_edit = any(name == "edit" for _, name in function.targets)
        events[number] = fields.Event(tuple(_field(block) for block in function.inputs), is_edit)
    return events


def _field(block: Any) -> fields.Field:
    """The field that a part of the page sends.

    Raises:
        AssertionError: it is of a kind that sends neither text nor a number.
    """
    name = getattr(block, "label", None) or type(block).__name__
    if type(block) is gr.Slider:
        return fields.Field(name, least=block.minimum, most=block.maximum)
    if type(block) is gr.Textbox:
        return fields.Field(name, fields.MAX_QUESTION_CHARACTERS, may_be_none=True)
    if type(block) is gr.Dropdown:
        return fields.MODEL
    assert type(block) is gr.BrowserState, f"{block} sends what no field takes"
    return fields.STORED


def build_app(client: ApiClient, *, concurrency: int, host: str = "127.0.0.1", allow_host: Sequence[str] = ()) -> Guard:
    """The page as a guarded ASGI app."""
    blocks = build_page(client)
    blocks.state_session_capacity = MAX_SESSIONS
    blocks.queue(default_concurrency_limit=concurrency, api_open=False, max_size=MAX_QUEUED)
    unread = blocks._queue.pending_messages_per_session
    unread.max_size = MAX_SESSIONS
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=style.theme(),
        head=style.HEAD,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        max_file_size=1,
        ssr_mode=False,
        show_error=True,
        enable_monitoring=False,
        mcp_server=False,
    )

    def check_session(session: str) -> None:
        if session in unread and unread[session].qsize() > MAX_UNREAD:
            raise ServerBusy(f"this browser has not fetched {MAX_UNREAD:,} messages of the page; reload it")

    return Guard(PageGuard(app, event_fields(blocks), check_session), host=host, allow_host=allow_host)
