"""Folders with small random models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.serve.engines.builders import KINDS

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def make_model(tmp_path_factory: pytest.TempPathFactory, bpe_tokenizer: Any) -> Callable[[str], tuple[Path, Any]]:
    """A directory with a random model of that kind, and the model itself in float32."""

    def make(kind: str) -> tuple[Path, Any]:
        torch.manual_seed(0)
        model = KINDS[kind]().float().eval()
        with torch.no_grad():  # biases start at zero, which would hide that they are left out
            for name, value in model.named_parameters():
                if name.endswith("bias"):
                    value.normal_(0, 0.2)
        folder = tmp_path_factory.mktemp("model")
        model.save_pretrained(folder, max_shard_size="200KB" if kind == "llama" else "50GB")
        bpe_tokenizer.save_pretrained(folder)
        return folder, model

    return make


@pytest.fixture(scope="module")
def llama(make_model: Callable[[str], tuple[Path, Any]]) -> tuple[Path, Any]:
    """The plain one."""
    return make_model("llama")
