"""The form of `.npy`: one array of numbers, and no more than that."""

import contextlib
import io
import math
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from acnn_tf.files.problems import AGAIN, FeatureError, fail

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def parse_npy(data: bytes) -> np.ndarray:
    """The array of the bytes of an `.npy` file; see `read_header`."""
    file = io.BytesIO(data)
    shape, order, dtype = read_header(file, len(data))
    array = np.frombuffer(data, dtype, offset=file.tell())
    return array.reshape(shape, order=order)


def read_header(
    file: BinaryIO, file_size: int
) -> tuple[tuple[int, ...], str, np.dtype]:
    """Reads what stands before the numbers: `(shape, order, dtype)`.

    Raises:
        ValueError: If they are no numbers, or the file has more or fewer bytes
            than they take. NumPy raises others.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:  # which has names of fields
        raise ValueError(f"expected version 1.0 or 2.0, found {version}")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.kind not in "biuf":
        raise ValueError(f"expected numbers, found {dtype}")
    size, left = math.prod(shape) * dtype.itemsize, file_size - file.tell()
    if min(shape, default=0) < 0 or size != left:
        raise ValueError(
            f"its shape {list(shape)} of {dtype} takes {size:,} bytes, and "
            f"{left:,} follow"
        )
    return shape, "F" if fortran else "C", dtype


@contextlib.contextmanager
def naming(path: str, kind: str = ".npy") -> Iterator[None]:
    """Has errors of a reader name the file, and what it should be."""
    try:
        yield
    except FeatureError:
        raise
    except Exception as error:  # those of NumPy and of zip are of many kinds
        said = str(error).partition("\n")[0][:200]
        fail(path, f"is not a whole {kind} file of numbers: {said}; {AGAIN}")
