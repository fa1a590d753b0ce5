"""A secret does not print itself, and is found in what others print."""

import copy
import json
import pickle
import traceback
from dataclasses import asdict, dataclass

import pydantic
import pytest

from vicuna.io.jsonl import format_json
from vicuna.io.secrets import SHOWN, Secret, from_environment, redact

KEY = "sk-0123-unlikely-text"


@dataclass
class Holder:
    key: Secret


class Model(pydantic.BaseModel):
    key: Secret


def test_it_shows_itself_nowhere() -> None:
    secret = Secret(KEY)
    shown = [
        str(secret),
        repr(secret),
        f"{secret} {secret!r} {secret:>30}",
        str([secret]),
        str({1: secret}),
    ]
    shown += [repr(Holder(secret)), str(asdict(Holder(secret))), str(copy.deepcopy(secret)), str(vars(Holder(secret)))]
    model = Model.model_validate({"key": KEY})
    shown += [str(model), repr(model), model.model_dump_json(), str(model.model_dump()), format_json({"key": secret})]
    try:
        raise ValueError(secret)
    except ValueError as error:
        shown += traceback.TracebackException.from_exception(error, capture_locals=True).format()
    assert [text for text in shown if KEY in text] == []
    assert secret.reveal() == model.key.reveal() == KEY


def test_it_is_not_serialised_by_accident() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(KEY))
    with pytest.raises(TypeError):
        json.dumps(Secret(KEY))
    with pytest.raises(TypeError):
        "".join([Secret(KEY)])  # type: ignore[list-item]


def test_it_compares_and_counts_as_its_text() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert not Secret("") and Secret("a")


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VICUNA_TEST_KEY", "  abc ")
    assert from_environment("VICUNA_TEST_KEY").reveal() == "abc"
    assert not from_environment("VICUNA_TEST_MISSING")


def test_a_known_secret_is_taken_out_in_every_form_in_which_it_is_echoed() -> None:
    Secret('p w/"ä"-long')
    for text in ('key p w/"ä"-long.', "at /p%20w%2F%22%C3%A4%22-long", '{"key": "p w/\\"\\u00e4\\"-long"}'):
        assert SHOWN in redact(text) and "-long" not in redact(text)


def test_the_environments_secrets_are_known_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hub-token-text")
    monkeypatch.setenv("VICUNA_API_KEY", "first-key-9, second-key-9")
    assert redact("hub-token-text first-key-9 second-key-9") == f"{SHOWN} {SHOWN} {SHOWN}"


def test_a_word_that_is_a_secret_by_chance_does_not_blank_every_text() -> None:
    for word in ("a", "none", "secret", "k1"):
        Secret(word)
    Secret("pass12")
    assert redact("none of the secret words, pass123") == "none of the secret words, pass123"
    assert redact("it is pass12.") == f"it is {SHOWN}."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pass@host:8000/v1", f"http://{SHOWN}@host:8000/v1"),
        ("https://me:p@ss@host/", f"https://{SHOWN}@host/"),
        ("http://me:pa/ss@host/", f"http://{SHOWN}@host/"),
        ("https://tok@host/x", f"https://{SHOWN}@host/x"),
        ("Authorization: Bearer abcdef0123", f"Authorization: Bearer {SHOWN}"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", f"{{'authorization': 'Basic {SHOWN}'}}"),
        ("bad key sk-abcdefghijklmnop1234", f"bad key {SHOWN}"),
        ("hf_abcdefghijklmnopqrstuv", SHOWN),
        ("https://example.com/@me and http://h:80/@me", "https://example.com/@me and http://h:80/@me"),
        (
            "Authorization: Bearer KEY; no bearer certificate",
            "Authorization: Bearer KEY; no bearer certificate",
        ),
    ],
)
def test_what_looks_like_a_secret(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_text_of_the_users_own_keeps_what_only_looks_like_one() -> None:
    assert redact("http://me:pass@host", has_patterns=False) == "http://me:pass@host"
