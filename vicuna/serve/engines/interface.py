"""What every engine can do, and how one is chosen by name.

Before: `vicuna.serve.worker` turns a chat into token ids and calls `submit`. After: it turns the outputs of each step
into frames. An engine knows token ids only. It lives in one thread, which calls `step` as long as `is_busy`; so none of
its methods needs a lock, and a step may block.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from vicuna.conversation.tokenizer import Tokenizer
from vicuna.errors import VicunaError, nearest
from vicuna.serve.sampling import Sampling

# name: module with `load(EngineOptions) -> Engine`, imported when chosen
ENGINES = {
    "native": "vicuna.serve.engines.native",
    "sim": "vicuna.serve.engines.sim",
}


@dataclass(frozen=True)
class EngineOptions:
    """How to load a model. `num_threads`, `max_context` and `dtype`: None leaves the choice to the engine."""

    model: str
    dtype: str | None = None
    device: str | None = None
    num_threads: int | None = None
    max_slots: int = 16
    max_context: int | None = None


@dataclass(frozen=True)
class EngineRequest:
    """A reply to generate. `input_ids` is the prompt and, after it, the reply's tokens that exist already.

    `max_new_tokens` counts from the end of the prompt, so it is the same number when a stream is continued.
    """

    request_id: str
    input_ids: tuple[int, ...]
    prompt_length: int
    max_new_tokens: int
    stop_token_ids: frozenset[int]
    sampling: Sampling


FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class StepOutput:
    """What one step computed for one request: new tokens (none while its prompt is being read), and whether it ended.

    A stop token ends the reply and is not among its tokens.
    """

    request_id: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None


class Engine(Protocol):
    """A loaded model. `fingerprint` names all that decides which token comes next, except the template; `vocab_size`
    is the number of token ids it can read."""

    fingerprint: str
    vocab_size: int
    max_slots: int
    context_size: int
    tokenizer: Tokenizer
    end_token_ids: frozenset[int]

    @property
    def is_busy(self) -> bool:
        """Whether a `step` would do anything."""

    def submit(self, request: EngineRequest) -> None:
        """Take in a request; it joins at the next step. At most `max_slots` may be in at once."""

    def cancel(self, request_id: str) -> None:
        """Forget a request and free its slot. An unknown id is no error: it may just have finished."""

    def step(self) -> list[StepOutput]:
        """One forward over the requests; the outputs of those that took part."""


def load_engine(name: str, options: EngineOptions) -> Engine:
    """Load a model with the engine of that name. May take long.

    Raises:
        VicunaError: no such engine, or a model it cannot serve.
    """
    if name not in ENGINES:
        raise VicunaError(f"unknown engine '{name}'; {nearest(name, ENGINES)}")
    engine: Engine = importlib.import_module(ENGINES[name]).load(options)
    return engine


def model_directory(model: str) -> Path:
    """The model as a directory that exists.

    Raises:
        VicunaError: it does not.
    """
    path = Path(model).expanduser()
    if not path.is_dir():
        reason = "is a file" if path.exists() else "does not exist"
        raise VicunaError(f"model directory '{model}' {reason}; give the path of a Hugging Face model directory")
    return path
