"""A reply as one stream, whatever happens to the workers behind it.

Before: `api.openai` asks for a reply. After: `dispatch` finds a slot, `link` carries the frames.

The gateway keeps a journal of each stream: the ids of the prompt and of every token the client has been given. When the
worker dies or falls silent, the stream goes on at another worker of the same fingerprint, which reads prompt and
journal like one prompt and writes the next token. Sampling noise depends on (seed, position) only, so in float32 the
text is the one that would have come anyway; in bfloat16 it is a continuation, usually but not always the same.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from vicuna.io.log import warning
from vicuna.serve.errors import InvalidRequest, NoWorker, PromptTooLong, QueueFull, StreamLost
from vicuna.serve.fleet.dispatch import Fleet
from vicuna.serve.fleet.link import Event, WorkerLink, WorkerLost
from vicuna.serve.fleet.protocol import CLOSE_HUNG, CLOSE_PROTOCOL, Accepted, ChatMessage, Refused, ReplyChunk, Submit
from vicuna.serve.sampling import Sampling

MAX_MOVES = 3  # a reply that has outlived this many workers may be what kills them


@dataclass(frozen=True)
class Generation:
    """A reply to generate: from `messages`, or from a bare `text` or its `prompt_ids`."""

    model: str
    sampling: Sampling
    messages: list[ChatMessage] | None = None
    text: str | None = None
    prompt_ids: list[int] | None = None
    max_new_tokens: int | None = None
    stop: list[str] = field(default_factory=list)


@dataclass
class Journal:
    """What is known of a stream: enough for any worker of the same fingerprint to continue it."""

    prompt_ids: list[int] | None = None
    token_ids: list[int] = field(default_factory=list)
    num_shown: int = 0
    fingerprint: str | None = None  # of the worker that wrote the tokens
    num_moves: int = 0

    def is_next(self, chunk: ReplyChunk, context_size: int) -> bool:
        """Whether a chunk goes on where the reply stands, and stays within the context."""
        num_tokens = len(self.token_ids) + len(chunk.token_ids)
        return chunk.index == len(self.token_ids) and num_tokens <= context_size

    def record(self, chunk: ReplyChunk) -> None:
        """Add the tokens of a chunk that `is_next`."""
        self.token_ids += chunk.token_ids
        self.num_shown += len(chunk.text)


class Gateway:
    """Streams replies of the models in the fleet.

    Args:
        token_gap_seconds: a worker that says nothing about a stream for so long counts as hung; it is cut off (and, if
            it can still hear that, ends itself), and the stream moves.
    """

    def __init__(self, fleet: Fleet, *, token_gap_seconds: float = 30.0) -> None:
        self.fleet, self.token_gap_seconds = fleet, token_gap_seconds

    async def stream(self, generation: Generation, journal: Journal) -> AsyncGenerator[ReplyChunk, None]:
        """The chunks of a reply, the last one with its `finish_reason`; `journal` is kept up to date.

        Close it (`aclosing`) to cancel the generation.

        Raises:
            RequestError: see `vicuna.serve.errors`.
        """
        while True:
            try:
                async with (
                    self.fleet.slot(generation.model, journal.fingerprint) as link,
                    aclosing(self._follow(link, generation, journal)) as chunks,
                ):
                    async for chunk in chunks:
                        yield chunk
                        if chunk.finish_reason:
                            return
            except (NoWorker, QueueFull) as error:
                if not journal.token_ids:
                    raise
                reason = f"the worker died after {len(journal.token_ids)} tokens, and {error}"
                raise StreamLost(reason, error.retry_after) from None
            except WorkerLost:
                journal.num_moves += 1
                warning(f"worker {link.hello.worker_id} of '{generation.model}' is lost; moving a stream")
            if journal.num_moves > MAX_MOVES:
                raise StreamLost(
                    f"model '{generation.model}': {journal.num_moves} workers died while writing this reply"
                )

    async def _follow(
        self, link: WorkerLink, generation: Generation, journal: Journal
    ) -> AsyncGenerator[ReplyChunk, None]:
        """The chunks that one worker adds to the journal. Ends without a `finish_reason` if it was too busy.

        Raises:
            WorkerLost: it is gone or silent.
            PromptTooLong, InvalidRequest: it, or any other, will not run this.
        """
        if generation.messages is not None and len(generation.messages) >= link.hello.context_size:
            limit = f"the context of model '{generation.model}' is {link.hello.context_size}"
            raise PromptTooLong(
                f"the prompt has {len(generation.messages)} messages, {limit}; shorten it", param="messages"
            )
        async with link.stream(_submit(generation, journal)) as events:
            while True:
                match await self._next(link, events):
                    case ReplyChunk() as chunk:
                        if not journal.is_next(chunk, link.hello.context_size):
                            warning(f"worker {link.hello.worker_id} sent a step that does not follow; cutting it off")
                            link.close(CLOSE_PROTOCOL)
                            raise WorkerLost
                        if chunk.token_ids or chunk.text or chunk.finish_reason:
                            journal.record(chunk)
                            journal.fingerprint = link.fingerprint
                            yield chunk
                        if chunk.finish_reason:
                            return
                    case Accepted(prompt_ids=ids):
                        journal.prompt_ids = ids
                    case Refused(code="busy"):
                        return
                    case Refused(code="context_length_exceeded", message=message):
                        raise PromptTooLong(message, param="prompt" if generation.messages is None else "messages")
                    case Refused(message=message):
                        raise InvalidRequest(message, param="prompt" if generation.messages is None else "messages")
                    case WorkerLost() as lost:
                        raise lost

    async def _next(self, link: WorkerLink, events: asyncio.Queue[Event]) -> Event:
        """The next event; while the worker reads a prompt it sends empty chunks, so silence is a fault."""
        try:
            async with asyncio.timeout(self.token_gap_seconds):
                return await events.get()
        except TimeoutError:
            warning(f"worker {link.hello.worker_id} was silent for {self.token_gap_seconds:g} s; cutting it off")
            link.close(CLOSE_HUNG)
            return WorkerLost()


def _submit(generation: Generation, journal: Journal) -> Submit:
    """The request, or the rest of it. A prompt that was tokenized once is sent as ids from then on."""
    has_ids = journal.token_ids and journal.prompt_ids is not None
    return Submit(
        request_id=uuid.uuid4().hex,
        messages=None if has_ids else generation.messages,
        text=None if has_ids else generation.text,
        prompt_ids=journal.prompt_ids if has_ids else generation.prompt_ids,
        journal=journal.token_ids,
        num_shown=journal.num_shown,
        sampling=generation.sampling,
        max_new_tokens=generation.max_new_tokens,
        stop=generation.stop,
        is_chat=generation.messages is not None,
    )
