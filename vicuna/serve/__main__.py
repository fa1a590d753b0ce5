"""`vicuna serve`: controller with API, a worker process for each model, and the web page, in one command.

Before: the user. After: `controller`, `worker` and `web`, as processes of their own. This one only watches: a process
that dies is started again; one Ctrl-C ends all; and should this process be killed, the kernel ends the others.
"""

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

from vicuna.errors import UsageError, require
from vicuna.io.jsonl import JsonObject
from vicuna.io.log import human_seconds, info, warning
from vicuna.io.machine import usable_cores
from vicuna.io.terminal import style, write
from vicuna.options import command, option, parse
from vicuna.serve import auth, processes
from vicuna.serve.engines.interface import ENGINES, model_directory
from vicuna.serve.fleet.protocol import MODEL_NAME_PATTERN
from vicuna.serve.http_server import listen, server_url
from vicuna.weights.resolve import NAMES, resolve_model, served_name

FIRST_RESTART_SECONDS, LAST_RESTART_SECONDS = 0.2, 10.0
STABLE_SECONDS = 30.0  # a process that lived this long starts again at once when it dies
WATCH_SECONDS = 0.1
DESCRIPTION = (
    "Serve models: a controller with the OpenAI-compatible API, a worker process for each model, and the chat page. "
    "A process that dies is started again; Ctrl-C ends all."
)


@dataclass(frozen=True)
class ServeOptions:
    """Options of `vicuna serve`."""

    model: tuple[str, ...] = option(
        help=f"models to serve, each MODEL or NAME=MODEL; MODEL is {NAMES}", metavar="[NAME=]MODEL"
    )
    host: str = option(
        "127.0.0.1", help="address of the API; any but a loopback address needs VICUNA_API_KEY", group="addresses"
    )
    port: int = option(8000, help="port of the API; 0 takes a free one")
    web: bool = option(True, help="start the chat page too")
    web_port: int = option(7860, help="port of the chat page", minimum=1)
    allow_host: tuple[str, ...] = option(
        (), help="names that API and page answer to besides this machine's own", metavar="NAME"
    )
    num_workers_per_model: int = option(1, help="worker processes of each model", minimum=1, group="workers")
    engine: str = option("native", help="what computes the tokens", choices=tuple(ENGINES))
    template: str | None = option(None, help="conversation template of models whose directory names none")
    dtype: str | None = option(None, help="float32, bfloat16 or float16 (default: bfloat16 where the hardware has it)")
    device: str | None = option(None, help="cpu or cuda (default: cuda if there is one)")
    num_threads: int | None = option(
        None, help="CPU threads of each worker (default: the cores, shared out)", minimum=1
    )
    max_slots: int = option(16, help="replies that a worker generates at the same time", minimum=1)
    max_context: int | None = option(
        None, help="tokens of prompt and reply (default: the model's, at most 4096)", minimum=2
    )
    max_queue: int = option(
        256,
        help="requests per model that may wait for a slot; more get 503 with Retry-After",
        minimum=0,
        group="waiting",
    )
    replacement_seconds: float = option(
        60.0, help="how long a request or a cut stream waits for a new worker", minimum=0
    )


@dataclass
class Child:
    """A process that is started again when it dies."""

    name: str
    command: list[str]
    environment: dict[str, str]
    keep_fds: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restart_at: float = 0.0
    wait_seconds: float = FIRST_RESTART_SECONDS
    was_ready: bool = False


@dataclass
class Supervisor:
    """Keeps children running until told to stop."""

    children: list[Child] = field(default_factory=list)
    is_stopping: bool = False

    def start(self, child: Child) -> None:
        """Start a process."""
        child.process = processes.spawn(child.command, child.environment, child.keep_fds)
        child.started = time.monotonic()

    def check(self) -> None:
        """Look at each child: note that it has ended, or start it again when that is due.

        Raises:
            ChildFailed: one ended with an error before it was ever ready: starting it again would not help.
        """
        now = time.monotonic()
        for child in self.children:
            if child.process is None:
                if now >= child.restart_at:
                    self.start(child)
                continue
            status = child.process.poll()
            if status is None:
                continue
            if status > 0 and not child.was_ready:
                raise ChildFailed(child.name, status)
            processes.stop([child.process], grace_seconds=0)  # what it had started itself
            if now - child.started > STABLE_SECONDS:
                child.wait_seconds = FIRST_RESTART_SECONDS
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            warning(f"{child.name} (pid {child.process.pid}) {how}; starting it again")
            child.process, child.restart_at = None, now + child.wait_seconds
            child.wait_seconds = min(child.wait_seconds * 2, LAST_RESTART_SECONDS)

    def stop(self) -> None:
        """End all."""
        processes.stop([child.process for child in self.children if child.process])


class ChildFailed(Exception):
    """A child that cannot run. It has printed its error itself."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__(f"{name} could not start")
        self.exit_code = status if status in (1, 2, 3) else 1


def read_models(models: Sequence[str]) -> dict[str, str]:
    """Name to path, from `NAME=PATH` or `PATH`.

    Raises:
        UsageError: a name is used twice or has characters that names may not have.
    """
    table: dict[str, str] = {}
    for value in models:
        name, equals, path = value.partition("=")
        if not equals or "/" in name or os.path.exists(value):
            name, path = served_name(value), value
        if not re.fullmatch(MODEL_NAME_PATTERN, name):
            raise UsageError(
                f"--model {value}: name '{name}' has characters other than letters, digits and . _ : / @ + -"
            )
        if name in table:
            raise UsageError(f"--model {value}: the name '{name}' is used twice; give another as NAME=PATH")
        table[name] = path
    return table


def make_children(options: ServeOptions, models: dict[str, str], listener_fd: int, url: str) -> list[Child]:
    """The processes to run, each with only the secrets that it needs in its environment."""
    # A secret of the user's lets workers of other machines join; else nobody but the children needs one.
    secret = auth.read_join_token() if auth.has_join_token() else auth.new_token()
    bare, with_keys = processes.child_environment(), processes.child_environment(auth.API_KEY)
    controller = [
        sys.executable,
        "-m",
        "vicuna.serve.controller",
        "--listen-fd",
        str(listener_fd),
        "--host",
        options.host,
    ]
    controller += ["--max-queue", str(options.max_queue), "--replacement-seconds", str(options.replacement_seconds)]
    controller += ["--expect", *models]
    if options.allow_host:
        controller += ["--allow-host", *options.allow_host]
    children = [Child("controller", controller, {**with_keys, auth.JOIN_TOKEN: secret.reveal()}, (listener_fd,))]
    count = len(models) * options.num_workers_per_model
    num_threads = options.num_threads or max(1, usable_cores() // count)
    flags = ["--engine", options.engine, "--num-threads", str(num_threads), "--max-slots", str(options.max_slots)]
    for name in ("template", "dtype", "device", "max_context"):
        if (value := getattr(options, name)) is not None:
            flags += [f"--{name.replace('_', '-')}", str(value)]
    # OpenMP reads this before torch can be told; a second pool of threads would fight with the first.
    worker_environment = {**bare, "OMP_NUM_THREADS": str(num_threads)}
    for model, path in models.items():
        command = [
            sys.executable,
            "-m",
            "vicuna.serve.worker",
            "--model",
            path,
            "--model-name",
            model,
            "--controller",
            url,
        ]
        token = {auth.JOIN_TOKEN: auth.token_for_model(secret, model).reveal()}
        for index in range(options.num_workers_per_model):
            name = f"worker {model}" + (f" #{index + 1}" if options.num_workers_per_model > 1 else "")
            children.append(Child(name, command + flags, {**worker_environment, **token}))
    if options.web:
        web = [sys.executable, "-m", "vicuna.serve.web", "--api-url", f"{url}/v1", "--port", str(options.web_port)]
        web += ["--allow-host", *options.allow_host] if options.allow_host else []
        children.append(Child("web page", web, with_keys))
    return children


def workers_at(url: str) -> list[JsonObject] | None:
    """The workers that have joined, or None while the controller does not answer."""
    key = auth.first_api_key()
    headers = {"Authorization": f"Bearer {key.reveal()}"} if key else {}
    request = urllib.request.Request(f"{url}/workers", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # our own address: no proxy
    try:
        with opener.open(request, timeout=2) as response:
            workers: list[JsonObject] = json.load(response)["workers"]
            return workers
    except (OSError, ValueError):
        return None


def announce(options: ServeOptions, url: str, workers: list[JsonObject], seconds: float) -> None:
    """Print what is ready and where. This is the command's result, so it goes to stdout."""
    for worker in workers:
        name = style(worker["model"], "bold")
        write(["model ", name, f": pid {worker['pid']}, template {worker['template']}, {worker['max_slots']} slots"])
    write(f"API:   {url}/v1 (OpenAI-compatible), workers at {url}/workers")
    if options.web:
        write(f"page:  http://127.0.0.1:{options.web_port}")
    write(f"ready after {human_seconds(seconds)}; Ctrl-C ends all")


def watch(supervisor: Supervisor, options: ServeOptions, url: str) -> None:
    """Check the children until told to stop; announce them once they are all ready.

    Raises:
        ChildFailed: one cannot run.
    """
    began = time.monotonic()
    is_announced = False
    while not supervisor.is_stopping:
        supervisor.check()
        time.sleep(WATCH_SECONDS)
        if is_announced or any(child.process is None for child in supervisor.children):
            continue
        if (workers := workers_at(url)) is None:
            continue
        joined = {worker["pid"] for worker in workers}
        ready = [child for child in supervisor.children if is_ready(child, joined, options)]
        for child in ready:
            child.was_ready = True
        if ready == supervisor.children:
            announce(options, url, sorted(workers, key=lambda worker: str(worker["model"])), time.monotonic() - began)
            is_announced = True


def is_ready(child: Child, joined: set[int], options: ServeOptions) -> bool:
    """Whether a child is ready, given that the controller answers.

    Args:
        joined: the process ids of the workers that the controller has.
    """
    if child.name.startswith("worker"):
        return child.process is not None and child.process.pid in joined
    if child.name == "web page":
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", options.web_port)) == 0
    return True


@command
def main(argv: list[str] | None = None) -> int:
    """Start all, watch all, end all."""
    options = parse(ServeOptions, argv, prog="vicuna serve", description=DESCRIPTION)
    models = read_models(options.model)
    auth.check_exposure(options.host, auth.read_api_keys())
    if options.engine != "sim":
        models = {name: str(model_directory(str(resolve_model(model).folder))) for name, model in models.items()}
    if options.web:
        if options.web_port == options.port:
            raise UsageError(f"--web-port {options.web_port} is the API's --port too; choose another")
        require("gradio", "web") if importlib.util.find_spec("gradio") is None else None
        with listen("127.0.0.1", options.web_port, "--web-port"):
            pass
    supervisor = Supervisor()

    def on_terminate(_number: int, _frame: FrameType | None) -> None:
        supervisor.is_stopping = True

    signal.signal(signal.SIGTERM, on_terminate)
    # The socket is opened here and handed on, so that a controller that starts again keeps the port and those who wait.
    with listen(options.host, options.port) as listener:
        url = server_url(listener, options.host)
        supervisor.children = make_children(options, models, listener.fileno(), url)
        info(f"starting {', '.join(child.name for child in supervisor.children)}")
        try:
            watch(supervisor, options, url)
        except ChildFailed as failure:
            info(str(failure))
            return failure.exit_code
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave children behind
            info("stopping")
            supervisor.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(None))
