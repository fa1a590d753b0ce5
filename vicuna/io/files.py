"""Atomic files and folders: written under a temporary name beside the final one, synced, then renamed.

A kill or a full disk never leaves half a file under its final name. Besides: hashes, free space, the cache folder; and
the two doors for names and links that others may have made: `open_in_folder` and `checked_name`.
"""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from vicuna.errors import VicunaError

CHUNK_BYTES = 1 << 20
MAX_NAME_BYTES = 255  # of a file: what the file systems of Linux and macOS take
# What `open_in_folder` opens: to read, to read and write, to write at the end; all but the first make a missing file.
OPEN_FLAGS = {
    "rb": os.O_RDONLY,
    "r+b": os.O_RDWR | os.O_CREAT,
    "ab": os.O_WRONLY | os.O_APPEND | os.O_CREAT,
    "a+b": os.O_RDWR | os.O_APPEND | os.O_CREAT,
    "xb": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
}
WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def vicuna_home() -> Path:
    """The folder for what is made once and kept: `$VICUNA_HOME`, or `vicuna` in the user's cache folder."""
    if home := os.environ.get("VICUNA_HOME"):
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vicuna"


def check_is_file(path: Path | str) -> None:
    """See that a file can be written under this name. (A rename onto `/dev/null` would replace the device.)

    Raises:
        VicunaError: it is a folder, a device, a pipe or a socket.
    """
    if Path(path).is_dir():
        raise VicunaError(f"{path} is a folder; give the name of a file")
    if Path(path).exists() and not Path(path).is_file():
        raise VicunaError(f"{path} is not a plain file; give the name of a file")


def open_descriptor(path: Path | str, mode: str = "rb", *, permissions: int = 0o666) -> int:
    """As `open_in_folder`, but only the descriptor, which the caller closes."""
    assert mode in OPEN_FLAGS, mode
    flags = OPEN_FLAGS[mode] | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe is not waited for
    try:
        descriptor = os.open(path, flags, permissions)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) or Path(path).is_symlink():
            raise VicunaError(f"{path} is a link, which is not followed here; remove it") from None
        if error.errno in (errno.ENXIO, errno.ENODEV):
            raise VicunaError(f"{path} is not a plain file; remove it") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise VicunaError(f"{path} is not a plain file; remove it")
    return descriptor


def open_in_folder(path: Path | str, mode: str = "rb") -> IO[bytes]:
    """Open a file of ours in a folder that others may write to: a lock, a journal, a ledger, a cache, a mark.

    A link under that name is not followed, a pipe not waited for, and what is there is not emptied: whoever may write
    in the folder could otherwise have a file of the user's read or overwritten.

    Args:
        mode: one of `OPEN_FLAGS`: "rb", "r+b", "ab" and "a+b" (made if missing), "xb" (must be new).

    Raises:
        VicunaError: it is a link, a folder, a pipe or a device.
        OSError: it cannot be opened.
    """
    descriptor = open_descriptor(path, mode)
    try:
        return os.fdopen(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise


def write_in_folder(path: Path, data: bytes) -> None:
    """Write a new file of ours in such a folder; what was there under that name is removed, and a link not followed."""
    path.unlink(missing_ok=True)
    with open_in_folder(path, "xb") as file:
        file.write(data)


def copy_in_folder(source: Path, path: Path) -> None:
    """Copy a file to a new file of ours in such a folder, as `write_in_folder` does."""
    path.unlink(missing_ok=True)
    with source.open("rb") as original, open_in_folder(path, "xb") as copy:
        shutil.copyfileobj(original, copy, CHUNK_BYTES)


def make_folder(path: Path) -> None:
    """Make a folder of ours in such a folder, unless it is there already.

    Raises:
        VicunaError: something else is there, or a link.
    """
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise VicunaError(f"{path} is a link, which is not followed here; remove it")


def checked_name(name: object, where: str, *, has_folders: bool = False) -> str:
    """The name of a file as an index, a manifest or an archive gives it, if it stays in the folder it is meant for.

    Args:
        where: what gives the name, for the message.
        has_folders: whether the name may lead into folders below, with "/".

    Raises:
        VicunaError: it is no text, empty, absolute, leads elsewhere, or holds what no file name should: a separator, a
            control character or one that cannot be seen, more than `MAX_NAME_BYTES`.
    """
    parts = name.split("/") if isinstance(name, str) and has_folders else [name]
    if not all(isinstance(part, str) and _is_plain_name(part) for part in parts):
        raise VicunaError(
            f"{where} names the file {str(name)[:MAX_NAME_BYTES]!r}, which is no plain name (no separators, no '..', "
            f"no control characters, at most {MAX_NAME_BYTES} bytes); fetch it again, from a source that you trust"
        )
    return str(name)


def _is_plain_name(name: str) -> bool:
    return (
        name.isprintable()
        and name == name.strip()
        and name not in ("", ".", "..")
        and not set(name) & {"/", "\\", ":"}
        and len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES
    )


def leads_elsewhere(path: Path, folder: Path) -> bool:
    """Whether a file of a folder is a link out of it: a copy of it would carry a file of the user's to others.

    A snapshot in the Hugging Face hub's cache, whose files are links to the repository's `blobs`, holds them.
    """
    whole, target = folder.resolve(), path.resolve()
    homes = [whole, *([whole.parent.parent / "blobs"] if whole.parent.name == "snapshots" else [])]
    return not any(target.is_relative_to(home) for home in homes)


def fsync_directory(path: Path | str) -> None:
    """Make the names in a folder durable (a rename is not, until its folder is synced)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(
    path: Path | str, mode: str = "w", *, overwrite: bool = True, follows_link: bool = True
) -> Iterator[IO[Any]]:
    """Open a file that gets its name when the block ends without an error. A symbolic link stays; its target changes.

    Args:
        follows_link: False for a file of ours in a folder that others may write to: a link there is replaced.

    Raises:
        VicunaError: the file exists and `overwrite` is false, or it is a folder or a device.
    """
    if follows_link or not Path(path).is_symlink():
        check_is_file(path)
    if Path(path).exists() and not overwrite:
        raise VicunaError(f"{path} already exists; choose another name or delete it first")
    path = _resolved(Path(path), follows_link)
    encoding = None if "b" in mode else "utf-8"
    with _named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, mode, encoding=encoding) as file:
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            fsync_directory(path.parent)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def atomic_directory(path: Path | str, *, overwrite: bool = False, follows_link: bool = True) -> Iterator[Path]:
    """Fill a temporary folder that replaces `path` when the block ends without an error. A symbolic link stays one.

    Args:
        follows_link: False for a folder of ours in one that others may write to: a link there is replaced.

    Raises:
        VicunaError: `path` is a file, or a folder that holds something and `overwrite` is false.
    """
    if not follows_link and Path(path).is_symlink():
        Path(path).unlink()
    if Path(path).exists() and not Path(path).is_dir():
        raise VicunaError(f"{path} is a file; choose another name for the folder")
    if Path(path).is_dir() and not overwrite and any(Path(path).iterdir()):
        raise VicunaError(f"{path} exists and is not empty; choose another folder or empty this one first")
    path = _resolved(Path(path), follows_link)
    with _named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            temporary.chmod(0o777 & ~_umask())
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _fsync_file(file)
            for folder in [temporary, *(entry for entry in temporary.rglob("*") if entry.is_dir())]:
                fsync_directory(folder)
            _replace_directory(temporary, path)
            fsync_directory(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _resolved(path: Path, follows_link: bool) -> Path:
    return path.resolve() if follows_link else path.parent.resolve() / path.name


def _replace_directory(source: Path, target: Path) -> None:
    """Rename `source` to `target`; a target that is not empty is renamed first, since a rename cannot replace it."""
    if not target.exists() or not any(target.iterdir()):
        os.replace(source, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    try:
        os.replace(target, old)
        os.replace(source, target)
    finally:
        if not target.exists():  # Ctrl-C or a refusal between the two: what was there comes back
            os.replace(old, target)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """System errors in the block name `path` instead of the temporary name beside it, which the user does not know.

    A failed write has no file name; the writes in such a block are into that file or folder.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            is_ours = error.errno in WRITE_ERRORS
        else:
            parts = Path(os.fsdecode(error.filename)).parts
            is_ours = any(part.startswith(f".{path.name}.") and part.endswith((".tmp", ".old")) for part in parts)
        if is_ours:
            error.filename, error.filename2 = str(path), None
        raise


def _fsync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def ensure_free_space(path: Path | str, size_bytes: int, what: str) -> None:
    """See that the disk can hold `what`, before it is begun.

    Raises:
        VicunaError: the file system of `path` (or of its nearest existing parent) has less than `size_bytes` free.
    """
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        unit, name = (2**30, "GiB") if size_bytes >= 2**30 else (2**20, "MiB")
        raise VicunaError(
            f"{what} needs {size_bytes / unit:.2f} {name} but {folder} has {free / unit:.2f} {name} free; "
            "free some or choose another disk"
        )
