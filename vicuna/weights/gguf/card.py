"""A model's descriptive metadata (name, licence, source, languages), from its README and from flags."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.errors import require
from vicuna.io.jsonl import JsonObject
from vicuna.io.log import warning
from vicuna.weights.gguf.container import Value, ValueType, array, string, uint32

FRONT_MATTER = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
MAX_README_BYTES = 1 << 20
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Card:
    """What the user states; where it is None, the README's front matter counts."""

    name: str | None = None
    license: str | None = None
    source: str | None = None


def card_metadata(folder: Path, card: Card, num_parameters: int) -> dict[str, Value]:
    """The `general.*` metadata that describe the model."""
    front_matter = read_front_matter(folder / "README.md")
    name = card.name or _text(front_matter.get("model_name")) or folder.resolve().name
    metadata = {
        "general.type": string("model"),
        "general.name": string(name),
        "general.size_label": string(size_label(num_parameters)),
    }
    license_name = card.license or _text(front_matter.get("license"))
    if license_name:
        metadata["general.license"] = string(license_name)
    if not card.license:
        for key in ("license_name", "license_link"):
            if text := _text(front_matter.get(key)):
                metadata[f"general.{key.replace('_', '.')}"] = string(text)
    if card.source:
        metadata["general.source.url"] = string(card.source)
    metadata |= _bases(_texts(front_matter.get("base_model")))
    if tags := _texts(front_matter.get("tags")):
        metadata["general.tags"] = array(ValueType.STRING, tags)
    if languages := _texts(front_matter.get("language")):
        metadata["general.languages"] = array(ValueType.STRING, languages)
    return metadata


def _bases(names: list[str]) -> dict[str, Value]:
    metadata = {"general.base_model.count": uint32(len(names))} if names else {}
    for number, name in enumerate(names):
        organization, _, model = name.rpartition("/")
        metadata[f"general.base_model.{number}.name"] = string(model)
        if organization:
            metadata[f"general.base_model.{number}.organization"] = string(organization)
            metadata[f"general.base_model.{number}.repo_url"] = string(f"{HUB}/{name}")
    return metadata


def read_front_matter(path: Path) -> JsonObject:
    """The YAML front matter of a model card; empty where there is none, or none that can be read.

    Raises:
        VicunaError: there is some, and the YAML reader (`vicuna-kit[export]`) is not installed.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            match = FRONT_MATTER.match(file.read(MAX_README_BYTES))
    except OSError:
        return {}
    if match is None:
        return {}
    yaml = require("yaml", "export")
    try:
        value = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        warning(f"{path}: the front matter is not YAML; licence and languages are not taken from it")
        return {}
    return value if isinstance(value, dict) else {}


def size_label(num_parameters: int) -> str:
    """`135M`, `6.7B`: the number of parameters with two digits or more."""
    units = {"T": 10**12, "B": 10**9, "M": 10**6, "K": 10**3}
    name = next((name for name, unit in units.items() if num_parameters >= unit), "K")
    count = num_parameters / units[name]
    return f"{count:.0f}{name}" if count >= 9.5 else f"{count:.1f}{name}"


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value) else None


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for one in values if (text := _text(one))]
