"""Ranks and runs that are killed, as children of this process, which has torch loaded already."""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

from vicuna.errors import VicunaError
from vicuna.train.loop import train
from vicuna.train.options import TrainOptions

TIMEOUT_SECONDS = 240


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def on_ranks(num_ranks: int, work: Callable[[int], Any]) -> list[int]:
    """Run `work(rank)` in as many processes as `torchrun` would start.

    Returns:
        The wait status of each, in the order of their ranks. When one is killed, so are the others, as torchrun does.
    """
    port = free_port()
    children = {}
    for rank in range(num_ranks):
        child = os.fork()
        if child == 0:
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(num_ranks),
                "LOCAL_WORLD_SIZE": str(num_ranks),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            status = 1
            try:
                work(rank)
                status = 0
            except SystemExit as leaving:
                status = leaving.code if isinstance(leaving.code, int) else 1
            except VicunaError as error:
                print(f"error: {error}", file=sys.stderr)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        children[child] = rank
    return _wait_for(children)


def _wait_for(children: dict[int, int]) -> list[int]:
    statuses = [0] * len(children)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    waiting = dict(children)
    while waiting:
        for child in list(waiting):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                statuses[waiting.pop(child)] = status
                if os.WIFSIGNALED(status):
                    deadline = min(deadline, time.monotonic() + 0.2)
        if time.monotonic() > deadline:
            for child in waiting:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return statuses


def train_on_ranks(num_ranks: int, options: TrainOptions) -> None:
    """Train on so many ranks, to the end."""
    assert on_ranks(num_ranks, lambda _: train(options)) == [0] * num_ranks


def train_in_child(options: TrainOptions, kill_at: int | None) -> tuple[int, int]:
    """Train in a child process that kills itself at its nth durable event: a sync, a rename or an optimizer step.

    Returns:
        The child's wait status, and the events that it counted (0 where it was killed).
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **keywords: Any) -> Any:
                nonlocal count
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **keywords)

            return call

        status = 1
        try:
            os.fsync, os.replace = counted(os.fsync), counted(os.replace)
            torch.optim.AdamW.step = counted(torch.optim.AdamW.step)
            train(options)
            os.write(writer, str(count).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        counted_events = pipe.read()
    return os.waitpid(child, 0)[1], int(counted_events or 0)
