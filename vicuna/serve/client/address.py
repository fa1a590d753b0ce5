"""The address of the API: its default, and the check of one that a user gave.

Read by the chat page and the terminal chat before they import anything that may not be installed.
"""

from urllib.parse import urlsplit

from vicuna.errors import UsageError

DEFAULT_API_URL = "http://127.0.0.1:8000/v1"
API_KEY_VARIABLE = "VICUNA_API_KEY"


def checked_api_url(api_url: str) -> str:
    """`api_url` without its last slash; a bare `http://host:port` means its `/v1`.

    Raises:
        UsageError: not an http(s) address, or one that carries a password.
    """
    try:
        parts = urlsplit(api_url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or parts.query or parts.fragment:
        raise UsageError(f"--api-url {api_url!r} is not an address; write it like {DEFAULT_API_URL}")
    if parts.username is not None:
        raise UsageError(f"--api-url must not carry a password; put the key into {API_KEY_VARIABLE}")
    return api_url.rstrip("/") + ("/v1" if parts.path in ("", "/") else "")
