"""The files of a model beside its weights (tokenizer, configuration, licence): those that a copy of it gets.

Called by all that write a model or a delta: `delta`, and in `tools` `cast` and `lora`. Code is never copied.
"""

from collections.abc import Mapping
from pathlib import Path

from vicuna.io.files import copy_in_folder, leads_elsewhere, make_folder, sha256_file
from vicuna.io.log import info, warning
from vicuna.weights.files.manifest import OUR_NAMES, is_copied_verbatim

MAX_COPIED_BYTES = 256 << 20
TOKENIZER_NAMES = ("tokenizer.json", "tokenizer.model", "vocab.json")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".safetensors.index.json", ".bin.index.json")


def other_files(folder: Path) -> dict[str, Path]:
    """The files of a model beside its weights that belong to a copy of it, by name; what is left out is logged."""
    found, left_out = {}, []
    for path in sorted(folder.iterdir()):
        if leads_elsewhere(path, folder):
            left_out.append(f"{path.name} (a link out of the folder)")
        elif path.is_file() and is_copied_verbatim(path.name) and path.stat().st_size <= MAX_COPIED_BYTES:
            found[path.name] = path
        elif not path.name.endswith(WEIGHT_SUFFIXES) and path.name not in OUR_NAMES:
            left_out.append(path.name)
    if left_out:
        info(f"not copied: {', '.join(left_out)}")
    if not any(name in found for name in TOKENIZER_NAMES):
        warning(
            f"{folder} has no tokenizer (none of {', '.join(TOKENIZER_NAMES)}); copy the one it was trained with there"
        )
    return found


def copy_files(files: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """Copy files byte for byte.

    Returns:
        The hashes of the copies, by name.
    """
    make_folder(folder)
    for name, path in files.items():
        copy_in_folder(path, folder / name)
    return {name: sha256_file(folder / name) for name in files}
