"""A two-layer random LLaMA with a tokenizer trained here, and a few conversations, for every test of training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from vicuna.conversation import get_template
from vicuna.train.batches.dataset import ConversationDataset
from vicuna.train.batches.token_cache import TokenizedConversations
from vicuna.train.batches.tokenize import tokenize_files
from vicuna.train.model.conversation_model import ConversationModel, load_model, read_config
from vicuna.train.options import TrainOptions

TEMPLATE = "vicuna_v1.1"
WORDS = ["hello", "world", "import", "path", "return", "name", "file", "you", "how", "are", "self", "os", "value"]


def save_llama(
    folder: Path, tokenizer: Path, *, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any
) -> Path:
    """A small random LLaMA with the tokenizer of another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in tokenizer.iterdir():
        shutil.copy(file, folder / file.name)
    vocab_size = len(AutoTokenizer.from_pretrained(tokenizer))
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(**(shape | {"vocab_size": vocab_size, "num_key_value_heads": 2} | changes))
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.15)  # large enough that documents which leak would show
    model.to(dtype).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, bpe_tokenizer_directory: Path) -> Path:
    return save_llama(tmp_path_factory.mktemp("tiny") / "model", bpe_tokenizer_directory)


def make_records(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Conversations of one to three rounds of random words."""
    generator = torch.Generator().manual_seed(seed)

    def number(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    def text() -> str:
        return " ".join(WORDS[number(len(WORDS))] for _ in range(2 + number(10)))

    return [
        {
            "id": f"record-{index}",
            "messages": [
                {"role": role, "content": text()} for _ in range(1 + number(3)) for role in ("user", "assistant")
            ],
        }
        for index in range(count)
    ]


def write_records(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


@pytest.fixture(scope="session")
def records_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("records") / "records.jsonl", make_records(12))


@pytest.fixture(scope="session")
def tokens(tiny_model: Path, records_file: Path) -> TokenizedConversations:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return tokenize_files([records_file], get_template(TEMPLATE), tokenizer, max_length=2048)


@pytest.fixture
def dataset(tokens: TokenizedConversations) -> ConversationDataset:
    return ConversationDataset(tokens, torch.device("cpu"))


@pytest.fixture
def model(tiny_model: Path) -> ConversationModel:
    return load_model(tiny_model, read_config(tiny_model), torch.device("cpu"))


@pytest.fixture
def make_options(tmp_path: Path, tiny_model: Path, records_file: Path) -> Callable[..., TrainOptions]:
    """Options for a short run on the tiny model; keyword arguments replace them."""

    def make(**changes: Any) -> TrainOptions:
        defaults = {
            "model": tiny_model,
            "data": (records_file,),
            "output_dir": tmp_path / "out",
            "max_length": 256,
            "max_steps": 6,
            "learning_rate": 1e-3,
            "save_steps": 2,
            "device": "cpu",
            "token_cache": str(tmp_path / "tokens"),
        }
        return TrainOptions(**(defaults | changes))

    return make
