"""A worker: one model, one engine, dialled in to its controllers.

Before: a `Submit` frame. Here: render and tokenize the prompt, give the ids to the engine, turn its tokens into text.
After: `Steps` frames. The engine lives in a thread of its own, so however long a step takes, pings are answered. The
worker listens on no port; it dials every controller it was given (`dial`).
"""

import asyncio
import contextlib
import copy
import functools
import hashlib
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from vicuna.conversation import (
    Message,
    ReplyDecoder,
    Template,
    TemplateError,
    encode_prompt,
    get_template,
    load_template,
    stop_token_ids,
)
from vicuna.errors import UsageError, VicunaError, require
from vicuna.options import command, option, parse
from vicuna.serve import auth
from vicuna.serve.engines.interface import (
    ENGINES,
    Engine,
    EngineOptions,
    EngineRequest,
    EngineStep,
    Sampling,
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
    Step,
    Steps,
    Submit,
    dump,
)
from vicuna.serve.processes import follow_parent
from vicuna.weights.resolve import NAMES, resolve_model, served_name

SIM_TEMPLATE = "vicuna_v1.1"


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


class Refusal(Exception):
    """A request that this worker will not run."""

    def __init__(self, code: Literal["busy", "context_length_exceeded", "invalid_prompt"], message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Active:
    """A reply being written: who wants it, and its text so far."""

    connection: "Connection"
    decoder: ReplyDecoder
    num_tokens: int
    pending_text: str = ""


@dataclass(eq=False)
class Connection:
    """One controller, while it is connected."""

    outgoing: asyncio.Queue[Frame] = field(default_factory=asyncio.Queue)


class Worker:
    """One model for any number of controllers."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        self.name = options.model_name or served_name(options.model)
        if not re.fullmatch(MODEL_NAME_PATTERN, self.name):
            raise UsageError(
                f"model name '{self.name}': use letters, digits and . _ : / @ + - (give one with --model-name)"
            )
        self.worker_id = secrets.token_hex(4)
        self.active: dict[str, Active] = {}
        self.engine: Engine
        self.thread: EngineThread
        # The event loop decodes with `tokenizer` while prompts are encoded in a thread with its copy: Hugging Face's
        # fast tokenizers raise "Already borrowed" when both happen at once.
        self.tokenizer: Any
        self.encoding_tokenizer: Any
        self.encoder = ThreadPoolExecutor(1, thread_name_prefix="encode")

    async def run(self, token: str) -> None:
        """Load the model, then serve it until cancelled.

        Raises:
            VicunaError: the model cannot be served, or a controller refuses this worker.
        """
        options = self.options
        engine_options = EngineOptions(
            options.model, options.dtype, options.device, options.num_threads, options.max_slots, options.max_context
        )
        self.thread = EngineThread(functools.partial(load_engine, options.engine, engine_options), self._on_steps)
        try:
            self.engine = await self.thread.loaded
            self.tokenizer = self.engine.tokenizer
            self.encoding_tokenizer = copy.deepcopy(self.tokenizer)
            self.template = choose_template(options, self.tokenizer)
            self.stop_ids = frozenset(stop_token_ids(self.template, self.tokenizer)) | self.engine.end_token_ids
            self.fingerprint = hashlib.sha256(f"{self.engine.fingerprint} {self.template!r}".encode()).hexdigest()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_engine())
                for url in options.controller:
                    group.create_task(dial(url, token, self.name, self._converse))
        except* VicunaError as errors:
            raise errors.exceptions[0] from None
        finally:
            self.thread.close()
            self.encoder.shutdown(wait=False)

    async def _watch_engine(self) -> None:
        await self.thread.failed

    async def _converse(self, websocket: Any) -> None:
        """Speak with one controller until the connection ends; what it asked for is cancelled then."""
        websockets = require("websockets", "serve")
        connection = Connection()
        connection.outgoing.put_nowait(self._hello())
        writer = asyncio.create_task(self._write(websocket, connection))
        try:
            with contextlib.suppress(websockets.ConnectionClosedError):  # the caller reads the close code
                async for text in websocket:
                    await self._handle(FROM_CONTROLLER.validate_json(text), connection)
        except ValidationError as error:
            raise VicunaError(
                f"a controller sent a frame this worker does not know; run equal versions ({error})"
            ) from None
        finally:
            writer.cancel()
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

    async def _handle(self, frame: FromController, connection: Connection) -> None:
        match frame:
            case Submit():
                await self._submit(frame, connection)
            case Cancel(request_id=request_id):
                self._cancel(request_id)
            case Ping():
                others = sum(active.connection is not connection for active in self.active.values())
                connection.outgoing.put_nowait(Pong(num_others=others))

    async def _submit(self, submit: Submit, connection: Connection) -> None:
        """Take in a request: prompt to ids, the journal's text to where the client has it, then to the engine."""
        try:
            prompt = await self._admit(submit)
        except Refusal as refusal:
            frame = Refused(request_id=submit.request_id, code=refusal.code, message=str(refusal))
            connection.outgoing.put_nowait(frame)
            return
        decoder = ReplyDecoder(self.template if submit.is_chat else get_template("plain"), self.tokenizer, submit.stop)
        # One at a time, as they came: what is held back then is held back now.
        text = "".join(decoder.push([token]) for token in submit.journal)
        active = Active(connection, decoder, len(submit.journal), text[submit.num_shown :])
        self.active[submit.request_id] = active
        sampling, room = submit.sampling, self.engine.context_size - len(prompt)
        request = EngineRequest(
            request_id=submit.request_id,
            input_ids=(*prompt, *submit.journal),
            prompt_length=len(prompt),
            max_new_tokens=min(submit.max_new_tokens or room, room),
            stop_token_ids=self.stop_ids,
            sampling=Sampling(sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed),
        )
        connection.outgoing.put_nowait(Accepted(request_id=submit.request_id, prompt_ids=prompt))
        self.thread.post(lambda engine: engine.submit(request))

    async def _admit(self, submit: Submit) -> list[int]:
        """The prompt's ids, if the request can run.

        Raises:
            Refusal: it cannot.
        """
        if len(self.active) >= self.engine.max_slots:
            raise Refusal("busy", "all slots are taken")
        try:
            prompt = await asyncio.get_running_loop().run_in_executor(self.encoder, self._prompt_ids, submit)
        except (TemplateError, ValueError) as error:
            raise Refusal("invalid_prompt", str(error)) from None
        size = self.engine.context_size
        if not prompt:
            raise Refusal("invalid_prompt", "the prompt has no tokens")
        if max(prompt) >= self.engine.vocab_size:  # also if the folder holds another model's tokenizer
            vocabulary = f"the vocabulary of {self.engine.vocab_size} that model '{self.name}' has"
            raise Refusal("invalid_prompt", f"token id {max(prompt)} is not in {vocabulary}")
        if len(prompt) >= size:
            message = f"the prompt has {len(prompt)} tokens, the context of model '{self.name}' is {size}; shorten it"
            raise Refusal("context_length_exceeded", message)
        return prompt

    def _prompt_ids(self, submit: Submit) -> list[int]:
        """The prompt's ids: as given, or of the text as it stands, or of the messages in the model's template."""
        tokenizer = self.encoding_tokenizer
        if submit.prompt_ids is not None:
            return submit.prompt_ids
        if submit.text is not None:
            ids: list[int] = tokenizer([submit.text])["input_ids"][0]
            return ids
        messages = [Message(message.role, message.content) for message in submit.messages or ()]
        return encode_prompt(messages, self.template, tokenizer)

    def _cancel(self, request_id: str) -> None:
        if self.active.pop(request_id, None):
            self.thread.post(lambda engine: engine.cancel(request_id))

    def _on_steps(self, steps: list[EngineStep]) -> None:
        """Turn one engine step into one frame for each controller that has a part in it."""
        frames: dict[Connection, list[Step]] = {}
        for step in steps:
            if active := self.active.get(step.request_id):
                frames.setdefault(active.connection, []).append(self._step(step, active))
        for connection, parts in frames.items():
            connection.outgoing.put_nowait(Steps(steps=parts))

    def _step(self, step: EngineStep, active: Active) -> Step:
        text, reason = active.pending_text + active.decoder.push(step.token_ids), step.finish_reason
        active.pending_text = ""
        if active.decoder.stopped:
            if reason is None:
                self.thread.post(lambda engine: engine.cancel(step.request_id))
            reason = "stop"
        elif reason:
            text += active.decoder.finish()
        if reason:
            del self.active[step.request_id]
        index = active.num_tokens
        active.num_tokens += len(step.token_ids)
        return Step(
            request_id=step.request_id, index=index, token_ids=list(step.token_ids), text=text, finish_reason=reason
        )


def choose_template(options: WorkerOptions, tokenizer: Any) -> Template:
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
    if getattr(tokenizer, "chat_template", None):
        return get_template("hf")
    raise VicunaError(
        f"{options.model} names no conversation template and its tokenizer has none; give --template NAME"
    )


@command
def main(argv: list[str] | None = None) -> int:
    """Run a worker until it is told to stop."""
    options = parse(WorkerOptions, argv, prog="python -m vicuna.serve.worker", description=str(__doc__))
    if options.engine != "sim":
        name = options.model_name or served_name(options.model)
        options = replace(options, model=str(resolve_model(options.model).folder), model_name=name)
    follow_parent()
    # Read when torch is loaded. Threads that spin while they wait for each other starve on a machine that does other
    # things too: 0.8 tokens/s with two threads on two busy cores, 23.7 with threads that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    token = auth.read_join_token()
    for url in options.controller:
        socket_url(url)
    asyncio.run(_until_terminated(Worker(options).run(token)))
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
