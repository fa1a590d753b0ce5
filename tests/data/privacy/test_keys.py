"""Keys, private key blocks and web tokens: found whatever stands around them; placeholders stay."""

import pytest

from tests.data.privacy.builders import AROUND, RANDOM, found_in, seconds_of_search

PEM_BODY = "\n".join(RANDOM[at:] + RANDOM[:at] for at in range(0, 60, 10))
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{PEM_BODY}\n-----END RSA PRIVATE KEY-----"
WEB_TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0" + "." + RANDOM[:43]
PRIVATE = [
    ("key", "sk-" + RANDOM[:48]),
    ("key", "sk-proj-" + RANDOM[:40] + "_-x"),
    ("key", "sk-ant-api03-" + RANDOM[:60]),
    ("key", "AKIA" + "QZ7RTN3XWLP5MKJ2"),
    ("key", "ghp_" + RANDOM[:36]),
    ("key", "github_pat_" + RANDOM[:70]),
    ("key", "xoxb-" + "7482910365-" + RANDOM[:24]),
    ("key", "AIza" + RANDOM[:35]),
    ("key", "sk_live_" + RANDOM[:24]),
    ("key", "glpat-" + RANDOM[:20]),
    ("key", "hf_" + "qZpXvNbLrTwKcHsYfMdGjRnUaBeVxPoWiQ"),
    ("private_key", PEM),
    ("private_key", PEM.replace("RSA ", "")),
    ("private_key", PEM.replace("\n", "\\n")),
    ("web_token", WEB_TOKEN),
]


@pytest.mark.parametrize(("rule", "private"), PRIVATE)
@pytest.mark.parametrize("around", AROUND)
def test_private_data_is_found(rule: str, private: str, around: str) -> None:
    assert found_in(around.format(private)) == [(rule, private)]


INNOCENT = """
sk-your-api-key-goes-here-please sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx sk-cube-grid-animation-for-loading
sk-1234567890abcdefghijklmnopqrstuvwxyz123456
AKIAIOSFODNN7EXAMPLE
ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx gh_pages
-----BEGIN PRIVATE KEY-----\\n...\\n-----END PRIVATE KEY-----
-----BEGIN PUBLIC KEY-----
eyJhbGciOi... eyJub3RhbGciOjF9xx.eyJzdWIiOiIxIn0abc.c2lnbmF0dXJl
c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00 550e8400-e29b-41d4-a716-446655440000
"""


@pytest.mark.parametrize("text", INNOCENT.strip().split("\n"))
def test_what_only_looks_private_is_not_found(text: str) -> None:
    assert found_in(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN PRIVATE KEY-----" * 2_000,
        "-----BEGIN PRIVATE KEY-----" + "-a" * 100_000,
        "eyJ" * 70_000,
        "sk-" * 70_000,
        "secret_key=" * 20_000,
    ],
    ids=lambda text: text[:12],
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    assert seconds_of_search(text) < 2
