"""A conversation: messages, each with a role and its text; and the errors of templates and records."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from vicuna.errors import VicunaError

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)


class TemplateError(VicunaError):
    """A template that is unknown, or that does not fit its tokenizer or its messages."""


class RecordError(VicunaError):
    """A record that holds no conversation we can read."""


@dataclass(frozen=True)
class Message:
    """One turn. `content` is kept byte for byte: nothing is stripped, nothing is escaped."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """A record's messages, its id, and whatever other keys the record had (`source`, `language`, ...)."""

    id: str
    messages: tuple[Message, ...]
    extra: dict[str, Any] = field(default_factory=dict)
