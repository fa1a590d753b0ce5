"""A model's descriptive metadata (name, licence, source, languages), from its README and from flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vicuna.errors import require
from vicuna.io.jsonl import JsonObject
from vicuna.io.log import warning
from vicuna.io.terminal import printable
from vicuna.weights.gguf.container import Value, ValueType, array, string, uint32

MAX_FRONT_MATTER_BYTES = 256 << 10  # the largest known, of results on hundreds of benchmarks, have 140 KiB
MAX_FRONT_MATTER_NESTING = 16
MAX_VALUES = 256  # of a list in it: tags, languages, base models
MAX_VALUE_CHARACTERS = 500
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
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            beginning = file.read(MAX_FRONT_MATTER_BYTES).decode("utf-8", "replace").removeprefix("\ufeff")
    except OSError:
        return {}
    first, *lines = beginning.splitlines() or [""]
    if first.rstrip() != "---":
        return {}
    end = next((number for number, line in enumerate(lines) if line.rstrip() == "---"), None)
    yaml = require("yaml", "export")
    try:
        if end is None:
            raise ValueError(f"it has no end within {MAX_FRONT_MATTER_BYTES:,} bytes")
        value = _load_yaml(yaml, "\n".join(lines[:end]))
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        reason = printable(" ".join(str(error).split()), limit=200)
        warning(
            f"{path}: the front matter is not YAML that is read ({reason}); licence and languages are not taken from it"
        )
        return {}
    return value if isinstance(value, dict) else {}


def _load_yaml(yaml: Any, text: str) -> Any:
    """A YAML document without aliases, whose few bytes could stand for any number of values."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {event.start_mark.line + 2} has an alias; none is taken")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_FRONT_MATTER_NESTING:
            raise ValueError(f"it is nested more than {MAX_FRONT_MATTER_NESTING} deep, the most that is taken")
    return yaml.load(text, Loader=loader)


def size_label(num_parameters: int) -> str:
    """`135M`, `6.7B`: the number of parameters with two digits or more."""
    units = {"T": 10**12, "B": 10**9, "M": 10**6, "K": 10**3}
    name = next((name for name, unit in units.items() if num_parameters >= unit), "K")
    count = num_parameters / units[name]
    return f"{count:.0f}{name}" if count >= 9.5 else f"{count:.1f}{name}"


def _text(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value):
        return None
    return printable(str(value), limit=MAX_VALUE_CHARACTERS)


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for one in values[:MAX_VALUES] if (text := _text(one))]
