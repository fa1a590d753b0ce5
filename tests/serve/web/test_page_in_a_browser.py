"""The chat page as a visitor meets it: in a real browser, in front of a stub API."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.stub_api import StubApi

pytest.importorskip("gradio", reason="the chat page needs pip install 'vicuna-kit[web]'")


CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


class Served:
    """The page as a process of its own, in front of a stub API."""

    def __init__(self, api: StubApi) -> None:
        self.api = api
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vicuna.serve.web", "--port", "0", "--api-url", api.url],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stderr is not None
        line = next(line for line in self.process.stderr if "chat page:" in line)
        self.url = line.split()[2]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with StubApi(("first", "second"), delay_seconds=0.01) as api:
        served = Served(api)
        yield served
        served.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).exists() and not shutil.which("chromium"):
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Page:
    """A visitor's page: a fresh browser profile, and what a person does with it."""

    def __init__(self, browser: Any, served: Served) -> None:
        self.served, self.api = served, served.api
        self.api.left.clear()
        self.context = browser.new_context(accept_downloads=True)
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self.tab = self.open()

    def open(self) -> Any:
        tab = self.context.new_page()
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on("request", lambda request: self.hosts.add(request.url.split("/")[2] if "//" in request.url else ""))
        tab.goto(self.served.url, wait_until="domcontentloaded")
        tab.wait_for_selector("#question textarea", timeout=30_000)
        tab.wait_for_selector(".health.alive")
        return tab

    def ask(self, question: str) -> None:
        self.tab.fill("#question textarea", question)
        self.tab.press("#question textarea", "Enter")

    def wait_for(self, selector: str, text: str) -> None:
        self.tab.locator(selector, has_text=text).last.wait_for(timeout=15_000)

    def replies(self) -> list[str]:
        return [text.strip() for text in self.tab.locator("#chat .message.bot").all_inner_texts()]

    def questions(self) -> list[str]:
        return [text.strip() for text in self.tab.locator("#chat .message.user").all_inner_texts()]

    def wait_until_done(self) -> None:
        self.wait_for("#line", "in all")
        self.tab.wait_for_selector("#question .submit-button")


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Page]:
    page = Page(browser, served)
    yield page
    page.context.close()
    assert page.errors == []
    assert {host for host in page.hosts if host} == {served.url.split("/")[2]}


in_browser = [pytest.mark.browser, pytest.mark.slow]


class TestBrowser:
    pytestmark = in_browser

    def test_an_exchange_with_code_table_and_formula(self, page: Page) -> None:
        page.ask("tour")
        page.wait_until_done()
        chat = page.tab.locator("#chat")
        assert chat.locator("pre code .token.keyword").count() > 2
        assert chat.locator("table td").count() == 6
        assert chat.locator(".katex").count() >= 2
        assert "It costs $5, not $6." in page.replies()[0]
        assert "tokens/s" in page.tab.inner_text("#line")

    def test_the_picker_names_the_models_and_asks_the_chosen_one(self, page: Page) -> None:
        assert "2 models alive" in page.tab.inner_text("#picker")
        page.tab.click("#picker input")
        page.tab.click("[role=option]:has-text('second')")
        page.ask("who?")
        page.wait_until_done()
        assert page.api.requests[-1]["model"] == "second"

    def test_stop_closes_the_request_and_keeps_what_came(self, page: Page) -> None:
        page.ask("slow")
        page.wait_for("#chat .message.bot", "word5")
        page.tab.click("#question .stop-button")
        assert page.api.left.wait(2), "the upstream request is still open"
        page.wait_for("#line", "stopped")
        assert page.replies()[0].startswith("word0 word1")
        page.ask("next")
        page.wait_for("#chat .message.bot", "in turn 2 to next")
        assert page.api.requests[-1]["messages"][1]["content"].startswith("word0 word1")

    def test_escape_before_the_first_word_returns_the_question(self, page: Page) -> None:
        page.ask("silent")
        page.wait_for("#line", "reading")
        page.tab.keyboard.press("Escape")
        page.wait_for("#line", "Stopped before the first word")
        assert page.api.left.wait(2)
        assert page.tab.input_value("#question textarea") == "silent"
        assert page.replies() == [] and page.questions() == []

    def test_a_closed_tab_closes_the_request(self, page: Page) -> None:
        page.ask("slow")
        page.wait_for("#chat .message.bot", "word2")
        page.tab.close()
        assert page.api.left.wait(5), "the upstream request is still open"

    def test_regenerate_undo_edit_and_clear(self, page: Page) -> None:
        page.ask("one")
        page.wait_until_done()
        page.ask("two")
        page.wait_for("#chat .message.bot", "in turn 2 to two")
        page.wait_until_done()
        old = page.replies()[1]
        page.tab.click("#chat [aria-label='Retry']")
        page.tab.wait_for_function(
            "old => { const all = document.querySelectorAll('#chat .message.bot');"
            " return all.length == 2 && all[1].innerText.includes('to two ') && all[1].innerText.trim() != old; }",
            arg=old,
        )
        page.wait_until_done()
        assert page.questions() == ["one", "two"]

        page.tab.locator("#chat [aria-label='Edit']").first.click()
        page.tab.locator("#chat textarea").fill("uno <div>")
        page.tab.click("#chat [aria-label='Submit']")
        page.wait_for("#chat .message.bot", "in turn 1 to uno")
        page.wait_until_done()
        assert page.questions() == ["uno <div>"]
        assert page.api.requests[-1]["messages"][-1]["content"] == "uno <div>"

        page.tab.click("#chat [aria-label='Undo']")
        page.tab.wait_for_function("document.querySelector('#question textarea').value == 'uno <div>'")
        assert page.questions() == []

        page.ask("three")
        page.wait_until_done()
        page.tab.click("#chat [aria-label='Clear']")
        page.tab.wait_for_function("document.querySelectorAll('#chat .message').length == 0")

    def test_a_refresh_keeps_the_conversation_and_the_settings(self, page: Page) -> None:
        page.tab.click("#settings .toggle-button")
        page.tab.fill("#settings textarea", "answer in rhyme")
        page.ask("remember me")
        page.wait_until_done()
        page.tab.reload(wait_until="domcontentloaded")
        page.wait_for("#chat .message.bot", "to remember me")
        assert page.questions() == ["remember me"]
        assert page.tab.input_value("#settings textarea") == "answer in rhyme"
        page.tab.wait_for_selector(".health.alive")
        page.ask("again")
        page.wait_for("#chat .message.bot", "in turn 2 to again")
        assert page.api.requests[-1]["messages"][0] == {"role": "system", "content": "answer in rhyme"}

    def test_a_refresh_in_the_middle_of_a_reply_frees_the_model_and_returns_the_question(self, page: Page) -> None:
        page.ask("slow")
        page.wait_for("#chat .message.bot", "word2")
        page.tab.reload(wait_until="domcontentloaded")
        assert page.api.left.wait(5)
        page.tab.wait_for_function("document.querySelector('#question textarea')?.value == 'slow'")

    @pytest.mark.parametrize(
        ("question", "words"),
        [
            ("busy", "The server is busy (queue full: 8 waiting); try again in 3 s"),
            ("fail", "The server failed with 500 (the engine died)"),
        ],
    )
    def test_errors_are_shown_and_the_question_is_not_lost(self, page: Page, question: str, words: str) -> None:
        page.ask(question)
        page.wait_for(".notice.bad", words)
        assert page.tab.input_value("#question textarea") == question
        assert page.questions() == []

    def test_a_reply_that_breaks_off_is_kept_and_said(self, page: Page) -> None:
        page.ask("cut")
        page.wait_for(".notice.bad", "broke off")
        assert page.replies() == ["half an"]

    def test_download(self, page: Page) -> None:
        page.ask("keep <b>this</b>")
        page.wait_until_done()
        page.tab.click("#settings .toggle-button")
        for name, ending in (("OpenAI JSON", ".json"), ("ShareGPT JSON", ".sharegpt.json"), ("Markdown", ".md")):
            with page.tab.expect_download() as waiting:
                page.tab.click(f"#settings button:has-text('{name}')")
            assert waiting.value.suggested_filename.endswith(ending)
            text = Path(waiting.value.path()).read_text("utf-8")
            assert "keep <b>this</b>" in text
            if ending == ".json":
                assert [row["role"] for row in json.loads(text)["messages"]] == ["user", "assistant"]

    def test_a_phone(self, page: Page) -> None:
        page.tab.set_viewport_size({"width": 390, "height": 844})
        page.ask("tour")
        page.wait_until_done()
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= 390
        box = page.tab.locator("#question textarea").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 844

    def test_the_server_goes_and_comes_back(self, browser: Any) -> None:
        with StubApi(("only",)) as api:
            served = Served(api)
            page = Page(browser, served)
        try:
            page.wait_for(".health.dead", "no server answers at")
            page.ask("anyone?")
            page.wait_for(".notice.bad", f"No server answers at {api.url}; start one with: vicuna serve")
            assert page.tab.input_value("#question textarea") == "anyone?"
            with StubApi(("only",), port=api.port):
                page.wait_for(".health.alive", "1 model alive")
                page.tab.press("#question textarea", "Enter")
                page.wait_for("#chat .message.bot", "to anyone?")
            page.context.close()
        finally:
            started = time.monotonic()
            served.close()
        assert time.monotonic() - started < 8
