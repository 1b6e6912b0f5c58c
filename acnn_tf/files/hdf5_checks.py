"""What an HDF5 file of anybody may be: plain arrays, within the file.

HDF5 reads zeros, without a word, for numbers that were never written and for
other files that it does not find; it takes the memory that a file declares;
and there is damage on which it ends the process. `PlainFile` looks before
anything is read.
"""

import contextlib
import math
import os
import zlib
from collections.abc import Iterator

import h5py
from h5py import h5, h5d, h5fd, h5g, h5i, h5l, h5o, h5s, h5t, h5z

from acnn_tf.files.problems import AGAIN, FeatureError, fail

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


class PlainFile:
    """Opens what is in an `h5py.File`, if it is plain and whole.

    What is not raises a `FeatureError` that says what to do. `size` has the
    bytes of the file.
    """

    def __init__(self, file: h5py.File, path: str):
        self._root, self._path, self._handle = file.id, path, None
        if self._root.get_access_plist().get_driver() == h5fd.SEC2:
            self._handle = self._root.get_vfd_handle()
            self.size = os.fstat(self._handle).st_size
            created = self._root.get_create_plist()
            self._start = created.get_userblock()
            self._address_size, self._length_size = created.get_sizes()
        else:  # remote
            self.size = self._root.get_filesize()

    def check_all(self) -> None:
        """Counts the bytes of all numbers, as `check` does for a dataset.

        Nothing may be linked twice, nor nested without end.
        """
        with naming(self._path, "is not a whole HDF5 file"):
            return sum(map(self.check, self._datasets()))

    def _datasets(self):
        seen, groups = set(), [(self._root, 0)]
        while groups:
            group, depth = groups.pop()
            for name in self.names(group):
                with naming(self._path, f"{text_of(name)!r} cannot be read"):
                    item = self.open(group, name)
                address = group.links.get_info(name).u
                if address in seen:
                    self._refuse(name, "is linked twice; {plain}")
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
                    self._refuse(
                        name,
                        f"must be a dataset, or a group that is in less than "
                        f"{_DEPTH} others and one of less than {_OBJECTS:,} "
                        "objects; {plain}",
                    )

    def names(self, group: h5g.GroupID) -> list[bytes]:
        """Lists the names in an `h5py.h5g.GroupID`: bytes, in no order."""
        names = []

        def add(name):
            names.append(name)
            return len(names) > _OBJECTS or None

        if self._handle is not None:
            self._check_free_names(group)
        # In the order of the names HDF5 1.14 frees memory that it never had
        # where its list breaks off: of 1,500 files of 30 datasets, each with up
        # to four bytes changed, 235 brought down the process, and none in this
        # order.
        group.links.iterate(add, order=h5.ITER_NATIVE)
        if len(names) > _OBJECTS:
            fail(
                self._path,
                f"has more than {_OBJECTS:,} names; write several files",
            )
        return names

    def _check_free_names(self, group):
        """Refuses a list of free places for names that runs in a circle.

        HDF5 1.14 and 2.0 follow it for ever, and take 300 MB a second: in a
        file of 4 kB, of the older format, one byte is enough. So that list is
        followed here first, from the group's header to the heap of its names.
        """
        address, _ = h5g.get_objinfo(group, b".").objno
        header = self._bytes(address, 16)
        if header[:1] != b"\1":
            return  # the newer format, which has checksums and no such list
        blocks, heap = [(address + 16, _number(header, 8, 4))], None
        left = _HEADER
        for place, size in blocks:  # and those found on the way
            data, at = self._bytes(place, min(size, left)), 0
            left -= len(data)
            while at + 8 <= len(data):
                kind, body = _number(data, at, 2), at + 8
                following = body + self._address_size
                if kind == _CONTINUED:
                    size = _number(data, following, self._length_size)
                    place = _number(data, body, self._address_size)
                    blocks.append((place, size))
                elif kind == _SYMBOL_TABLE:
                    heap = _number(data, following, self._address_size)
                at = body + _number(data, at + 2, 2)
        if heap is None and left:
            return
        names, width = b"", self._length_size
        if heap is not None:
            data = self._bytes(heap, 40)
            free = _number(data, 8 + width, width)
            place = _number(data, 8 + 2 * width, self._address_size)
            names = self._bytes(place, _number(data, 8, width))
        for _ in range(len(names) // width):
            if free == _NO_MORE or free >= len(names):
                return
            free = _number(names, free, width)
        fail(self._path, f"has names that are damaged; {AGAIN}")

    def _bytes(self, address, count):
        """What is at one of HDF5's addresses."""
        place = min(self._start + address, self.size)
        return os.pread(self._handle, min(count, self.size), place)

    def open(
        self, group: h5g.GroupID, name: bytes
    ) -> h5d.DatasetID | h5g.GroupID | h5t.TypeID:
        """Opens what has a name, bytes, in a group, unless it is elsewhere.

        Returns `h5py.h5d.DatasetID`, `h5py.h5g.GroupID` or `h5py.h5t.TypeID`.
        """
        link = group.links.get_info(name).type
        if link != h5l.TYPE_HARD:
            kind = "a soft" if link == h5l.TYPE_SOFT else "an external"
            self._refuse(name, f"is {kind} link; {{plain}}")
        return h5o.open(group, name)

    def check(self, dataset: h5d.DatasetID) -> None:
        """Counts the bytes of a dataset, if its file holds all its numbers.

        No numbers are read, except for long chunks that are packed. Refused
        are a dataset that is no array of numbers, is a view of others, is
        stored in another file, was not written in whole, declares more than
        there is, or is packed in a way that nothing here unpacks.
        """
        try:
            return self._declared(dataset)
        except _Refused as refused:
            name = h5i.get_name(dataset) or b"?"
            self._refuse(name.removeprefix(b"/"), str(refused))

    def _refuse(self, name, message):
        """Raises, with the remedy where the message says `{plain}`."""
        message = message.replace("{plain}", plain_copy(self._path))
        fail(self._path, f"{text_of(name)!r} {message}")

    def _declared(self, dataset):
        stored = dataset.get_create_plist()
        layout = stored.get_layout()
        # Before its shape: asking a virtual array for it may open its sources.
        if layout == h5d.VIRTUAL:
            raise _Refused(
                "is a virtual dataset, a view of others, and HDF5 reads zeros "
                "for those that are missing; see that all its "
                "`virtual_sources()` are there, then {plain}"
            )
        if stored.get_external_count():
            raise _Refused("is stored in another file; {plain}")
        kind, space = dataset.get_type(), dataset.get_space()
        if kind.get_class() not in _NUMBERS:
            found = _OTHERS.get(kind.get_class(), "another type")
            raise _Refused(
                f"must be an array of numbers, found {found}; {AGAIN}"
            )
        if space.get_simple_extent_type() == h5s.NULL:
            raise _Refused(f"has no shape and no numbers; {AGAIN}")
        shape, width = space.get_simple_extent_dims(), kind.get_size()
        declared = math.prod(shape) * width
        if not declared:
            return 0
        if layout == h5d.CHUNKED:
            self._check_chunks(dataset, stored, shape, width)
            return declared
        start = dataset.get_offset() if layout == h5d.CONTIGUOUS else 0
        if start is None:
            raise _Refused(_UNWRITTEN)
        if start + declared > self.size:
            raise self._too_much(shape, declared)
        return declared

    def _check_chunks(self, dataset, stored, shape, width):
        packers = _packers(stored)
        edges = stored.get_chunk()
        count = math.prod(-(-n // edge) for n, edge in zip(shape, edges))
        whole = math.prod(edges) * width
        chunks = {}
        if count <= self.size:
            dataset.chunk_iter(lambda c: chunks.update({c.chunk_offset: c}))
        if len(chunks) != count or any(
            start >= n for place in chunks for start, n in zip(place, shape)
        ):
            raise _Refused(_UNWRITTEN)
        packed = sum(chunk.size for chunk in chunks.values())
        if packed > self.size or any(
            chunk.byte_offset + chunk.size > self.size
            for chunk in chunks.values()
        ):
            raise self._too_much(shape, count * whole)
        if packers and count * whole > max(_UNPACKED, _GAIN * packed):
            raise _Refused(
                f"declares {count * whole:,} bytes and stores {packed:,}; if "
                "that is meant, write it again without compression"
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

    def _too_much(self, shape, declared):
        return _Refused(
            f"declares the shape {list(shape)}, {declared:,} bytes, in a file "
            f"of {self.size:,}; {AGAIN}"
        )


class _Refused(Exception):
    """What is wrong with a dataset; `{plain}` stands for the remedy."""


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


def _number(data, start, size):
    return int.from_bytes(data[start : start + size], "little")


def text_of(name: bytes) -> str:
    """A name of HDF5, which is bytes, as text to be read."""
    return name.decode(errors="backslashreplace")


def plain_copy(path: str, inner: str = "") -> str:
    """How to make one plain file of one that is not: a sentence.

    `inner` follows the name of a group, to name a dataset.
    """
    place = f"name + {inner!r}" if inner else "name"
    return (
        'make one plain file of it: python -c "import h5py; old = h5py.File('
        f"{path!r}); new = h5py.File('plain.h5', 'x'); "
        "new.attrs.update(old.attrs); "
        f'[new.create_dataset(name, data=old[{place}][()]) for name in old]"'
    )


@contextlib.contextmanager
def naming(path: str, message: str) -> Iterator[None]:
    """Makes a `FeatureError` that names the file of what h5py raises.

    `message` says what is wrong, before what h5py says of it.
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
