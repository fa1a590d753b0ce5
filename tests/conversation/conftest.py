"""Tokenizers of two kinds, and variants of them."""

import json
from typing import Any

import pytest
from tokenizers import Tokenizer


@pytest.fixture(params=["sentencepiece", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_tokenizer")


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def changed(tokenizer: Any, folder: Any, **parts: Any) -> Any:
    """The same tokenizer with other parts in its description."""
    from transformers import PreTrainedTokenizerFast

    described = json.loads(tokenizer.backend_tokenizer.to_str())
    for name, value in parts.items():
        described[name] = value
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
    )
    fast.save_pretrained(folder)
    return fast


def split(regex: str) -> dict[str, Any]:
    part = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [part, byte_level(use_regex=False)]}


def byte_level(*, use_regex: bool = True) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


@pytest.fixture(scope="session")
def tokenizers(sentencepiece_tokenizer: Any, bpe_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("kinds")
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = {"type": "Prepend", "prepend": "▁"}
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level()]}
    return {
        "sentencepiece": sentencepiece_tokenizer,
        "legacy": changed(
            sentencepiece_tokenizer,
            folder / "legacy",
            normalizer={"type": "Sequence", "normalizers": [prepend, spaces]},
            pre_tokenizer=None,
        ),
        "bpe": bpe_tokenizer,
        "digits": changed(bpe_tokenizer, folder / "digits", pre_tokenizer=digits),
        "llama-3": changed(bpe_tokenizer, folder / "llama-3", pre_tokenizer=split(LLAMA_3)),
        "unknown": changed(bpe_tokenizer, folder / "unknown", normalizer={"type": "NFKC"}),
    }
