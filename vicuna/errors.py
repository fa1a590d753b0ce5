"""The errors a user can cause, and how they read.

The lowest module: all others raise these, and `vicuna.options.command` turns them into one line on stderr and an exit
code. A message names the thing, the value and the way out; our own mistakes are assertions and tracebacks.
"""

import difflib
import errno
import importlib
import os
from collections.abc import Iterable
from types import ModuleType

# What the system says when it refuses, and the way out.
HINTS = {
    errno.ENOSPC: "no space left on its disk; free some or choose another disk",
    errno.EDQUOT: "your disk quota is used up; free some or choose another disk",
    errno.EFBIG: "it would be larger than a file may be here; choose another disk or raise the limit",
    errno.EACCES: "permission denied; choose a place you may use",
    errno.EPERM: "the system does not permit that; choose a place you may use",
    errno.EROFS: "its file system is read-only; choose another place",
    errno.ENOENT: "no such file or directory; correct the path",
    errno.EISDIR: "it is a folder; give a file",
    errno.ENOTDIR: "a part of this path is a file, not a folder; correct the path",
    errno.EEXIST: "it is there already, as something else than what is needed; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.EADDRINUSE: "the address is in use; choose another port",
}


DISTRIBUTION = "vicuna-kit"  # on the package index; `vicuna` there is another project


class VicunaError(Exception):
    """A failure the user can understand and act on. The command ends with `exit_code`."""

    exit_code = 1


class UsageError(VicunaError):
    """A flag or argument that cannot be used as given."""

    exit_code = 2


class VerificationError(VicunaError):
    """Bytes that are not what they should be: a hash, a wrong base, a damaged file."""

    exit_code = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """Text for an unknown name: the known ones, and the closest of them if one is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"known: {', '.join(names)}{hint}"


def install_command(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra brings it.

    Raises:
        VicunaError: the module is not installed; the message is the `pip install` line.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise VicunaError(f"{module} is not installed: {install_command(extra)}") from None


def describe(error: Exception) -> str:
    """One line for a person: what went wrong, with what, and the way out where one is known."""
    if not isinstance(error, OSError) or error.errno is None:
        return " ".join(str(error).split()) or type(error).__name__
    name = error.filename if error.filename is not None else "a file or address"
    return f"{_shown(name)}: {HINTS.get(error.errno, error.strerror or str(error))}"


def _shown(name: object) -> str:
    text = os.fsdecode(name) if isinstance(name, bytes) else str(name)
    return text if text.isprintable() else repr(text)
