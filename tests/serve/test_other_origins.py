"""What a web page of somewhere else can do through the user's own browser: nothing is read, nothing is done."""

import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.programs import Program

pytest.importorskip("gradio", reason="the chat page needs pip install 'vicuna-kit[web]'")
pytestmark = [pytest.mark.slow, pytest.mark.browser]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""
# The foreign name leads to this machine, as a name that its owner rebinds does.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP evil.test 127.0.0.1"]
# Each way in which a page asks another server; the value tells what the page got to see.
ATTACKS = """
async (target) => {
  const seen = {};
  const note = async (name, work) => {
    try { seen[name] = await Promise.race([work(), new Promise((_, no) => setTimeout(() => no("silence"), 4000))]); }
    catch (error) { seen[name] = "refused"; }
  };
  const chat = JSON.stringify({model: "m", messages: [{role: "user", content: "PLANTED"}]});
  const join = JSON.stringify({data: EVENT_DATA, fn_index: 0, session_hash: "evil"});
  const read = async (path, options) => {
    const response = await fetch(target + path, options);
    return response.type === "opaque" ? "opaque" : response.status + " " + (await response.text()).slice(0, 80);
  };
  for (const path of ["/v1/models", "/workers", "/healthz", "/", "/config", "/gradio_api/info", "/theme.css",
                      "/gradio_api/queue/data?session_hash=evil"]) {
    await note("read " + path, () => read(path, {}));
    await note("read with cookies " + path, () => read(path, {credentials: "include"}));
    await note("read blindly " + path, () => read(path, {mode: "no-cors"}));
  }
  for (const [path, body] of [["/v1/chat/completions", chat], ["/v1/completions", chat],
                              ["/gradio_api/queue/join", join], ["/gradio_api/run/predict", join]]) {
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/json"])
      await note(`post ${path} as ${type}`, () => read(path, {method: "POST", body, headers: {"content-type": type}}));
    await note("post blindly " + path, () => read(path, {method: "POST", body, mode: "no-cors"}));
    await note("beacon " + path, async () => (navigator.sendBeacon(target + path, body), "sent"));
    await note("put " + path, () => read(path, {method: "PUT", body}));
    const form = document.createElement("form");
    form.method = "POST"; form.enctype = "text/plain"; form.action = target + path; form.target = "hidden";
    const field = document.createElement("input");
    field.name = body.slice(0, -1) + ',"x":"'; field.value = '"}';
    form.append(field); document.body.append(form); form.submit();
  }
  for (const path of ["/gradio_api/queue/data?session_hash=evil", "/gradio_api/heartbeat/evil", "/v1/models"])
    await note("events " + path, () => new Promise((yes, no) => {
      const events = new EventSource(target + path);
      events.onmessage = (event) => yes("read " + event.data);
      events.onopen = () => yes("open");
      events.onerror = () => no();
    }));
  for (const path of ["/worker/connect", "/", "/gradio_api/queue/data"])
    await note("socket " + path, () => new Promise((yes, no) => {
      const socket = new WebSocket(target.replace("http", "ws") + path);
      socket.onopen = () => yes("open");
      socket.onerror = () => no();
    }));
  for (const [tag, path] of [["script", "/config"], ["img", "/favicon.ico"], ["script", "/v1/models"]])
    await note(`${tag} ${path}`, () => new Promise((yes, no) => {
      const element = document.createElement(tag);
      element.onload = () => yes("loaded"); element.onerror = () => no();
      element.src = target + path; document.body.append(element);
    }));
  await new Promise((yes) => setTimeout(yes, 1500));
  return seen;
}
"""


class Foreign(ThreadingHTTPServer):
    """A server of somewhere else, with an empty page."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ForeignPage)


class ForeignPage(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = b"<!doctype html><title>elsewhere</title><iframe name=hidden></iframe>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def foreign() -> Iterator[int]:
    with Foreign() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).is_file():
        pytest.skip("no browser: apt-get install -y chromium, or name one in CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_page_of_somewhere_else_reads_and_does_nothing(
    start: Callable[..., Program], foreign: int, browser: Any
) -> None:
    web_port = free_port()
    serving = ["--engine", "sim", "--model", "m=speed=100,length=50", "--port", "0", "--web-port", str(web_port)]
    program = start("vicuna", "serve", *serving)
    program.wait_until_ready()
    api_port = program.url.rsplit(":", 1)[1]
    data = json.dumps(["PLANTED", "", "m", "", 0.7, 1, 100])
    for origin in (f"http://127.0.0.1:{foreign}", f"http://evil.test:{foreign}", "null"):
        for port in (api_port, str(web_port)):
            # By our address, and by the foreign name that leads here as well.
            for target in (f"http://127.0.0.1:{port}", f"http://localhost:{port}", f"http://evil.test:{port}"):
                tab = browser.new_page()
                tab.goto(origin if origin != "null" else "data:text/html,<iframe name=hidden></iframe>")
                seen = tab.evaluate(ATTACKS.replace("EVENT_DATA", data), target)
                told = {name: value for name, value in seen.items() if value not in ("refused", "opaque", "sent")}
                assert not told, (origin, target, told)
                assert len(seen) > 50
                tab.close()
    # A page that was opened under the foreign name is of the same origin as what it asks: there the name is refused.
    for port in (api_port, str(web_port)):
        tab = browser.new_page()
        answer = tab.goto(f"http://evil.test:{port}/")
        assert answer.status == 403 and "forbidden_host" in answer.text()
        seen = tab.evaluate(ATTACKS.replace("EVENT_DATA", data), f"http://evil.test:{port}")
        told = {name: value for name, value in seen.items() if value not in ("refused", "opaque", "sent")}
        assert all(value.startswith(("403 ", "400 ")) for value in told.values()), told
        tab.close()
    [worker] = httpx.get(f"{program.url}/workers", trust_env=False).json()["workers"]
    assert worker["num_streams"] == 0 and worker["tokens_per_second"] == 0.0, "a reply was generated"
    # The browser itself is in order: what its user opens, works.
    tab = browser.new_page()
    assert tab.goto(f"http://127.0.0.1:{web_port}/").status == 200
    text = tab.evaluate("async () => (await fetch('/config')).status")
    assert text == 200
