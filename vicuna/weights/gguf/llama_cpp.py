"""A GGUF file run by llama.cpp: tokens, next-token probabilities and replies.

llama.cpp (the `xllamacpp` package) runs in a process of its own, because it aborts its process on unexpected files,
and answers over HTTP on 127.0.0.1. The process ends with this one. Used by `check`.
"""

import importlib.metadata
import json
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from vicuna.errors import VicunaError, require
from vicuna.io.jsonl import JsonObject

START_SECONDS, ANSWER_SECONDS = 600, 600
# The other process's program. It prints its address, then waits until this process closes the pipe or ends.
PROGRAM = """
import os, sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx = int(sys.argv[2])
params.n_parallel = 1
params.n_gpu_layers = 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[3])
params.warmup = False
params.port = 0
params.verbosity = 1
server = xllamacpp.Server(params)
print("listening at", server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


def is_installed() -> bool:
    """Is the package with llama.cpp installed?"""
    return find_spec("xllamacpp") is not None


class LlamaCpp:
    """A file, served. Use as a context manager.

    Args:
        context_length: the longest prompt and reply together, in tokens.

    Raises:
        VicunaError: `xllamacpp` is not installed, or llama.cpp refuses the file; the message has its error output.
    """

    def __init__(self, path: Path, context_length: int = 2048, num_threads: int = 1) -> None:
        if not is_installed():
            require("xllamacpp", "export")
        self.path = path
        self._sampled_id: int | None = None
        self.name = f"llama.cpp (xllamacpp {importlib.metadata.version('xllamacpp')})"
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        command = [sys.executable, "-P", "-c", PROGRAM, str(path.resolve()), str(context_length), str(num_threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            self._address = self._wait_for_address()
        except BaseException:
            self.close()
            raise

    def _wait_for_address(self) -> str:
        assert self._process.stdout is not None
        timer = threading.Timer(START_SECONDS, self._process.kill)
        timer.start()
        try:
            for line in self._process.stdout:
                if line.startswith("listening at "):
                    return line.split()[-1]
        finally:
            timer.cancel()
        self._process.wait()
        raise VicunaError(f"llama.cpp does not load {self.path}: {self._error_output()}")

    def _error_output(self) -> str:
        self._errors.seek(0)
        lines = [" ".join(line.split()) for line in self._errors.read().splitlines() if line.strip()]
        shown = [line for line in lines if "error" in line.lower() or "what()" in line] or lines or ["it says nothing"]
        return " / ".join(shown[:3])[:400]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the other process."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        """The ids of a text, without bos; control tokens in it are encoded as such if `parse_special`."""
        body = {"content": text, "add_special": False, "parse_special": parse_special}
        ids: list[int] = self.ask("/tokenize", body)["tokens"]
        return ids

    def log_probabilities(self, ids: list[int], count: int) -> dict[int, float]:
        """The `count` likeliest tokens after these, with the natural logarithm of their probability."""
        if self._sampled_id is None:
            self._sampled_id = self.tokenize("a", parse_special=False)[-1]
        # The server reports no probabilities for an end or half a character, so a bias makes it sample a letter; the
        # probabilities that it reports are those without the bias.
        body = {"prompt": ids, "n_predict": 1, "n_probs": count, "logit_bias": [[self._sampled_id, 1000.0]]}
        answer = self.ask("/completion", body)
        return {one["id"]: one["logprob"] for one in answer["completion_probabilities"][0]["top_logprobs"]}

    def chat(self, messages: list[dict[str, str]], max_tokens: int) -> JsonObject:
        """The greedy reply, in the OpenAI API's form."""
        body = {"messages": messages, "max_tokens": max_tokens, "temperature": 0.0}
        return self.ask("/v1/chat/completions", body)

    def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt that llama.cpp makes of a conversation with the file's chat template."""
        prompt: str = self.ask("/apply-template", {"messages": messages})["prompt"]
        return prompt

    def ask(self, path: str, body: JsonObject) -> JsonObject:
        """The answer to a request.

        Raises:
            VicunaError: llama.cpp refuses it, or has ended.
        """
        data = json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as answer:
                value: JsonObject = json.load(answer)
                return value
        except urllib.error.HTTPError as error:
            reason = error.read(400).decode("utf-8", "replace")
            raise VicunaError(f"llama.cpp refuses a request about {self.path}: {reason}") from None
        except (OSError, ValueError) as error:
            words = self._error_output() if self._process.poll() is not None else str(error)
            raise VicunaError(f"llama.cpp stopped answering about {self.path}: {words}") from None
