"""A byte-level BPE tokenizer for the tiny models."""

from pathlib import Path

import pytest

from tests.weights.gguf.builders import byte_level


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level(tmp_path_factory.mktemp("made") / "tokenizer", "gpt-2")
