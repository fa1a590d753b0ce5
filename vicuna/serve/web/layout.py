"""The chat page: its parts, and which event belongs to which.

Before: `python -m vicuna.serve.web` starts the server. After: what the events do is `events`, what they show `view`.
The conversation lives in the visitor's browser (its local storage), so a refresh keeps it and the server
keeps nothing.
"""

from functools import partial
from typing import Any

import gradio as gr
from fastapi import FastAPI

from vicuna.serve.auth import AsgiApp
from vicuna.serve.client.http import ApiClient
from vicuna.serve.client.transcript import EXPORTS
from vicuna.serve.web import style
from vicuna.serve.web.events import DEFAULTS, PageEvents
from vicuna.serve.web.guard import PageGuard
from vicuna.serve.web.view import health, notice

MODELS_REFRESH_SECONDS = 5.0
STORAGE_KEY = "vicuna-chat"
# Gradio scrambles local storage with this word, which it also sends to the page: it hides nothing, but it must stay
# the same for the history to outlive a restart of the server.
STORAGE_SECRET = "vicuna"


def build_page(client: ApiClient) -> gr.Blocks:
    """The page with its events wired."""
    events = PageEvents(client)
    with gr.Blocks(title="Vicuna", fill_height=True, analytics_enabled=False) as blocks:
        stored = gr.BrowserState({}, storage_key=STORAGE_KEY, secret=STORAGE_SECRET)
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
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        question.submit(events.send, [question, stored, *settings], outputs, **quiet)
        chat.retry(events.retry, [stored, *settings], outputs, **quiet)
        chat.edit(events.edit, [stored, *settings], outputs, **quiet)
        chat.undo(events.undo, [stored, *settings], outputs, **quiet)
        chat.clear(events.clear, settings, outputs, **quiet)
        # Past the queue, so that it works however many replies are being written.
        question.stop(events.stop, None, None, queue=False, **quiet)
        blocks.unload(events.stop)
        for name, button in exports.items():
            button.click(partial(events.export, name), stored, file, **quiet).then(
                None, file, None, js=style.DOWNLOAD_JS
            )
        look.click(None, None, None, js=style.TOGGLE_DARK_JS)
        blocks.load(events.restore, stored, [question, chat, system, temperature, top_p, max_tokens], **quiet)
        models = [model, alive]
        blocks.load(events.refresh_models, [model, stored], models, **quiet)
        gr.Timer(MODELS_REFRESH_SECONDS).tick(events.refresh_models, [model, stored], models, **quiet)
    return blocks


def build_app(client: ApiClient, *, concurrency: int) -> AsgiApp:
    """The page as a guarded ASGI app."""
    blocks = build_page(client).queue(default_concurrency_limit=concurrency, api_open=False)
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
    return PageGuard(app)
