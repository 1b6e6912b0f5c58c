"""Archives of arrays: NumPy's `.npz`, and tensors that PyTorch has saved.

Both are zip files. Neither NumPy's nor PyTorch's own reader is used for them:
one takes what memory the file asks for, the other runs what it says.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from typing import BinaryIO

import numpy as np

from acnn_tf.files.manifests import check_file
from acnn_tf.files.npy import naming, parse_npy
from acnn_tf.files.pickles import Name, kind_of, unpickle
from acnn_tf.files.problems import FeatureError

SUFFIXES = (".npz", ".pt", ".pth")

# Bytes of an array that was packed: so many, and so many for each of the file.
# Features after ReLU, two thirds of them zeros, take 3.
_SPARE, _SHARE = 2**20, 20
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_OLDER = (
    "it is not what torch.save writes since PyTorch 1.6; load it there and "
    "save it again"
)
# Kinds of storage, by the name of their class.
_STORAGES = {
    "torch.HalfStorage": "<f2",
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.BFloat16Storage": "<u2",
    "torch.CharStorage": "<i1",
    "torch.ByteStorage": "<u1",
    "torch.ShortStorage": "<i2",
    "torch.IntStorage": "<i4",
    "torch.LongStorage": "<i8",
    "torch.BoolStorage": "?",
}


class ArchiveFile:
    """Named arrays in one `.npz` or `.pt`; see `acnn_tf.files.arrays`."""

    def __init__(self, path: str):
        self.path = path
        self.others, self.clip_seconds, self.encoders = [], None, {}
        if problems := check_file(path):
            raise FeatureError(problems)
        suffix = os.path.splitext(path)[1]
        with naming(path, suffix):
            self._archive = open_archive(path, suffix)
        self._suffix = suffix
        self.names = list(self._archive.names)

    def place(self, name: str) -> tuple[str, int | None]:
        return self.path, None

    def read(self, name: str) -> np.ndarray:
        with naming(self.path, self._suffix):
            return self._archive.read(name)

    def close(self) -> None:
        self._archive.close()


def open_archive(file: str | BinaryIO, suffix: str) -> Npz | Tensors:
    """The archive in a file, a path or an open one: `names`, `read(name)`."""
    return Npz(file) if suffix == ".npz" else Tensors(file)


def read_array(data: bytes, suffix: str, name: str | None = None) -> np.ndarray:
    """The one array of an archive's bytes, or the one of a name.

    Raises:
        ValueError: If it holds several, and none is chosen. Others if it is
            damaged.
    """
    archive = open_archive(io.BytesIO(data), suffix)
    names = [*archive.names]
    if name is None and len(names) != 1:
        some = ", ".join(f"{one!a:.40}" for one in names[:5])
        raise ValueError(
            f"it holds {len(names):,} arrays ({some}); choose one of them, as "
            "FOLDER:NAME"
        )
    if name is not None and names == [""]:
        raise ValueError(f"it holds one tensor, and none of name {name!a:.40}")
    return archive.read(names[0] if name is None else name)


class Npz:
    """The arrays of an `.npz`, each read when it is asked for."""

    def __init__(self, file: str | BinaryIO):
        self._zip = zipfile.ZipFile(file)
        self._size = _size_of(self._zip)
        self.names = {
            info.filename.removesuffix(".npy"): info
            for info in self._zip.infolist()
        }

    def read(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise ValueError(f"it has no array {name!a:.80}")
        info = self.names[name]
        if info.compress_type not in _PACKINGS:
            raise ValueError(f"{name!a:.80} is packed in an unknown way")
        if info.file_size > _SPARE + _SHARE * self._size:
            raise ValueError(
                f"{name!a:.80} is said to have {info.file_size:,} bytes, in a "
                f"file of {self._size:,}"
            )
        return parse_npy(_content(self._zip, info))

    def close(self) -> None:
        self._zip.close()


class Tensors:
    """The tensors of a file that `torch.save` wrote, as NumPy arrays.

    It is a dictionary of tensors, or one tensor, whose name is "". They are
    read at once; nothing that the file says is run.
    """

    def __init__(self, file: str | BinaryIO):
        with _tensor_zip(file) as archive:
            self._zip, self._left = archive, _size_of(archive)
            entries = {info.filename: info for info in archive.infolist()}
            pickles = [n for n in entries if n.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ValueError(_OLDER)
            self._folder = pickles[0].removesuffix("data.pkl")
            order = entries.get(f"{self._folder}byteorder")
            if order and self._stored(order) != b"little":
                raise ValueError("its numbers are not little-endian")
            self._entries, self._storages = entries, {}
            known = dict.fromkeys(_STORAGES)
            known["torch._utils._rebuild_tensor_v2"] = _tensor
            known["torch._utils._rebuild_tensor"] = _tensor
            known["torch._utils._rebuild_parameter"] = lambda tensor, *_: tensor
            value = unpickle(
                self._stored(entries[pickles[0]]), known, self._storage
            )
        values = value if type(value) is dict else {"": value}
        self._values = {
            name if type(name) is str else str(name): value
            for name, value in values.items()
        }
        self.names = self._values.keys()

    def _storage(self, said):
        """A storage, by `("storage", its class, key, device, size)`."""
        _, kind, key, _, size = said
        if key not in self._storages:
            if type(kind) is not Name or kind.name not in _STORAGES:
                raise ValueError("storage of an unknown kind")
            entry = self._entries[f"{self._folder}data/{key}"]
            numbers = np.frombuffer(self._stored(entry), _STORAGES[kind.name])
            if kind.name == "torch.BFloat16Storage":
                # The upper half of a float32.
                numbers = (numbers.astype("<u4") << 16).view("<f4")
            self._storages[key] = numbers
        if len(self._storages[key]) != size:
            raise ValueError(f"storage {key!a:.40} is not of {size!a:.40}")
        return self._storages[key]

    def _stored(self, info):
        """The bytes of an entry that is not packed, as PyTorch writes them."""
        # Entries may lie over one another.
        self._left -= info.file_size
        if info.compress_type != zipfile.ZIP_STORED or self._left < 0:
            raise ValueError(f"{info.filename!a:.80} has not its own bytes")
        return _content(self._zip, info)

    def read(self, name: str) -> np.ndarray:
        if name not in self._values:
            raise ValueError(f"it has no tensor {name!a:.80}")
        value = self._values[name]
        if type(value) is not np.ndarray:
            raise ValueError(
                f"expected a tensor{f' {name!a:.80}' if name else ''}, found "
                f"{kind_of(value)}"
            )
        return value

    def close(self) -> None:
        pass


def _tensor_zip(file):
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise ValueError(_OLDER) from None


def _tensor(storage, first, shape, steps, *_):
    """The numbers of a tensor, which may be a part of a storage."""
    if type(storage) is not np.ndarray or storage.ndim != 1:
        raise ValueError("a tensor without a storage")
    numbers = (first, *shape, *steps)
    if len(shape) != len(steps) or not all(
        type(number) is int and number >= 0 for number in numbers
    ):
        raise ValueError("a tensor whose shape is none")
    last = first + sum(
        (size - 1) * step for size, step in zip(shape, steps) if size
    )
    # Steps of 0 would make terabytes of one number.
    if math.prod(shape) > len(storage) or (
        math.prod(shape) and last >= len(storage)
    ):
        raise ValueError(
            f"a tensor of shape {list(shape)!s:.60} in a storage of "
            f"{len(storage):,} numbers"
        )
    if not math.prod(shape):
        return np.zeros(shape, storage.dtype)
    size = storage.itemsize
    return np.lib.stride_tricks.as_strided(
        storage[first:], shape, [step * size for step in steps], writeable=False
    )


def _size_of(archive):
    archive.fp.seek(0, os.SEEK_END)
    return archive.fp.tell()


def _content(archive, info):
    with archive.open(info) as file:
        data = file.read(info.file_size)
    if len(data) != info.file_size:
        raise ValueError(f"{info.filename!a:.80} is cut short")
    return data
