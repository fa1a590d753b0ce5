"""The frames between a worker and a controller, over the one WebSocket that the worker dials.

Before: `worker` and `link` (its other end). Frames are JSON text; each is one of the models below, told apart by its
`type`. A `ReplyChunks` frame carries all tokens of one engine step, so the cost of a frame is per step.
Nothing here is ever evaluated or unpickled, and a field that is not expected ends the connection.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from vicuna.serve.sampling import Sampling

VERSION = 1
CONNECT_PATH = "/worker/connect"
MODEL_HEADER = "x-vicuna-model"
MAX_FRAME_BYTES = 32 * 1024 * 1024
CLOSE_HUNG = 4000  # the controller saw no token for too long: the worker ends itself, its supervisor starts another
CLOSE_PROTOCOL = 4001  # a frame that is not of this protocol, or of another version of it
CLOSE_FULL = 4002  # the controller has as many workers or models as it takes: dialled again later

# A model's name travels in headers, URLs and logs.
MODEL_NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}"
MAX_MODEL_NAME = 128
MAX_TOKEN_ID = 2**31 - 1
MAX_NAME = 256  # characters of what a worker calls itself
MAX_MESSAGE = 2_000  # characters of a refusal
MAX_TOKENS = 2**24  # of a context or a frame
MAX_TEXT = 2**24  # characters that a step adds; those of a whole reply, where it has moved
MAX_SLOTS = 2**16  # of one worker
MAX_HELLO_BYTES = 4 << 20

Name = Annotated[str, Field(max_length=MAX_NAME, pattern=r"^[A-Za-z0-9._:/@+ -]*$")]
RequestId = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]], Field(fail_fast=True, max_length=MAX_TOKENS)]


class Frame(BaseModel):
    """Base of all frames: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChatMessage(Frame):
    """One message of a chat, as `vicuna.conversation.Message`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Submit(Frame):
    """Controller to worker: generate a reply, or go on with one.

    The prompt is one of three: `messages` (the worker renders and tokenizes them), `text` (it tokenizes that), or
    `prompt_ids`. `journal` holds the reply's tokens that exist already and `num_shown` how many characters of their
    text the client has; `max_new_tokens` counts them in.
    """

    type: Literal["submit"] = "submit"
    request_id: RequestId
    messages: list[ChatMessage] | None = None
    text: str | None = None
    prompt_ids: TokenIds | None = None
    journal: TokenIds = []
    num_shown: int = 0
    sampling: Sampling
    max_new_tokens: int | None = None
    stop: list[str] = []
    is_chat: bool = True


class Cancel(Frame):
    """Controller to worker: the client has left, end this reply."""

    type: Literal["cancel"] = "cancel"
    request_id: RequestId


class Ping(Frame):
    """Controller to worker, every second."""

    type: Literal["ping"] = "ping"


class Hello(Frame):
    """Worker to controller, first frame: who it is and what it runs.

    Workers of equal `fingerprint` (weights, tokenizer, template, dtype, engine) may continue each other's streams.
    """

    type: Literal["hello"] = "hello"
    version: int = VERSION
    worker_id: Name
    host: Name
    pid: int = Field(ge=0, le=2**31)
    model: str = Field(pattern=f"^{MODEL_NAME_PATTERN}$", max_length=MAX_MODEL_NAME)
    fingerprint: Name
    engine: Name
    template: Name
    context_size: int = Field(gt=0, le=MAX_TOKENS)
    max_slots: int = Field(gt=0, le=MAX_SLOTS)
    running: Annotated[list[RequestId], Field(fail_fast=True, max_length=MAX_SLOTS)] = []


class Accepted(Frame):
    """Worker to controller: the request is in, and these are the ids of its prompt."""

    type: Literal["accepted"] = "accepted"
    request_id: RequestId
    prompt_ids: TokenIds


class ReplyChunk(Frame):
    """New tokens of one reply, and the text they add. `index` is the place of the first in the reply.

    Without tokens, text and `finish_reason` it is a sign of life: the prompt is still being read.
    """

    request_id: RequestId
    index: int = Field(ge=0, le=MAX_TOKENS)
    token_ids: TokenIds = []
    text: str = Field(default="", max_length=MAX_TEXT)
    finish_reason: Literal["stop", "length"] | None = None


class ReplyChunks(Frame):
    """Worker to controller: what one engine step added to the replies of this controller; `steps` on the wire."""

    type: Literal["steps"] = "steps"
    steps: Annotated[list[ReplyChunk], Field(fail_fast=True, max_length=MAX_SLOTS)]


class Refused(Frame):
    """Worker to controller: this request will not run. `busy` may be tried elsewhere, the others are the client's."""

    type: Literal["refused"] = "refused"
    request_id: RequestId
    code: Literal["busy", "context_length_exceeded", "invalid_prompt"]
    message: str = Field(max_length=MAX_MESSAGE)


class Pong(Frame):
    """Worker to controller: a sign of life. `num_others` counts the slots that other controllers' requests hold."""

    type: Literal["pong"] = "pong"
    num_others: int = Field(ge=0, le=MAX_SLOTS)


FromWorker = Hello | Accepted | ReplyChunks | Refused | Pong
FromController = Submit | Cancel | Ping

FROM_WORKER: TypeAdapter[FromWorker] = TypeAdapter(Annotated[FromWorker, Field(discriminator="type")])
FROM_CONTROLLER: TypeAdapter[FromController] = TypeAdapter(Annotated[FromController, Field(discriminator="type")])


def dump(frame: Frame) -> str:
    """A frame as it goes over the wire."""
    return frame.model_dump_json(exclude_none=True)
