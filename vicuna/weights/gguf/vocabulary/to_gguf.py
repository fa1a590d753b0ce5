"""A model folder's tokenizer to GGUF metadata.

Two kinds: sentencepiece (`tokenizer.model`; or the same as `tokenizer.json` with byte fallback, as transformers 5 saves
it, from whose merges equivalent scores are computed) and byte-level BPE (`tokenizer.json`). Tokens that were added
later come from whichever of `tokenizer_files` has them. `from_gguf` is the inverse.
"""

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vicuna.conversation import load_template
from vicuna.errors import VicunaError, require
from vicuna.io.jsonl import JsonObject
from vicuna.io.log import warning
from vicuna.io.model_files import MAX_TOKENIZER_BYTES, read_model_bytes
from vicuna.weights.gguf.container import Value, ValueType, array, boolean, string, uint32
from vicuna.weights.gguf.vocabulary.pre_tokenizers import find_name
from vicuna.weights.gguf.vocabulary.tokenizer_files import SPECIAL_NAMES, AddedToken, TokenizerFiles, list_of


class TokenType(enum.IntEnum):
    """The type of a token (`tokenizer.ggml.token_type`; sentencepiece has the same numbers)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


SPACE = "▁"
LEGACY_KEY = "vicuna.tokenizer_legacy"  # a metadata key of our own, for imports
ADDED_SCORE, PADDING_SCORE = -1000.0, -10000.0
BPE, UNIGRAM = 2, 1  # sentencepiece's TrainerSpec.ModelType
# Tokens at which llama.cpp ends a reply because of their text (llama-vocab.cpp), whatever the metadata say.
KNOWN_ENDS = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>", "</s>",
    "<|eom_id|>", "<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>",
}  # fmt: skip


@dataclass
class Vocabulary:
    """A tokenizer as GGUF has it.

    Attributes:
        model: `llama` (sentencepiece BPE) or `gpt2` (byte-level BPE).
        pre: llama.cpp's name of the pre-tokenizer.
        tokens, token_types: by id, one for each row of the embedding.
        scores: sentencepiece's, by id.
        merges: byte-level BPE's, in order.
        ids: special tokens by llama.cpp's name: bos, eos, eot, eom, unknown, padding.
        is_legacy: whether sentencepiece puts a space before what follows a control token, as llama.cpp always does.
        templates: chat templates by name; `default` is used unless another is asked for.
    """

    model: str
    pre: str
    tokens: list[str]
    token_types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    add_bos: bool = False
    add_eos: bool = False
    add_space_prefix: bool | None = None
    is_legacy: bool | None = None
    templates: dict[str, str] = field(default_factory=dict)

    def metadata(self) -> dict[str, Value]:
        """The file's metadata."""
        values = {
            "model": string(self.model),
            "pre": string(self.pre),
            "tokens": array(ValueType.STRING, self.tokens),
            **({"scores": array(ValueType.FLOAT32, self.scores)} if self.scores else {}),
            "token_type": array(ValueType.INT32, self.token_types),
            **({"merges": array(ValueType.STRING, self.merges)} if self.model == "gpt2" else {}),
            **{f"{name}_token_id": uint32(index) for name, index in self.ids.items()},
            "add_bos_token": boolean(self.add_bos),
            "add_eos_token": boolean(self.add_eos),
        }
        if self.add_space_prefix is not None:
            values["add_space_prefix"] = boolean(self.add_space_prefix)
        metadata = {f"tokenizer.ggml.{name}": value for name, value in values.items()}
        if self.is_legacy is not None:
            metadata[LEGACY_KEY] = boolean(self.is_legacy)
        if "default" in self.templates:
            metadata["tokenizer.chat_template"] = string(self.templates["default"])
        if others := sorted(set(self.templates) - {"default"}):
            metadata["tokenizer.chat_templates"] = array(ValueType.STRING, others)
            metadata |= {f"tokenizer.chat_template.{name}": string(self.templates[name]) for name in others}
        return metadata


def read_vocabulary(folder: Path, num_rows: int, pre_tokenizer: str | None = None) -> Vocabulary:
    """The tokenizer in a model's folder.

    Args:
        num_rows: rows of the embedding; ids beyond the tokenizer's are filled with unused tokens.
        pre_tokenizer: llama.cpp's name for a pre-tokenizer that is not known here.

    Raises:
        VicunaError: there is no tokenizer, it is damaged or of another kind, or it has more tokens than there are rows.
    """
    files = TokenizerFiles(folder)
    added = files.added_tokens()
    if (folder / "tokenizer.model").is_file() and not _is_byte_level(files.tokenizer):
        vocabulary = _from_sentencepiece(folder / "tokenizer.model", added, num_rows)
        if (adds_space := files.config.get("add_prefix_space")) is not None:
            vocabulary.add_space_prefix = adds_space is True
    elif files.tokenizer is None:
        raise VicunaError(f"{folder} has neither tokenizer.model nor tokenizer.json; copy its base model's files there")
    elif _is_byte_level(files.tokenizer):
        vocabulary = _from_byte_level(files, added, num_rows, pre_tokenizer)
    else:
        vocabulary = _from_merges(files, added, num_rows)
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    vocabulary.ids = _special_ids(files, ids)
    vocabulary.add_bos, vocabulary.add_eos = files.adds(vocabulary.model == "llama")
    if vocabulary.add_bos and "bos" not in vocabulary.ids:
        vocabulary.add_bos = False
    if vocabulary.add_eos and "eos" not in vocabulary.ids:
        vocabulary.add_eos = False
    vocabulary.templates = files.templates()
    if vocabulary.model == "llama":
        vocabulary.is_legacy = files.config.get("legacy", False) is True
    return vocabulary


def _is_byte_level(tokenizer: JsonObject | None) -> bool:
    """Whether a `tokenizer.json` is BPE over bytes that are written as letters, as GPT-2's."""
    if tokenizer is None or tokenizer["model"].get("type") not in ("BPE", None):
        return False
    return '"ByteLevel"' in json.dumps([tokenizer.get("pre_tokenizer"), tokenizer.get("decoder")])


def _from_sentencepiece(path: Path, added: dict[int, AddedToken], num_rows: int) -> Vocabulary:
    require("google.protobuf", "export")
    proto = require("sentencepiece.sentencepiece_model_pb2", "export").ModelProto()
    try:
        proto.ParseFromString(read_model_bytes(path, MAX_TOKENIZER_BYTES))
    except Exception as error:  # protobuf's own, which is no subclass of anything narrower
        raise VicunaError(f"{path} is no sentencepiece model ({error}); copy it from the base model again") from None
    if not proto.pieces:
        raise VicunaError(f"{path} is no sentencepiece model: it has no pieces; copy it from the base model again")
    if proto.trainer_spec.model_type != BPE:
        kind = "unigram" if proto.trainer_spec.model_type == UNIGRAM else "word or character"
        raise VicunaError(f"{path} is a {kind} model; llama.cpp would cut its texts as BPE, into other tokens")
    normalizer = proto.normalizer_spec
    if normalizer.precompiled_charsmap or normalizer.remove_extra_whitespaces:
        warning(f"{path} rewrites texts (normalizer {normalizer.name!r}); llama.cpp does not: some get other tokens")
    tokens = [piece.piece for piece in proto.pieces]
    kinds: list[int] = [piece.type for piece in proto.pieces]
    scores = [float(piece.score) for piece in proto.pieces]
    tokens = [
        text.replace(SPACE, " ") if kind == TokenType.USER_DEFINED else text
        for text, kind in zip(tokens, kinds, strict=True)
    ]
    vocabulary = Vocabulary("llama", "default", tokens, kinds, scores, add_space_prefix=normalizer.add_dummy_prefix)
    _add(vocabulary, added, num_rows, path.parent)
    return vocabulary


def _from_merges(files: TokenizerFiles, added: dict[int, AddedToken], num_rows: int) -> Vocabulary:
    """Sentencepiece's BPE saved as `tokenizer.json`, with scores that give its merges in the same order."""
    path = files.folder / "tokenizer.json"
    assert files.tokenizer is not None
    model = files.tokenizer["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise VicunaError(
            f"{path} is a {model.get('type')} tokenizer that is neither byte-level nor sentencepiece's BPE; "
            "llama.cpp has none like it that is known here"
        )
    tokens = _tokens(model.get("vocab"), path)
    scores: dict[str, float] = {}
    for rank, (left, right) in enumerate(_merges(model.get("merges"), path)):
        scores.setdefault(left + right, -float(rank))
    lowest = -float(len(scores) + len(tokens))

    def kind(text: str) -> TokenType:
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return TokenType.BYTE
        return TokenType.UNKNOWN if text == model.get("unk_token") else TokenType.NORMAL

    vocabulary = Vocabulary(
        "llama",
        "default",
        tokens,
        [kind(text) for text in tokens],
        [scores.get(text, lowest) for text in tokens],
        add_space_prefix=_adds_space(files.tokenizer),
    )
    _add(vocabulary, added, num_rows, files.folder)
    return vocabulary


def _adds_space(tokenizer: JsonObject) -> bool:
    """Whether a `tokenizer.json` puts a space before a text."""
    text = json.dumps([tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")], ensure_ascii=False)
    return any(part in text for part in ('"Prepend"', '"prepend_scheme": "first"', '"prepend_scheme": "always"'))


def _from_byte_level(
    files: TokenizerFiles, added: dict[int, AddedToken], num_rows: int, pre_tokenizer: str | None
) -> Vocabulary:
    path = files.folder / "tokenizer.json"
    assert files.tokenizer is not None
    model = files.tokenizer["model"]
    tokens = _tokens(model.get("vocab"), path)
    merges = [f"{left} {right}" for left, right in _merges(model.get("merges"), path)]
    vocabulary = Vocabulary(
        "gpt2",
        pre_tokenizer or find_name(files.tokenizer, str(path)),
        tokens,
        [TokenType.NORMAL] * len(tokens),
        merges=merges,
    )
    _add(vocabulary, added, num_rows, files.folder)
    return vocabulary


def _tokens(vocab: Any, path: Path) -> list[str]:
    """The tokens by id; empty texts for ids without a token."""
    if not isinstance(vocab, dict) or not all(type(index) is int and index >= 0 for index in vocab.values()):
        raise VicunaError(f"{path} has no vocabulary of tokens and ids; copy it from the base model again")
    size = max(vocab.values(), default=-1) + 1
    if size > 10 * len(vocab) + 1000 or len(set(vocab.values())) != len(vocab):
        raise VicunaError(f"{path}: its ids are not those of a vocabulary of {len(vocab)} tokens; copy it again")
    tokens = [""] * size
    for text, index in vocab.items():
        tokens[index] = text
    return tokens


def _merges(merges: Any, path: Path) -> list[tuple[str, str]]:
    pairs = []
    for merge in list_of(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise VicunaError(f"{path}: the merge {str(merge)[:60]!r} is not a pair of tokens; copy it again")
        pairs.append((pair[0], pair[1]))
    return pairs


def _add(vocabulary: Vocabulary, added: dict[int, AddedToken], num_rows: int, folder: Path) -> None:
    """Insert the added tokens, pad to the rows of the embedding, and see that no text occurs twice."""
    tokens, kinds, scores = vocabulary.tokens, vocabulary.token_types, vocabulary.scores
    last = max([len(tokens) - 1, *added])
    if last >= num_rows:
        text = added[last].text if last in added else tokens[last]
        raise VicunaError(
            f"{folder}: token {text!r} has id {last}, but the embedding has only {num_rows} rows; the tokenizer is "
            "another model's, or a token was added to it (added_tokens.json) and the model never resized"
        )
    missing = num_rows - len(tokens)
    tokens += [""] * missing
    kinds += [TokenType.UNUSED] * missing
    scores += [PADDING_SCORE] * (missing if vocabulary.model == "llama" else 0)
    for index, token in added.items():
        if tokens[index] == token.text and kinds[index] not in (TokenType.NORMAL, TokenType.USER_DEFINED):
            continue  # sentencepiece has its type already
        tokens[index] = token.text
        kinds[index] = TokenType.CONTROL if token.is_special else TokenType.USER_DEFINED
        if scores:
            scores[index] = ADDED_SCORE
    for index, text in enumerate(tokens):
        if not text:
            tokens[index], kinds[index] = f"[PAD{index}]", TokenType.UNUSED
    ids: dict[str, int] = {}
    for index, text in enumerate(tokens):
        if ids.setdefault(text, index) != index:
            raise VicunaError(
                f"{folder}: the token {text!r} has two ids, {ids[text]} and {index}, which llama.cpp refuses; "
                "remove one from the tokenizer's files"
            )


def _special_ids(files: TokenizerFiles, ids: dict[str, int]) -> dict[str, int]:
    """The ids of bos, eos, eot, eom, unknown and padding, by llama.cpp's names."""
    texts = files.special_texts()

    def configured(name: str) -> list[int]:
        values = [file.get(f"{name}_token_id") for file in (files.generation, files.model_config)]
        flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
        return [one for one in flat if type(one) is int and 0 <= one < len(ids)]

    found = {}
    for name, theirs in SPECIAL_NAMES.items():
        candidates = [ids[texts[name]]] if texts.get(name) in ids else configured(name)
        if candidates:
            found[theirs] = candidates[0]
    template = load_template(files.folder)
    stops = [ids[text] for text in (template.stop_tokens if template else ()) if text in ids]
    for text in template.stop if template else ():
        warning(f"replies end with the text {text!r}, which a GGUF file cannot say; give it as a stop string")
    _add_stops(found, [*stops, *configured("eos")], {index: text for text, index in ids.items()}.__getitem__)
    return found


def _add_stops(found: dict[str, int], stops: list[int], text_of: Callable[[int], str]) -> None:
    """Add further tokens that end a reply; GGUF has two keys for them, eot and eom."""
    for index in stops:
        if "eos" not in found:
            found["eos"] = index
        if index in (found["eos"], found.get("eot"), found.get("eom")):
            continue
        free = [name for name in ("eot", "eom") if name not in found]
        if text_of(index) == "<|eom_id|>" and "eom" in free:
            free = ["eom"]
        if free:
            found[free[0]] = index
        elif text_of(index) not in KNOWN_ENDS:
            warning(
                f"token {text_of(index)!r} ends a reply too, and GGUF has no place to say it; give it as a stop string"
            )
