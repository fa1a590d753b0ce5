"""All records of a run as examples, tokenized once by several processes and kept on the disk (`token_cache`).

Records that cannot be used are counted and named; more than `max_bad_share` of them stops the run, because a wrong
template or a wrong file looks like many bad records.

Before: `encode` (one record). After: `packing` (lengths) and `dataset` (tokens).
"""

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from vicuna.conversation import Template
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.errors import VicunaError
from vicuna.io import log
from vicuna.io.machine import usable_cores
from vicuna.train.batches.encode import Examples, Source, encode_chunk, read_chunks
from vicuna.train.batches.token_cache import TokenCache, TokenizedConversations, cache_key, concatenate

MAX_BAD_SHARE = 0.01
MAX_NAMED = 5
PARALLEL_BYTES = 16 << 20
"""Size of the data from which worker processes are worth their start, which takes some seconds each."""
MAX_WORKERS = 16
CHUNKS_AHEAD = 4
"""Chunks read ahead for each worker."""


def tokenize_files(
    paths: Sequence[Path],
    template: Template,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    max_bad_share: float = MAX_BAD_SHARE,
    workers: int | None = None,
    cache_dir: Path | None = None,
) -> TokenizedConversations:
    """Read, render and tokenize every record of the files, or load the tokens that an earlier run or another rank made.

    Args:
        max_bad_share: the largest share of records that may be left out, too long or malformed.
        workers: processes; by default as many as there are cores, where the files are large enough.
        cache_dir: where tokens are kept; None keeps none.

    Raises:
        VicunaError: a file that cannot be read, too many records that cannot be used, nothing left to train on.
    """
    for path in paths:
        if not path.is_file():
            raise VicunaError(f"{path}: no such file")
    num_workers = choose_workers(paths, workers)
    make = partial(_tokenized, paths, template, tokenizer, max_length, num_workers)
    if cache_dir is None:
        found = concatenate(make())
    else:
        cache = TokenCache(cache_dir, cache_key(paths, template, tokenizer, max_length))
        with cache.locked():  # whoever comes first tokenizes; the other ranks wait, and find the work done
            if loaded := cache.load():
                log.info(f"{len(loaded.ids):,} conversations were tokenized before: {cache.path}")
            found = loaded or cache.fill(make)
    check_left_out(found, ", ".join(map(str, paths)), max_length, max_bad_share)
    return found


def choose_workers(paths: Sequence[Path], workers: int | None) -> int:
    """As many processes as were asked for, or as the size of the files is worth."""
    if workers is not None:
        return workers
    if sum(path.stat().st_size for path in paths) < PARALLEL_BYTES:
        return 1
    return min(MAX_WORKERS, usable_cores())


def check_left_out(found: TokenizedConversations, where: str, max_length: int, max_bad_share: float) -> None:
    """Log the records that are left out, and refuse too many of them.

    Raises:
        VicunaError: nothing is left, or more than `max_bad_share` is left out.
    """
    num_bad = len(found.too_long) + len(found.malformed)
    total = len(found.ids) + num_bad
    reasons = []
    if found.too_long:
        reasons.append(
            f"{len(found.too_long)} of {total} conversations are longer than {max_length} tokens: "
            f"{name_some(found.too_long)}; vicuna data --max-tokens {max_length} splits them"
        )
    if found.malformed:
        more = f"; and {len(found.malformed) - 1} more" if len(found.malformed) > 1 else ""
        reasons.append(f"{len(found.malformed)} of {total} records cannot be used: {found.malformed[0]}{more}")
    if not total:
        raise VicunaError(f"{where}: nothing to train on, it has no records")
    if not found.ids:
        raise VicunaError(f"{where}: nothing to train on, {'; '.join(reasons)}")
    if num_bad > max_bad_share * total:
        raise VicunaError(
            f"{where}: {'; '.join(reasons)}; that is {num_bad / total:.1%} of all, and --max-bad-share allows "
            f"{max_bad_share:.1%} to be left out"
        )
    if reasons:
        log.warning(f"left out of {where}: {'; '.join(reasons)}")
    for message in found.malformed[1:MAX_NAMED]:
        log.warning(f"left out: {message}")


def name_some(ids: Sequence[str]) -> str:
    """The first few ids, and how many more there are."""
    named = ", ".join(ids[:MAX_NAMED])
    return named if len(ids) <= MAX_NAMED else f"{named} and {len(ids) - MAX_NAMED} more"


def _tokenized(
    paths: Sequence[Path], template: Template, tokenizer: Tokenizer, max_length: int, workers: int
) -> Iterator[Examples]:
    """The examples of the files, chunk by chunk and in order."""
    with log.Progress(None, description="tokenizing", unit="conversations") as progress, ExitStack() as stack:
        chunks = read_chunks(paths)
        if workers == 1:
            parts: Iterator[Examples] = (encode_chunk(chunk, template, tokenizer, max_length) for chunk in chunks)
        else:
            pool = ProcessPoolExecutor(
                workers,
                # Not a fork: this process may hold a GPU, and has threads.
                mp_context=get_context("spawn"),
                initializer=_begin_worker,
                initargs=(template, tokenizer, max_length),
            )
            stack.callback(pool.shutdown, cancel_futures=True)
            parts = _in_order(pool, chunks, ahead=CHUNKS_AHEAD * workers)
        for part in parts:
            progress.update(part.num_records)
            yield part


def _in_order(pool: ProcessPoolExecutor, chunks: Iterator[list[Source]], ahead: int) -> Iterator[Examples]:
    """The examples of each chunk, in order; up to `ahead` chunks wait in the pool."""
    waiting: deque[Future[Examples]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_work, chunk))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise VicunaError("a tokenizing process was killed, perhaps for memory; use --tokenize-workers 1") from None


_worker: tuple[Template, Tokenizer, int] | None = None


def _begin_worker(template: Template, tokenizer: Tokenizer, max_length: int) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by the process that started this one
    _worker = template, tokenizer, max_length


def _work(chunk: list[Source]) -> Examples:
    assert _worker is not None
    template, tokenizer, max_length = _worker
    return encode_chunk(chunk, template, tokenizer, max_length)
