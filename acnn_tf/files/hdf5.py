"""HDF5 files of named arrays: clip features, sentence vectors.

A dataset per name and, for clips, a root attribute `clip_seconds`. Files that
are written here are of HDF5's format 1.10, which keeps checksums of names,
shapes and addresses, and have HDF5's checksums of the numbers as well.

Other programs may lay out a file as they like, as long as every number that
it declares is stored in the file itself: for numbers that were never written,
and for other files that it does not find, HDF5 reads zeros without a word.
"""

import contextlib
import math
import os
import zlib

import h5py
import numpy as np
from h5py import h5, h5d, h5g, h5i, h5l, h5o, h5s, h5t, h5z

from acnn_tf.files.manifests import check_file
from acnn_tf.files.problems import FeatureError, Problem, fail

_AGAIN = "restore the file, or extract its features again"
_UNWRITTEN = (
    "was not written in whole, and HDF5 would read zeros for what is missing; "
    f"{_AGAIN}"
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
    >>> data = io.BytesIO()
    >>> with h5py.File(data, "w") as file:
    ...     file["v/c3d"] = np.ones((2, 3), np.float32)
    >>> with h5py.File(data) as file:
    ...     check_plain(file, "features.h5", len(data.getvalue()))
    24
    """
    total, seen, groups = 0, set(), [(group.id, 0)]
    with _named(path, "is not a whole HDF5 file"):
        while groups:
            group, depth = groups.pop()
            for name in _names(group, path):
                item = _open(group, name, path)
                address = h5o.get_info(item).addr
                if address in seen:
                    fail(
                        path, f"{_text(name)!r} is linked twice; {_plain(path)}"
                    )
                seen.add(address)
                if isinstance(item, h5d.DatasetID):
                    total += check_dataset(item, path, size)
                elif (
                    isinstance(item, h5g.GroupID)
                    and depth < _DEPTH
                    and len(seen) < _OBJECTS
                ):
                    groups.append((item, depth + 1))
                else:
                    fail(
                        path,
                        f"{_text(name)!r} must be a dataset, or a group that "
                        f"is in less than {_DEPTH} others and one of less "
                        f"than {_OBJECTS:,} objects; {_plain(path)}",
                    )
    return total


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
        name = _text(h5i.get_name(dataset) or b"?").removeprefix("/")
        message = str(refused).replace("{plain}", _plain(path))
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
        raise _Refused(f"must be an array of numbers, found {found}; {_AGAIN}")
    if space.get_simple_extent_type() == h5s.NULL:
        raise _Refused(f"has no shape and no numbers; {_AGAIN}")
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
        inflated = packers == [_DEFLATE] and not chunk.filter_mask
        if chunk.size > whole + _SLACK or (
            inflated
            and chunk.size > _SHORT
            and not _inflates(dataset.read_direct_chunk(place)[1], whole)
        ):
            raise _Refused(
                f"has a chunk that is not the {whole:,} bytes that it "
                f"declares; {_AGAIN}"
            )


def _packers(stored):
    """Codes of the filters that change how many bytes there are."""
    packers = []
    for index in range(stored.get_nfilters()):
        code, _, _, name = stored.get_filter(index)
        if not h5z.filter_avail(code):
            raise _Refused(
                f"is packed with filter {code} ({_text(name) or 'no name'}), "
                "which is not installed; where it is (most come with "
                "`import hdf5plugin`), {plain}"
            )
        if code not in _KEEP_SIZE:
            packers.append(code)
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
        f"{size:,}; {_AGAIN}"
    )


def _names(group, path):
    """Names of what a group holds, as bytes."""
    names = []

    def add(name):
        names.append(name)
        return len(names) > _OBJECTS or None

    # In the order of the names HDF5 1.14 frees memory that it never had where
    # its list breaks off: of 1,500 files of 30 datasets, each with up to four
    # bytes changed, 235 brought down the process, and none in this order.
    group.links.iterate(add, order=h5.ITER_NATIVE)
    if len(names) > _OBJECTS:
        fail(path, f"has more than {_OBJECTS:,} names; write several files")
    return names


def _open(group, name, path):
    """What a name stands for, if it is in the file itself."""
    link = group.links.get_info(name).type
    if link != h5l.TYPE_HARD:
        kind = "a soft link" if link == h5l.TYPE_SOFT else "an external link"
        fail(path, f"{_text(name)!r} is {kind}; {_plain(path)}")
    return h5o.open(group, name)


def _plain(path):
    """How to make one plain file of it."""
    return (
        'make one plain file of it: python -c "import h5py; old = h5py.File('
        f"{path!r}); new = h5py.File('plain.h5', 'x'); "
        "new.attrs.update(old.attrs); "
        '[new.create_dataset(name, data=old[name][()]) for name in old]"'
    )


@contextlib.contextmanager
def _named(path, message):
    """Names the file in what HDF5 says of it."""
    try:
        yield
    except FeatureError:
        raise
    except _ERRORS as error:
        message = f"{message}: {error}; {_AGAIN}"
        if "unable to lock" in str(error):
            message = (
                "is being written by another program, which has locked it; "
                "wait until that is done, or give a copy"
            )
        elif "already open for write" in str(error):
            message = (
                "is still being written, or was not closed by the program that "
                f"wrote it; wait until that is done, or {_AGAIN}"
            )
        fail(path, message)


def _text(name):
    return name.decode(errors="backslashreplace")


class HDF5File:
    """HDF5: a dataset per name, root attribute `clip_seconds`.

    A group that holds a single dataset, as in the C3D features of ActivityNet
    Captions, counts as that dataset. With a manifest beside it the file is
    read from end to end when it is opened.
    """

    def __init__(self, path):
        self.path = path
        problems = check_file(path)
        if problems:
            raise FeatureError(problems)
        source = path
        with _named(path, "is not a whole HDF5 file"):
            if "://" in path:
                import tensorflow as tf

                source = tf.io.gfile.GFile(path, "rb")
                self._size = source.size()
            else:
                self._size = os.path.getsize(path)
            self._file = h5py.File(source, "r")
            names = _names(self._file.id, path)
            self.names = [n.decode(errors="surrogateescape") for n in names]
            self.clip_seconds = self._clip_seconds()

    def _clip_seconds(self):
        attributes = self._file.attrs
        if "clip_seconds" not in attributes:
            return None
        stored = attributes.get_id("clip_seconds")
        if stored.get_storage_size() > _SLACK:
            return f"{stored.get_storage_size():,} bytes"
        return attributes["clip_seconds"]

    def place(self, name):
        return self.path, None

    def records(self):
        return {self.path: len(self.names)}

    def read(self, name):
        with _named(self.path, f"{name!r} cannot be read"):
            dataset = self._dataset(name)
            check_dataset(dataset, self.path, self._size)
            return self._values(dataset)

    def _dataset(self, name):
        item = _open(self._file.id, name.encode(), self.path)
        if isinstance(item, h5g.GroupID):
            names = _names(item, self.path)
            if len(names) == 1:
                item = _open(item, names[0], self.path)
            if isinstance(item, h5g.GroupID):
                held = ", ".join(map(_text, names[:3])) or "nothing"
                remedy = _plain(self.path).replace("[name]", "[name + '/SET']")
                fail(
                    self.path,
                    f"{name!r} must be a dataset, or a group that holds just "
                    f"one; found a group that holds {held}. Choose a dataset "
                    f"SET and {remedy}",
                )
        if not isinstance(item, h5d.DatasetID):
            fail(self.path, f"{name!r} must be a dataset; {_AGAIN}")
        return item

    def _values(self, dataset):
        array = np.empty(dataset.shape, dataset.dtype)
        if array.size:
            dataset.read(h5s.ALL, h5s.ALL, array)
        return array

    def close(self):
        self._file.close()


class TensorFlowIOFile(HDF5File):
    """HDF5, its data read by tensorflow-io.

    What is in the file is still seen by h5py: on a missing or truncated file
    tensorflow-io brings the process down.
    """

    def __init__(self, path):
        super().__init__(path)
        try:
            # All that is in the file is looked at by another HDF5 library.
            check_plain(self._file, path, self._size)
        except FeatureError:
            self.close()
            raise
        try:
            import tensorflow_io

            self._tensor = tensorflow_io.IOTensor.from_hdf5(path)
        except Exception as error:
            # ImportError where it is not installed, NotImplementedError where
            # its ops do not load, InvalidArgumentError for float16.
            self.close()
            raise FeatureError(
                [
                    Problem(
                        path,
                        None,
                        "tensorflow-io cannot read it (it needs TensorFlow "
                        "2.16 or 2.17, and float32 or float64 data); use "
                        f"reader='h5py'. {type(error).__name__}: "
                        f"{str(error)[:200]}",
                    )
                ]
            ) from error

    def _values(self, dataset):
        import tensorflow as tf

        name = _text(h5i.get_name(dataset))
        try:
            return self._tensor(name).to_tensor().numpy()
        except tf.errors.OpError as error:
            raise OSError(error.message) from error


def write_hdf5(path, features, clip_seconds=None):
    """Writes one HDF5 file, in the form above.

    Args:
        path: File.
        features: Mapping from name to array; one is asked for at a time.
        clip_seconds: Float; `None` for what is not clips.

    Raises:
        OSError: If it cannot be written.
    """
    with open(path, "wb+", buffering=0) as file:
        stream = _Stream(file)
        try:
            # Readers with HDF5 1.10 or later, such as tensorflow-io's.
            with h5py.File(stream, "w", libver=("v110", "v110")) as written:
                _write(written, features, clip_seconds)
        finally:
            # What HDF5 says of it, if anything, comes of this.
            if stream.error is not None:
                raise stream.error


def _write(file, features, clip_seconds):
    if clip_seconds is not None:
        file.attrs["clip_seconds"] = clip_seconds
    for video_id, clips in features.items():
        clips = np.asarray(clips)
        # Without checksums a flipped byte would pass as a number.
        checksums = {"fletcher32": True, "chunks": clips.shape}
        file.create_dataset(
            video_id, data=clips, **(checksums if clips.size else {})
        )


class _Stream:
    """A file that notes the first failure and lets HDF5 go on.

    HDF5 does not survive one: it fails again when it closes, and when the
    process ends.
    """

    def __init__(self, file):
        self._file = file
        self.error = None

    def write(self, data):
        left = memoryview(data).cast("B")
        while left and self.error is None:
            left = left[self._try(self._file.write, left) or 0 :]
        return len(data)

    def truncate(self, size=None):
        self._try(self._file.truncate, size)

    def flush(self):
        self._try(self._file.flush)

    def read(self, size=-1):
        return self._file.read(size)

    def readinto(self, buffer):
        return self._file.readinto(buffer)

    def seek(self, *place):
        return self._file.seek(*place)

    def tell(self):
        return self._file.tell()

    def _try(self, function, *arguments):
        if self.error is None:
            try:
                return function(*arguments)
            except OSError as error:
                self.error = error
        return None
