"""Network addresses: whether a host is this machine."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host name or address, with or without the brackets of IPv6, can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
