"""A worker: one model, one engine, dialled in to its controllers.

Before: a `Submit` frame. Here: the prompt's ids (`prompts`) go to the engine, and its tokens become text. After: a
`ReplyChunks` frame for each step. The engine lives in a thread of its own, so that pings are answered however long a
step takes. The worker listens on no port; it dials the controllers it was given (`fleet.dial`).
"""

import asyncio
import contextlib
import functools
import hashlib
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from vicuna.conversation import (
    ReplyDecoder,
    Template,
    get_template,
    load_template,
    stop_token_ids,
)
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.errors import UsageError, VicunaError, require
from vicuna.io.log import warning
from vicuna.io.secrets import Secret
from vicuna.options import command, option, parse
from vicuna.serve import auth
from vicuna.serve.engines.interface import (
    ENGINES,
    Engine,
    EngineOptions,
    EngineRequest,
    StepOutput,
    load_engine,
)
from vicuna.serve.engines.thread import EngineThread
from vicuna.serve.fleet.dial import dial, socket_url
from vicuna.serve.fleet.protocol import (
    FROM_CONTROLLER,
    MODEL_NAME_PATTERN,
    Accepted,
    Cancel,
    Frame,
    FromController,
    Hello,
    Ping,
    Pong,
    Refused,
    ReplyChunk,
    ReplyChunks,
    Submit,
    dump,
)
from vicuna.serve.processes import exit_with_parent
from vicuna.serve.prompts import PromptEncoder, Refusal
from vicuna.weights.resolve import NAMES, resolve_model, served_name

SIM_TEMPLATE = "vicuna_v1.1"
TOKENS_A_TURN = 64  # of a journal that are decoded before others have their turn
DESCRIPTION = "A worker: one model, which dials in to its controllers with VICUNA_JOIN_TOKEN and needs no open port."


@dataclass(frozen=True)
class WorkerOptions:
    """Options of `python -m vicuna.serve.worker`."""

    model: str = option(help=f"the model: {NAMES}; for the sim engine its settings", metavar="MODEL")
    model_name: str | None = option(
        None,
        help="name that clients ask for (default: the hub id, or the folder's name)",
        aliases=("--model-names",),
    )
    controller: tuple[str, ...] = option(
        ("http://127.0.0.1:8000",), help="controllers to dial", metavar="URL", aliases=("--controller-address",)
    )
    engine: str = option("native", help="what computes the tokens", choices=tuple(ENGINES))
    template: str | None = option(
        None,
        help="conversation template, when the model directory names none (default: the tokenizer's own chat template)",
        aliases=("--conv-template",),
    )
    dtype: str | None = option(
        None, help="float32, bfloat16 or float16 (default: bfloat16 where the hardware has it)", metavar="DTYPE"
    )
    device: str | None = option(None, help="cpu or cuda (default: cuda if there is one)")
    num_threads: int | None = option(None, help="CPU threads of the engine (default: all cores)", minimum=1)
    max_slots: int = option(16, help="replies generated at the same time", minimum=1)
    max_context: int | None = option(
        None, help="tokens of prompt and reply (default: the model's, at most 4096)", minimum=2
    )


@dataclass
class ActiveReply:
    """A reply being generated: which controller it goes to, and its text so far."""

    connection: "Connection"
    decoder: ReplyDecoder
    num_tokens: int
    pending_text: str = ""


@dataclass(eq=False)
class Connection:
    """One controller, while it is connected.

    Attributes:
        preparing: the requests whose prompts are being tokenized, each of which has its slot already.
    """

    outgoing: asyncio.Queue[Frame] = field(default_factory=asyncio.Queue)
    preparing: dict[str, asyncio.Task[None]] = field(default_factory=dict)


class Worker:
    """One model for any number of controllers. `open_worker` makes one.

    Args:
        name: the model's name.
        engine: the loaded model, which lives in `thread`.

    Raises:
        VicunaError: the model has no conversation template.
    """

    def __init__(self, options: WorkerOptions, name: str, engine: Engine, thread: EngineThread) -> None:
        self.options, self.name, self.engine, self.thread = options, name, engine, thread
        self.worker_id = secrets.token_hex(4)
        self.active: dict[str, ActiveReply] = {}
        self.connections: set[Connection] = set()
        self.template = choose_template(options, engine.tokenizer)
        self.prompts = PromptEncoder(name, engine, self.template)
        self.stop_ids = frozenset(stop_token_ids(self.template, engine.tokenizer)) | engine.end_token_ids
        self.fingerprint = hashlib.sha256(f"{engine.fingerprint} {self.template!r}".encode()).hexdigest()

    async def run(self, token: Secret) -> None:
        """Serve the model to all controllers until cancelled.

        Args:
            token: the join token.

        Raises:
            VicunaError: a controller refuses this worker.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_steps())
                for url in self.options.controller:
                    group.create_task(dial(url, token, self.name, self._converse))
        except* VicunaError as errors:
            raise errors.exceptions[0] from None
        finally:
            self.prompts.close()

    async def _converse(self, websocket: Any) -> None:
        """Exchange frames with one controller until the connection ends; then its replies are cancelled."""
        websockets = require("websockets", "serve")
        connection = Connection()
        self.connections.add(connection)
        connection.outgoing.put_nowait(self._hello())
        writer = asyncio.create_task(self._write(websocket, connection))
        try:
            with contextlib.suppress(websockets.ConnectionClosedError):  # the caller reads the close code
                async for text in websocket:
                    self._handle(FROM_CONTROLLER.validate_json(text), connection)
        except ValidationError as error:
            raise VicunaError(
                f"a controller sent a frame this worker does not know; run equal versions ({error})"
            ) from None
        finally:
            writer.cancel()
            self.connections.discard(connection)
            for task in list(connection.preparing.values()):
                task.cancel()
            for request_id in [key for key, active in self.active.items() if active.connection is connection]:
                self._cancel(request_id)

    async def _write(self, websocket: Any, connection: Connection) -> None:
        while True:
            await websocket.send(dump(await connection.outgoing.get()))

    def _hello(self) -> Hello:
        return Hello(
            worker_id=self.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            model=self.name,
            fingerprint=self.fingerprint,
            engine=self.options.engine,
            template=self.template.name,
            context_size=self.engine.context_size,
            max_slots=self.engine.max_slots,
            running=list(self.active),
        )

    def _handle(self, frame: FromController, connection: Connection) -> None:
        """Do what a frame says. Prompts are tokenized beside this, so that pings are answered meanwhile."""
        match frame:
            case Submit():
                if self._num_taken() >= self.engine.max_slots:
                    self._refuse(frame, Refusal("busy", "all slots are taken"), connection)
                    return
                task = asyncio.create_task(self._prepare(frame, connection))
                connection.preparing[frame.request_id] = task
                task.add_done_callback(lambda _: connection.preparing.pop(frame.request_id, None))
            case Cancel(request_id=request_id):
                if preparing := connection.preparing.get(request_id):
                    preparing.cancel()
                self._cancel(request_id)
            case Ping():
                others = self._num_taken() - len(connection.preparing)
                others -= sum(active.connection is connection for active in self.active.values())
                connection.outgoing.put_nowait(Pong(num_others=others))

    def _num_taken(self) -> int:
        """Slots that replies have, or will have once their prompts are tokenized."""
        return len(self.active) + sum(len(connection.preparing) for connection in self.connections)

    def _refuse(self, submit: Submit, why: Refusal, connection: Connection) -> None:
        connection.outgoing.put_nowait(Refused(request_id=submit.request_id, code=why.code, message=str(why)))

    async def _prepare(self, submit: Submit, connection: Connection) -> None:
        """Submit a request to the engine, or refuse it; whatever is wrong with it costs this request only."""
        try:
            await self._submit(submit, connection)
        except Refusal as why:
            self._refuse(submit, why, connection)
        except Exception as error:
            warning(f"a request of model '{self.name}' failed before it began: {type(error).__name__}: {error}")
            self._refuse(submit, Refusal("invalid_prompt", "this worker cannot begin this request"), connection)

    async def _submit(self, submit: Submit, connection: Connection) -> None:
        """Submit a request to the engine: tokenize the prompt, and decode the journal up to what the client has.

        Raises:
            Refusal: this worker will not run it.
        """
        prompt = await self.prompts.encode(submit)
        decoder = ReplyDecoder(
            self.template if submit.is_chat else get_template("plain"), self.engine.tokenizer, submit.stop
        )
        # One at a time, as they came, so that the decoder holds back the same text as the first time.
        pieces = []
        for count, token in enumerate(submit.journal):
            if count % TOKENS_A_TURN == 0:
                await asyncio.sleep(0)  # the other streams have their turn
            pieces.append(decoder.push([token]))
        text = "".join(pieces)
        active = ActiveReply(connection, decoder, len(submit.journal), text[submit.num_shown :])
        del connection.preparing[submit.request_id]
        self.active[submit.request_id] = active
        room = self.engine.context_size - len(prompt)
        request = EngineRequest(
            request_id=submit.request_id,
            input_ids=(*prompt, *submit.journal),
            prompt_length=len(prompt),
            max_new_tokens=min(submit.max_new_tokens or room, room),
            stop_token_ids=self.stop_ids,
            sampling=submit.sampling,
        )
        connection.outgoing.put_nowait(Accepted(request_id=submit.request_id, prompt_ids=prompt))
        self.thread.post(lambda engine: engine.submit(request))

    def _cancel(self, request_id: str) -> None:
        if self.active.pop(request_id, None):
            self.thread.post(lambda engine: engine.cancel(request_id))

    async def _send_steps(self) -> None:
        """Turn each engine step into one frame for each controller that has replies in it."""
        async for outputs in self.thread.steps():
            frames: dict[Connection, list[ReplyChunk]] = {}
            for output in outputs:
                if active := self.active.get(output.request_id):
                    frames.setdefault(active.connection, []).append(self._chunk(output, active))
            for connection, chunks in frames.items():
                connection.outgoing.put_nowait(ReplyChunks(steps=chunks))

    def _chunk(self, output: StepOutput, active: ActiveReply) -> ReplyChunk:
        """The new tokens of a reply with the text they add; a reply that has ended is active no more."""
        text, reason = active.pending_text + active.decoder.push(output.token_ids), output.finish_reason
        active.pending_text = ""
        if active.decoder.stopped:
            if reason is None:
                self.thread.post(lambda engine: engine.cancel(output.request_id))
            reason = "stop"
        elif reason:
            text += active.decoder.finish()
        if reason:
            del self.active[output.request_id]
        index = active.num_tokens
        active.num_tokens += len(output.token_ids)
        return ReplyChunk(
            request_id=output.request_id, index=index, token_ids=list(output.token_ids), text=text, finish_reason=reason
        )


@contextlib.asynccontextmanager
async def open_worker(options: WorkerOptions) -> AsyncIterator[Worker]:
    """A worker whose model is loaded; the engine's thread ends with the block.

    Raises:
        VicunaError: the model cannot be served.
    """
    name = options.model_name or served_name(options.model)
    if not re.fullmatch(MODEL_NAME_PATTERN, name):
        raise UsageError(f"model name '{name}': use letters, digits and . _ : / @ + - (give one with --model-name)")
    engine_options = EngineOptions(
        options.model, options.dtype, options.device, options.num_threads, options.max_slots, options.max_context
    )
    thread = EngineThread(functools.partial(load_engine, options.engine, engine_options))
    try:
        yield Worker(options, name, await thread.loaded, thread)
    finally:
        thread.close()


async def run_worker(options: WorkerOptions, token: Secret) -> None:
    """Load the model, then serve it until cancelled.

    Raises:
        VicunaError: the model cannot be served, or a controller refuses this worker.
    """
    async with open_worker(options) as worker:
        await worker.run(token)


def choose_template(options: WorkerOptions, tokenizer: Tokenizer) -> Template:
    """The template the model's folder names, else the one of the flag, else the tokenizer's own chat template.

    Raises:
        VicunaError: none of them is there, or the flag contradicts the folder.
    """
    if options.engine == "sim":
        return get_template(options.template or SIM_TEMPLATE)
    named = load_template(options.model)
    if options.template:
        chosen = get_template(options.template)
        if named and named.name != chosen.name:
            raise UsageError(
                f"--template {chosen.name}: {options.model} was trained with '{named.name}'; leave the flag out"
            )
        return chosen
    if named:
        return named
    if tokenizer.chat_template:
        return get_template("hf")
    raise VicunaError(
        f"{options.model} names no conversation template and its tokenizer has none; give --template NAME"
    )


@command
def main(argv: list[str] | None = None) -> int:
    """Run a worker until it is told to stop."""
    options = parse(WorkerOptions, argv, prog="python -m vicuna.serve.worker", description=DESCRIPTION)
    if options.engine != "sim":
        name = options.model_name or served_name(options.model)
        options = replace(options, model=str(resolve_model(options.model).folder), model_name=name)
    exit_with_parent()
    # Read when torch is loaded. Threads that spin while they wait for each other starve on a machine that does other
    # things too: 0.8 tokens/s with two threads on two busy cores, 23.7 with threads that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    token = auth.read_join_token()
    for url in options.controller:
        socket_url(url)
    asyncio.run(_until_terminated(run_worker(options, token)))
    return 0


async def _until_terminated(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or SIGTERM comes, which is how a worker ends; Ctrl-C goes on to the caller."""
    task = asyncio.ensure_future(work)
    is_terminated = asyncio.Event()

    def terminate() -> None:
        is_terminated.set()
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        await task
    except asyncio.CancelledError:
        if not is_terminated.is_set():
            raise


if __name__ == "__main__":
    sys.exit(main(None))
