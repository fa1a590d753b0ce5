"""Comparing a GGUF file with the model it was made from: tokens of hard strings, probabilities after a few texts.

The file is run by llama.cpp where `xllamacpp` is installed; else it is converted back to a folder and run by
transformers, which checks the numbers and the tokenizer's lists but not how llama.cpp uses them. Greedy replies are not
compared: llama.cpp rounds activations to 8 bits, which alone changes the winner between nearly equal tokens.
"""

import contextlib
import itertools
import math
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vicuna.conversation import (
    Message,
    Template,
    TemplateError,
    encode_prompt,
    get_template,
    load_template,
    render,
)
from vicuna.conversation.chat_template import TokenizerTemplate
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.errors import VicunaError, require
from vicuna.io.log import Progress, warning
from vicuna.io.machine import usable_cores
from vicuna.weights.files.checkpoint import check_exists
from vicuna.weights.gguf.from_gguf import GGUFModel, import_gguf
from vicuna.weights.gguf.llama_cpp import LlamaCpp, is_installed
from vicuna.weights.gguf.reference import ReferenceModel, log_softmax
from vicuna.weights.gguf.types import GGMLType

HARD_STRINGS = (
    "Hello, world!",
    " leading and trailing ",
    "  two spaces,   three    four",
    "\ttab\t\ttabs\n\n\nnewlines \n \n",
    "naïve café, Ünïcödé, e\u0301 decomposed",
    "日本語のテキスト、中文文本，한국어",
    "Привет, мир! مرحبا بالعالم שלום עולם नमस्ते",
    "🦙🚀👩‍👩‍👧‍👦 😶‍🌫️ ✅ 🇪🇺",
    "def f(x: int) -> int:\n\treturn x**2  # 3.14159e-10\n    if x != 0x1F:\n        pass\n",
    "<div class='a'>&amp; it's WE'RE don't I'LL</div>",
    "3 33 333 3333 33333 1,234,567.89 ½ ² ٣",
    "x" * 40 + "=" * 40 + "-" * 41,
    "</s> <s> <|im_start|>system<|im_end|> <|endoftext|> [INST] <unk> <0x0A>",
    "\u200b\ufeff\u00a0 zero-width\u2028line\u2029paragraph\x7f",
    "https://example.org/a?b=c&d=%20#e $\\alpha_{1}^{2}$",
    "\U0001f9ff\U000e0041\u0378\uffff",
)
TEXTS = (
    "The capital of France is Paris, and the capital of Italy is Rome. Water boils at one hundred degrees.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n",
    "Once upon a time there was a small llama that lived high in the mountains and liked to read books.",
    "If a train travels 60 miles in 1.5 hours, its average speed is 60 / 1.5 = 40 miles per hour.",
)
TURNS = (
    Message("user", "Hello! What is your name?"),
    Message("assistant", "My name is Vicuna."),
    Message("user", "And what is 2 + 2?"),
)
POSITIONS_PER_TEXT = 4
NUM_PROBABILITIES = 512  # per position; all other tokens count as one
CONTEXT_LENGTH = 512
# Nats. Measured on SmolLM2-135M, which suffers more from rounding than larger models: f32 0.00001, bf16 0.0001, f16
# 0.001, q8_0 0.005, q6_k 0.04, q4_k_m 0.07, q5_k_m 0.09, q4_0 0.44; as q8_0 with the rows of q and k left as they are
# 1.1, with a rope of 10,000 instead of 100,000 0.08.
LIMITS = {
    **dict.fromkeys((GGMLType.F32, GGMLType.F16, GGMLType.BF16), 0.02),
    GGMLType.Q8_0: 0.05,
    GGMLType.Q6_K: 0.2,
    **dict.fromkeys((GGMLType.Q5_0, GGMLType.Q5_1, GGMLType.Q5_K, GGMLType.Q4_K), 0.4),
}
COARSE_LIMIT = 1.0


@dataclass(frozen=True)
class Mismatch:
    """A text that file and model encode differently, and its ids in each."""

    text: str
    expected: list[int]
    found: list[int]

    def __str__(self) -> str:
        first = next(
            (i for i, pair in enumerate(itertools.zip_longest(self.expected, self.found)) if pair[0] != pair[1]), 0
        )
        window = slice(max(first - 1, 0), first + 4)
        return f"{self.text!r} at token {first}: {self.found[window]} instead of {self.expected[window]}"


@dataclass(frozen=True)
class Agreement:
    """How close the file's next-token probabilities are to the model's.

    Attributes:
        top_1: share of positions with the same likeliest token.
        top_5: share of the five likeliest tokens that are the same, on average.
        mean_kl, largest_kl: Kullback-Leibler divergence from model to file, in nats, over the positions.
    """

    num_positions: int
    top_1: float
    top_5: float
    mean_kl: float
    largest_kl: float


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        engine: the program that ran the file.
        num_texts: how many texts were encoded.
        limit: the mean divergence below which a correct file of these block types stays.
    """

    engine: str
    num_texts: int
    mismatches: list[Mismatch]
    agreement: Agreement
    limit: float

    def lines(self) -> list[str]:
        """As text, a line for each figure."""
        same = self.num_texts - len(self.mismatches)
        found = self.agreement
        return [
            f"run by            {self.engine}",
            f"tokens            {same} of {self.num_texts} texts the same",
            f"top-1 agreement   {found.top_1:.3f} at {found.num_positions} positions",
            f"top-5 agreement   {found.top_5:.3f}",
            f"KL divergence     {found.mean_kl:.5f} nats on average, {found.largest_kl:.5f} at most",
        ]


class Runner(Protocol):
    """A model that can be asked for tokens and probabilities."""

    name: str

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]: ...

    def log_probabilities(self, ids: list[int], count: int) -> dict[int, float]: ...


def ensure_can_check() -> None:
    """See, before a long export, that the packages for a check are installed.

    Raises:
        VicunaError: torch or transformers is missing.
    """
    require("torch", "train")
    require("transformers", "data")


def check_gguf(model: Path, file: Path) -> Report:
    """Compare `file` with the Hugging Face folder it was made from.

    Raises:
        VicunaError: one of them cannot be read or run.
    """
    check_exists(model, "the folder of the model that the file was made from")
    read = GGUFModel(file)  # so that damage is reported by our reader
    if not is_installed():
        warning("xllamacpp is not installed: the file is read back and run by transformers instead of llama.cpp")
    reference = ReferenceModel(model, "the model")
    with _runner(file) as runner, Progress(None, description="checking", unit="answers") as progress:
        mismatches, num_texts = _compare_tokens(reference, runner, read, model)
        progress.update(num_texts)
        agreement = _compare_probabilities(reference, runner, read, progress)
    return Report(runner.name, num_texts, mismatches, agreement, _limit(read))


def _limit(read: GGUFModel) -> float:
    return max(LIMITS.get(tensor.type, COARSE_LIMIT) for tensor in read.file.tensors.values())


@contextlib.contextmanager
def _runner(file: Path) -> Iterator[Runner]:
    if is_installed():
        with LlamaCpp(file, CONTEXT_LENGTH, max(1, usable_cores() // 2)) as llama_cpp:
            yield llama_cpp
        return
    with tempfile.TemporaryDirectory(prefix="vicuna-check.") as name:
        import_gguf(file, Path(name) / "model")
        yield ReferenceModel(Path(name) / "model", "transformers, read back from the file")


def _compare_tokens(
    reference: ReferenceModel, runner: Runner, read: GGUFModel, model: Path
) -> tuple[list[Mismatch], int]:
    """The texts that file and model encode differently, and how many were compared: strings, prompts."""
    mismatches, num_texts = [], 0
    if reference.normalizes:
        warning("the tokenizer composes characters (NFC) before it cuts; llama.cpp does not: decomposed text differs")
    if omits_second_space := reference.omits_second_space:
        warning("llama.cpp puts a space before a text that begins with one, too; this tokenizer does not")
    for text in HARD_STRINGS:
        text = unicodedata.normalize("NFC", text) if reference.normalizes else text
        more = " " if omits_second_space and text.startswith(" ") else ""
        expected = reference.tokenize(more + text, parse_special=False)
        found = runner.tokenize(text, parse_special=False)
        num_texts += 1
        if expected != found:
            mismatches.append(Mismatch(text, expected, found))
    template = load_template(model) or (get_template("hf") if reference.tokenizer.chat_template else None)
    if template is None:
        return mismatches, num_texts
    for turns in (TURNS[:1], TURNS):
        try:
            expected = encode_prompt(turns, template, reference.tokenizer)
            text = _prompt(turns, template, reference.tokenizer)
        except TemplateError as error:
            warning(f"prompts are not compared: {error}")
            break
        found = runner.tokenize(text, parse_special=True)
        num_texts += 1
        if expected == found:
            continue
        if read.tokenizer.model == "llama" and len(turns) > 1 and _differs_in_spaces(reference, expected, found):
            warning(
                "after a control token llama.cpp puts a space that this tokenizer (legacy: false) does not; from the "
                "second turn on, prompts differ in that"
            )
        else:
            mismatches.append(Mismatch(text, expected, found))
    return mismatches, num_texts


def _prompt(turns: tuple[Message, ...], template: Template, tokenizer: Tokenizer) -> str:
    """The prompt's text, as `encode_prompt` encodes it."""
    if template.name == "hf":
        return TokenizerTemplate(tokenizer).render(turns, [turn.content for turn in turns], add_generation_prompt=True)
    resolved = template.resolve(tokenizer.bos_token or "", tokenizer.eos_token or "")
    return render(turns, resolved, add_generation_prompt=True).text


def _differs_in_spaces(reference: ReferenceModel, expected: list[int], found: list[int]) -> bool:
    """Whether the ids are those of the same text but for spaces."""
    texts = []
    for ids in (expected, found):
        pieces = reference.tokenizer.convert_ids_to_tokens(ids)
        texts.append("".join(pieces).replace("▁", ""))
    return texts[0] == texts[1]


def _compare_probabilities(reference: ReferenceModel, runner: Runner, read: GGUFModel, progress: Progress) -> Agreement:
    kl, top_1, top_5 = [], [], []
    vocab_size = read.shape.vocab_size
    limit = min(CONTEXT_LENGTH, read.shape.context_length) - 8
    bos = reference.tokenizer.bos_token_id
    for text in TEXTS:
        ids = ([] if bos is None else [bos]) + reference.tokenize(text, parse_special=False)
        ids = ids[:limit]
        logits = reference.logits(ids)
        positions = np.linspace(len(ids) // POSITIONS_PER_TEXT, len(ids) - 1, POSITIONS_PER_TEXT).astype(int)
        for last in sorted(set(positions.tolist())):
            expected = log_softmax(logits[last])
            found = runner.log_probabilities(ids[: last + 1], min(NUM_PROBABILITIES, vocab_size))
            if not found or not np.isfinite(expected).all() or not all(map(math.isfinite, found.values())):
                raise VicunaError(f"{runner.name} or the model answers with what is no number after {text[:40]!r}")
            kl.append(_divergence(expected, found))
            ours, theirs = np.argsort(-expected)[:5], sorted(found, key=found.__getitem__, reverse=True)[:5]
            top_1.append(float(ours[0] == theirs[0]))
            top_5.append(len({*ours.tolist()} & {*theirs}) / min(5, len(ours)))
            progress.update(1)
    return Agreement(
        len(kl), float(np.mean(top_1)), float(np.mean(top_5)), max(0.0, float(np.mean(kl))), max(0.0, max(kl))
    )


def _divergence(expected: NDArray[np.float64], found: dict[int, float]) -> float:
    """Kullback-Leibler divergence from model to file, in nats, over the tokens found and all others as one.

    Args:
        expected: the model's log probabilities, (V,).
        found: the file's, by token id.
    """
    ids = np.array(list(found))
    theirs = np.array([found[index] for index in found])
    ours = expected[ids]
    total = float(np.sum(np.exp(ours) * (ours - theirs)))
    rest = 1.0 - float(np.exp(ours).sum())
    their_rest = 1.0 - float(np.exp(theirs).sum())
    if len(ids) < len(expected) and rest > 1e-9:
        total += rest * math.log(rest / max(their_rest, 1e-9))
    return total
