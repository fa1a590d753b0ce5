"""What a call used: tokens as the server counts them, and dollars where a price was given."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vicuna.eval.rows import is_amount
from vicuna.io.jsonl import JsonObject

# No conversation has so many tokens; a count above it is a server's mistake.
MAX_TOKENS_COUNTED = 10**9


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts, None where the server does not report them, and US dollars, None where no price was given."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    usd: float | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The usage in a row's `usage`."""
        counts = (value.get(name) for name in ("prompt_tokens", "completion_tokens", "usd"))
        return cls(*(count if is_amount(count) else None for count in counts))

    @classmethod
    def of_server(cls, value: Mapping[str, Any]) -> Self:
        """The usage that a server reports; what is no count is not known."""
        return cls(_count(value.get("prompt_tokens")), _count(value.get("completion_tokens")))

    def to_json(self) -> JsonObject:
        """The reverse of `from_json`."""
        counts: JsonObject = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return counts if self.usd is None else {**counts, "usd": self.usd}


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS_COUNTED
    return value if isinstance(value, int) and is_count else None


def total(counts: list[int | None]) -> int | None:
    """The sum, or None if the server left a count out."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
