"""Pre-tokenizers: how byte-level BPE splits text before it merges, in `tokenizer.json` and by llama.cpp's names.

llama.cpp has each by a name (llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_*) and cannot be given a regular expression, so a
tokenizer whose pre-tokenizer has no name there is refused: with a wrong one, digits and white space would get other
ids. `to_gguf` looks names up here, `from_gguf` expressions.
"""

import json
from dataclasses import dataclass
from typing import Any

from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+{0}"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*{0}"
)
SIGNS, SPACES = r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+|\s+(?!\S)|\s+"
SIGNS_AND_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"


@dataclass(frozen=True)
class PreTokenizer:
    """One pre-tokenizer.

    Attributes:
        name: llama.cpp's (`tokenizer.ggml.pre`).
        expression: the regular expression of its one `Split`, None for GPT-2's own.
        digits_first: whether each digit is split off before.
        ignores_merges: whether a word that is in the vocabulary becomes one token without merging.
    """

    name: str
    expression: str | None = None
    digits_first: bool = False
    ignores_merges: bool = False

    def to_json(self) -> JsonObject:
        """The `pre_tokenizer` of a `tokenizer.json`."""
        flags = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        if self.expression is None:
            last: JsonObject = {**flags, "use_regex": True}
            digits = {"type": "Digits", "individual_digits": True}
            return {"type": "Sequence", "pretokenizers": [digits, last]} if self.digits_first else last
        split = {
            "type": "Split",
            "pattern": {"Regex": self.expression},
            "behavior": "Isolated",
            "invert": False,
        }
        return {"type": "Sequence", "pretokenizers": [split, {**flags, "use_regex": False}]}


# Of two with the same expression the first is written.
PRE_TOKENIZERS = (
    PreTokenizer("gpt-2"),
    PreTokenizer("smollm", digits_first=True),
    PreTokenizer(
        "llama-bpe",
        "|".join((CONTRACTIONS, LETTERS, r"\p{N}{1,3}", SIGNS, SPACES)),
        ignores_merges=True,
    ),
    PreTokenizer("smaug-bpe", "|".join((CONTRACTIONS, LETTERS, r"\p{N}{1,3}", SIGNS, SPACES))),
    PreTokenizer("qwen2", "|".join((CONTRACTIONS, LETTERS, r"\p{N}", SIGNS, SPACES))),
    PreTokenizer(
        "tekken",
        "|".join((CASED.replace("{0}", ""), r"\p{N}", SIGNS_AND_SLASH, SPACES)),
        ignores_merges=True,
    ),
    PreTokenizer(
        "gpt-4o",
        "|".join((CASED.replace("{0}", CONTRACTIONS + "?"), r"\p{N}{1,3}", SIGNS_AND_SLASH, SPACES)),
    ),
)
# Other names of llama.cpp for the same pre-tokenizer, found in files of other tools.
ALIASES = {
    "starcoder": "smollm", "refact": "smollm", "command-r": "smollm", "codeshell": "smollm", "exaone": "smollm",
    "minerva-7b": "smollm", "mellum2": "smollm",
    "phi-2": "gpt-2", "jina-es": "gpt-2", "jina-de": "gpt-2", "gigachat": "gpt-2", "mellum": "gpt-2", "mpt": "gpt-2",
    "olmo": "gpt-2", "a.x-4.0": "gpt-2", "modern-bert": "gpt-2", "exaone4": "gpt-2", "trillion": "gpt-2",
    "llama3": "llama-bpe", "llama-v3": "llama-bpe", "falcon3": "llama-bpe", "pixtral": "llama-bpe",
    "midm-2.0": "llama-bpe", "lfm2": "llama-bpe",
    "dbrx": "smaug-bpe", "chatglm-bpe": "smaug-bpe", "glm4": "smaug-bpe",
    "deepseek-r1-qwen": "qwen2", "megrez": "qwen2", "stablelm2": "qwen2", "hunyuan": "qwen2", "kormo": "qwen2",
    "llama4": "gpt-4o", "kanana2": "gpt-4o",
}  # fmt: skip


def find_name(tokenizer: JsonObject, where: str) -> str:
    """llama.cpp's name for the pre-tokenizer of a `tokenizer.json`.

    Raises:
        VicunaError: there is none; the message says how to state one.
    """
    summary = _summary(tokenizer.get("pre_tokenizer"))
    ignores_merges = tokenizer["model"].get("ignore_merges", False) is True
    for known in PRE_TOKENIZERS:
        if summary == _summary(known.to_json()) and known.ignores_merges == ignores_merges:
            return known.name
    shown = json.dumps(tokenizer.get("pre_tokenizer"), ensure_ascii=False)[:300]
    raise VicunaError(
        f"{where}: llama.cpp is not known to have a pre-tokenizer that cuts text as this one does ({shown}); if you "
        "know its name there, state it with --pre-tokenizer NAME and prove it with --check"
    )


def get_pre_tokenizer(name: Any, where: str) -> PreTokenizer:
    """The pre-tokenizer of that name in a GGUF file.

    Raises:
        VicunaError: the name is not known here.
    """
    known = {one.name: one for one in PRE_TOKENIZERS}
    found = known.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    if found is None:
        raise VicunaError(
            f"{where} cuts text with the pre-tokenizer {name!r}; known: {', '.join({**known, **ALIASES})}"
        )
    return found


def _summary(pre_tokenizer: Any) -> tuple[Any, ...] | None:
    """The settings of a `pre_tokenizer` that decide where it splits; None if it has parts that are not known."""
    members = pre_tokenizer.get("pretokenizers") if _type(pre_tokenizer) == "Sequence" else [pre_tokenizer]
    if not isinstance(members, list) or not members or _type(members[-1]) != "ByteLevel":
        return None
    if members[-1].get("add_prefix_space"):
        return None
    parts: list[Any] = []
    for member in members[:-1]:
        pattern = member.get("pattern") if _type(member) == "Split" else None
        if isinstance(pattern, dict) and member.get("behavior") in ("Isolated", "Removed"):
            # `Removed` and inverted keeps what matches; these expressions match everything, so it is the same.
            is_inverted = member.get("behavior") == "Removed" and member.get("invert") is True
            is_plain = member.get("behavior") == "Isolated" and not member.get("invert")
            if not (is_inverted or is_plain):
                return None
            parts.append(("split", str(pattern.get("Regex")).replace("\r", r"\r").replace("\n", r"\n")))
        elif _type(member) == "Digits" and member.get("individual_digits"):
            parts.append(("digits",))
        else:
            return None
    return (*parts, members[-1].get("use_regex", True))


def _type(member: Any) -> Any:
    return member.get("type") if isinstance(member, dict) else None
