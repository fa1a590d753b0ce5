"""The names that a server answers to, and the pages that may ask it."""

import pytest

from vicuna.serve.door.hosts import Hosts
from vicuna.serve.errors import ForbiddenHost, ForbiddenOrigin, InvalidRequest

LOCAL, NETWORK = Hosts("127.0.0.1"), Hosts("0.0.0.0")


def check(hosts: Hosts, *headers: tuple[str, str]) -> None:
    hosts.check({"headers": [(name.encode(), value.encode("latin-1")) for name, value in headers]})


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:80", "LOCALHOST", "localhost.", "[::1]:8000", "LocalHost:1", "127.9.9.9"]
)
def test_a_loopback_server_answers_to_loopback_names(host: str) -> None:
    check(LOCAL, ("host", host))
    check(LOCAL, ("host", host), ("origin", f"http://{host}"))


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "box", "10.0.0.1"]
)
def test_and_to_no_other(host: str) -> None:
    with pytest.raises(ForbiddenHost, match="--allow-host"):
        check(LOCAL, ("host", host))


@pytest.mark.parametrize(
    "host", ["", " ", "a b", "127.0.0.1:x", "me@127.0.0.1", "127.0.0.1/x", "[::1", "a,b", "\xe9", "."]
)
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(InvalidRequest):
        check(LOCAL, ("host", host))


def test_one_host_and_one_origin() -> None:
    with pytest.raises(InvalidRequest, match="has 0 Host headers"):
        check(LOCAL)
    with pytest.raises(InvalidRequest, match="has 2 Host headers"):
        check(LOCAL, ("host", "127.0.0.1"), ("host", "127.0.0.1"))
    with pytest.raises(ForbiddenOrigin):
        check(LOCAL, ("host", "127.0.0.1"), ("origin", "http://127.0.0.1"), ("origin", "http://127.0.0.1"))


@pytest.mark.parametrize(
    "origin",
    ["null", "http://evil.example", "http://127.0.0.1:81", "http://127.0.0.1", "file://", "http://localhost:80", "",
     "chrome-extension://abc", "http://127.0.0.1:80@evil.example", "http://[::1]:80", "https://127.0.0.1:443"],
)  # fmt: skip
def test_another_origin_is_refused(origin: str) -> None:
    with pytest.raises(ForbiddenOrigin):
        check(LOCAL, ("host", "127.0.0.1:8000"), ("origin", origin))


def test_a_page_of_ours_may_ask() -> None:
    check(LOCAL, ("host", "127.0.0.1:8000"), ("origin", "http://127.0.0.1:8000"), ("sec-fetch-site", "same-origin"))
    check(NETWORK, ("host", "box"), ("origin", "http://box"))
    check(NETWORK, ("host", "box"), ("origin", "https://box"))  # behind a proxy that speaks TLS
    check(LOCAL, ("host", "127.0.0.1:8000"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"))
    for site in ("cross-site", "same-site"):
        with pytest.raises(ForbiddenOrigin):
            check(LOCAL, ("host", "127.0.0.1:8000"), ("sec-fetch-site", site), ("sec-fetch-mode", "no-cors"))


def test_beyond_loopback_names_that_nobody_can_own_will_do() -> None:
    for host in ("192.168.0.7:7860", "[fe80::1]", "box", "box.local", "pod.ns.svc.cluster.local", "127.0.0.1"):
        check(NETWORK, ("host", host))
    with pytest.raises(ForbiddenHost, match=r"this machine's addresses and names, not to 'evil\.example'"):
        check(NETWORK, ("host", "evil.example"))
    check(Hosts("0.0.0.0", ["Chat.Example"]), ("host", "chat.example"), ("origin", "https://chat.example"))
    check(Hosts("127.0.0.1", ["chat.example"]), ("host", "127.0.0.1:7860"), ("origin", "https://chat.example"))


def test_where_every_request_needs_a_key_any_name_will_do_and_no_other_page() -> None:
    keyed = Hosts("0.0.0.0", has_key=True)
    check(keyed, ("host", "api.example"))
    with pytest.raises(ForbiddenOrigin):
        check(keyed, ("host", "api.example"), ("origin", "https://evil.example"))
    with pytest.raises(ForbiddenHost):
        check(Hosts("127.0.0.1", has_key=True), ("host", "api.example"))
