"""What the chat page sends, keeps in the browser, and exports."""

import json

import pytest

from vicuna.conversation import Message
from vicuna.serve.client.http import ApiClient

pytest.importorskip("gradio", reason="the chat page needs pip install 'vicuna-kit[web]'")

from vicuna.serve.web.events import PageEvents, Settings, store

CHAT = [Message("user", "q"), Message("assistant", "r")]


def test_the_system_prompt_leads_and_an_empty_one_is_left_out() -> None:
    request = Settings("m", " be brief\n", 0, 1, 7).request([Message("user", "q")])
    assert [(message.role, message.content) for message in request.messages] == [("system", "be brief"), ("user", "q")]
    assert request.body()["max_tokens"] == 7
    assert len(Settings("m", "  ", 0, 1, 7).request(CHAT).messages) == 2


def test_the_browser_keeps_the_typed_text_and_the_settings() -> None:
    question = Message("user", "What is <div>?")
    kept = json.loads(json.dumps(store([question], Settings("m", "s", 0.5, 0.9, 7))))
    assert kept == {
        "messages": [{"role": "user", "content": "What is <div>?"}],
        "model": "m",
        "system": "s",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 7,
    }


def test_an_export_begins_with_the_system_prompt() -> None:
    page = PageEvents(ApiClient())
    file = page.export("OpenAI JSON", json.dumps(store(CHAT, Settings("m", "be brief", 0.5, 0.9, 7))))
    assert file["name"].endswith(".json")
    assert [row["role"] for row in json.loads(file["text"])["messages"]] == ["system", "user", "assistant"]
    assert page.export("Markdown", None)["text"] == "\n"
