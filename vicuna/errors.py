"""The errors a user can cause, and how they read.

The lowest layer: every other module raises these, and `vicuna.options.command` turns them into one line on stderr and
an exit code. A message names the thing, the value and the way out; our own mistakes stay assertions and tracebacks.
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


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
        raise VicunaError(f"{module} is not installed: pip install 'vicuna[{extra}]'") from None
