"""Which hosts are this machine."""

import pytest

from vicuna.io.network import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "[::]", "192.168.0.1", "localhost.example.org", "127.0.0.1.example.org", "127.1"]
)
def test_everything_else(host: str) -> None:
    assert not is_loopback(host)
