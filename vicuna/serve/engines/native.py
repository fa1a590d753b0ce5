"""Our own engine: continuous batching over slots of a key-value cache, LLaMA family, CPU first.

Before: the worker's engine thread calls `step`. Each step is: schedule, run, advance. New requests join between steps;
a long prompt is prefilled in chunks, so that it does not hold up the replies that are already running.
After: `llama.py` computes the logits, `sampler.py` chooses a token from each row.

Slots 0 to D-1 of the cache decode; at most one more, slot D, holds a prompt that is partly prefilled. The last request
moves into a slot that becomes free, so that the decoding requests are one contiguous block of the cache.
"""

import hashlib
import json
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vicuna.conversation import check_tokenizer, load_tokenizer
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.errors import VicunaError
from vicuna.io.files import sha256_file
from vicuna.serve.engines.interface import EngineOptions, EngineRequest, FinishReason, StepOutput, model_directory
from vicuna.serve.engines.llama import Batch, Llama, PrefillChunk, weight_files
from vicuna.serve.engines.llama_config import read_config
from vicuna.serve.engines.sampler import sample
from vicuna.weights.files.detect import refuse_delta

VERSION = 1  # part of the fingerprint: raise it when a change may alter which token comes next
PREFILL_TOKENS = 256  # prompt tokens per step; bounds how long running replies wait for a new request
DEFAULT_CONTEXT = 4096
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


@dataclass
class Running:
    """A request inside the engine: its prompt and reply so far, and how many of those tokens are in the cache."""

    request: EngineRequest
    ids: list[int]
    num_cached: int = 0

    def finish_reason(self, token: int, context_size: int) -> FinishReason | None:
        """Whether the reply ends with `token`, which is not among `ids` yet."""
        if token in self.request.stop_token_ids:
            return "stop"
        num_new = len(self.ids) + 1 - self.request.prompt_length
        return "length" if num_new >= self.request.max_new_tokens or len(self.ids) + 1 >= context_size else None


class NativeEngine:
    """See the file's docstring; the interface is `vicuna.serve.engines.interface.Engine`."""

    def __init__(self, model: Llama, tokenizer: Tokenizer, fingerprint: str, max_slots: int) -> None:
        self.model, self.tokenizer, self.fingerprint, self.max_slots = model, tokenizer, fingerprint, max_slots
        self.context_size, self.vocab_size = model.context_size, model.config.vocab_size
        self.end_token_ids = frozenset(model.config.eos_token_ids)
        self.waiting: deque[Running] = deque()
        self.slots: list[Running] = []
        self.num_decoding = 0

    @property
    def is_busy(self) -> bool:
        """Whether any request is in."""
        return bool(self.slots or self.waiting)

    def submit(self, request: EngineRequest) -> None:
        """Queue a request for the next step."""
        assert 0 < len(request.input_ids) < self.context_size, "the worker checks lengths before it submits"
        self.waiting.append(Running(request, list(request.input_ids)))

    def cancel(self, request_id: str) -> None:
        """Drop a request, wherever it is."""
        self.waiting = deque(running for running in self.waiting if running.request.request_id != request_id)
        for slot, running in enumerate(self.slots):
            if running.request.request_id == request_id:
                self._free(slot)
                return

    def step(self) -> list[StepOutput]:
        """One forward: schedule, run, advance."""
        batch = self._schedule()
        logits = self.model.forward(batch)
        return self._advance(batch, logits)

    def _schedule(self) -> Batch:
        """The newest token of each decoding request, then prompt tokens up to the budget, oldest prompt first."""
        decoding = self.slots[: self.num_decoding]
        input_ids = [running.ids[-1] for running in decoding]
        positions = [len(running.ids) - 1 for running in decoding]
        slots = list(range(self.num_decoding))
        logit_indices = list(range(self.num_decoding))
        chunks: list[PrefillChunk] = []
        budget = PREFILL_TOKENS
        slot = self.num_decoding
        while budget and slot < self.max_slots and (slot < len(self.slots) or self.waiting):
            if slot == len(self.slots):
                self.slots.append(self.waiting.popleft())
            running = self.slots[slot]
            start = running.num_cached
            length = min(budget, len(running.ids) - start)
            chunks.append(PrefillChunk(slot, start, length))
            input_ids += running.ids[start : start + length]
            positions += range(start, start + length)
            slots += [slot] * length
            if start + length == len(running.ids):
                logit_indices.append(len(input_ids) - 1)
            budget -= length
            slot += 1
        return Batch(input_ids, slots, positions, self.num_decoding, chunks, logit_indices)

    def _advance(self, batch: Batch, logits: torch.Tensor) -> list[StepOutput]:
        """Sample for each request whose tokens are all in the cache now; free the slots of those that ended."""
        for chunk in batch.chunks:
            self.slots[chunk.slot].num_cached = chunk.start + chunk.length
        outputs = [StepOutput(running.request.request_id, ()) for running in self.slots[len(batch.logit_indices) :]]
        ready = self.slots[: len(batch.logit_indices)]
        self.num_decoding = len(ready)
        samplings = [running.request.sampling for running in ready]
        tokens = sample(logits, samplings, [len(running.ids) for running in ready])
        finished = []
        for slot, (running, token) in enumerate(zip(ready, tokens, strict=True)):
            reason = running.finish_reason(token, self.context_size)
            new_ids = () if reason == "stop" else (token,)
            outputs.append(StepOutput(running.request.request_id, new_ids, reason))
            running.num_cached = len(running.ids)
            running.ids += new_ids
            if reason:
                finished.append(slot)
        for slot in reversed(finished):
            self._free(slot)
        return outputs

    def _free(self, slot: int) -> None:
        """Free a slot: the last decoding request moves there, and a partly prefilled prompt to that one's slot."""
        if slot < self.num_decoding:
            self.num_decoding -= 1
            self._move(self.num_decoding, slot)
            slot = self.num_decoding
        if slot < len(self.slots) - 1:
            self._move(len(self.slots) - 1, slot)
        self.slots.pop()

    def _move(self, source: int, target: int) -> None:
        if source != target:
            self.model.move(source, target, self.slots[source].num_cached)
            self.slots[target] = self.slots[source]


def load(options: EngineOptions) -> NativeEngine:
    """Load a Hugging Face directory.

    Raises:
        VicunaError: no tokenizer, an architecture or option this engine does not have, no such device.
    """
    directory = model_directory(options.model)
    refuse_delta(directory)
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    device = _device(options.device)
    name = options.dtype or _default_dtype(device)
    if name not in DTYPES:
        raise VicunaError(f"unknown dtype '{name}'; known: {', '.join(DTYPES)}")
    limit = read_config(directory).max_positions
    context_size = options.max_context or min(limit, DEFAULT_CONTEXT)
    if context_size > limit:
        raise VicunaError(f"{directory}: context of {context_size} tokens is beyond the model's {limit}")
    check_tokenizer(directory)
    with ThreadPoolExecutor(2) as pool:  # the files are hashed while tokenizer and weights are loaded
        fingerprint = pool.submit(_fingerprint, directory, name, device)
        tokenizer = pool.submit(load_tokenizer, directory)
        model = Llama(
            directory, num_slots=options.max_slots, context_size=context_size, dtype=DTYPES[name], device=device
        )
        return NativeEngine(model, tokenizer.result(), fingerprint.result(), options.max_slots)


def _device(name: str | None) -> torch.device:
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise VicunaError(f"device '{name}' is not there; use cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise VicunaError(f"unknown device '{name}'; use cpu or cuda") from None


def _default_dtype(device: torch.device) -> str:
    """bfloat16 where the hardware multiplies it, else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def _fingerprint(directory: Path, dtype: str, device: torch.device) -> str:
    """A hash of the weights and all else that decides the next token."""
    names = [path.name for path in weight_files(directory)]
    names += [name for name in ("config.json", *TOKENIZER_FILES) if (directory / name).exists()]
    parts: dict[str, Any] = {name: sha256_file(directory / name) for name in names}
    parts |= {"engine": f"native-{VERSION}", "torch": torch.__version__, "dtype": dtype, "device": device.type}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
