"""A reply while it grows: its text, how it ended, and how fast it came.

Before: the chunks of `http`. After: the chat page and the terminal chat show its `text` and its `summary`.
"""

from dataclasses import dataclass

from vicuna.serve.client.http import ApiError, Chunk, Usage

MAX_REPLY_CHARACTERS = 1_000_000
ENDINGS = {
    "stopped": "stopped",
    "length": "cut at the token limit",
    "content_filter": "withheld by the server's filter",
}


@dataclass
class Reply:
    """One reply. Times are seconds on any one steady clock."""

    started_at: float
    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    first_text_at: float | None = None
    last_text_at: float | None = None

    def add(self, chunk: Chunk, now: float) -> None:
        """Add a chunk that came at `now`.

        Raises:
            ApiError: the reply is longer than any model writes.
        """
        if len(self.text) + len(chunk.text) > MAX_REPLY_CHARACTERS:
            raise ApiError(f"the reply broke off: it has more than {MAX_REPLY_CHARACTERS:,} characters")
        if chunk.text:
            self.text += chunk.text
            self.first_text_at = now if self.first_text_at is None else self.first_text_at
            self.last_text_at = now
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage

    def tokens_per_second(self) -> float | None:
        """Decoding speed, without the wait for the first token; None where the server sent no usage."""
        if self.usage is None or self.first_text_at is None or self.last_text_at is None:
            return None
        seconds = self.last_text_at - self.first_text_at
        return (
            (self.usage.completion_tokens - 1) / seconds if self.usage.completion_tokens > 1 and seconds > 0 else None
        )

    def summary(self) -> str:
        """The line under a reply: `58 + 120 tokens · 31.4 tokens/s · first after 0.4 s · 4.2 s`."""
        parts = []
        if self.usage is not None:
            parts.append(f"{self.usage.prompt_tokens} prompt + {self.usage.completion_tokens} reply tokens")
        speed = self.tokens_per_second()
        if speed is not None:
            parts.append(f"{speed:.1f} tokens/s")
        if self.first_text_at is not None and self.last_text_at is not None:
            parts.append(f"first after {self.first_text_at - self.started_at:.1f} s")
            parts.append(f"{self.last_text_at - self.started_at:.1f} s in all")
        if self.finish_reason in ENDINGS:
            parts.append(ENDINGS[self.finish_reason])
        return " · ".join(parts)
