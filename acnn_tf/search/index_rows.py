"""Files of an index: written whole or not at all, read as they were written."""

import contextlib
import errno
import hashlib
import os
import stat

import numpy as np

# What to do about a damaged file.
MEND = (
    "Restore the file from a copy, or build the index again; of a corpus in "
    "shards only this shard: remove its folder, and run "
    "experiments.encode_corpus once more."
)


class IndexFileError(ValueError):
    """A folder that is no index, or not the one that is asked for."""


class NewFile:
    """A file to write, which takes its name once it is complete.

    A context manager: where anything fails, no part of it stays.

    Args:
        path: Its name; a file that is there is replaced at the end.
        size: Int, the bytes to come, for the message of a full disk.
    """

    def __init__(self, path, size):
        self._path, self._size, self._written = path, size, 0
        self._partial = path + ".partial"
        self._digest = hashlib.sha256()

    @property
    def sha256(self):
        """Hex digest of what was written."""
        return self._digest.hexdigest()

    def write(self, data):
        """Writes all bytes of a buffer."""
        left = memoryview(data).cast("B")
        self._digest.update(left)
        with self._failures():
            while left:  # a disk that fills up takes the first bytes
                count = self._file.write(left)
                self._written += count
                left = left[count:]

    def __enter__(self):
        with self._failures():
            self._file = open(self._partial, "wb", buffering=0)
        return self

    def __exit__(self, kind, *_):
        try:
            with self._failures(), self._file:
                if kind is None:
                    os.fsync(self._file.fileno())
            if kind is None:
                with self._failures():
                    os.replace(self._partial, self._path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._partial)

    @contextlib.contextmanager
    def _failures(self):
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self._path} could not be written ({error.strerror}) after "
                f"{self._written:,} of {self._size:,} bytes. What was there "
                "before is as it was: make room, or choose another folder",
            ) from error


def write_rows(path, blocks, total):
    """Writes an `.npy` file of which one block is in memory at a time.

    Args:
        path: File.
        blocks: Iterable of `[N, t]`, all of one dtype.
        total: Int, rows of all blocks.

    Returns:
        `(shape, sha256)`: of the array, and hex of the file.
    """
    file = shape = None
    with contextlib.ExitStack() as stack:
        for block in blocks:
            if file is None:
                shape = (total, block.shape[1])
                header = _header(block.dtype, shape)
                size = len(header) + total * block[:1].nbytes
                file = stack.enter_context(NewFile(path, size))
                file.write(header)
            file.write(np.ascontiguousarray(block))
    return shape, file.sha256


def open_rows(path, dtype, shape, sha256=None):
    """Maps what `write_rows` wrote into memory, if that is what is there.

    Nothing in the file is interpreted: its size and header must be those of
    such an array, its bytes those of the digest.

    Args:
        path: File.
        dtype: NumPy dtype.
        shape: Two ints.
        sha256: Hex of the whole file; `None` does not read it.

    Returns:
        Read-only array.

    Raises:
        IndexFileError: If it is not.
    """
    header = _header(dtype, shape)
    size = len(header) + shape[0] * shape[1] * dtype.itemsize
    what = f"{shape[0]:,} rows of {shape[1]:,} {dtype}, {size:,} bytes"
    try:
        with open_file(path) as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise _damaged(path, f"has {found:,} bytes", what)
            if file.read(len(header)) != header:
                raise _damaged(path, "starts with another header", what)
            if sha256 is not None:
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if digest != sha256:
                    raise _damaged(
                        path,
                        f"has the SHA-256 {digest[:16]}...",
                        f"{what}, of {sha256[:16]}...",
                    )
            return np.memmap(file, dtype, "r", len(header), shape)
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise _damaged(path, reason, what) from None


def open_file(path):
    """Opens a file to read; of a pipe, which could wait forever, an error."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file")
    return open(descriptor, "rb")


def _damaged(path, found, expected):
    return IndexFileError(
        f"{path} {found}, but the list of the index says: {expected}. {MEND}"
    )


def _header(dtype, shape):
    """That of NumPy's format 1.0, the same in all its versions."""
    text = (
        f"{{'descr': {np.dtype(dtype).str!r}, 'fortran_order': False, "
        f"'shape': ({shape[0]}, {shape[1]}), }}"
    ).encode()
    text = text.ljust(128 - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
