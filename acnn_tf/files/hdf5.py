"""HDF5 files of clip features, and of sentence vectors.

A dataset `[T, D]` per video id and a root attribute `clip_seconds`, which
sentence vectors have not. Those written here are of HDF5's format 1.10, which
keeps checksums of names, shapes and attributes, with a checksum on the numbers
as well; and they have a root attribute `acnn_tf_videos`, the number of videos,
and an attribute `acnn_tf_crc32` on each dataset, so that numbers in the wrong
place are told.

What makes up the file besides the numbers has one more checksum, see
`acnn_tf.files.hdf5_ends`.
"""

import zlib

import h5py
import numpy as np

from acnn_tf.files.hdf5_ends import append_end, check_end
from acnn_tf.files.manifests import check_file
from acnn_tf.files.problems import (
    FeatureError,
    Problem,
    fail,
    positive,
    sorted_names,
)

_VIDEOS = "acnn_tf_videos"
_CHECKSUM = "acnn_tf_crc32"
_AGAIN = "restore the file, or extract its features again"
# What h5py raises when a file is not as it should be.
_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)


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
        if "://" not in path:
            check_end(path, _VIDEOS)
        else:
            import tensorflow as tf

            source = tf.io.gfile.GFile(path, "rb")
        try:
            self._file = h5py.File(source, "r")
            names = list(self._file)
            self.clip_seconds = self._file.attrs.get("clip_seconds")
            self._num_videos = self._file.attrs.get(_VIDEOS)
        except _ERRORS as error:
            fail(path, f"is not a whole HDF5 file: {error}; {_AGAIN}")
        self.names = sorted_names(path, names)
        if self.clip_seconds is not None:
            self.clip_seconds = positive(path, self.clip_seconds)
        if self._num_videos not in (None, len(self.names)):
            fail(
                path,
                f"holds {len(self.names)} of its {self._num_videos} videos; "
                f"{_AGAIN}",
            )

    def place(self, name):
        return self.path, None

    def records(self):
        return {self.path: len(self.names)}

    def _dataset(self, name):
        item = self._file[name]
        if isinstance(item, h5py.Group) and len(item) == 1:
            item = next(iter(item.values()))
        if not isinstance(item, h5py.Dataset):
            fail(self.path, f"{name!r} is not a dataset")
        return item

    def read(self, name):
        try:
            dataset = self._dataset(name)
            array = np.asarray(self._values(dataset))
            checksum = dataset.attrs.get(_CHECKSUM)
        except FeatureError:
            raise
        except _ERRORS as error:
            fail(self.path, f"{name!r} cannot be read: {error}; {_AGAIN}")
        if checksum is None and self._num_videos is None:
            return array  # somebody else's file
        if checksum != _checksum(name, array, self.clip_seconds):
            fail(
                self.path,
                f"{name!r} cannot be read: its name, shape or numbers are not "
                f"those that were written; {_AGAIN}",
            )
        return array

    def _values(self, dataset):
        return dataset[()]

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

    def _values(self, dataset):
        import tensorflow as tf

        try:
            return self._tensor(dataset.name).to_tensor().numpy()
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
    append_end(path)


def _write(file, features, clip_seconds):
    if clip_seconds is not None:
        file.attrs["clip_seconds"] = clip_seconds
    file.attrs[_VIDEOS] = len(features)
    for video_id, clips in features.items():
        clips = np.asarray(clips)
        # Without checksums a flipped byte would pass as a number.
        checksums = {"fletcher32": True, "chunks": clips.shape}
        dataset = file.create_dataset(
            video_id, data=clips, **(checksums if clips.size else {})
        )
        checksum = _checksum(video_id, clips, clip_seconds)
        dataset.attrs[_CHECKSUM] = np.uint32(checksum)


def _checksum(name, array, clip_seconds):
    """CRC-32 of an array and of what belongs to it.

    With 75 clips of 512 numbers, from memory, reading takes 0.17 ms, the
    checksum 0.04 and its attribute 0.05. SHA-256 would take 0.09, BLAKE2 0.16.
    """
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    seconds = None if clip_seconds is None else float(clip_seconds)
    about = f"{name}\0{seconds!r}\0{array.dtype}\0{array.shape}"
    return zlib.crc32(array, zlib.crc32(about.encode()))


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
