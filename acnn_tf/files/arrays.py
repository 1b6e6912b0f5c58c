"""Files of named arrays: folders of `.npy`; opens HDF5 and TFRecord too.

Each class has `path`, `names` (sorted), `clip_seconds` (what the file says, or
`None`), `read(name)`, which returns the array as it stands, `place(name)`,
which returns the file and, where it counts records, the record, `records()`,
how many records each file has, and `close()`.

TensorFlow is imported only by the readers that need it, so that looking at an
HDF5 file takes no seconds.
"""

import io
import os

import numpy as np

from acnn_tf.files.hdf5 import HDF5File, TensorFlowIOFile
from acnn_tf.files.manifests import read_manifest, save_manifest
from acnn_tf.files.problems import FeatureError, fail, positive, sorted_names
from acnn_tf.files.tfrecord import TFRecordFiles

_SCALAR_FILE = "clip_seconds.txt"


def open_arrays(path, reader="auto"):
    """Opens a file of named arrays.

    Args:
        path: `.hdf5` or `.h5` file, `.tfrecord` file, or folder of `.npy` or
            `.tfrecord` files. HDF5 and TFRecord files may be remote, such as
            `s3://...`, if TensorFlow can read there.
        reader: `"h5py"` or `"tfio"` (tensorflow-io), for HDF5; `"auto"` is
            `"h5py"`.

    Returns:
        `HDF5File`, `TensorFlowIOFile`, `TFRecordFiles` or `NpyFolder`.
    """
    path = os.fspath(path)
    if reader not in ("auto", "h5py", "tfio"):
        raise ValueError(
            f"`reader` must be 'auto', 'h5py' or 'tfio'. Received: {reader!r}"
        )
    remote = "://" in path
    if not remote and not os.path.exists(path):
        raise FileNotFoundError(
            f"{path} is not there: it should be an HDF5 file, a TFRecord file "
            "or a folder of .npy files"
        )
    if path.endswith((".hdf5", ".h5")):
        files = HDF5File if reader != "tfio" else TensorFlowIOFile
        return files(path)
    if reader != "auto":
        raise ValueError(
            f"`reader` {reader!r} reads HDF5 files. Received: {path}"
        )
    if path.endswith((".tfrecord", ".tfrecords")):
        return TFRecordFiles(path, [path])
    if os.path.isdir(path):
        names = sorted(os.listdir(path))
        records = [n for n in names if n.endswith((".tfrecord", ".tfrecords"))]
        if records:
            return TFRecordFiles(path, [os.path.join(path, n) for n in records])
        return NpyFolder(path)
    raise ValueError(
        "Expected a .hdf5, .h5 or .tfrecord file, or a folder of .npy or "
        f".tfrecord files. Received: {path}"
    )


def read_floats(arrays, name):
    """Reads one array as float32, all of whose numbers are finite."""
    array = arrays.read(name)
    path, record = arrays.place(name)
    if array.dtype.kind != "f":
        fail(
            path,
            f"{name!r}: expected float16, float32 or float64, found "
            f"{array.dtype}",
            record,
        )
    with np.errstate(over="ignore"):  # becomes infinite, which is told below
        array = array.astype(np.float32, copy=False)
    finite = np.isfinite(array)
    if not finite.all():
        place = np.argwhere(~finite)[0].tolist()
        clip = f"clip {place[0]}, " if len(place) == 2 else ""
        fail(
            path,
            f"{name!r}: {clip}number {place[-1]} is {array[tuple(place)]}; "
            "extract it again",
            record,
        )
    return array


class NpyFolder:
    """A folder of `NAME.npy`; `clip_seconds.txt` holds that number.

    With a manifest in it, `clip_seconds.txt` and the names are compared when
    the folder is opened, each array when it is read.
    """

    def __init__(self, path):
        self.path = path
        there = os.listdir(path)
        files = [name for name in there if name.endswith(".npy")]
        problems = []
        self._manifest = read_manifest(path, problems)
        if self._manifest is not None:
            scalars = [name for name in there if name == _SCALAR_FILE]
            problems += self._manifest.check_names(path, files + scalars)
        if problems:
            raise FeatureError(problems)
        self.names = sorted_names(path, [n.removesuffix(".npy") for n in files])
        self.clip_seconds = None
        scalar = os.path.join(path, _SCALAR_FILE)
        if os.path.exists(scalar):
            self.clip_seconds = positive(scalar, self._bytes(scalar))

    def place(self, name):
        return os.path.join(self.path, f"{name}.npy"), None

    def records(self):
        files = [self.place(name)[0] for name in self.names]
        scalar = os.path.join(self.path, _SCALAR_FILE)
        if os.path.exists(scalar):
            files.append(scalar)
        return dict.fromkeys(files, 1)

    def read(self, name):
        path, _ = self.place(name)
        try:
            # Memory for what a damaged header says need not be there.
            data = self._bytes(path)
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except FeatureError:
            raise
        except (OSError, ValueError, EOFError, MemoryError) as error:
            fail(path, f"is not a whole .npy file of numbers: {error}")
        if not isinstance(array, np.ndarray):
            fail(path, "is an archive, not an .npy file")
        return array

    def _bytes(self, path):
        """The bytes of a file, if they are those of the manifest.

        75 clips of 512 numbers are read in 0.08 ms, and compared in 0.09.
        """
        with open(path, "rb") as file:
            data = file.read()
        if self._manifest is not None:
            problems = self._manifest.check(path, data)
            if problems:
                raise FeatureError(problems)
        return data

    def close(self):
        pass


def write_npy(path, features, clip_seconds):
    """Writes a folder of `.npy` files, in the form above, with a manifest."""
    os.mkdir(path)
    scalar = os.path.join(path, _SCALAR_FILE)
    with open(scalar, "w") as file:
        file.write(f"{clip_seconds}\n")
    files = [scalar]
    for video_id, clips in features.items():
        files.append(os.path.join(path, f"{video_id}.npy"))
        # To a file itself NumPy would not say why it cannot write.
        data = io.BytesIO()
        np.save(data, clips, allow_pickle=False)
        with open(files[-1], "wb") as file:
            file.write(data.getbuffer())
    save_manifest(path, dict.fromkeys(files, 1))
