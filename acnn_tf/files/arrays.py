"""One door for files of named arrays: HDF5, TFRecord, `.npy` and others.

Features of videos and vectors of sentences come in here, whoever wrote them
and whichever library reads them. A reader has what `Arrays` has, which checks
what comes of it. None takes more memory than a few times the bytes of a file,
and TensorFlow is imported only by those that need it, so that looking at an
HDF5 file takes no seconds.
"""

from __future__ import annotations

import collections
import io
import itertools
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

import numpy as np

from acnn_tf.files.archives import SUFFIXES, ArchiveFile, read_array
from acnn_tf.files.hdf5 import HDF5File, TensorFlowIOFile
from acnn_tf.files.manifests import (
    open_file,
    read_manifest,
    save_manifest,
)
from acnn_tf.files.names import array_of
from acnn_tf.files.npy import naming, parse_npy, read_header
from acnn_tf.files.pickles import PickleFile
from acnn_tf.files.problems import AGAIN, FeatureError, Problem, fail
from acnn_tf.files.text import MAX_DESCRIPTION_BYTES
from acnn_tf.files.tfrecord import TFRecordFiles

_SCALAR_FILE, _ENCODER_FILE = "clip_seconds.txt", "encoder.json"
_PACKED_FILE, _NAMES_FILE = "packed.npy", "packed.txt"
_HDF5 = (".hdf5", ".h5")
_TFRECORD = (".tfrecord", ".tfrecords")
_PICKLE = (".pkl", ".pickle")
_OTHERS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def open_arrays(path: str | os.PathLike, reader: str = "auto") -> Arrays:
    """Opens a file of named arrays.

    Args:
        path: One of
            - `.hdf5` or `.h5` file, or `.tfrecord` file. They may be remote,
              such as `s3://...`, if TensorFlow can read there.
            - `.npz` file, pickle (`.pkl`) or file of tensors (`.pt`). No code
              in a pickle or a file of tensors is run.
            - folder of `.npy`, `.npz`, `.pt` or `.tfrecord` files, or a folder
              that `write_packed` has written. `FOLDER:NAME` chooses one array
              where the files hold several.
        reader: What reads HDF5: `"h5py"`, or `"tfio"` (tensorflow-io).
            Default: `"auto"`, which is h5py.

    Returns:
        The opened file.

    Raises:
        FeatureError: If the file is damaged or empty.
        FileNotFoundError: If the file does not exist.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from acnn_tf.files.arrays import open_arrays
    >>> folder = tempfile.mkdtemp()
    >>> np.save(folder + "/a.npy", np.ones((3, 2)))
    >>> arrays = open_arrays(folder)
    >>> arrays.names, arrays.read("a").dtype
    (['a'], dtype('float32'))
    """
    path, array = array_of(path)
    if reader not in ("auto", "h5py", "tfio"):
        raise ValueError(
            f"`reader` must be 'auto', 'h5py' or 'tfio'. Received: {reader!r}"
        )
    remote = "://" in path
    if not remote and not os.path.exists(path):
        raise FileNotFoundError(
            f"{path} is not there: it should be an HDF5 file, a TFRecord file, "
            "an .npz, a pickle, a .pt or a folder of .npy files"
        )
    if not path.endswith(_HDF5) and reader != "auto":
        raise ValueError(
            f"`reader` {reader!r} reads HDF5 files. Received: {path}"
        )
    if path.endswith(_HDF5 + _TFRECORD + _PICKLE + SUFFIXES):
        files = [path]
    elif not remote and os.path.isdir(path):
        names = sorted(os.listdir(path))
        files = [os.path.join(path, n) for n in names if n.endswith(_TFRECORD)]
    else:
        raise ValueError(
            "Expected a .hdf5, .h5, .tfrecord, .npz, .pkl or .pt file, or a "
            f"folder of .npy, .npz, .pt or .tfrecord files. Received: {path}"
        )
    if not remote:
        for file in files:
            _check_regular(file)
    if path.endswith(_HDF5):
        source = TensorFlowIOFile(path) if reader == "tfio" else HDF5File(path)
    elif path.endswith(_PICKLE):
        source = PickleFile(path)
    elif path.endswith(SUFFIXES):
        source = ArchiveFile(path)
    elif files:
        source = TFRecordFiles(path, files)
    else:
        is_packed = os.path.exists(os.path.join(path, _NAMES_FILE))
        source = PackedFolder(path) if is_packed else NpyFolder(path, array)
    return Arrays(source)


def _check_regular(path):
    """Raises unless a file has an end, so that nothing waits for it."""
    kind = stat.S_IFMT(os.stat(path).st_mode)
    if kind != stat.S_IFREG:
        fail(
            path,
            f"must be a regular file, found {_OTHERS.get(kind, 'a device')}; "
            "copy what it holds into a file",
        )


class Arrays:
    """Named arrays of floats, checked alike wherever they come from.

    Args:
        source: `HDF5File`, `TensorFlowIOFile`, `NpyFolder`, `PackedFolder`,
            `PickleFile`, `ArchiveFile` or `TFRecordFiles`. `close` closes it.

    Attributes:
        path: Where the arrays lie.
        names: Sorted list of their names.
        clip_seconds: Seconds from one clip to the next; `None` if the file
            does not say.
        encoders: Dictionary from each text, as bytes, that says what made the
            features, to where it is: its file and the number of its record.
            See `acnn_tf.encoders.descriptions`, which parses them.
    """

    def __init__(self, source: object):
        self.path = source.path
        self.encoders = source.encoders
        self._source = source
        try:
            self.names = _sorted_names(source.path, source.names)
            self.clip_seconds = _positive(source.path, source.clip_seconds)
        except FeatureError:
            source.close()
            raise

    def read(self, name: str) -> np.ndarray:
        """Reads one array as float32, all of whose numbers are finite.

        It may be of any shape, and read-only.
        """
        array = self._source.read(name)
        if array.dtype.kind != "f":
            self.fail(
                name,
                "expected float16, float32 or float64, found "
                f"{array.dtype}; write it again as floats",
            )
        with np.errstate(over="ignore"):  # becomes infinite, see below
            array = array.astype(np.float32, copy=False)
        finite = np.isfinite(array)
        if not finite.all():
            place = np.argwhere(~finite)[0].tolist()
            clip = f"clip {place[0]}, " if len(place) == 2 else ""
            number = f"number {place[-1]} " if place else ""
            self.fail(
                name,
                f"{clip}{number}is {array[tuple(place)]}; extract it again",
            )
        return array

    def fail(self, name: str, message: str) -> NoReturn:
        """Raises a `FeatureError` about one array."""
        path, record = self.place(name)
        fail(path, f"{name!r}: {message}", record)

    def place(self, name: str) -> tuple[str, int | None]:
        """`(file, record)` of an array; the record is `None` in most files."""
        return self._source.place(name)

    def records(self) -> dict[str, int]:
        """Dictionary from file to the number of records in it."""
        files = [self.place(name)[0] for name in self.names]
        return dict(collections.Counter(files + self._source.others))

    def verify(self) -> list[Problem]:
        """Compares with the manifest what was not compared on opening."""
        verify = getattr(self._source, "verify", list)
        return verify()

    def close(self) -> None:
        """Closes the file."""
        self._source.close()


def _sorted_names(path, names):
    """Sorted names of what a file holds: some, all of them UTF-8, each once."""
    if not names:
        fail(path, "holds no arrays; extract features into it")
    names = sorted(names)
    for name, other in itertools.pairwise([*names, None]):
        # What is not UTF-8 has come as surrogates.
        if re.search("[\ud800-\udfff]", name):
            fail(
                path,
                f"holds a name that is not UTF-8: {name!a:.100}; rename it",
            )
        if name == other:
            fail(path, f"holds the name {name!r:.100} twice; {AGAIN}")
    return names


def _positive(path, value):
    """The `clip_seconds` of a file as a float, checked; `None` stays."""
    if value is None:
        return None
    try:
        seconds = float(np.asarray(value).item())
    except (TypeError, ValueError):
        seconds = np.nan
    if not 0 < seconds < np.inf:
        fail(
            path,
            f"`clip_seconds` must be a number above 0, found {value!r:.100}; "
            "write it again",
        )
    return seconds


class NpyFolder:
    """A folder of `NAME.npy`; `clip_seconds.txt` holds that number.

    They may as well be `NAME.npz` or `NAME.pt`, each with one array, or with
    several of which the one called `array` counts. What made the features is in
    `encoder.json`. With a manifest in the folder, those two and the names are
    compared when it is opened, each array when it is read. `others` are its
    files of no array.
    """

    def __init__(self, path: str, array: str | None = None):
        self.path = path
        there = os.listdir(path)
        files = [name for name in there if name.endswith((".npy", *SUFFIXES))]
        suffixes = sorted({os.path.splitext(name)[1] for name in files})
        if len(suffixes) > 1:
            fail(
                path,
                f"holds files of several kinds, {' and '.join(suffixes)}; keep "
                "those of one",
            )
        self._suffix, self._array = "".join(suffixes), array
        problems = []
        self._manifest = read_manifest(path, problems)
        if self._manifest is not None:
            others = {_SCALAR_FILE, _ENCODER_FILE, _NAMES_FILE}
            others = others.intersection(there)
            problems += self._manifest.check_names(path, {*files, *others})
        if problems:
            raise FeatureError(problems)
        self.names = [name.removesuffix(self._suffix) for name in files]
        self.clip_seconds, self.others = None, []
        scalar = os.path.join(path, _SCALAR_FILE)
        if os.path.exists(scalar):
            self.clip_seconds = self._bytes(scalar)
            self.others.append(scalar)
        self.encoders = {}
        encoder = os.path.join(path, _ENCODER_FILE)
        if os.path.exists(encoder):
            if os.path.getsize(encoder) > MAX_DESCRIPTION_BYTES:
                fail(
                    encoder,
                    f"must have at most {MAX_DESCRIPTION_BYTES:,} bytes, which "
                    "say what made the features; write it again, or remove it",
                )
            self.encoders[self._bytes(encoder)] = encoder, None
            self.others.append(encoder)

    def place(self, name: str) -> tuple[str, int | None]:
        return os.path.join(self.path, name + self._suffix), None

    def read(self, name: str) -> np.ndarray:
        path, _ = self.place(name)
        with naming(path, self._suffix):
            data = self._bytes(path)
            if self._suffix == ".npy":
                return parse_npy(data)
            return read_array(data, self._suffix, self._array)

    def _bytes(self, path):
        """The bytes of a file, if they are those of the manifest.

        75 clips of 512 numbers are read in 0.08 ms, and compared in 0.09.
        """
        _check_regular(path)
        with open(path, "rb") as file:
            data = file.read()
        if self._manifest is not None:
            problems = self._manifest.check(path, data)
            if problems:
                raise FeatureError(problems)
        return data

    def close(self) -> None:
        pass


class PackedFolder(NpyFolder):
    """Rows of the one array in `packed.npy`, by the names in `packed.txt`.

    It is for arrays of which there are too many for a file each. A row is read
    when it is asked for. Of a manifest only the size of the array's file is
    compared when it is opened; `verify` compares the rest.
    """

    def __init__(self, path: str):
        super().__init__(path)
        self._packed, names = (
            os.path.join(path, name) for name in (_PACKED_FILE, _NAMES_FILE)
        )
        self.others.append(names)
        text = self._bytes(names).decode(errors="surrogateescape")
        self.names = text.split("\n")[:-1]
        self._row = {name: row for row, name in enumerate(self.names)}
        if self._manifest is not None:
            problems = self._manifest.check(self._packed, verify=False)
            if problems:
                raise FeatureError(problems)
        with naming(self._packed):
            with open_file(self._packed) as file:
                size = os.fstat(file.fileno()).st_size
                shape, order, self._dtype = read_header(file, size)
                self._first = file.tell()
            if len(shape) != 2 or shape[0] != len(self.names) or order != "C":
                raise ValueError(
                    f"it has the shape {list(shape)} in the order {order}, "
                    f"expected a row for each of the {len(self.names):,} names "
                    f"in {names}"
                )
        self._dim = shape[1]

    def place(self, name: str) -> tuple[str, int | None]:
        return self._packed, self._row[name] + 1

    def read(self, name: str) -> np.ndarray:
        size = self._dim * self._dtype.itemsize
        place = self._first + self._row[name] * size
        with open_file(self._packed) as file:
            file.seek(place)
            data = file.read(size)
        if len(data) < size:
            path, record = self.place(name)
            fail(path, f"was cut since it was opened; {AGAIN}", record)
        return np.frombuffer(data, self._dtype)

    def verify(self) -> list[Problem]:
        """Compares every byte with the manifest: a list of `Problem`."""
        if self._manifest is None:
            return []
        return self._manifest.check(self._packed)


def write_packed(
    path: str,
    names: Sequence[str],
    rows: Iterable[np.ndarray],
    dim: int,
    clip_seconds: float | None,
    encoder: str | None = None,
) -> None:
    """Writes a folder that `PackedFolder` reads, with a manifest.

    The rows are floats `[dim]`, one for each name, and are written as float32.
    One row at a time is in memory.
    """
    files = _write_texts(path, clip_seconds, encoder)
    packed, listed = (
        os.path.join(path, name) for name in (_PACKED_FILE, _NAMES_FILE)
    )
    with open(listed, "w", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in names)
    header = {"descr": "<f4", "fortran_order": False}
    header["shape"] = len(names), dim
    with open(packed, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for row in rows:
            file.write(np.ascontiguousarray(row, "<f4"))
    records = dict.fromkeys([*files, listed], 1) | {packed: len(names)}
    save_manifest(path, records)


def _write_texts(path, clip_seconds, encoder):
    """Makes a folder with what is to be said of its features: paths."""
    os.mkdir(path)
    texts = {_SCALAR_FILE: clip_seconds, _ENCODER_FILE: encoder}
    files = []
    for name, text in texts.items():
        if text is not None:
            files.append(os.path.join(path, name))
            with open(files[-1], "w") as file:
                file.write(f"{text}\n")
    return files


def write_npy(
    path: str,
    features: Mapping[str, np.ndarray],
    clip_seconds: float,
    encoder: str | None = None,
) -> None:
    """Writes a folder of `.npy` files, in the form above, with a manifest."""
    files = _write_texts(path, clip_seconds, encoder)
    for video_id, clips in features.items():
        files.append(os.path.join(path, f"{video_id}.npy"))
        # To a file itself NumPy would not say why it cannot write.
        data = io.BytesIO()
        np.save(data, clips, allow_pickle=False)
        with open(files[-1], "wb") as file:
            file.write(data.getbuffer())
    save_manifest(path, dict.fromkeys(files, 1))
