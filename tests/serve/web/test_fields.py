"""What a visitor's browser sends: text and numbers, whatever is sent in their place; nothing is opened or fetched."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio", reason="the chat page needs pip install 'vicuna-kit[web]'")

from gradio.routes import App

from tests.serve.route_table import routes
from vicuna.serve.client.http import ApiClient
from vicuna.serve.errors import InvalidRequest
from vicuna.serve.web import fields
from vicuna.serve.web.fields import Field, Stored, checked, checked_event, read_stored
from vicuna.serve.web.layout import build_page, event_fields

# The page, with a record of each file that it opens and each address that it connects to or looks up, once it serves.
RECORDED = """
import os, sys, threading
record = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
inside = threading.local()
def hook(event, arguments):
    if event in ("open", "socket.connect", "socket.getaddrinfo", "os.listdir", "shutil.copyfile", "subprocess.Popen"):
        if not getattr(inside, "is_writing", False):
            inside.is_writing = True
            os.write(record, (event + " " + repr(arguments) + "\\n").encode())
            inside.is_writing = False
sys.addaudithook(hook)
from vicuna.serve.web.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
ABSENT, PRESENT, ENDLESS = "/no/such/file-of-a-visitor", "/etc/hostname", "/dev/zero"
MARKS = (ABSENT, PRESENT, ENDLESS, "visitor.invalid", "192.0.2.7", "/proc/self/environ")


def file(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


HOSTILE: list[Any] = [
    file(PRESENT),
    file(ABSENT),
    file("/proc/self/environ"),
    file(ENDLESS),
    file("http://visitor.invalid/x"),
    file("", url="http://192.0.2.7:9/x"),
    file(PRESENT, is_stream=True),
    {"messages": [{"role": "user", "content": file(PRESENT)}], "system": file(PRESENT)},
    {"a": {"b": [[file(PRESENT)]]}},
    [file(PRESENT)],
    [],
    {},
    {"__type__": "update", "value": file(PRESENT)},
    True,
    1e308,
    -1,
    10**300,
    10**4000,
    "x" * (fields.MAX_STORED_CHARACTERS + 1),
]
NO_JSON = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 500 + "]" * 500, "tru", "\x00")


class Page:
    """The page as a process, and the lines of its record."""

    def __init__(self, folder: Path) -> None:
        self.record = folder / "record"
        script = folder / "page.py"
        script.write_text(RECORDED)
        flags = ["--port", "0", "--api-url", "http://127.0.0.1:9/v1"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": str(folder / "gradio")}
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(self.record), *flags],
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path[1:]])},
        )
        assert self.process.stderr is not None
        line = next(line for line in self.process.stderr if "chat page:" in line)
        self.url = line.split()[2]
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=20)
        self.temporary = folder / "gradio"

    def post(self, path: str, text: str) -> httpx.Response:
        return self.http.post(path, content=text, headers={"content-type": "application/json"})

    def touched(self) -> list[str]:
        """What was opened or asked for a visitor."""
        return [line for line in self.record.read_text().splitlines() if any(mark in line for mark in MARKS)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("page"))
    yield page
    page.http.close()
    page.process.terminate()
    page.process.wait(10)


BLOCKS = build_page(ApiClient("http://127.0.0.1:9/v1"))
EVENTS = event_fields(BLOCKS)


def good(number: int) -> list[Any]:
    return [1 if not field.max_characters else "" for field in EVENTS[number].fields]


def body(number: int, data: list[Any], **more: Any) -> str:
    return json.dumps({"data": data, "fn_index": number, "session_hash": "s1", **more})


def test_the_table_of_fields_is_the_page_s_own() -> None:
    assert set(EVENTS) == {number for number, function in BLOCKS.fns.items() if function.fn is not None}
    for number, event in EVENTS.items():
        assert len(event.fields) == len(BLOCKS.fns[number].inputs)


def test_the_record_records(page: Page) -> None:
    assert page.http.get("/").status_code == 200
    assert "open " in page.record.read_text()
    assert not page.touched()


@pytest.mark.parametrize("number", sorted(EVENTS))
def test_what_is_sent_in_place_of_a_field_is_refused_before_it_means_anything(page: Page, number: int) -> None:
    path = "/gradio_api/queue/join" if BLOCKS.fns[number].queue else "/gradio_api/run/predict"
    answers: dict[int, set[str]] = {}
    for position in range(len(EVENTS[number].fields)):
        for sent in HOSTILE:
            data = good(number)
            data[position] = sent
            answer = page.post(path, body(number, data))
            if isinstance(sent, str | int | float) and answer.status_code == 200:
                continue  # one that this field takes
            assert answer.status_code == 400, (position, sent, answer.text)
            if isinstance(sent, dict) and "path" in sent:
                answers.setdefault(position, set()).add(answer.text)
        for text in NO_JSON:
            data = good(number)
            data[position] = "PLACE"
            answer = page.post(path, body(number, data).replace('"PLACE"', text))
            assert answer.status_code == 400
    assert all(len(texts) == 1 for texts in answers.values()), "present and absent files are told apart"
    for more in ({"event_data": file(PRESENT)}, {"event_data": {"index": file(PRESENT), "value": file(PRESENT)}}):
        assert page.post(path, body(number, good(number), **more)).status_code in (200, 400)
    for wrong in ([*good(number), file(PRESENT)], file(PRESENT), None):
        assert page.post(path, body(number, wrong)).status_code == 400  # type: ignore[arg-type]
    assert not page.touched()
    assert not page.temporary.exists() or not any(entry.is_file() for entry in page.temporary.rglob("*"))


@pytest.mark.parametrize("name", ["session_hash", "fn_index", "trigger_id", "event_id"])
def test_the_frame_of_an_event_is_checked_too(page: Page, name: str) -> None:
    number = min(EVENTS)
    paths = ["/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel", "/gradio_api/reset"]
    for path in paths:
        for sent in HOSTILE:
            values = {"data": good(number), "fn_index": number, "session_hash": "s1", "event_id": "e1", name: sent}
            answer = page.post(path, json.dumps(values))
            assert answer.status_code in (200, 400, 404), (path, sent, answer.text)
            if isinstance(sent, dict) and path.endswith("join") and name != "event_id":
                assert answer.status_code == 400
    assert not page.touched()


def test_no_other_route_of_the_framework_takes_a_file(page: Page) -> None:
    table = routes(App.create_app(BLOCKS))
    assert {("POST", "/gradio_api/upload"), ("POST", "/gradio_api/queue/join")} <= set(table), table
    hostile = {"data": [file(PRESENT)], "fn_index": 0, "session_hash": "s1", "event_id": "e1", "component_id": 1}
    for method, path in table:
        for value in (PRESENT, f"..{PRESENT}", f"http://visitor.invalid{PRESENT}"):
            filled = path
            while "{" in filled:
                start, end = filled.index("{"), filled.index("}")
                filled = filled[:start] + value.lstrip("/") + filled[end + 1 :]
            if filled.startswith(("/gradio_api/heartbeat/", "/gradio_api/queue/data")) and method == "GET":
                continue  # these stream for ever; their one field is checked below
            answer = page.http.request(
                method, filled, content=json.dumps(hostile), headers={"content-type": "application/json"}
            )
            assert answer.status_code in (200, 400, 403, 404, 405), (method, filled, answer.status_code)
            is_end = path.rstrip("/") in ("/gradio_api/cancel", "/gradio_api/reset")  # which take the name of an event
            assert method != "POST" or is_end or answer.status_code in (400, 404), filled
            if "{" not in path:
                break
    for address in ("/gradio_api/heartbeat/..%2f..%2fetc", "/gradio_api/queue/data?session_hash=a%00b"):
        assert page.http.get(address).status_code in (400, 404)
    assert not page.touched()


def test_the_page_asks_the_api_only(page: Page) -> None:
    asked = [line for line in page.record.read_text().splitlines() if line.startswith("socket.")]
    strange = [line for line in asked if "127.0.0.1" not in line]
    assert not strange


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1", [1], {"a": 1}])
def test_a_number_is_a_finite_number(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="is not a number"):
        checked(value, Field("n"))
    with pytest.raises(InvalidRequest, match="0 to 2 are taken"):
        checked(3, Field("n", most=2))
    assert checked(1.5, Field("n")) == 1.5 and checked(None, Field("n", may_be_none=True)) is None


def test_a_text_is_bounded() -> None:
    assert checked("ab", Field("t", 2)) == "ab"
    with pytest.raises(InvalidRequest, match="'t' has 3 characters, 2 are taken; shorten it"):
        checked("abc", Field("t", 2))
    with pytest.raises(InvalidRequest, match="is not text"):
        checked(["a"], Field("t", 2))


def test_an_event_is_made_anew_of_what_was_checked() -> None:
    number = next(number for number, event in EVENTS.items() if event.is_edit)
    sent = {"event_data": {"index": [2, 0], "value": "new", "meta": file(PRESENT)}, "request": {}, "batched": True}
    made = checked_event(body(number, good(number), **sent).encode(), EVENTS)
    assert made["event_data"] == {"index": 2, "value": "new", "previous_value": ""}
    assert set(made) == {"data", "fn_index", "session_hash", "trigger_id", "event_data"}


def test_a_damaged_storage_reads_as_an_empty_chat() -> None:
    chat = [{"role": "user", "content": "q"}]
    kept = read_stored(json.dumps({"messages": chat, "model": "m", "top_p": 0.5, "temperature": 9, "system": ["x"]}))
    assert kept.messages[0].content == "q" and (kept.model, kept.top_p) == ("m", 0.5)
    assert kept.temperature is None and kept.system is None
    many = json.dumps({"messages": chat * (fields.MAX_MESSAGES + 1)})
    for damaged in ("", "[", "[]", "null", None, {"messages": chat}, 7, "[" * 100, '{"messages": 1}', "\ud800", many):
        assert read_stored(damaged) == Stored()
