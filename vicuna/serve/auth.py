"""Authentication: join tokens of workers and API keys of clients.

Before: `controller` and `worker` read their secrets here. Secrets come from the environment (or a file it names), are
compared in constant time, and never appear in a log, a flag or an error.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from vicuna.errors import UsageError, describe
from vicuna.io.network import is_loopback
from vicuna.io.secrets import Secret

JOIN_TOKEN = "VICUNA_JOIN_TOKEN"
API_KEY = "VICUNA_API_KEY"
MAX_TOKEN_BYTES = 1_000

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def has_join_token() -> bool:
    """Whether the user has set one, in one way or the other."""
    return bool(os.environ.get(JOIN_TOKEN, "").strip() or os.environ.get(f"{JOIN_TOKEN}_FILE"))


def read_join_token() -> Secret:
    """The token in $VICUNA_JOIN_TOKEN, or in the file that $VICUNA_JOIN_TOKEN_FILE names.

    Raises:
        UsageError: neither is set, or the token is empty.
    """
    token = os.environ.get(JOIN_TOKEN, "").strip()
    if path := os.environ.get(f"{JOIN_TOKEN}_FILE"):
        try:
            with Path(path).open("rb") as file:
                token = file.read(MAX_TOKEN_BYTES + 1).decode("utf-8").strip()
        except OSError as error:
            raise UsageError(f"{JOIN_TOKEN}_FILE: {describe(error)}") from None
        except UnicodeDecodeError:
            raise UsageError(f"{JOIN_TOKEN}_FILE: {path} is not a text file; write the token into it") from None
    if not (token.isascii() and token.isprintable()):
        raise UsageError(f"{JOIN_TOKEN} holds characters that no HTTP header takes; use letters and digits")
    if len(token) > MAX_TOKEN_BYTES:
        raise UsageError(f"{JOIN_TOKEN} has more than {MAX_TOKEN_BYTES:,} characters; use a shorter one")
    if not token:
        raise UsageError(f"set {JOIN_TOKEN} (or {JOIN_TOKEN}_FILE) to one secret on the controller and its workers")
    return Secret(token)


def new_token() -> Secret:
    """A fresh secret."""
    return Secret(secrets.token_urlsafe(32))


def token_for_model(secret: Secret, model: str) -> Secret:
    """A join token that is good for this model's name only, made from the controller's secret."""
    return Secret(hmac.new(secret.reveal().encode(), b"join " + model.encode(), hashlib.sha256).hexdigest())


def may_join(secret: Secret, token: str, model: str) -> bool:
    """Whether a worker with this token may serve `model`: it has the secret itself or the token for that model."""
    given = token.encode()
    is_secret = hmac.compare_digest(given, secret.reveal().encode())
    own = hmac.new(secret.reveal().encode(), b"join " + model.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(given, own.encode()) or is_secret


def first_api_key() -> Secret:
    """The first key in $VICUNA_API_KEY, for our own requests; an empty one where it is not set.

    Raises:
        UsageError: no header takes it.
    """
    key = os.environ.get(API_KEY, "").split(",")[0].strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{API_KEY} holds characters that no HTTP header takes; set it again")
    return Secret(key)


def read_api_keys() -> list[bytes]:
    """The hashes of the keys in $VICUNA_API_KEY (several are separated by commas); none means an open API."""
    return [_hash(key.strip()) for key in os.environ.get(API_KEY, "").split(",") if key.strip()]


def check_exposure(host: str, api_keys: list[bytes]) -> None:
    """Refuse to open an API without a key to the network.

    Raises:
        UsageError: `host` is reachable from other machines and no key is set.
    """
    if not is_loopback(host) and not api_keys:
        raise UsageError(f"--host {host} opens the API to the network: set {API_KEY} to a secret key first")


def bearer(scope: Scope) -> str:
    """The token of an `Authorization: Bearer` header, or nothing."""
    scheme, _, token = header(scope, b"authorization").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def header(scope: Scope, name: bytes) -> str:
    """The first header of that (lower-case) name, or nothing."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def is_known(api_keys: Sequence[bytes], key: str) -> bool:
    """Whether the key is one of those hashed; all are compared, so that the time taken does not depend on which."""
    digest = _hash(key)
    return sum(hmac.compare_digest(digest, known) for known in api_keys) > 0


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
