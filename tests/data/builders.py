"""Records for the tests, as a file's reader would make them."""

from vicuna.conversation import Message, Role
from vicuna.data.step_kinds import Record, Shape

ROLES: dict[str, Role] = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}


def record(*turns: str, id: str = "one", shape: Shape = "sharegpt") -> Record:
    """A record from turns written `u: a question`, `a: an answer`, `s: system text`, `t: a tool's result`."""
    messages = tuple(Message(ROLES[turn[0]], turn[2:].removeprefix(" ")) for turn in turns)
    return Record(id, messages, f"test.json:{id}", id, shape, tuple(range(len(messages))))


def turns(record: Record) -> list[str]:
    """The reverse of `record`."""
    letters = {role: letter for letter, role in ROLES.items()}
    return [f"{letters[message.role]}: {message.content}" for message in record.messages]
