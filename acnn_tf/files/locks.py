"""One process at a time in a folder that is written.

The lock is `flock` on a file `.lock` in the folder. It ends with its process,
however that ends; the file says which process it is, and goes with the lock.
"""

import contextlib
import functools
import logging
import os
import socket
import time
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # not POSIX
    fcntl = None

NAME = ".lock"
# Nobody's link, through which another file would be written.
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
# Seconds of waiting after which it is said, and between two looks.
_PATIENCE = 2.0
_PAUSE = 0.05
_LOG = logging.getLogger(__name__)


class FolderInUseError(OSError):
    """A folder to which another process, or another object, is writing."""


@contextlib.contextmanager
def locked(folder: str | os.PathLike, *, wait: bool = False) -> Iterator[None]:
    """Has a folder to itself, among all that ask for it in this way.

    A remote folder (`s3://...`), or one on a file system without `flock`, is
    not locked; a warning is logged.

    Args:
        folder: The folder. If it does not exist, it is made, and removed again
            if nothing was written to it.
        wait: Whether to wait until another process leaves the folder. After 2
            seconds a warning is logged.

    Raises:
        FolderInUseError: If the folder is in use and `wait` is false. The
            message says by which process.

    Example:

    >>> import tempfile
    >>> from acnn_tf.files.locks import locked
    >>> folder = tempfile.mkdtemp()
    >>> with locked(folder), locked(folder):
    ...     pass
    Traceback (most recent call last):
        ...
    acnn_tf.files.locks.FolderInUseError: ... is in use by process ...
    """
    folder = os.fspath(folder)
    if "://" in folder:
        _say_once(f"{folder} is not local, and so is not locked")
        yield
        return
    is_new = not os.path.exists(folder)
    path = os.path.join(folder, NAME)
    descriptor = _acquire(folder, path, wait)
    try:
        yield
    finally:
        # While the lock is held: who opened the file before will look again.
        with contextlib.suppress(OSError):
            if _is_at(descriptor, path):
                os.remove(path)
        os.close(descriptor)
        if is_new:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def try_lock(descriptor: int) -> bool | None:
    """Locks an open file or folder until it is closed: whether it could.

    `False`: another has it; `None`: there are no locks here.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _acquire(folder, path, wait):
    started, told = time.monotonic(), False
    while True:
        os.makedirs(folder, exist_ok=True)
        try:
            descriptor = os.open(path, _FLAGS, 0o666)
        except FileNotFoundError:  # whoever had it removed the folder
            continue
        has_it = try_lock(descriptor)
        if has_it is None:
            _say_once(
                f"{folder} is on a file system without locks: see that no "
                "other process writes to it"
            )
        if has_it is None or (has_it and _is_at(descriptor, path)):
            # Who has the lock; a full disk does not matter.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, _myself().encode())
            return descriptor
        owner = os.read(descriptor, 200).decode(errors="replace")
        owner = "".join(filter(str.isprintable, owner)) or "another process"
        os.close(descriptor)
        if has_it:  # of a file that its owner has just removed
            continue
        if not wait:
            raise FolderInUseError(
                f"{folder} is in use by {owner}: wait for it, or choose "
                "another folder."
            )
        if not told and time.monotonic() - started > _PATIENCE:
            _LOG.warning("%s is in use: waits for %s", folder, owner)
            told = True
        time.sleep(_PAUSE)


def _is_at(descriptor, path):
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _myself():
    return (
        f"process {os.getpid()} on {socket.gethostname()} since "
        f"{time.strftime('%H:%M:%S on %Y-%m-%d')}"
    )


@functools.cache
def _say_once(message):
    _LOG.warning(message)
