"""The JSON files of a model's tokenizer: added and special tokens, chat templates, bos and eos.

Versions of transformers have stored these in different files; they are read from wherever they are, and refused where
the files contradict each other. Used by `to_gguf`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.conversation import load_template, to_jinja
from vicuna.conversation.jinja import JINJA_FILE
from vicuna.errors import VicunaError
from vicuna.io.jsonl import JsonObject
from vicuna.io.model_files import (
    MAX_TOKENIZER_BYTES,
    MAX_TOKENIZER_PARTS,
    TOKENIZER_FILES,
    check_tokenizer_rules,
    read_model_object,
    read_model_text,
)

SPECIAL_NAMES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # Hugging Face's and GGUF's


@dataclass(frozen=True)
class AddedToken:
    """A token that was added to a tokenizer; a special one is a control token."""

    text: str
    is_special: bool


class TokenizerFiles:
    """The JSON files of a tokenizer; what is used of them is checked.

    Attributes:
        config, model_config, generation, special, tokenizer: `tokenizer_config.json`, `config.json`,
            `generation_config.json`, `special_tokens_map.json` and `tokenizer.json`; empty or None where missing.

    Raises:
        VicunaError: one of the files is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = self._read("tokenizer_config.json")
        self.model_config = self._read("config.json")
        self.generation = self._read("generation_config.json")
        self.special = self._read("special_tokens_map.json")
        self.tokenizer = self._read("tokenizer.json") or None
        if self.tokenizer is not None and not isinstance(self.tokenizer.get("model"), dict):
            raise VicunaError(f"{folder / 'tokenizer.json'} has no model in it; copy it from the base model again")

    def _read(self, name: str) -> JsonObject:
        path = self.folder / name
        if not path.is_file():
            return {}
        if name not in TOKENIZER_FILES:
            return read_model_object(path)
        value = read_model_object(path, max_bytes=MAX_TOKENIZER_BYTES, max_parts=MAX_TOKENIZER_PARTS)
        if name == "tokenizer.json":
            check_tokenizer_rules(value, str(path))
        return value

    def special_texts(self) -> dict[str, str]:
        """The texts of bos, eos, unk and pad, where the files have them."""
        texts = {}
        for name in SPECIAL_NAMES:
            for file in (self.config, self.special):
                value = file.get(f"{name}_token")
                value = value.get("content") if isinstance(value, dict) else value
                if isinstance(value, str) and value:
                    texts[name] = value
                    break
        return texts

    def added_tokens(self) -> dict[int, AddedToken]:
        """Tokens added to the tokenizer, by id."""
        others = [
            *list_of(self.config.get("additional_special_tokens")),
            *list_of(self.special.get("extra_special_tokens")),
        ]
        special = {*self.special_texts().values(), *(text for text in others if isinstance(text, str))}
        found: dict[int, AddedToken] = {}

        def add(index: Any, text: Any, is_special: bool, file_name: str) -> None:
            try:
                index = int(index)
            except (TypeError, ValueError):
                index = -1
            if not isinstance(text, str) or index < 0:
                raise VicunaError(
                    f"{self.folder / file_name}: an added token is not an id and a text; correct the file"
                )
            known = found.get(index)
            if known is not None and known.text != text:
                raise VicunaError(
                    f"{self.folder / file_name}: id {index} is {text!r} here and {known.text!r} in another file"
                )
            found[index] = AddedToken(text, is_special or text in special or (known is not None and known.is_special))

        for token in list_of((self.tokenizer or {}).get("added_tokens")):
            token = token if isinstance(token, dict) else {}
            add(token.get("id"), token.get("content"), token.get("special") is True, "tokenizer.json")
        for text, index in self._read("added_tokens.json").items():
            add(index, text, False, "added_tokens.json")
        decoder = self.config.get("added_tokens_decoder")
        for index, token in (decoder if isinstance(decoder, dict) else {}).items():
            token = token if isinstance(token, dict) else {}
            add(index, token.get("content"), token.get("special") is True, "tokenizer_config.json")
        return found

    def adds(self, default_bos: bool) -> tuple[bool, bool]:
        """Whether the tokenizer adds bos and eos to a text."""
        bos, eos = default_bos, False
        if self.tokenizer is not None:
            bos, eos = _template_adds(self.tokenizer.get("post_processor"), self.special_texts(), bos)
        flags = self.config.get("add_bos_token"), self.config.get("add_eos_token")
        return bos if flags[0] is None else flags[0] is True, eos if flags[1] is None else flags[1] is True

    def templates(self) -> dict[str, str]:
        """The chat templates by name, in Jinja; without any, the template that the model was trained with."""
        if (self.folder / JINJA_FILE).is_file():
            return {"default": read_model_text(self.folder / JINJA_FILE)}
        value = self.config.get("chat_template")
        if isinstance(value, str):
            return {"default": value}
        named = {
            one["name"]: one["template"]
            for one in list_of(value)
            if isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("template"), str)
        }
        template = load_template(self.folder)
        if not named and template is not None and template.name != "hf":
            return {"default": to_jinja(template)}
        return named


def list_of(value: Any) -> list[Any]:
    """The value if it is a list."""
    return value if isinstance(value, list) else []


def _template_adds(processor: Any, special: dict[str, str], default_bos: bool) -> tuple[bool, bool]:
    """Whether a `post_processor` adds bos and eos to a text."""
    if not isinstance(processor, dict):
        return default_bos and processor is not None, False
    for member in list_of(processor.get("processors")) or [processor]:
        if isinstance(member, dict) and member.get("type") == "TemplateProcessing":
            single = list_of(member.get("single"))
            first, last = (_special_token(one) for one in (single[:1], single[-1:]))
            return first is not None and first == special.get("bos"), last is not None and last == special.get("eos")
    return False, False


def _special_token(parts: list[Any]) -> str | None:
    """The text of the first of these parts of a template, if it is a special token."""
    token = parts[0].get("SpecialToken") if parts and isinstance(parts[0], dict) else None
    text = token.get("id") if isinstance(token, dict) else None
    return text if isinstance(text, str) else None
