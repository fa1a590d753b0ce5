"""A two-layer random LLaMA with a tokenizer trained here, and a few conversations, for every test of training."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.train.builders import (
    LORA_RANK,
    OTHER,
    SYSTEM,
    TEMPLATE,
    MakeOptions,
    load,
    make_records,
    save_llama,
    write_records,
)
from vicuna.conversation import get_template
from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.batches.token_cache import TokenizedConversations
from vicuna.train.batches.tokenize import tokenize_files
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.options import TrainOptions
from vicuna.train.ranks import CPU


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, bpe_tokenizer_directory: Path) -> Path:
    return save_llama(tmp_path_factory.mktemp("tiny") / "model", bpe_tokenizer_directory)


@pytest.fixture(scope="session")
def records_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("records") / "records.jsonl", make_records(12))


@pytest.fixture(scope="session")
def tokens(tiny_model: Path, records_file: Path) -> TokenizedConversations:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return tokenize_files([records_file], get_template(TEMPLATE), tokenizer, max_length=2048)


@pytest.fixture
def dataset(tokens: TokenizedConversations) -> ConversationDataset:
    return ConversationDataset(tokens, CPU)


@pytest.fixture
def model(tiny_model: Path) -> ConversationModel:
    return load(tiny_model)


@pytest.fixture
def make_options(tmp_path: Path, tiny_model: Path, records_file: Path) -> MakeOptions:
    """Options for a short run on the tiny model; keyword arguments replace them."""

    def make(**changes: Any) -> TrainOptions:
        defaults: dict[str, Any] = {
            "model": tiny_model,
            "data": (records_file,),
            "output_dir": tmp_path / "out",
            "max_length": 256,
            "max_steps": 6,
            "learning_rate": 1e-3,
            "save_steps": 2,
            "device": "cpu",
            "bf16": False,  # by default as the processor has it
            "token_cache": str(tmp_path / "tokens"),
        }
        return TrainOptions(**(defaults | changes))

    return make


@pytest.fixture
def dataset_with_prompts(tiny_model: Path, tmp_path: Path) -> ConversationDataset:
    """Eight records with two system prompts by turns."""
    records = make_records(8, seed=3)
    for number, record in enumerate(records):
        record["messages"].insert(0, {"role": "system", "content": (SYSTEM, OTHER)[number % 2]})
    path = write_records(tmp_path / "prompts.jsonl", records)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokens = tokenize_files([path], get_template(TEMPLATE), tokenizer, max_length=2048)
    return ConversationDataset(tokens, CPU, share_prefix=True)


@pytest.fixture
def lora_options(make_options: MakeOptions, tmp_path: Path) -> MakeOptions:
    """The same for an adapter, on more records."""
    data = write_records(tmp_path / "lora.jsonl", make_records(30))
    shape = {
        "data": (data,),
        "lora": True,
        "lora_r": LORA_RANK,
        "learning_rate": 1e-2,
        "rows_per_step": 4,
    }
    return lambda **changes: make_options(**(shape | changes))
