"""A map on a few threads, for work that numpy, zstd or llama.cpp's code does without holding the interpreter lock."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

NUM_THREADS = min(4, os.cpu_count() or 1)

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map` on `NUM_THREADS` threads. Results come in the order of the items; items are taken as results are asked for,
    at most `NUM_THREADS` ahead, so that memory does not grow with their number."""
    pending: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(NUM_THREADS) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > NUM_THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
