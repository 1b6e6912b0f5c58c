"""A checksum at the end of an HDF5 file, of all in it but the numbers.

Damage among names and addresses can make the HDF5 library bring the process
down. So the files written here end, after what HDF5 knows of, in

    u8 start, u8 end    of each stretch that holds no numbers of a dataset
    u4 crc32            of the starts and ends, then of the stretches
    u4 count            of the stretches
    "acnn_tf."          8 bytes

and that is compared before HDF5 sees the file. A root attribute, whose name
stands in the first bytes of the file, says that there must be such an end.
"""

import os
import struct
import zlib

import h5py

from acnn_tf.files.problems import fail

_END = struct.Struct("<II8s")
_STRETCH = struct.Struct("<QQ")
_MAGIC = b"acnn_tf."
_FIRST = 4096


def append_end(path):
    """Appends the checksum to a file of datasets of one chunk each.

    Args:
        path: HDF5 file, closed.

    Raises:
        OSError: If it cannot be written.
    """
    with h5py.File(path, "r") as file:
        datasets = [dataset.id for dataset in file.values() if dataset.size]
        chunks = [dataset.get_chunk_info(0) for dataset in datasets]
    numbers = sorted((c.byte_offset, c.byte_offset + c.size) for c in chunks)
    size = os.path.getsize(path)
    starts = [0, *(end for _, end in numbers)]
    ends = [*(start for start, _ in numbers), size]
    stretches = [pair for pair in zip(starts, ends) if pair[0] < pair[1]]
    with open(path, "rb+") as file:
        checksum = _checksum(file, stretches)
        file.seek(size)
        file.write(_packed(stretches))
        file.write(_END.pack(checksum, len(stretches), _MAGIC))


def check_end(path, attribute):
    """Compares a file with the checksum at its end.

    For 10,000 videos this takes 0.01 s. Other programs' files pass.

    Args:
        path: HDF5 file.
        attribute: Name of the root attribute of files with a checksum.

    Raises:
        FeatureError: If the file is damaged.
    """
    with open(path, "rb") as file:
        marked = attribute.encode() in file.read(_FIRST)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END.size))
        end = file.read()
        if not end.endswith(_MAGIC) and not marked:
            return
        if len(end) < _END.size or not _is_sound(file, size, end):
            fail(
                path,
                "is not a whole HDF5 file: names or numbers that were written "
                "are gone; restore the file, or extract its features again "
                "(if another program changed it, have that remove the "
                f"attribute {attribute!r})",
            )


def _is_sound(file, size, end):
    checksum, count, magic = _END.unpack(end)
    start = size - _END.size - count * _STRETCH.size
    if magic != _MAGIC or start < 0:
        return False
    file.seek(start)
    stretches = list(_STRETCH.iter_unpack(file.read(count * _STRETCH.size)))
    # Those of a damaged table may be of any size.
    return all(
        first < last <= start for first, last in stretches
    ) and checksum == _checksum(file, stretches)


def _packed(stretches):
    return b"".join(_STRETCH.pack(*stretch) for stretch in stretches)


def _checksum(file, stretches):
    checksum = zlib.crc32(_packed(stretches))
    for start, end in stretches:
        file.seek(start)
        checksum = zlib.crc32(file.read(end - start), checksum)
    return checksum
