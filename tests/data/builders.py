"""Records, outcomes, files and runs of the command for the tests."""

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vicuna.conversation import Message, Role
from vicuna.data.__main__ import main
from vicuna.data.options import DataOptions
from vicuna.data.pipeline import make_pipeline
from vicuna.data.run.batches import Batch, Part, clean_batch
from vicuna.data.step_kinds import Drop, Keep, Outcome, Record, Shape, Step
from vicuna.io.files import sha256_file
from vicuna.io.jsonl import JsonObject

ROLES: dict[str, Role] = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
WORDS = [f"word{number}" for number in range(5000)]
SHIPPED_REFUSAL = "I'm sorry, but I can't assist with that."
OWN_REFUSAL = "Computer says no."


def record(*turns: str, id: str = "one", shape: Shape = "sharegpt") -> Record:
    """A record from turns written `u: a question`, `a: an answer`, `s: system text`, `t: a tool's result`."""
    messages = tuple(Message(ROLES[turn[0]], turn[2:].removeprefix(" ")) for turn in turns)
    return Record(id, messages, f"test.json:{id}", id, shape, tuple(range(len(messages))))


def turns(record: Record) -> list[str]:
    """The reverse of `record`."""
    letters = {role: letter for letter, role in ROLES.items()}
    return [f"{letters[message.role]}: {message.content}" for message in record.messages]


def sharegpt_row(identifier: str, *texts: str) -> JsonObject:
    """A conversation in ShareGPT's shape; the human begins."""
    roles = ("human", "gpt")
    return {"id": identifier, "conversations": [{"from": roles[i % 2], "value": text} for i, text in enumerate(texts)]}


def messages_row(identifier: str, *contents: str, **extra: Any) -> JsonObject:
    """A conversation in OpenAI's shape; the user begins."""
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]
    return {"id": identifier, "messages": messages, **extra}


def random_text(seed: int, num_words: int = 400) -> str:
    """Words in random order; the same seed, the same words."""
    return " ".join(random.Random(seed).choices(WORDS, k=num_words))


def data_options(**given: Any) -> DataOptions:
    """Options without inputs, for making steps."""
    return DataOptions((), Path("out"), **given)


@functools.cache
def default_step(name: str) -> Step:
    """A step as the default options make it."""
    (step,) = make_pipeline(data_options(only=(name,))).before
    return step


def run_step(name: str, *lines: str) -> Outcome:
    """What a step makes of a record of these turns."""
    return default_step(name).run(record(*lines))


def clean_answer(step: str, answer: str, **given: Any) -> Outcome:
    """What a step made from the options makes of a conversation whose second answer is `answer`."""
    (made,) = make_pipeline(data_options(only=(step,), **given)).before
    return made.run(record("u: q", "a: fine", "u: and?", f"a: {answer}"))


def kept(outcome: Outcome) -> list[str]:
    """The turns of a record that was kept."""
    assert isinstance(outcome, Keep), outcome
    return turns(outcome.record)


def findings(outcome: Outcome) -> list[tuple[str, int | None]]:
    """Rule and turn of every finding."""
    found = [*outcome.repairs, *([outcome.finding] if isinstance(outcome, Drop) else [])]
    return [(finding.rule, finding.turn) for finding in found]


def repair_rules(outcome: Outcome) -> list[str]:
    """The rules that repaired a record that was kept."""
    assert isinstance(outcome, Keep)
    return [finding.rule for finding in outcome.repairs]


def write_lines(path: Path, *lines: str) -> str:
    """Write a text file and return its path."""
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return str(path)


def run_command(*arguments: object) -> int:
    """`python -m vicuna.data` in this process."""
    return main([str(argument) for argument in arguments])


def refuses(capsys: pytest.CaptureFixture[str], words: str, code: int, *arguments: object) -> None:
    """Assert that the command ends with `code` and one line that holds `words`."""
    capsys.readouterr()
    assert run_command(*arguments) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("cleaning:", "writing:"))]
    assert len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0], lines


def children_of(pid: int) -> list[int]:
    """The ids of a process's children."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


class Stop(Exception):
    """Stands for a kill in tests that have one process."""


def recording(indices: list[int], stop_at: int | None = None) -> Callable[[Batch, DataOptions], Part]:
    """`clean_batch`, which adds each batch's index to the list and raises Stop when the list has `stop_at`."""

    def clean(batch: Batch, options: DataOptions) -> Part:
        if len(indices) == stop_at:
            raise Stop
        indices.append(batch.index)
        return clean_batch(batch, options)

    return clean


def digest(folder: Path) -> dict[str, str]:
    """The hash of each file in a folder."""
    return {path.name: sha256_file(path) for path in folder.iterdir()}
