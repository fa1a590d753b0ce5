"""Where batches are cleaned: in this process, in a pool of processes, or on Ray. Each runs `batches.clean_batch`.

An engine takes batches and yields parts, in any order, and holds no more than a few of either in memory.
"""

import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from vicuna.data.options import DataOptions
from vicuna.data.run.batches import Batch, Part, clean_batch
from vicuna.errors import VicunaError, require

CleanedBatches = Iterator[tuple[Batch, Part]]  # the batches without their records
Engine = Callable[[Iterable[Batch], DataOptions], CleanedBatches]


def in_process(batches: Iterable[Batch], options: DataOptions) -> CleanedBatches:
    """One after the other, in this process."""
    for batch in batches:
        yield _without_records(batch), clean_batch(batch, options)


def process_pool(num_workers: int) -> Engine:
    """An engine that cleans in worker processes, which end when this process does, however it ends.

    The engine raises:
        VicunaError: a process died; or what `clean_batch` raises.
    """

    def run(batches: Iterable[Batch], options: DataOptions) -> CleanedBatches:
        pool = _Pool(options)
        try:
            for batch in batches:
                if len(pool.busy) == num_workers:
                    yield pool.receive()
                pool.send(batch)
            while pool.busy:
                yield pool.receive()
        finally:
            pool.close()

    return run


class _Pool:
    """Worker processes, each with a pipe of its own: the end of one process closes the pipe for the other."""

    def __init__(self, options: DataOptions) -> None:
        self.busy: dict[Connection, Batch] = {}
        self._idle: list[Connection] = []
        self._processes: dict[Connection, SpawnProcess] = {}
        self._options = options
        self._context = multiprocessing.get_context("spawn")

    def send(self, batch: Batch) -> None:
        """Give a batch to an idle worker, or to a new one."""
        connection = self._idle.pop() if self._idle else self._start()
        self.busy[connection] = _without_records(batch)
        try:
            connection.send(batch)
        except OSError:
            raise self._dead(connection) from None

    def receive(self) -> tuple[Batch, Part]:
        """Wait for a worker to finish."""
        connection = next(ready for ready in wait(list(self.busy)) if isinstance(ready, Connection))
        try:
            answer = connection.recv()
        except (EOFError, OSError):
            raise self._dead(connection) from None
        if isinstance(answer, VicunaError | OSError):
            raise answer
        if not isinstance(answer, Part):
            raise RuntimeError(f"a worker failed:\n{answer}")
        self._idle.append(connection)
        return self.busy.pop(connection), answer

    def close(self) -> None:
        """End all workers, also those in the middle of a batch."""
        for connection, process in self._processes.items():
            connection.close()
            if connection in self.busy:
                process.terminate()
        for process in self._processes.values():
            process.join()

    def _start(self) -> Connection:
        mine, theirs = self._context.Pipe()
        process = self._context.Process(target=_worker_main, args=(theirs, self._options), daemon=True)
        with _without_interrupts():
            process.start()
        theirs.close()
        self._processes[mine] = process
        return mine

    def _dead(self, connection: Connection) -> VicunaError:
        batch, process = self.busy[connection], self._processes[connection]
        process.join()
        code = process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return VicunaError(
            f"a worker ended ({how}) in batch {batch.index + 1}; if memory is short, give fewer --workers "
            "(what is finished is kept: the same command goes on from there)"
        )


def _worker_main(connection: Connection, options: DataOptions) -> None:
    """Receive batches and send parts until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # With the first tokenizer transformers imports torch if it can: 270 MB and two seconds, and it is not used.
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns that it finds no torch
    sys.modules["torch"] = None  # type: ignore[assignment]
    while True:
        try:
            batch = connection.recv()
        except (EOFError, OSError):
            return
        answer: object
        try:
            answer = clean_batch(batch, options)
        except (VicunaError, OSError) as error:
            answer = error
        except Exception:
            answer = traceback.format_exc()
        try:
            connection.send(answer)
        except OSError:
            return


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which reaches them too; the main process ends them."""
    earlier = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # outside of the main thread signals cannot be set, and none arrive
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


def ray_tasks(num_workers: int) -> Engine:
    """An engine that cleans in Ray tasks: on this machine, or on the cluster that RAY_ADDRESS names.

    The machines of a cluster need this package installed.

    Raises:
        VicunaError: Ray is not installed. The engine raises what `clean_batch` raises.
    """
    library: Any = require("ray", "ray")

    def run(batches: Iterable[Batch], options: DataOptions) -> CleanedBatches:
        address = os.environ.get("RAY_ADDRESS")
        own: dict[str, Any] = {} if address else {"num_cpus": num_workers, "include_dashboard": False}
        library.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        try:
            task = library.remote(clean_batch)
            running: dict[Any, Batch] = {}
            for batch in batches:
                if len(running) == num_workers:
                    yield _first_finished(library, running)
                running[task.remote(batch, options)] = _without_records(batch)
            while running:
                yield _first_finished(library, running)
        finally:
            library.shutdown()

    return run


def _first_finished(library: Any, running: dict[Any, Batch]) -> tuple[Batch, Part]:
    (done, *_), _ = library.wait(list(running), num_returns=1)
    try:
        part: Part = library.get(done)
    except library.exceptions.RayTaskError as error:
        if isinstance(error.cause, VicunaError | OSError):
            raise error.cause from None
        raise
    return running.pop(done), part


def _without_records(batch: Batch) -> Batch:
    return Batch(batch.index, (), batch.size_bytes)
