"""Secrets that do not print themselves, and the removal of secrets from texts.

A key, a token or a password lives in a `Secret` from the line that reads it to the line that sends it. `redact` takes
out of a text what must not be shown: every `Secret` made in this process, the secrets of the environment, passwords in
addresses, bearer tokens and keys of well-known forms, also when a server echoes them. `terminal`, the way to every
terminal and log, calls it; who writes an answer of a server to a file (a ledger, a manifest) calls it too.
"""

import functools
import hashlib
import hmac
import json
import os
import re
from typing import Any, NoReturn
from urllib.parse import quote

SHOWN = "[secret]"
# Where the user's secrets stand, ours and those of the libraries; each holds one or several, separated by commas.
VARIABLES = (
    "VICUNA_API_KEY",
    "VICUNA_JOIN_TOKEN",
    "OPENAI_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY",
    "ANTHROPIC_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
)
MIN_CHARACTERS = 4  # a shorter secret would be found in every text
# A shorter one is taken out as a whole word only, and not if it is letters alone: "none", "secret", "test".
MIN_CHARACTERS_ANYWHERE = 8
_PATTERNS = (
    # The name and password of an address, up to the last "@" before its path: http://name:pass@word@host/v1
    (re.compile(r"(?<=://)[^\s/?#\"'<>]{1,1024}@"), f"{SHOWN}@"),
    # A password with a slash that should have been escaped; a port is none: http://name:pass/word@host, not host:80/@me
    (re.compile(r"(?<=://)[^\s/@:]{0,256}:(?!\d{1,5}[/?#])[^\s@]{1,256}@"), f"{SHOWN}@"),
    (re.compile(r"(?i)\b(bearer\s{1,8})(?![a-z]{1,15}\b)[a-z0-9._~+/=-]{8,}"), rf"\g<1>{SHOWN}"),
    (re.compile(r"(?i)(\bauthorization['\"]?\s{0,8}[:=]\s{0,8}['\"]?basic\s{1,8})[a-z0-9+/=]{4,}"), rf"\g<1>{SHOWN}"),
    (re.compile(r"\b(?:sk|hf|ghp|gho|github_pat|glpat|xox[abp])[-_][A-Za-z0-9_-]{16,}"), SHOWN),
)

_known: set[str] = set()


class Secret:
    """A text that shows itself as `[secret]` wherever it is printed, and is known to `redact` from then on.

    It is no `str`, so that nothing joins, encodes or serialises it by accident; `reveal` gives the text. It cannot be
    pickled; a copy (`dataclasses.asdict`) is the secret itself.
    """

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text
        if text not in _known:
            _known.add(text)
            _known_pattern.cache_clear()

    def reveal(self) -> str:
        """The text itself, for the one place that sends or compares it."""
        return self.__text

    def __repr__(self) -> str:
        return SHOWN

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return SHOWN

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __eq__(self, other: object) -> bool:
        """Compared in a time that does not depend on where they differ."""
        return isinstance(other, Secret) and hmac.compare_digest(self.__text.encode(), other.reveal().encode())

    def __hash__(self) -> int:
        return hash(hashlib.sha256(self.__text.encode("utf-8", "surrogatepass")).digest())

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, _: object) -> "Secret":
        return self

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a Secret is not pickled; hand the process a named variable of the environment")

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, __: object) -> Any:
        from pydantic_core import core_schema  # here: light commands need none

        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(str(value)),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda _: SHOWN),
        )


def from_environment(name: str) -> Secret:
    """The secret in a variable of the environment, without the blanks around it; an empty one where it is not set."""
    return Secret(os.environ.get(name, "").strip())


def json_value(value: object) -> str:
    """What `json.dumps` writes for a secret: as its `default`."""
    if isinstance(value, Secret):
        return SHOWN
    raise TypeError(f"{type(value).__name__} is no JSON value")


def redact(text: str, *, has_patterns: bool = True) -> str:
    """The text with `[secret]` in place of every secret in it.

    Args:
        has_patterns: also what only looks like a secret: passwords in addresses, bearer tokens, keys of known forms.
            Not wanted where a text of the user's own is shown as it is (a record, a reply).
    """
    values = tuple(value for name in VARIABLES if (value := os.environ.get(name)))
    if pattern := _known_pattern(values):
        text = pattern.sub(SHOWN, text)
    if has_patterns:
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
    return text


@functools.lru_cache(maxsize=8)
def _known_pattern(values: tuple[str, ...]) -> re.Pattern[str] | None:
    """What finds the known secrets, in the forms in which they are echoed: plain, in an address, in JSON."""
    found = {part.strip() for value in (*values, *_known) for part in (value, *value.split(","))}
    parts = []
    for text in sorted(found, key=lambda text: (-len(text), text)):  # the longest first: one may hold another
        if len(text) < MIN_CHARACTERS or (len(text) < MIN_CHARACTERS_ANYWHERE and text.isalpha()):
            continue
        forms = {text, quote(text, safe="", errors="replace"), json.dumps(text)[1:-1], repr(text)[1:-1]}
        either = "|".join(re.escape(form) for form in sorted(forms, key=lambda form: (-len(form), form)))
        is_whole = len(text) < MIN_CHARACTERS_ANYWHERE
        parts.append(rf"(?<![A-Za-z0-9])(?:{either})(?![A-Za-z0-9])" if is_whole else either)
    return re.compile("|".join(parts)) if parts else None
