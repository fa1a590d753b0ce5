"""The model that a GGUF file was made from, run by transformers: the tokens and probabilities that `check` expects."""

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicuna.conversation import load_tokenizer
from vicuna.errors import require
from vicuna.weights.files.numbers import Floats
from vicuna.weights.tools.inspect import inspect


class ReferenceModel:
    """A Hugging Face folder, run by transformers. Its weights are loaded when `logits` is first called.

    Args:
        name: what to call it in messages.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder = name, folder
        self.tokenizer = load_tokenizer(folder)
        self._sentencepiece: Any = None
        adds_space = getattr(self.tokenizer, "add_prefix_space", None) is not False
        if (folder / "tokenizer.model").is_file() and adds_space:
            # transformers 5 orders a sentencepiece model's merges by id instead of by score, which changes runs of
            # spaces; sentencepiece itself is what such models were trained with.
            module = require("sentencepiece", "export")
            with contextlib.suppress(RuntimeError, OSError):
                self._sentencepiece = module.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        self._network: Any = None

    @property
    def normalizes(self) -> bool:
        """Whether the tokenizer composes characters (NFC) first; llama.cpp never does."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        return self._sentencepiece is None and "NFC" in str(getattr(backend, "normalizer", None))

    @property
    def omits_second_space(self) -> bool:
        """Whether it puts a space before a text only if the text begins with none; llama.cpp always does."""
        if self._sentencepiece is not None:
            return False
        ids = [self.tokenize(text, parse_special=False) for text in ("x", " x", "  x")]
        return ids[0] == ids[1] != ids[2]

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        """The ids of a text, without bos; control tokens in it are encoded as such if `parse_special`."""
        if self._sentencepiece is not None and not parse_special:
            ids: list[int] = self._sentencepiece.encode(text)
            return ids
        found = self.tokenizer(
            [text], add_special_tokens=False, split_special_tokens=not parse_special, return_attention_mask=False
        )
        return list(found["input_ids"][0])

    def logits(self, ids: list[int]) -> Floats:
        """The logits after each of T tokens, over a vocabulary of V: (T, V)."""
        torch = require("torch", "train")
        transformers = require("transformers", "data")
        if self._network is None:
            transformers.utils.logging.disable_progress_bar()
            self._network = transformers.AutoModelForCausalLM.from_pretrained(
                self.folder, dtype=self._dtype(torch), local_files_only=True, trust_remote_code=False
            ).eval()
        with torch.inference_mode():
            logits = self._network(torch.tensor([ids])).logits[0]
        values: Floats = logits.float().numpy()
        return values

    def _dtype(self, torch: Any) -> Any:
        """fp32 where the memory has room for it, else the checkpoint's own dtype."""
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError):  # not on every system
            return torch.float32
        return torch.float32 if 4 * inspect(self.folder)["num_parameters"] < free * 0.7 else "auto"

    def log_probabilities(self, ids: list[int], count: int) -> dict[int, float]:
        """The `count` likeliest tokens after these, with the natural logarithm of their probability."""
        values = log_softmax(self.logits(ids)[-1])
        likeliest = np.argsort(-values)[:count]
        return {int(index): float(values[index]) for index in likeliest}


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """Natural logarithms of the probabilities: (V,)."""
    shifted = logits.astype(np.float64) - float(logits.max())
    values: NDArray[np.float64] = shifted - math.log(float(np.exp(shifted).sum()))
    return values
