"""Locks between processes, which the system gives back when their holder ends, after kill -9 too."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vicuna.io.files import open_descriptor

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}  # some network file systems


def lock_descriptor(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file or folder for this process alone, until the descriptor is closed.

    Returns:
        Whether it is locked; False on a file system without locks, where nobody is kept out.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
    """
    import fcntl  # not on Windows, where what needs no lock can still be imported

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


@contextmanager
def lock_file(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock file, made if need be, while the block runs. What it holds is left as it is; a link is refused.

    Yields:
        Whether it is locked (`lock_descriptor`).

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
        VicunaError: it is a link, or no plain file.
        OSError: the file cannot be opened.
    """
    descriptor = open_descriptor(path, "r+b")
    try:
        yield lock_descriptor(descriptor, wait=wait)
    finally:
        os.close(descriptor)
