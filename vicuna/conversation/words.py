"""How a text can be cut into words whose token ids are independent of their neighbours.

Two kinds of byte-pair tokenizer allow it: byte-level ones that split at spaces (GPT-2, LLaMA 3, Qwen) and sentencepiece
ones (LLaMA, Vicuna, Mistral). Only what the tokenizer's own description proves is used: otherwise `words_of` returns
None, and `counting` tokenizes whole fragments.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vicuna.conversation.tokenizer import EncodingTokenizer

SPACE = "▁"  # how sentencepiece writes a space
# LLaMA 3's and Qwen 2's words (the pre_tokenizer in their tokenizer.json). They differ in the length of numbers.
SPLIT_REGEX = re.compile(
    re.escape(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}")
    + r"(\{1,3\})?"
    + re.escape(r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
)
GAP = "\x01"  # in a word's key: a space beside another one
START = "\x02"  # before a word's key: no space stands before it
NOTHING, WHOLE = re.compile(r"(?!)"), re.compile(r"(?s:.+)")


@dataclass(frozen=True)
class Words:
    """How to cut a text.

    Attributes:
        pattern: matches the words one after the other; concatenated they are the text.
        parts: matches the parts of a word, into which it may be cut too. A text has fewer words than parts, and parts
            recur more often.
        exceptions: a text that this matches must not be cut.
        separator: a character that is never merged with another one, and whose token stands for nothing else, so that
            many parts with one between them can be tokenized in one call; "" if there is none.
        at_spaces: whether the words are those of sentencepiece: the text between two spaces or line ends, with the
            spaces before it.
    """

    pattern: re.Pattern[str]
    parts: re.Pattern[str]
    exceptions: re.Pattern[str]
    separator: str = ""
    at_spaces: bool = False

    def can_divide(self, text: str) -> bool:
        """Whether this text may be cut."""
        return not self.exceptions.search(text) and not (self.at_spaces and (GAP in text or START in text))

    def cut(self, text: str) -> list[str]:
        """The words of a text, or several together, as keys: equal words have equal keys.

        (Splitting at a character is twice as fast as matching words by a pattern.)
        """
        if not self.at_spaces:
            return self.pattern.findall(text)
        if "  " in text:
            text = text.replace("  ", GAP + GAP).replace(GAP + " ", GAP + GAP)
        keys = text.replace("\n", " \n").split(" ")
        keys[0] = START + keys[0]
        return keys

    def text_of(self, key: str) -> str:
        """The text of a word by its key."""
        if not self.at_spaces:
            return key
        text = key[1:] if key[0:1] == START else key if key[0:1] == "\n" else " " + key
        return text.replace(GAP, " ")

    def to_json(self) -> list[Any]:
        """The attributes as JSON values."""
        return [self.pattern.pattern, self.parts.pattern, self.exceptions.pattern, self.separator, self.at_spaces]

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> "Words":
        """The reverse of `to_json`."""
        pattern, parts, exceptions, *others = values
        return cls(re.compile(pattern), re.compile(parts), re.compile(exceptions), *others)


def words_of(tokenizer: EncodingTokenizer) -> Words | None:
    """How to cut the texts of this tokenizer; None where cutting might change the ids.

    The answer is kept on the tokenizer: reading its whole vocabulary takes a tenth of a second.
    """
    kept = tokenizer.__dict__
    if "_vicuna_words" not in kept:
        kept["_vicuna_words"] = _words(tokenizer)
    words: Words | None = kept["_vicuna_words"]
    return words


def set_words(tokenizer: EncodingTokenizer, words: Words | None) -> None:
    """What `words_of` will answer for this tokenizer, where it is known from before."""
    tokenizer.__dict__["_vicuna_words"] = words


def _words(tokenizer: EncodingTokenizer) -> Words | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "to_str"):
        return None
    description = json.loads(backend.to_str())
    model = description["model"]
    if model["type"] != "BPE" or any(
        model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    ):
        return None
    # Added tokens that are words (several spaces, say) are matched before anything else, wherever they stand.
    added = [token["content"] for token in description["added_tokens"] if not token["special"]]
    if not all(added):
        return None
    if _splits_at_spaces(description["normalizer"], description["pre_tokenizer"]):
        return Words(_BYTE_LEVEL, WHOLE, _any_of(added))
    if _writes_spaces(description["normalizer"], description["pre_tokenizer"]) and not model.get("ignore_merges"):
        return _sentencepiece(model, added)
    return None


# Byte-level: a regular expression makes words before any pair is merged, and a space behind something else than white
# space always begins one. White space of other kinds stays with what is before it.
_WHITE = r"\s\u180e\u200b\ufeff"  # white space by any version of Unicode
_BYTE_LEVEL = re.compile(
    rf"[{_WHITE}]*[^{_WHITE}]+(?:(?! )[{_WHITE}]+[^{_WHITE}]+)*(?:(?! )[{_WHITE}]+\Z)?|[{_WHITE}]+"
)


def _splits_at_spaces(normalizer: Any, pre_tokenizer: Any) -> bool:
    if normalizer is not None or pre_tokenizer is None:
        return False
    parts = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    last = parts[-1]
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return False
    found = bool(last.get("use_regex", True))
    for part in parts[:-1]:
        if part["type"] == "Split" and part["behavior"] == "Isolated" and not part["invert"]:
            if not SPLIT_REGEX.fullmatch(part["pattern"].get("Regex", "")):
                return False
            found = True
        elif part["type"] != "Digits":
            return False
    return found


def _writes_spaces(normalizer: Any, pre_tokenizer: Any) -> bool:
    """Whether the only normalization is that spaces become `SPACE`, and perhaps one is put at the start."""
    if normalizer is None:
        return pre_tokenizer is not None and pre_tokenizer["type"] == "Metaspace" and not pre_tokenizer["split"]
    normalizers = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    return (
        pre_tokenizer is None
        and normalizers[-1] == replace
        and all(one["type"] == "Prepend" for one in normalizers[:-1])
    )


# Kinds of ASCII characters, but for a space and a line's end. What is not ASCII may be merged with anything.
KINDS = {"letter": "A-Za-z", "digit": "0-9", "mark": r"\x00-\x09\x0b-\x1f!-/:-@\[-`{-\x7f"}
OTHER = r"[^\x00-\x7f]+"


def _sentencepiece(model: Any, added: list[str]) -> Words | None:
    """Cut before spaces, around line ends, and between kinds of characters that no merge joins.

    Two adjacent characters are in one token only if some merge joined them: one whose left part ends with the first and
    whose right part begins with the second. LLaMA's merges never join a letter to a digit or to a mark, nor two digits,
    which leaves a third of the words to be tokenized.
    """
    if model["unk_token"] is not None and model["fuse_unk"] and not model["byte_fallback"]:
        return None
    for piece in model["vocab"]:
        if SPACE in piece.lstrip(SPACE) or ("\n" in piece and len(piece) > 1):
            return None
    merges = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    pairs = {(left[-1], right[0]) for left, right in merges}
    joined = {(_kind(left), _kind(right)) for left, right in pairs if left.isascii() and right.isascii()}
    groups: list[set[str]] = []  # kinds that are joined, in one order or the other
    for name in KINDS:
        linked = [group for group in groups if any((name, one) in joined or (one, name) in joined for one in group)]
        groups = [group for group in groups if group not in linked] + [{name}.union(*linked)]
    patterns = []
    for group in groups:
        repeats = any((one, other) in joined for one in group for other in group)
        patterns.append(f"[{''.join(KINDS[name] for name in sorted(group))}]{'+' if repeats else ''}")
    one_kind = f"(?:{'|'.join(patterns)})"
    parts = re.compile(rf"\n| *(?:{one_kind}(?:{OTHER}{one_kind}?)*|(?:{OTHER}{one_kind}?)+)| +")
    is_known = model["byte_fallback"] or "\n" in model["vocab"]
    separator = "\n" if is_known and not any("\n" in token for token in added) else ""
    return Words(re.compile(r" *+[^ \n]++|\n| ++"), parts, _any_of([*added, SPACE]), separator, at_spaces=True)


def _kind(character: str) -> str:
    return next((name for name, range_ in KINDS.items() if re.match(f"[{range_}]", character)), character)


def _any_of(texts: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, texts))) if texts else NOTHING
