"""Files of named arrays: HDF5 and folders of `.npy`; opens TFRecord too.

Each class has `path`, `names` (sorted), `clip_seconds` (what the file says, or
`None`), `read(name)`, which returns the array as it stands, `place(name)`,
which returns the file and, where it counts records, the record, and `close()`.

TensorFlow is imported only by the readers that need it, so that looking at an
HDF5 file takes no seconds.
"""

import os

import h5py
import numpy as np

from acnn_tf.data.problems import (
    FeatureError,
    Problem,
    fail,
    positive,
    sorted_names,
)
from acnn_tf.data.tfrecord_files import TFRecordFiles

SCALAR_FILE = "clip_seconds.txt"


def open_arrays(path, reader="auto"):
    """Opens a file of named arrays.

    Args:
        path: `.hdf5` or `.h5` file, `.tfrecord` file, or folder of `.npy` or
            `.tfrecord` files. HDF5 and TFRecord files may be remote, such as
            `s3://...`, if TensorFlow can read there.
        reader: `"h5py"` or `"tfio"` (tensorflow-io), for HDF5; `"auto"` is
            `"h5py"`.

    Returns:
        One of the classes below.
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


class HDF5File:
    """HDF5: a dataset per name, root attribute `clip_seconds`.

    A group that holds a single dataset, as in the C3D features of ActivityNet
    Captions, counts as that dataset.
    """

    def __init__(self, path):
        self.path = path
        source = path
        if "://" in path:
            import tensorflow as tf

            source = tf.io.gfile.GFile(path, "rb")
        try:
            self._file = h5py.File(source, "r")
            self.names = sorted_names(path, list(self._file))
            self.clip_seconds = self._file.attrs.get("clip_seconds")
        except (OSError, RuntimeError, KeyError) as error:
            fail(path, f"is not a whole HDF5 file: {error}")
        if self.clip_seconds is not None:
            self.clip_seconds = positive(path, self.clip_seconds)

    def place(self, name):
        return self.path, None

    def _dataset(self, name):
        item = self._file[name]
        if isinstance(item, h5py.Group) and len(item) == 1:
            item = next(iter(item.values()))
        if not isinstance(item, h5py.Dataset):
            fail(self.path, f"{name!r} is not a dataset")
        return item

    def read(self, name):
        try:
            return np.asarray(self._dataset(name)[()])
        except (OSError, RuntimeError, KeyError) as error:
            fail(self.path, f"{name!r} cannot be read: {error}")

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

    def read(self, name):
        import tensorflow as tf

        dataset = self._dataset(name).name
        try:
            return self._tensor(dataset).to_tensor().numpy()
        except (tf.errors.OpError, ValueError, KeyError) as error:
            fail(self.path, f"{name!r} cannot be read: {error}")


class NpyFolder:
    """A folder of `NAME.npy`; `clip_seconds.txt` holds that number."""

    def __init__(self, path):
        self.path = path
        self.names = sorted_names(
            path,
            [
                n.removesuffix(".npy")
                for n in os.listdir(path)
                if n[-4:] == ".npy"
            ],
        )
        self.clip_seconds = None
        scalar = os.path.join(path, SCALAR_FILE)
        if os.path.exists(scalar):
            with open(scalar, "rb") as file:
                self.clip_seconds = positive(scalar, file.read())

    def place(self, name):
        return os.path.join(self.path, f"{name}.npy"), None

    def read(self, name):
        path, _ = self.place(name)
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, MemoryError) as error:
            fail(path, f"is not a whole .npy file of numbers: {error}")
        if not isinstance(array, np.ndarray):
            fail(path, "is an archive, not an .npy file")
        return array

    def close(self):
        pass
