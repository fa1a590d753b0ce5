"""Mail addresses, and IP addresses of the public net.

Not found are examples and what leads to nobody: private and reserved ranges, versions that look like addresses, logins
of services.
"""

import functools
import ipaddress
import re
from collections.abc import Iterator

from vicuna.data.options import shipped_words
from vicuna.data.privacy.spans import Span, is_standalone

# mail

MAIL_LOCAL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_%+-]|\.(?=[A-Za-z0-9_%+-]))*\Z")
MAIL_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,6}([A-Za-z]{2,24})(?![A-Za-z0-9_-])")
MAIL_LOCAL_CHARACTERS = 64  # RFC 5321, section 4.5.3.1.1
URL_LOGIN = re.compile(r"://[^\s/@]{0,64}\Z")
NO_COUNTRY = frozenset(("js", "ts", "rb", "cs", "tf", "hs"))  # file names after an @, as in package@index.js
SERVICE_LOGINS = frozenset(("git", "hg", "svn"))  # git@github.com names a machine


def find_emails(text: str) -> Iterator[Span]:
    """Mail addresses that may belong to somebody."""
    at = text.find("@")
    while at >= 0:
        local = MAIL_LOCAL.search(text, max(0, at - MAIL_LOCAL_CHARACTERS), at)
        domain = MAIL_DOMAIN.match(text, at + 1)
        if local and domain and _is_mail(text, local, domain):
            yield local.start(), domain.end()
        at = text.find("@", at + 1)


def _is_mail(text: str, local: re.Match[str], domain: re.Match[str]) -> bool:
    host, top = domain[0].lower(), domain[1].lower()
    if top in NO_COUNTRY or not (len(top) == 2 or top in _top_level()):
        return False
    labels = host.split(".")
    if "example" in labels or ".".join(labels[-2:]) in _example_domains() or re.match(r"(?:your|my)[-_.]", local[0]):
        return False
    if local[0].lower() in SERVICE_LOGINS or len(host) > 253:
        return False
    start = local.start()
    return not (URL_LOGIN.search(text, max(0, start - 70), start) or text[max(0, start - 1) : start] == "@")


@functools.cache
def _example_domains() -> frozenset[str]:
    return shipped_words("example_domains.txt")


@functools.cache
def _top_level() -> frozenset[str]:
    return shipped_words("mail_top_level.txt")


# machines

IPV4_PART = re.compile(r"\.[0-9]{1,3}\.[0-9]")
IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
# Nobody's addresses: the special ranges of RFC 6890, multicast, reserved ones, and public DNS resolvers.
SPECIAL_IPV4 = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.168.0.0/16
198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3
1.1.1.1 1.0.0.1 8.8.8.8 8.8.4.4 9.9.9.9 149.112.112.112 208.67.222.222 208.67.220.220
"""
VERSION_BEFORE = re.compile(
    r"(?:version|release|firmware|build|driver|assembly|section|chapter|clause|\bver|\bv|==|[~^<>]=?|/|[a-z]-)"
    r"[\"'\s.:=v]{0,4}\Z",
    re.IGNORECASE,
)
SMALL_OCTET = 32  # with all four parts below it, it is a version or a section; one address in 4,000 is lost so


def find_ipv4(text: str) -> Iterator[Span]:
    """IPv4 addresses of the public net; versions and section numbers are told apart by size and the word before."""
    for match in IPV4.finditer(text):
        start, end = match.span()
        try:
            address = ipaddress.IPv4Address(match[0])
        except ValueError:  # a part above 255, or with a zero before it
            continue
        if max(address.packed) < SMALL_OCTET or any(address in network for network in _special_ipv4()):
            continue
        is_url = text[max(0, start - 3) : start] == "://"
        is_version = not is_url and VERSION_BEFORE.search(text, max(0, start - 16), start)
        if is_standalone(text, start, end, ".") and not is_version:
            yield start, end


@functools.cache
def _special_ipv4() -> tuple[ipaddress.IPv4Network, ...]:
    return tuple(ipaddress.IPv4Network(network) for network in SPECIAL_IPV4.split())


IPV6_PART = re.compile(r":[0-9A-Fa-f]{0,4}:")
IPV6 = re.compile(r"[0-9A-Fa-f:]{6,39}")
GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")  # RFC 4291: all that is assigned
DOCUMENTATION_IPV6 = ipaddress.IPv6Network("2001:db8::/32")  # RFC 3849
MIN_IPV6_GROUPS = 4  # C++ and Rust names such as 2a::b would be addresses too


def find_ipv6(text: str) -> Iterator[Span]:
    """IPv6 addresses of the public net."""
    done = 0
    for hint in IPV6_PART.finditer(text):
        if hint.start() < done:
            continue
        start = hint.start()
        while start > max(done, hint.start() - 4) and text[start - 1] in "0123456789abcdefABCDEF":
            start -= 1
        match = IPV6.match(text, start)
        if match is None:
            continue
        done = match.end()
        end = done - (match[0].endswith(":") and not match[0].endswith("::"))  # the colon of a sentence
        if _is_global_ipv6(text[start:end]) and is_standalone(text, start, end, "."):
            yield start, end


def has_address(text: str) -> bool:
    """A fast check: False only where there is no IP address."""
    return IPV4_PART.search(text) is not None or IPV6_PART.search(text) is not None


def find_addresses(text: str) -> Iterator[Span]:
    """IP addresses of both kinds."""
    yield from sorted((*find_ipv4(text), *find_ipv6(text)))


def _is_global_ipv6(digits: str) -> bool:
    if sum(map(bool, digits.split(":"))) < MIN_IPV6_GROUPS:
        return False
    try:
        address = ipaddress.IPv6Address(digits)
    except ValueError:
        return False
    return address in GLOBAL_IPV6 and address not in DOCUMENTATION_IPV6
