"""Which names a server answers to, and which pages may ask it: no web page reaches it through a browser of ours.

Called by `guard` for every request and WebSocket. A page of somewhere else that a user visits can make the browser ask
this machine in two ways: by our address, then the browser says so (`Origin`, `Sec-Fetch-Site`), or by a name of its own
that it lets point here (DNS rebinding), then `Host` is that name. What such a page cannot have is an address, a name
without a dot or one of a private zone.
"""

import re
import socket
from collections.abc import Sequence

from vicuna.io.network import is_loopback
from vicuna.serve.auth import Scope
from vicuna.serve.errors import ForbiddenHost, ForbiddenOrigin, InvalidRequest

NAME = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_-][A-Za-z0-9._-]{0,252})(?::(?P<port>\d{1,5}))?")
ADDRESS = re.compile(r"\[[0-9A-Fa-f:.]+\]|\d{1,3}(?:\.\d{1,3}){3}")
PRIVATE_ZONES = (".local", ".localhost", ".internal", ".home.arpa")  # of which nobody can own a name
PORTS = {"http": "80", "https": "443"}


class Hosts:
    """The names of one server.

    Args:
        host: the address that it listens on.
        allowed: further names, as its users write them into the browser.
        has_key: whether every request needs a key, which no foreign page has. Then, beyond loopback, any name will do.
    """

    def __init__(self, host: str, allowed: Sequence[str] = (), *, has_key: bool = False) -> None:
        self.is_local = is_loopback(host)
        self.takes_all = has_key and not self.is_local
        self.allowed = {name.lower().rstrip(".") for name in allowed}
        self.own = set() if self.is_local else {socket.gethostname().lower()}

    def check(self, scope: Scope) -> None:
        """Let a request pass, or say why not.

        Raises:
            InvalidRequest: it names no host, or several.
            ForbiddenHost: a name that this server does not answer to.
            ForbiddenOrigin: it comes from a page of somewhere else.
        """
        hosts, origins, site, mode = _headers(scope)
        if len(hosts) != 1:
            raise InvalidRequest(f"the request has {len(hosts)} Host headers; send one")
        if (match := NAME.fullmatch(hosts[0])) is None:
            raise InvalidRequest(f"the Host header '{hosts[0][:100]}' is not a name and a port")
        if not self.answers_to(match["name"]):
            where = "localhost" if self.is_local else "this machine's addresses and names"
            name = match["name"][:100]
            raise ForbiddenHost(f"this server answers to {where}, not to '{name}'; --allow-host NAME changes that")
        if len(origins) > 1 or (origins and not self._is_own(origins[0], match)):
            raise ForbiddenOrigin("this server answers to its own pages only, not to those of another origin")
        if site in ("cross-site", "same-site") and mode != "navigate":  # a link to a page of ours may be followed
            raise ForbiddenOrigin("this server answers to its own pages only, not to those of another site")

    def answers_to(self, name: str) -> bool:
        """Whether the server has this name (without a port)."""
        name = name.lower().removesuffix(".")
        if self.takes_all or is_loopback(name) or name in self.allowed:
            return True
        if self.is_local:
            return False
        return bool(ADDRESS.fullmatch(name)) or "." not in name or name in self.own or name.endswith(PRIVATE_ZONES)

    def _is_own(self, origin: str, host: re.Match[str]) -> bool:
        scheme, slashes, rest = origin.partition("://")
        match = NAME.fullmatch(rest)
        if not slashes or scheme not in PORTS or match is None:
            return False
        name = match["name"].lower()
        if name.removesuffix(".") in self.allowed:  # behind a proxy that names itself in Host
            return True
        port = match["port"] or PORTS[scheme]
        return name == host["name"].lower() and port in {host["port"]} | ({"80", "443"} if not host["port"] else set())


def _headers(scope: Scope) -> tuple[list[str], list[str], str, str]:
    """The values of Host and Origin, and the last of Sec-Fetch-Site and Sec-Fetch-Mode."""
    hosts, origins, site, mode = [], [], "", ""
    for key, value in scope["headers"]:
        if key == b"host":
            hosts.append(value.decode("latin-1"))
        elif key == b"origin":
            origins.append(value.decode("latin-1"))
        elif key == b"sec-fetch-site":
            site = value.decode("latin-1")
        elif key == b"sec-fetch-mode":
            mode = value.decode("latin-1")
    return hosts, origins, site, mode
