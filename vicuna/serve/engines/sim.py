"""A deterministic engine without a model, for tests, fault injection and load tests of all but the engine.

Its replies are words chosen by a hash of the prompt and the seed; its tokens are bytes, so that characters beyond ASCII
are split across tokens. On being continued it checks that the journal is what it would have written, so a stream that
was continued wrongly fails here. The settings are given in place of the model's path: `speed=100,crash_after=20`.
"""

import hashlib
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from vicuna.conversation.tokenizer import Tokenizer
from vicuna.errors import UsageError, nearest
from vicuna.serve.engines.interface import EngineOptions, EngineRequest, StepOutput

WORDS = (
    *("alpaca", "llama", "vicuña", "guanaco", "안데스", "高原", "🦙", "grazes", "quietly", "über", "the", "Anden"),
    *("and", "spits,", "wool", "clouds.", "naïve"),
)
BOS, EOS = 256, 257


@dataclass(frozen=True)
class SimSettings:
    """How the engine behaves.

    Attributes:
        speed: tokens per second of each reply; 0 is as fast as it goes.
        length: tokens of a reply before it ends by itself.
        crash_after, hang_after: tokens, over all replies, after which the process dies or never steps again; 0 never.
        variant: another value is another model: other replies, another fingerprint.
    """

    speed: float = 0.0
    length: int = 64
    crash_after: int = 0
    hang_after: int = 0
    variant: int = 0


@dataclass(frozen=True)
class SpecialToken:
    """A control token of the byte tokenizer."""

    content: str
    special: bool = True


class ByteTokenizer:
    """A `vicuna.conversation.tokenizer.Tokenizer` over the bytes of UTF-8, with two control tokens."""

    name_or_path = "bytes"
    bos_token: str | None = "<s>"
    eos_token: str | None = "</s>"
    bos_token_id: int | None = BOS
    eos_token_id: int | None = EOS
    chat_template: str | dict[str, str] | None = None
    all_special_tokens = ("<s>", "</s>")
    special_tokens_map = {"bos_token": "<s>", "eos_token": "</s>"}  # noqa: RUF012 (read only, as the protocol says)

    def __init__(self) -> None:
        self.added_tokens_decoder = {BOS: SpecialToken("<s>"), EOS: SpecialToken("</s>")}

    def __call__(self, texts: list[str], /, **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [list(text.encode("utf-8")) for text in texts]}

    def __len__(self) -> int:
        return 258

    def get_vocab(self) -> dict[str, int]:
        """Ids by spelling."""
        return {token: index for index, token in enumerate(self.convert_ids_to_tokens(range(len(self))))}

    def convert_tokens_to_ids(self, token: str, /) -> int | None:
        """The id of a spelling."""
        return self.get_vocab().get(token)

    def convert_ids_to_tokens(self, ids: Sequence[int], /) -> list[str]:
        """The spellings of tokens, bytes as characters of the same number."""
        return [self.added_tokens_decoder[token].content if token >= BOS else chr(token) for token in ids]

    def decode(self, ids: Sequence[int], /, **_: bool) -> str:
        """Text, with U+FFFD where a character is not whole."""
        return bytes(token for token in ids if token < BOS).decode("utf-8", errors="replace")


@dataclass
class _Running:
    request: EngineRequest
    reply: list[int]  # the whole of it, end token included
    num_done: int
    due: float  # when its next token comes, by time.monotonic()


class SimEngine:
    """See the file's docstring; the interface is `vicuna.serve.engines.interface.Engine`."""

    def __init__(self, settings: SimSettings, options: EngineOptions) -> None:
        self.settings, self.max_slots = settings, options.max_slots
        self.context_size = options.max_context or 4096
        self.fingerprint = f"sim {settings.length} {settings.variant}"
        tokenizer = ByteTokenizer()
        self.tokenizer: Tokenizer = tokenizer
        self.vocab_size = len(tokenizer)
        self.end_token_ids = frozenset({EOS})
        self.running: dict[str, _Running] = {}
        self.num_written = 0

    @property
    def is_busy(self) -> bool:
        """Whether any request is in."""
        return bool(self.running)

    def submit(self, request: EngineRequest) -> None:
        """Compute the whole reply; each step then gives one token of it."""
        assert len(self.running) < self.max_slots, "the worker never submits more than there are slots"
        prompt, journal = request.input_ids[: request.prompt_length], request.input_ids[request.prompt_length :]
        seed = request.sampling.seed if request.sampling.temperature else 0
        reply = self._reply(prompt, seed)
        assert tuple(reply[: len(journal)]) == journal, "the journal is not what this engine would have written"
        self.running[request.request_id] = _Running(request, reply, len(journal), time.monotonic())

    def cancel(self, request_id: str) -> None:
        """Forget it."""
        self.running.pop(request_id, None)

    def step(self) -> list[StepOutput]:
        """One token for each reply that is due."""
        now, speed = time.monotonic(), self.settings.speed
        due = min(running.due for running in self.running.values())
        if due > now:
            time.sleep(min(due - now, 0.05))
            now = time.monotonic()
        outputs = []
        for running in [running for running in self.running.values() if running.due <= now]:
            running.due += 1 / speed if speed else 0.0
            outputs.append(self._advance(running))
        return outputs

    def _advance(self, running: _Running) -> StepOutput:
        settings, request = self.settings, running.request
        self.num_written += 1
        if settings.crash_after and self.num_written > settings.crash_after:
            os._exit(70)
        while settings.hang_after and self.num_written > settings.hang_after:
            time.sleep(60)
        token = running.reply[running.num_done]
        if token in request.stop_token_ids:
            self.cancel(request.request_id)
            return StepOutput(request.request_id, (), "stop")
        running.num_done += 1
        if running.num_done >= request.max_new_tokens:
            self.cancel(request.request_id)
            return StepOutput(request.request_id, (token,), "length")
        return StepOutput(request.request_id, (token,))

    def _reply(self, prompt: tuple[int, ...], seed: int) -> list[int]:
        key = hashlib.sha256(repr((prompt, seed, self.settings.variant)).encode()).digest()
        chance, reply = random.Random(key), b""
        while len(reply) < self.settings.length:
            reply += (" " if reply else "").encode() + chance.choice(WORDS).encode("utf-8")
        return [*reply, EOS]


def load(options: EngineOptions) -> SimEngine:
    """Make an engine of settings like `speed=100,length=64`; anything without `=` (a bare name) is no setting.

    Raises:
        UsageError: an unknown setting or a bad value.
    """
    kinds = {field.name: float if field.name == "speed" else int for field in fields(SimSettings)}
    values: dict[str, Any] = {}
    for part in filter(None, options.model.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            continue
        if name not in kinds:
            raise UsageError(f"sim engine: unknown setting '{name}'; {nearest(name, kinds)}")
        try:
            values[name] = kinds[name](value)
        except ValueError:
            values[name] = -1
        if not values[name] >= 0:
            raise UsageError(f"sim engine: {name} is '{value}'; it takes a number, 0 or more")
    return SimEngine(SimSettings(**values), options)
