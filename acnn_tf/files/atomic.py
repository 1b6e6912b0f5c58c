"""Files that are replaced whole, or not at all."""

import contextlib
import errno
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence

from acnn_tf.files.locks import try_lock

_FULL = (errno.ENOSPC, errno.EDQUOT)


class WriteError(OSError):
    """A file that could not be written; what was there before still is."""


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike,
    *,
    size: int | None = None,
    errors: tuple[type[Exception], ...] = (),
) -> Iterator[str]:
    """A name to write to, which becomes `path` when all is written.

    If the block fails, the disk is full or the process is killed, `path` is
    still the whole old file or the whole new one. The new file is on the disk
    before it takes the name. Until then it lies under the same name in a
    folder of this process alone, `NAME.XXXXXXXX.HOST.partial`. If a process is
    killed, the next one that writes beside it removes such a folder.

    Args:
        path: File or folder to write. A folder that exists already stays, and
            the writing fails.
        size: Bytes that the file will take, for the message, if they are known.
        errors: Classes of exceptions, besides `OSError`, with which the writer
            says that it could not write.

    Raises:
        WriteError: If it could not be written. The message says how many bytes
            were wanted, how many are free, and what to do.

    Example:

    >>> import tempfile
    >>> import os
    >>> from acnn_tf.files.atomic import replacing
    >>> path = tempfile.mkdtemp() + "/notes.txt"
    >>> with replacing(path) as partial, open(partial, "w") as file:
    ...     _ = file.write("all of it")
    >>> os.listdir(os.path.dirname(path))
    ['notes.txt']
    """
    with replacing_together([path], size=size, errors=errors) as partials:
        yield partials[0]


def write_text(path: str | os.PathLike, text: str) -> None:
    """Replaces a text file, in UTF-8, whole or not at all; see `replacing`."""
    data = text.encode()
    with (
        replacing(path, size=len(data)) as partial,
        open(partial, "wb") as file,
    ):
        file.write(data)


@contextlib.contextmanager
def replacing_together(
    paths: Sequence[str | os.PathLike],
    *,
    size: int | None = None,
    errors: tuple[type[Exception], ...] = (),
) -> Iterator[list[str]]:
    """`replacing` for a file and others of its folder that speak of it.

    The others, such as a manifest, are taken away before the first gets its
    new content, and come back after it. A process that is killed in between
    leaves a file of which nothing is said, never one of which something false
    is said.

    Yields a list of the names to write to. One of the others that was not
    written to is left out: if there was such a file, it is gone.
    """
    paths = [os.fspath(path) for path in paths]
    folder, partials = os.path.dirname(paths[0]), []
    with contextlib.ExitStack() as stack:
        try:
            own = stack.enter_context(_own_folder(paths[0]))
            partials += [os.path.join(own, os.path.basename(p)) for p in paths]
            yield partials
            for partial in filter(os.path.lexists, partials):
                _sync(partial)
            for path in paths[1:]:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
            _sync_folder(folder)
            for partial, path in zip(partials, paths):
                if path == paths[0] or os.path.lexists(partial):
                    os.replace(partial, path)
                    _sync_folder(folder)
        except (OSError, *errors) as error:
            if isinstance(error, WriteError) or _is_elsewhere(error, paths):
                raise
            raise _write_error(paths[0], partials, size, error) from error


@contextlib.contextmanager
def _own_folder(path):
    """A new folder beside `path`; it is locked, which proves it to be in use.

    `flock` on one host may not be seen on another, hence the name of the host.
    """
    folder, name = os.path.split(os.path.abspath(path))
    end = f".{socket.gethostname()}.partial"
    _sweep(folder, end)
    with contextlib.ExitStack() as stack:
        is_locked, own = False, ""
        # Unless a sweep has it: new folders look like forgotten ones.
        while is_locked is False or not os.path.isdir(own):
            own = tempfile.mkdtemp(end, f"{name[:40]}.", folder)
            with contextlib.suppress(FileNotFoundError):
                is_locked = stack.enter_context(_trying_to_lock(own))
        stack.callback(shutil.rmtree, own, ignore_errors=True)
        yield own


def _sweep(folder, end):
    """Removes the folders of processes of this host that are gone."""
    name = re.compile(rf".+\.[a-z0-9_]{{8}}{re.escape(end)}")
    for entry in os.scandir(folder):
        if name.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            with (
                contextlib.suppress(OSError),
                _trying_to_lock(entry.path) as is_locked,
            ):
                if is_locked:
                    shutil.rmtree(entry.path, ignore_errors=True)


@contextlib.contextmanager
def _trying_to_lock(folder):
    if os.name != "posix":  # elsewhere folders cannot be opened
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)


def _sync(path):
    """Has a file, or all that a folder holds, on the disk."""
    if os.path.isdir(path):
        for name in os.listdir(path):
            _sync(os.path.join(path, name))
        _sync_folder(path)
        return
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(path):
    """Has the names in a folder on the disk, where a system can do that."""
    if os.name == "posix":
        folder = os.open(path or os.curdir, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _is_elsewhere(error, paths):
    """Whether an error is of a file that is read while another is written."""
    name = getattr(error, "filename", None)
    if not isinstance(name, (str, bytes)):
        return False
    folder = os.path.dirname(os.path.abspath(paths[0]))
    name = os.path.abspath(os.fsdecode(name))
    return not (name + os.sep).startswith(os.path.join(folder, ""))


def _write_error(path, partials, size, error):
    number = getattr(error, "errno", None)
    if number is None:  # some libraries say it in words alone
        known = (*_FULL, errno.EFBIG)
        number = next((n for n in known if os.strerror(n) in str(error)), None)
    reason = os.strerror(number) if number else str(error)
    folder = os.path.dirname(os.path.abspath(path))
    counts, remedy = "", f"create the folder {folder}"
    if os.path.isdir(folder):
        wanted = "" if size is None else f"{size:,} bytes were wanted, "
        written = sum(map(_size, partials))
        free = shutil.disk_usage(folder).free
        counts = (
            f" ({wanted}{written:,} were written, {free:,} are free in "
            f"{folder})"
        )
        remedy = "choose another folder, or see that it can be written to"
        if number == errno.EFBIG:
            remedy = "raise the limit on the size of a file (`ulimit -f`)"
        elif number in _FULL or free < max(size or 0, 1 << 20):
            remedy = "free some space, or choose another disk"
    failure = WriteError(
        f"{path} could not be written: {reason}{counts}. What was there "
        f"before is unchanged; {remedy}."
    )
    failure.errno = number
    return failure


def _size(path):
    if os.path.isdir(path):
        return sum(_size(os.path.join(path, n)) for n in os.listdir(path))
    return os.path.getsize(path) if os.path.exists(path) else 0
