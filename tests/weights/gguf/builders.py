"""Tiny random models of the LLaMA family in folders, each with a real tokenizer of one of the kinds that there are."""

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tests.weights.builders import to_bytes
from vicuna.conversation import load_tokenizer
from vicuna.weights.files.checkpoint import CheckpointReader, write_checkpoint
from vicuna.weights.files.tensors import Tensor, split_into_shards
from vicuna.weights.gguf.to_gguf import export_gguf
from vicuna.weights.gguf.types import FILE_TYPES
from vicuna.weights.gguf.vocabulary.pre_tokenizers import PRE_TOKENIZERS

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and then it does so again, 123 times in 2023.",
    "def f(x):\n    return x ** 2  # squares\n\nprint(f(3))\nfor i in range(10):\n\tpass\n",
    "It's what they'll say: we're here, I'd go, you've been. WE'RE HERE, I'LL GO.",
    "Naïve café, Ünïcödé. 日本語のテキスト。Привет, мир! مرحبا",
    "hello   world,    with  spaces\n\n\nand lines\r\n",
] * 30
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
F16 = FILE_TYPES["f16"]
MORE_STRINGS = ("", " ", "\n", "\n\n  x", "a  b   c    d", "it's 12 345, we'LL\r\n\tgo", "ﬁ ﬀ", "x\u0301\u0323")
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors that transformers gives such a model."""
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for number in range(config["num_hidden_layers"]):
        layer: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (hidden,),
            "self_attn.q_proj.weight": (queries, hidden),
            "self_attn.k_proj.weight": (keys, hidden),
            "self_attn.v_proj.weight": (keys, hidden),
            "self_attn.o_proj.weight": (hidden, queries),
            "post_attention_layernorm.weight": (hidden,),
            "mlp.gate_proj.weight": (wide, hidden),
            "mlp.up_proj.weight": (wide, hidden),
            "mlp.down_proj.weight": (hidden, wide),
        }
        with_bias = ["q_proj", "k_proj", "v_proj"] if config["model_type"] == "qwen2" else []
        with_bias = ["q_proj", "k_proj", "v_proj", "o_proj"] if config.get("attention_bias") else with_bias
        layer |= {f"self_attn.{one}.bias": layer[f"self_attn.{one}.weight"][:1] for one in with_bias}
        if config["model_type"] == "qwen3":
            layer |= {"self_attn.q_norm.weight": (head,), "self_attn.k_norm.weight": (head,)}
        found |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    found["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    return found


def make_model(
    folder: Path, tokenizer: Path, dtype: str = "F32", scale: float = 0.15, shard_bytes: int = 1 << 30, **changes: Any
) -> Path:
    """A model whose weights are random, with the tokenizer files of another folder."""
    shutil.copytree(tokenizer, folder)
    vocab_size = len(json.loads((folder / "vocabulary.json").read_text("utf-8")))
    (folder / "vocabulary.json").unlink()
    config = {**CONFIG, "vocab_size": vocab_size, **changes}
    config["architectures"] = [CLASSES.get(config["model_type"], "Unknown")]
    config = {key: value for key, value in config.items() if value is not None}
    random = np.random.default_rng(0)
    data = {
        name: to_bytes(random.normal(1 if name.endswith("norm.weight") else 0, scale, shape).astype("<f4"), dtype)
        for name, shape in shapes(config).items()
    }
    tensors = [Tensor(name, dtype, shape) for name, shape in shapes(config).items()]
    shards, index = split_into_shards(tensors, max_shard_bytes=shard_bytes)
    write_checkpoint(folder, shards, index, lambda tensor: [data[tensor.name]])
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_vocabulary(folder: Path, tokens: list[str]) -> Path:
    """Note the vocabulary for `make_model`."""
    (folder / "vocabulary.json").write_text(json.dumps(tokens))
    return folder


def real_sentencepiece(folder: Path, version: str = "tokenizer.model.v1", **config: Any) -> Path:
    """A real 32,000-piece tokenizer of the LLaMA kind."""
    import sentencepiece

    folder.mkdir(parents=True)
    shutil.copy(Path(str(resources.files("mistral_common") / "data" / version)), folder / "tokenizer.model")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    said = {"tokenizer_class": "LlamaTokenizer", **special, "legacy": True, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return write_vocabulary(folder, [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())])


def small_sentencepiece(folder: Path, **options: Any) -> Path:
    """One trained here."""
    import sentencepiece

    folder.mkdir(parents=True)
    defaults = {
        "vocab_size": 500, "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False, "character_coverage": 0.98, "allow_whitespace_only_pieces": True,
    }  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in CORPUS for line in text.splitlines()),
        model_prefix=str(folder / "tokenizer"),
        minloglevel=2,
        **{**defaults, **options},
    )
    (folder / "tokenizer.vocab").unlink()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", **special, "legacy": True})
    )
    return write_vocabulary(folder, [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())])


def byte_level(folder: Path, pre: str, special: tuple[str, ...] = (), vocab_size: int = 700, **config: Any) -> Path:
    """A byte-level BPE tokenizer trained here, which cuts text as llama.cpp's `pre` does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    cut = next(one for one in PRE_TOKENIZERS if one.name == pre)
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE(ignore_merges=cut.ignores_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # Trained with the cut itself: written as JSON and read back.
    shell = json.loads(tokenizer.to_str())
    shell["pre_tokenizer"] = cut.to_json()
    tokenizer = Tokenizer.from_str(json.dumps(shell))
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    names = ("<|begin|>", "<|finish|>", *special)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": names[0], "eos_token": names[1], **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    ordered = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda pair: pair[1])
    return write_vocabulary(folder, [text for text, _ in ordered])


def exported(folder: Path, **changes: Any) -> Path:
    file = folder / "model.gguf"
    export_gguf(folder, file, F16, **changes)
    return file


def same_weights(one: Path, other: Path) -> None:
    with CheckpointReader(one) as ours, CheckpointReader(other) as theirs:
        assert set(ours.tensors) == set(theirs.tensors)
        for name, tensor in ours.tensors.items():
            assert (tensor.dtype, tensor.shape) == (theirs.tensors[name].dtype, theirs.tensors[name].shape), name
            assert ours.read(name) == theirs.read(name), name


def transformers_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, untyped: tests call more of it than the programs do."""
    return load_tokenizer(folder)
