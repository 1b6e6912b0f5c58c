"""What an HDF5 file of anybody may be: plain arrays, within the file.

HDF5 reads zeros, without a word, for numbers that were never written and for
other files that it does not find; it takes the memory that a file declares;
and there is damage on which it ends the process. `check_plain` and
`check_dataset` look before anything is read.
"""

import contextlib
import math
import os
import zlib

from h5py import h5, h5d, h5fd, h5g, h5i, h5l, h5o, h5s, h5t, h5z

from acnn_tf.files.problems import FeatureError, fail

AGAIN = "restore the file, or extract its features again"
_UNWRITTEN = (
    "was not written in whole, and HDF5 would read zeros for what is missing; "
    f"{AGAIN}"
)
# What h5py raises when a file is not as it should be.
_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)
# Opaque are numbers of which HDF5 does not know, such as bfloat16.
_NUMBERS = {h5t.FLOAT, h5t.INTEGER, h5t.OPAQUE}
_OTHERS = {
    h5t.STRING: "text",
    h5t.COMPOUND: "records",
    h5t.VLEN: "lists of any length",
    h5t.REFERENCE: "references",
    h5t.ENUM: "booleans or other names",
}
# Messages of the header of a group of the older format, and what ends a list.
_CONTINUED, _SYMBOL_TABLE, _NO_MORE = 0x10, 0x11, 1
_HEADER = 16 << 20
_OBJECTS = 1_000_000
_DEPTH = 32
# Packed numbers may take 64 MiB, or else 32 times what is stored of them:
# those after a ReLU, half of them zeros, take 3 or 4 times as much, while a
# megabyte of deflated zeros would take a gigabyte.
_UNPACKED = 64 << 20
_GAIN = 32
# HDF5 unpacks a chunk to its end, whatever size it declares. Deflate makes up
# to 1,032 times as much of it; what is shorter than this is harmless.
_DEFLATE = 1
_SHORT = 192 << 10
# Of shuffle and fletcher32, which write as many bytes as they read, or 4 more.
_KEEP_SIZE = (2, 3)
_SLACK = 4096


def check_plain(group, path, size):
    """Counts the bytes of all arrays below a group, if its file holds them.

    Args:
        group: `h5py.File` or `h5py.Group`.
        path: Name of the file, for messages.
        size: Int, bytes of the file.

    Returns:
        Int: bytes of all numbers, unpacked.

    Raises:
        FeatureError: If there is a link other than a hard link, an object
            that is linked twice, or a dataset that `check_dataset` refuses.

    Example:

    >>> import io
    >>> import h5py
    >>> import numpy as np
    >>> data = io.BytesIO()
    >>> with h5py.File(data, "w") as file:
    ...     file["v/c3d"] = np.ones((2, 3), np.float32)
    >>> with h5py.File(data) as file:
    ...     check_plain(file, "features.h5", len(data.getvalue()))
    24
    """
    with naming(path, "is not a whole HDF5 file"):
        datasets = _datasets(group.id, path)
        return sum(check_dataset(dataset, path, size) for dataset in datasets)


def _datasets(group, path):
    """All datasets below a group, each of which is linked once."""
    seen, groups, raw = set(), [(group, 0)], RawFile(h5i.get_file_id(group))
    while groups:
        group, depth = groups.pop()
        for name in list_names(group, path, raw):
            with naming(path, f"{text_of(name)!r} cannot be read"):
                item = open_item(group, name, path)
            address = group.links.get_info(name).u
            if address in seen:
                fail(
                    path,
                    f"{text_of(name)!r} is linked twice; {plain_copy(path)}",
                )
            seen.add(address)
            if isinstance(item, h5d.DatasetID):
                yield item
            elif (
                isinstance(item, h5g.GroupID)
                and depth < _DEPTH
                and len(seen) < _OBJECTS
            ):
                groups.append((item, depth + 1))
            else:
                fail(
                    path,
                    f"{text_of(name)!r} must be a dataset, or a group that is "
                    f"in less than {_DEPTH} others and one of less than "
                    f"{_OBJECTS:,} objects; {plain_copy(path)}",
                )


def check_dataset(dataset, path, size):
    """Counts the bytes of a dataset, if its file holds all its numbers.

    No numbers are read, except for long chunks that are packed.

    Args:
        dataset: `h5py.h5d.DatasetID`.
        path: Name of the file, for messages.
        size: Int, bytes of the file.

    Returns:
        Int: bytes of the numbers, unpacked.

    Raises:
        FeatureError: If it is no array of numbers, is a view of others, is
            stored in another file, was not written in whole, declares more
            than there is, or is packed in a way that nothing here unpacks.
    """
    try:
        return _declared(dataset, size)
    except _Refused as refused:
        name = text_of(h5i.get_name(dataset) or b"?").removeprefix("/")
        message = str(refused).replace("{plain}", plain_copy(path))
        fail(path, f"{name!r} {message}")


class _Refused(Exception):
    """What is wrong with a dataset; `{plain}` stands for the remedy."""


def _declared(dataset, size):
    stored = dataset.get_create_plist()
    layout = stored.get_layout()
    # Before its shape: asking a virtual array for it may open its sources.
    if layout == h5d.VIRTUAL:
        raise _Refused(
            "is a virtual dataset, a view of others, and HDF5 reads zeros for "
            "those that are missing; see that all its `virtual_sources()` are "
            "there, then {plain}"
        )
    if stored.get_external_count():
        raise _Refused("is stored in another file; {plain}")
    kind, space = dataset.get_type(), dataset.get_space()
    if kind.get_class() not in _NUMBERS:
        found = _OTHERS.get(kind.get_class(), "another type")
        raise _Refused(f"must be an array of numbers, found {found}; {AGAIN}")
    if space.get_simple_extent_type() == h5s.NULL:
        raise _Refused(f"has no shape and no numbers; {AGAIN}")
    shape, width = space.get_simple_extent_dims(), kind.get_size()
    declared = math.prod(shape) * width
    if layout != h5d.CHUNKED and declared:
        start = dataset.get_offset() if layout == h5d.CONTIGUOUS else 0
        if start is None:
            raise _Refused(_UNWRITTEN)
        if start + declared > size:
            raise _Refused(_too_much(shape, declared, size))
    if layout == h5d.CHUNKED and declared:
        _check_chunks(dataset, stored, shape, width, size)
    return declared


def _check_chunks(dataset, stored, shape, width, size):
    packers = _packers(stored)
    edges = stored.get_chunk()
    count = math.prod(-(-n // edge) for n, edge in zip(shape, edges))
    whole = math.prod(edges) * width
    chunks = {}
    if count <= size:
        dataset.chunk_iter(lambda c: chunks.update({c.chunk_offset: c}))
    if len(chunks) != count or any(
        start >= n for place in chunks for start, n in zip(place, shape)
    ):
        raise _Refused(_UNWRITTEN)
    packed = sum(chunk.size for chunk in chunks.values())
    if packed > size or any(
        chunk.byte_offset + chunk.size > size for chunk in chunks.values()
    ):
        raise _Refused(_too_much(shape, count * whole, size))
    if packers and count * whole > max(_UNPACKED, _GAIN * packed):
        raise _Refused(
            f"declares {count * whole:,} bytes and stores {packed:,}; if that "
            "is meant, write it again without compression"
        )
    for place, chunk in chunks.items():
        inflated = any(
            code == _DEFLATE and not chunk.filter_mask >> index & 1
            for index, code in packers
        )
        if chunk.size > whole + _SLACK or (
            inflated
            and chunk.size > _SHORT
            and not _inflates(dataset.read_direct_chunk(place)[1], whole)
        ):
            raise _Refused(
                f"has a chunk that is not the {whole:,} bytes that it "
                f"declares; {AGAIN}"
            )


def _packers(stored):
    """`(index, code)` of filters that change how many bytes there are."""
    packers = []
    for index in range(stored.get_nfilters()):
        code, _, _, name = stored.get_filter(index)
        if not h5z.filter_avail(code):
            raise _Refused(
                f"is packed with filter {code} ({text_of(name) or 'no name'}), "
                "which is not installed; where it is (most come with "
                "`import hdf5plugin`), {plain}"
            )
        if code not in _KEEP_SIZE:
            packers.append((index, code))
    if len(packers) > 1:
        raise _Refused(f"is packed {len(packers)} times over; {{plain}}")
    return packers


def _inflates(packed, size):
    """Whether deflated bytes are no more than `size`, or little more."""
    inflater, inflated = zlib.decompressobj(), 0
    try:
        while packed and inflated <= size + _SLACK:
            inflated += len(inflater.decompress(packed, 1 << 20))
            packed = inflater.unconsumed_tail
    except zlib.error:
        return False
    return inflated <= size + _SLACK


def _too_much(shape, declared, size):
    return (
        f"declares the shape {list(shape)}, {declared:,} bytes, in a file of "
        f"{size:,}; {AGAIN}"
    )


def list_names(group, path, raw):
    """Lists the names in a group.

    Args:
        group: `h5py.h5g.GroupID`.
        path: Name of the file, for messages.
        raw: Its `RawFile`.

    Returns:
        List of bytes, in no order.

    Raises:
        FeatureError: If there are too many, or they are damaged in a way that
            HDF5 does not see.
    """
    names = []

    def add(name):
        names.append(name)
        return len(names) > _OBJECTS or None

    if raw.handle is not None:
        _check_free_names(group, path, raw)
    # In the order of the names HDF5 1.14 frees memory that it never had where
    # its list breaks off: of 1,500 files of 30 datasets, each with up to four
    # bytes changed, 235 brought down the process, and none in this order.
    group.links.iterate(add, order=h5.ITER_NATIVE)
    if len(names) > _OBJECTS:
        fail(path, f"has more than {_OBJECTS:,} names; write several files")
    return names


class RawFile:
    """The bytes of an HDF5 file by HDF5's addresses; none if it is remote.

    Args:
        file: `h5py.h5f.FileID`.
    """

    def __init__(self, file):
        self.handle = None
        if file.get_access_plist().get_driver() == h5fd.SEC2:
            created = file.get_create_plist()
            self.handle = file.get_vfd_handle()
            self.start = created.get_userblock()
            self.size = os.fstat(self.handle).st_size
            self.address_size, self.length_size = created.get_sizes()

    def read(self, address, count):
        place = min(self.start + address, self.size)
        return os.pread(self.handle, min(count, self.size), place)


def _number(data, start, size):
    return int.from_bytes(data[start : start + size], "little")


def _check_free_names(group, path, raw):
    """Refuses a list of free places for names that runs in a circle.

    HDF5 1.14 and 2.0 follow it for ever, and take 300 MB a second: in a file
    of 4 kB, of the older format, one byte is enough. So that list is followed
    here first, from the header of the group to the heap of its names.
    """
    address, _ = h5g.get_objinfo(group, b".").objno
    header = raw.read(address, 16)
    if header[:1] != b"\1":
        return  # the newer format, which has checksums and no such list
    blocks, heap = [(address + 16, _number(header, 8, 4))], None
    left = _HEADER
    for place, size in blocks:  # and those found on the way
        data, at = raw.read(place, min(size, left)), 0
        left -= len(data)
        while at + 8 <= len(data):
            kind, body = _number(data, at, 2), at + 8
            if kind == _CONTINUED:
                size = _number(data, body + raw.address_size, raw.length_size)
                blocks.append((_number(data, body, raw.address_size), size))
            elif kind == _SYMBOL_TABLE:
                heap = _number(data, body + raw.address_size, raw.address_size)
            at = body + _number(data, at + 2, 2)
    if heap is None and left:
        return
    names = b""
    if heap is not None:
        data = raw.read(heap, 40)
        free = _number(data, 8 + raw.length_size, raw.length_size)
        place = _number(data, 8 + 2 * raw.length_size, raw.address_size)
        names = raw.read(place, _number(data, 8, raw.length_size))
    for _ in range(len(names) // raw.length_size):
        if free == _NO_MORE or free >= len(names):
            return
        free = _number(names, free, raw.length_size)
    fail(path, f"has names that are damaged; {AGAIN}")


def open_item(group, name, path):
    """Opens what is in a group, if it is in the file itself.

    Args:
        group: `h5py.h5g.GroupID`.
        name: Bytes.
        path: Name of the file, for messages.

    Returns:
        `h5py.h5d.DatasetID`, `h5py.h5g.GroupID` or `h5py.h5t.TypeID`.

    Raises:
        FeatureError: If it is a soft link or an external one.
    """
    link = group.links.get_info(name).type
    if link != h5l.TYPE_HARD:
        kind = "a soft link" if link == h5l.TYPE_SOFT else "an external link"
        fail(path, f"{text_of(name)!r} is {kind}; {plain_copy(path)}")
    return h5o.open(group, name)


def plain_copy(path, inner=""):
    """How to make one plain file of one that is not: a sentence.

    Args:
        path: File.
        inner: What follows the name of a group, to name a dataset.
    """
    place = f"name + {inner!r}" if inner else "name"
    return (
        'make one plain file of it: python -c "import h5py; old = h5py.File('
        f"{path!r}); new = h5py.File('plain.h5', 'x'); "
        "new.attrs.update(old.attrs); "
        f'[new.create_dataset(name, data=old[{place}][()]) for name in old]"'
    )


@contextlib.contextmanager
def naming(path, message):
    """Makes a `FeatureError` that names the file of what h5py raises.

    Args:
        path: File.
        message: What is wrong, before what h5py says of it.
    """
    try:
        yield
    except FeatureError:
        raise
    except _ERRORS as error:
        message = f"{message}: {error}; {AGAIN}"
        if "unable to lock" in str(error):
            message = (
                "is being written by another program, which has locked it; "
                "wait until that is done, or give a copy"
            )
        elif "already open for write" in str(error):
            message = (
                "is still being written, or was not closed by the program that "
                f"wrote it; wait until that is done, or {AGAIN}"
            )
        fail(path, message)


def text_of(name):
    """A name of HDF5, which is bytes, as text to be read."""
    return name.decode(errors="backslashreplace")
