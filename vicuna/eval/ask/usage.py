"""What a call used: tokens as the server counts them, and dollars where a price was given."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vicuna.io.jsonl import JsonObject


@dataclass(frozen=True)
class Usage:
    """Token counts, None where the server does not report them, and US dollars, None where no price was given."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    usd: float | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The usage in a row's `usage`."""
        return cls(value.get("prompt_tokens"), value.get("completion_tokens"), value.get("usd"))

    def to_json(self) -> JsonObject:
        """The reverse of `from_json`."""
        counts: JsonObject = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return counts if self.usd is None else {**counts, "usd": self.usd}


def total(counts: list[int | None]) -> int | None:
    """The sum, or None if the server left a count out."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
