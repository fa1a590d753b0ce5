"""A model's folder may come from anybody: what is read of it has limits, and each refusal names file and value."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from vicuna.errors import VicunaError
from vicuna.io.model_files import (
    LARGEST,
    MAX_NESTING,
    check_config,
    check_model_files,
    check_regex,
    check_tokenizer_rules,
    read_model_bytes,
    read_model_json,
    read_model_object,
    read_model_text,
)

LLAMA = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 100, "rms_norm_eps": 1e-6}
# The regular expressions of known tokenizers: GPT-2, Llama 3, GPT-4o, DeepSeek, Qwen 3, BLOOM, StarCoder.
KNOWN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{M}]*[\p{Ll}\p{Lm}\p{M}]+(?i:'s|'t)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    r"(?:\r?\n)+(?!\r?\n)",
    r"\d(?=(?:\d{3})+\b)",
    r"[一-龥぀-ゟ゠-ヿ]+",
)
ENDLESS = (
    r"(a+)+$",
    r"(a*)*b",
    r"(?:a|b+)+",
    r"(\w+\s?)+$",
    r"((a{1,50}){1,50}){1,50}",
    r"(?:(?:x+x+)+y)",
    r"a+*",
    r"a*a*a*a*b",
    "a{2,9999}b+c+d+",
    "x" * 9_000,
    "|" * 2_000,
)


@pytest.mark.parametrize("pattern", KNOWN)
def test_regular_expressions_of_known_tokenizers_are_taken(pattern: str) -> None:
    check_regex(pattern, "tokenizer.json")


@pytest.mark.parametrize("pattern", ENDLESS)
def test_regular_expressions_that_may_take_for_ever_are_refused(pattern: str) -> None:
    with pytest.raises(VicunaError, match=r"tokenizer\.json: (the|a) regular expression") as caught:
        check_regex(pattern, "tokenizer.json")
    assert len(str(caught.value)) < 300


def test_what_is_read_is_a_plain_file_of_a_bounded_size(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 101)
    with pytest.raises(VicunaError, match=r"big has more than 100 bytes"):
        read_model_bytes(tmp_path / "big", 100)
    os.mkfifo(tmp_path / "pipe")  # nothing waits for a writer
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(VicunaError, match=f"{name} is not a plain file"):
            read_model_bytes(tmp_path / name)
    with pytest.raises(VicunaError, match="no such file"):
        read_model_bytes(tmp_path / "none")
    (tmp_path / "link").symlink_to("big")  # the hub's cache is made of links
    assert read_model_text(tmp_path / "link") == "x" * 101


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "not JSON"),
        ('{"a":' * 900 + "1" + "}" * 900, f"nested more than {MAX_NESTING} deep"),
        ("[" + "[]," * 300_000 + "1]", "some 600,001 values, and 500,000 are taken"),
        ('{"a": ' + "9" * 5_000 + "}", "not JSON that can be read"),
        ("{", "not JSON"),
    ],
)
def test_json_is_bounded(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(VicunaError, match=said) as caught:
        read_model_json(tmp_path / "config.json")
    assert "config.json" in str(caught.value) and len(str(caught.value)) < 300


def test_a_list_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(VicunaError, match="holds a list, not a JSON object"):
        read_model_object(tmp_path / "config.json")


@pytest.mark.parametrize("value", [-1, 0, 10**12, 10**30, 1.5, float("nan"), True, "7", [], {"a": 1}])
@pytest.mark.parametrize("key", [key for key in LARGEST if key != "sliding_window"])
def test_sizes_that_no_model_has_are_refused(key: str, value: Any) -> None:
    with pytest.raises(VicunaError, match=f"config.json: {key} is .*; it takes a whole number from 1 to"):
        check_config({**LLAMA, key: value}, "config.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rope_scaling": {"rope_type": {"a": 1}}}, "rope_scaling: rope_type is {'a': 1}; it takes a name"),
        ({"rope_parameters": {"rope_theta": "x"}}, "rope_theta is 'x'; it takes a number"),
        ({"rope_scaling": {"long_factor": [1.0] * 20_000}}, "takes a list of at most 16,384 numbers"),
        ({"rope_scaling": [1]}, r"rope_scaling is \[1\]; it takes a table"),
        ({"rope_theta": float("nan")}, "rope_theta is nan"),
        ({"rms_norm_eps": -1}, "rms_norm_eps is -1"),
        ({"model_type": ["llama"]}, "model_type is .*; it takes a name"),
        ({"hidden_act": "\x1b[31m" * 100}, r"hidden_act is .*\\x1b"),
    ],
)
def test_other_values_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(VicunaError, match=said) as caught:
        check_config({**LLAMA, **change}, "config.json")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_configurations_of_real_models_are_taken() -> None:
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192}
    gemma = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}, "sliding_attention": {}}
    phi = {"type": "longrope", "long_factor": [1.1] * 64, "short_factor": [1.0] * 64, "attention_factor": None}
    for change in (
        {"rope_scaling": llama3},
        {"rope_parameters": gemma},
        {"rope_scaling": phi},
        {"sliding_window": None},
    ):
        assert check_config({**LLAMA, **change}, "config.json")


def _tokenizer(**parts: Any) -> dict[str, Any]:
    return {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, **parts}


def _replace(content: str, pattern: dict[str, str]) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        (_tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}}), "repeats a repetition"),
        (
            _tokenizer(normalizer={"type": "Sequence", "normalizers": [_replace("b", {"Regex": "(a+)+"})]}),
            "normalizer: the regular expression",
        ),
        (_tokenizer(decoder=_replace("b", {"Regex": "(a|b+)+"})), "decoder: the regular expression"),
        (
            _tokenizer(normalizer={"type": "Sequence", "normalizers": [_replace("aa", {"String": "a"})] * 30}),
            r"make a text 1\.07e\+09 times as long; at most 64 times",
        ),
        (_tokenizer(normalizer=_replace("x" * 1000, {"String": "a"})), "1e\\+03 times as long"),
        (_tokenizer(normalizer={"type": "Prepend", "prepend": "x" * 1000}), "prepend is .* at most 256 characters"),
        (_tokenizer(model={"type": "Unigram", "vocab": [["a" * 10_000, 0.0]]}), "a token is .* at most 4,096"),
        (_tokenizer(model={"type": "BPE", "vocab": {"a" * 10_000: 0}}), "a token is .* at most 4,096"),
    ],
)
def test_rules_of_a_tokenizer_that_cost_more_than_a_text(tokenizer: dict[str, Any], said: str) -> None:
    with pytest.raises(VicunaError, match=said) as caught:
        check_tokenizer_rules(tokenizer, "tokenizer.json")
    assert len(str(caught.value)) < 300


def test_a_real_tokenizers_files_are_taken(bpe_tokenizer_directory: Path) -> None:
    check_model_files(bpe_tokenizer_directory)


def test_a_length_that_is_no_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    check_model_files(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": "x"}')
    with pytest.raises(VicunaError, match="model_max_length is 'x'; it takes a number"):
        check_model_files(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_every_file_beside_a_tokenizer_is_checked(tmp_path: Path, name: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(VicunaError, match=f"{name} is not a plain file"):
        check_model_files(tmp_path)
