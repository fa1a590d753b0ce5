"""Keys of services, private key blocks and web tokens.

Every search begins at a literal prefix. Not found are placeholders that show where a key goes ("sk-your-key-here").
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from vicuna.data.privacy.spans import Span


@dataclass(frozen=True)
class _KeyShape:
    """A key as its issuer makes it. Only texts that contain the literal prefix are searched for the pattern."""

    prefix: str
    pattern: re.Pattern[str]


# Shapes from the issuers' documents, as far as they are public, and from what secret scanners look for.
KEY_SHAPES = tuple(
    _KeyShape(prefix, re.compile(pattern))
    for prefix, pattern in (
        ("sk-", r"sk-(?:proj|svcacct|admin|None|ant-[a-z]+[0-9]{2}|or-v1|lf)-[A-Za-z0-9_-]{20,}"),  # OpenAI and others
        ("sk-", r"sk-[A-Za-z0-9]{32,}"),
        ("AKIA", r"AKIA[A-Z2-7]{16}"),  # AWS
        ("ASIA", r"ASIA[A-Z2-7]{16}"),
        *(
            (
                word,
                r"(?i)(?<=secret)(?:_?access)?_?key[\"']?\s{0,3}[=:]\s{0,3}[\"']?([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
            )
            for word in ("ecret", "ECRET")
        ),
        *((f"gh{letter}_", rf"gh{letter}_[A-Za-z0-9]{{36,}}") for letter in "pousr"),  # GitHub
        ("github_pat_", r"github_pat_[A-Za-z0-9_]{60,}"),
        ("glpat-", r"glpat-[A-Za-z0-9_-]{20,}"),  # GitLab
        ("xox", r"xox[abeoprs]-[0-9A-Za-z-]{20,}"),  # Slack
        ("hooks.slack.com/", r"(?<=hooks\.slack\.com/)services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,}"),
        ("AIza", r"AIza[0-9A-Za-z_-]{35}"),  # Google
        ("GOCSPX-", r"GOCSPX-[A-Za-z0-9_-]{28}"),
        ("k_live_", r"[rs]k_live_[0-9A-Za-z]{20,}"),  # Stripe
        ("k_test_", r"[rs]k_test_[0-9A-Za-z]{20,}"),
        ("hf_", r"hf_[A-Za-z]{34}"),  # Hugging Face
        ("gsk_", r"gsk_[A-Za-z0-9]{48,}"),  # Groq
        ("npm_", r"npm_[A-Za-z0-9]{36}"),
        ("pypi-AgE", r"pypi-AgE[A-Za-z0-9_-]{50,}"),
        ("SG.", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),  # SendGrid
        ("dop_v1_", r"dop_v1_[0-9a-f]{64}"),  # DigitalOcean
        ("shpat_", r"shpat_[0-9a-fA-F]{32}"),  # Shopify
        (":AA", r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"),  # Telegram
    )
)
PREFIXES = tuple(dict.fromkeys(shape.prefix.encode("ascii") for shape in KEY_SHAPES))
# Maps a text's bytes to 0 (may be part of a key) or a space: a long enough run is then found as a substring.
KEY_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-/+")
KEY_BYTE_CLASS = bytes(0x30 if byte in KEY_BYTES else 0x20 for byte in range(256))
MIN_KEY_BYTES = 20
BYTES_BEFORE_KEY = 64  # the longest way from a prefix's start to the key's own letters ("secret_access_key = ...")
MIN_DIFFERENT = 10  # characters of a real key; xxxxxxxx and 12345678 have fewer


def has_key(text: str) -> bool:
    """A fast check whether there may be a key: a prefix in a long run of key letters, or shortly before one.

    Prefixes are searched only around such runs, most of which are names and paths; in the whole text it takes ten times
    as long.
    """
    data = text.encode("utf-8", "surrogatepass")
    classes = data.translate(KEY_BYTE_CLASS)
    runs = []
    at = classes.find(b"0" * MIN_KEY_BYTES)
    while at >= 0:
        end = classes.find(b" ", at) % (len(data) + 1)
        runs.append(data[max(0, at - BYTES_BEFORE_KEY) : end])
        at = classes.find(b"0" * MIN_KEY_BYTES, end)
    around = b" ".join(runs)
    return any(prefix in around for prefix in PREFIXES)


def find_keys(text: str) -> Iterator[Span]:
    """Keys of services, by their known shapes; no placeholders."""
    for shape in KEY_SHAPES:
        if shape.prefix in text:
            for match in shape.pattern.finditer(text):
                start, end = match.span(1) if match.re.groups else match.span()
                key = text[start:end]
                is_inside = start > 0 and (text[start - 1].isalnum() or text[start - 1] in "_-")
                if not is_inside and _is_random(key.removeprefix(shape.prefix)):
                    yield start, end


def _is_random(key: str) -> bool:
    lowered = key.lower()
    return len(set(lowered)) >= MIN_DIFFERENT and not any(
        word in lowered for word in ("example", "your", "xxxx", "abcdef", "123456", "replace", "secret", "....")
    )


PRIVATE_KEY = re.compile(
    r"-----BEGIN ((?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?)-----([^-]{0,20000}(?:-[^-]{1,200}){0,10}?)"
    r"(?:-----END \1-----|\Z)"
)


def find_private_keys(text: str) -> Iterator[Span]:
    """PEM and PGP blocks with a body as long as a real one's; also blocks that are cut short."""
    for match in PRIVATE_KEY.finditer(text):
        body = re.sub(r"\\n|\s", "", match[2])
        if len(body) >= 60 and "..." not in body and _is_random(body[:400]):
            yield match.span()


WEB_TOKEN = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{10,}")


def find_web_tokens(text: str) -> Iterator[Span]:
    """JSON Web Tokens (RFC 7519) whose header can be read and names an algorithm."""
    for match in WEB_TOKEN.finditer(text):
        header = match[0].split(".")[0]
        try:
            value = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
        except (binascii.Error, ValueError, RecursionError):
            continue
        if isinstance(value, dict) and "alg" in value:
            yield match.span()
