"""What the rooms' tests share: one torch thread, no hub, and two real kinds of tokenizer."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # with two, OpenMP barriers on a busy machine cost tenfold
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# torch held below AVX-512 still takes AMX for attention in bf16, and fails (pack_vnni2).
if os.environ.get("ATEN_CPU_CAPABILITY") in {"default", "avx2"}:
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

import shutil
import signal
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun with nohup or & in a script; commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def sentencepiece_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real 32,000-piece sentencepiece tokenizer of the LLaMA kind."""
    from vicuna.conversation import load_tokenizer

    folder = tmp_path_factory.mktemp("sentencepiece")
    source = resources.files("mistral_common") / "data" / "tokenizer.model.v1"
    shutil.copy(Path(str(source)), folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    return load_tokenizer(folder)


@pytest.fixture(scope="session")
def bpe_tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer of the GPT-2 kind, trained here, with ChatML's control tokens, saved in a folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    corpus = [
        Path(__file__).read_text("utf-8"),
        Path(os.__file__).read_text("utf-8"),
        "hello world, how are you? " * 50,
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    folder = tmp_path_factory.mktemp("bpe")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
        "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bpe_tokenizer(bpe_tokenizer_directory: Path) -> Any:
    """The same, loaded."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(bpe_tokenizer_directory)
