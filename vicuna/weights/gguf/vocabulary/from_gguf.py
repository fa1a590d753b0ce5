"""GGUF metadata to a model folder's tokenizer files: the inverse of `to_gguf`.

A byte-level BPE vocabulary becomes `tokenizer.json`, written here in the `tokenizers` library's format, because a
conversion by a library may change ids. A sentencepiece one becomes `tokenizer.model`.
"""

import json
from pathlib import Path
from typing import Any

from vicuna.errors import VicunaError, require
from vicuna.io.jsonl import JsonObject
from vicuna.weights.gguf.config_from_gguf import Metadata
from vicuna.weights.gguf.vocabulary.pre_tokenizers import PreTokenizer, get_pre_tokenizer
from vicuna.weights.gguf.vocabulary.to_gguf import BPE, LEGACY_KEY, SPACE, TokenType

SPECIAL = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
LARGEST_VOCABULARY = 1 << 24
WRITTEN_TYPES = frozenset(TokenType) - {TokenType.NORMAL}  # sentencepiece's files omit the default
DEFAULT_IDS = {"bos": 1, "eos": 2, "unknown": 0}  # llama.cpp's for sentencepiece, where a file has none


class GGUFTokenizer:
    """The tokenizer in a file's metadata.

    Raises:
        VicunaError: there is none, it is of another kind, or its lists do not fit together.
    """

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self.path = metadata.path
        self.model = metadata.text("tokenizer.ggml.model")
        if self.model not in ("gpt2", "llama"):
            raise VicunaError(f"{self.path} has a tokenizer {self.model!r}; known: gpt2 (byte-level BPE), llama")
        self.tokens: list[str] = metadata.list_of("tokenizer.ggml.tokens", str)
        if not 0 < len(self.tokens) <= LARGEST_VOCABULARY or len(set(self.tokens)) != len(self.tokens):
            raise VicunaError(f"{self.path}: its {len(self.tokens)} tokens are no vocabulary, or one is there twice")
        kinds = [TokenType.NORMAL] * len(self.tokens)
        if "tokenizer.ggml.token_type" in metadata.values:
            kinds = metadata.list_of("tokenizer.ggml.token_type", int)
        self.token_types = self._one_per_token("token_type", kinds)
        self.pre: PreTokenizer | None = None
        self.merges: list[list[str]] = []
        self.scores: list[float] = []
        if self.model == "gpt2":
            self.pre = get_pre_tokenizer(metadata.values.get("tokenizer.ggml.pre"), str(self.path))
            self.merges = self._merges()
        else:
            self.scores = self._one_per_token("scores", metadata.list_of("tokenizer.ggml.scores", float))

    def write(self, folder: Path) -> None:
        """Write the tokenizer's files into a model's folder."""
        if self.model == "gpt2":
            text = json.dumps(self.tokenizer_json(), ensure_ascii=False)
            (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        else:
            (folder / "tokenizer.model").write_bytes(self.sentencepiece_model())

    def _one_per_token(self, what: str, values: list[Any]) -> list[Any]:
        if len(values) != len(self.tokens):
            raise VicunaError(f"{self.path} has {len(self.tokens)} tokens but {len(values)} of {what}; fetch it again")
        return values

    def _merges(self) -> list[list[str]]:
        """Pairs of tokens whose concatenation is a token; the `tokenizers` library refuses files with others."""
        known, pairs = set(self.tokens), []
        for merge in self.metadata.list_of("tokenizer.ggml.merges", str):
            left, _, right = merge.partition(" ")
            if not {left, right, left + right} <= known:
                raise VicunaError(
                    f"{self.path}: the merge {merge[:60]!r} is not of two tokens into one; fetch it again"
                )
            pairs.append([left, right])
        return pairs

    def _special(self) -> dict[str, int]:
        ids = {}
        for name in SPECIAL.values():
            key = f"tokenizer.ggml.{name}_token_id"
            default = DEFAULT_IDS.get(name) if self.model == "llama" else None
            if key in self.metadata.values or default is not None:
                index = self.metadata.size(key, default)
                if index < len(self.tokens):
                    ids[name] = index
        return ids

    def tokenizer_config(self, context_length: int) -> JsonObject:
        """`tokenizer_config.json`."""
        is_bpe = self.model == "gpt2"
        config: JsonObject = {
            # The generic class lets `tokenizer.json` alone decide the ids.
            "tokenizer_class": "PreTrainedTokenizerFast" if is_bpe else "LlamaTokenizer",
            "model_max_length": context_length,
            "clean_up_tokenization_spaces": False,
        }
        special = self._special()
        for name, key in SPECIAL.items():
            if key in special:
                config[name] = self.tokens[special[key]]
        if not is_bpe:
            config |= self._sentencepiece_config()
        if (template := self.metadata.text("tokenizer.chat_template")) is not None:
            config["chat_template"] = template
        return config

    def _sentencepiece_config(self) -> JsonObject:
        adds = {name: self.metadata.flag(f"tokenizer.ggml.add_{name}_token") for name in ("bos", "eos")}
        listed = {
            str(index): {"content": text, **FLAGS, "special": kind != TokenType.USER_DEFINED}
            for index, (text, kind) in enumerate(zip(self.tokens, self.token_types, strict=True))
            if kind in (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
        }
        return {
            "add_bos_token": adds["bos"] is not False,
            "add_eos_token": adds["eos"] is True,
            "add_prefix_space": self.metadata.flag("tokenizer.ggml.add_space_prefix") is not False,
            # Whether a space is put before what follows a control token: llama.cpp always does; our own files say it.
            "legacy": self.metadata.flag(LEGACY_KEY) is not False,
            "added_tokens_decoder": listed,
        }

    def tokenizer_json(self) -> JsonObject:
        """`tokenizer.json` of a byte-level BPE vocabulary."""
        assert self.pre is not None
        added = [
            {"id": index, "content": text, **FLAGS, "special": kind == TokenType.CONTROL}
            for index, (text, kind) in enumerate(zip(self.tokens, self.token_types, strict=True))
            if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)
        ]
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": self.pre.to_json(),
            "post_processor": self._post_processor(),
            "decoder": {**BYTE_LEVEL, "add_prefix_space": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": self.pre.ignores_merges,
                "vocab": {text: index for index, text in enumerate(self.tokens)},
                "merges": self.merges,
            },
        }

    def _post_processor(self) -> JsonObject | None:
        """The `post_processor` that adds bos and eos to a text, where the file asks for it."""
        special = self._special()
        default = self.pre is not None and self.pre.name in ("llama-bpe", "tekken")  # llama.cpp's default
        flags = {name: self.metadata.flag(f"tokenizer.ggml.add_{name}_token") for name in ("bos", "eos")}
        adds = {"bos": default if flags["bos"] is None else flags["bos"], "eos": flags["eos"] is True}
        wanted = [name for name in ("bos", "eos") if adds[name] and name in special]
        if not wanted:
            return None

        def around(*sequences: str) -> list[JsonObject]:
            parts: list[JsonObject] = []
            for number, letter in enumerate(sequences):
                ends = {
                    name: {"SpecialToken": {"id": self.tokens[special[name]], "type_id": number}} for name in wanted
                }
                parts += [ends["bos"]] if "bos" in ends else []
                parts.append({"Sequence": {"id": letter, "type_id": number}})
                parts += [ends["eos"]] if "eos" in ends else []
            return parts

        tokens = {self.tokens[special[name]]: special[name] for name in wanted}
        return {
            "type": "TemplateProcessing",
            "single": around("A"),
            "pair": around("A", "B"),
            "special_tokens": {text: {"id": text, "ids": [i], "tokens": [text]} for text, i in tokens.items()},
        }

    def sentencepiece_model(self) -> bytes:
        """`tokenizer.model`: sentencepiece's own format."""
        require("google.protobuf", "export")
        proto = require("sentencepiece.sentencepiece_model_pb2", "export").ModelProto()
        special = self._special()
        kinds = list(self.token_types)
        unknown = special.get("unknown", 0)
        if TokenType.UNKNOWN not in kinds:  # sentencepiece refuses a model without one
            kinds[unknown] = TokenType.UNKNOWN
        for text, score, kind in zip(self.tokens, self.scores, kinds, strict=True):
            piece = proto.pieces.add()
            piece.piece = text.replace(" ", SPACE) if kind == TokenType.USER_DEFINED else text
            piece.score = score
            if kind in WRITTEN_TYPES:
                piece.type = kind
        trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
        trainer.model_type = BPE
        trainer.vocab_size = len(self.tokens)
        trainer.byte_fallback = TokenType.BYTE in kinds
        trainer.unk_id, trainer.bos_id, trainer.eos_id = kinds.index(TokenType.UNKNOWN), -1, -1
        trainer.pad_id = special.get("padding", -1)
        for name in ("bos", "eos"):
            if name in special:
                setattr(trainer, f"{name}_id", special[name])
                setattr(trainer, f"{name}_piece", self.tokens[special[name]])
        trainer.unk_piece = self.tokens[trainer.unk_id]
        normalizer.name = "identity"
        normalizer.add_dummy_prefix = self.metadata.flag("tokenizer.ggml.add_space_prefix") is not False
        normalizer.remove_extra_whitespaces = False
        normalizer.escape_whitespaces = True
        data: bytes = proto.SerializeToString(deterministic=True)
        return data
