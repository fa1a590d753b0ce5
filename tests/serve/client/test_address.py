"""The address of the API, as users write it."""

import pytest

from vicuna.errors import UsageError
from vicuna.serve.client.address import checked_api_url


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("https://api.example.com/openai/v1/", "https://api.example.com/openai/v1"),
    ],
)
def test_addresses(given: str, meant: str) -> None:
    assert checked_api_url(given) == meant


@pytest.mark.parametrize(
    "given", ["", "127.0.0.1:8000", "ftp://host/v1", "http://", "http://host:99999", "http://h/v1?x=1"]
)
def test_what_is_not_an_address(given: str) -> None:
    with pytest.raises(UsageError, match="is not an address; write it like"):
        checked_api_url(given)
