"""HDF5 files of named arrays: clip features, sentence vectors.

A dataset per name and, for clips, root attributes: `clip_seconds`, and
`encoder`, what made them, as JSON. Files that
are written here are of HDF5's format 1.10, which keeps checksums of names,
shapes and addresses, and have HDF5's checksums of the numbers as well. What
those cannot tell, the manifest does: numbers that changed places, and 16 bits
that were all 0 and are all 1.

Other programs may lay out a file as they like, as long as it holds every
number that it declares, see `acnn_tf.files.hdf5_checks`.
"""

import io
import re
from collections.abc import Mapping

import h5py
import numpy as np
from h5py import h5d, h5f, h5fd, h5g, h5i, h5p, h5s, h5t

from acnn_tf.files.hdf5_checks import PlainFile, naming, plain_copy, text_of
from acnn_tf.files.manifests import check_file
from acnn_tf.files.problems import AGAIN, FeatureError, fail
from acnn_tf.files.text import MAX_DESCRIPTION_BYTES

_ATTRIBUTE = 1024


class HDF5File:
    """HDF5: a dataset per name, root attributes `clip_seconds`, `encoder`.

    A group that holds a single dataset, as in the C3D features of ActivityNet
    Captions, counts as that dataset. With a manifest beside it the file is
    read from end to end when it is opened.
    """

    def __init__(self, path: str):
        self.path, self.others = path, []
        problems = check_file(path)
        if problems:
            raise FeatureError(problems)
        source = path
        with naming(path, "is not a whole HDF5 file"):
            if "://" in path:
                import tensorflow as tf

                source = tf.io.gfile.GFile(path, "rb")
            self._file = h5py.File(source, "r")
            self._plain = PlainFile(self._file, path)
            names = self._plain.names(self._file.id)
            self.names = [n.decode(errors="surrogateescape") for n in names]
            self.clip_seconds = self._clip_seconds()
            self.encoders = self._encoders()

    def _clip_seconds(self):
        attributes = self._file.attrs
        if "clip_seconds" not in attributes:
            return None
        stored = attributes.get_id("clip_seconds")
        if stored.get_storage_size() > _ATTRIBUTE:
            return f"{stored.get_storage_size():,} bytes"
        if _is_variable(stored):
            return "text"
        return attributes["clip_seconds"]

    def _encoders(self):
        attributes = self._file.attrs
        if "encoder" not in attributes:
            return {}
        stored = attributes.get_id("encoder")
        if (
            stored.get_type().get_class() != h5t.STRING
            or _is_variable(stored)
            or stored.shape != ()
            or stored.get_storage_size() > MAX_DESCRIPTION_BYTES
        ):
            fail(
                self.path,
                "`encoder`, which describes what made the features, must be a "
                "text of JSON, of a fixed length and at most "
                f"{MAX_DESCRIPTION_BYTES:,} bytes; write it again "
                "(`file.attrs['encoder'] = numpy.bytes_(json.dumps(encoder))`),"
                " or remove it",
            )
        return {bytes(attributes["encoder"]): self.place("encoder")}

    def place(self, name: str) -> tuple[str, int | None]:
        return self.path, None

    def read(self, name: str) -> np.ndarray:
        with naming(self.path, f"{name!r} cannot be read"):
            dataset = self._dataset(name)
            self._plain.check(dataset)
            return self._values(dataset)

    def _dataset(self, name):
        item = self._plain.open(self._file.id, name.encode())
        if isinstance(item, h5g.GroupID):
            names = self._plain.names(item)
            if len(names) == 1:
                item = self._plain.open(item, names[0])
            if isinstance(item, h5g.GroupID):
                held = ", ".join(map(text_of, names[:3])) or "nothing"
                fail(
                    self.path,
                    f"{name!r} must be a dataset, or a group that holds just "
                    f"one; found a group that holds {held}. Choose a dataset "
                    f"SET and {plain_copy(self.path, '/SET')}",
                )
        if not isinstance(item, h5d.DatasetID):
            fail(self.path, f"{name!r} must be a dataset; {AGAIN}")
        return item

    def _values(self, dataset):
        array = np.empty(dataset.shape, dataset.dtype)
        if array.size:
            dataset.read(h5s.ALL, h5s.ALL, array)
        return array

    def close(self) -> None:
        self._file.close()


def _is_variable(attribute):
    """Whether an attribute is text, or lists, of any length.

    HDF5 1.14 and 2.0 look for those in heaps, and where two bytes of a heap's
    are others they look for ever.
    """
    kind = attribute.get_type()
    if kind.get_class() == h5t.STRING:
        return kind.is_variable_str()
    return kind.get_class() in (h5t.VLEN, h5t.COMPOUND, h5t.REFERENCE)


class TensorFlowIOFile(HDF5File):
    """HDF5, its data read by tensorflow-io.

    What is in the file is still seen by h5py: on a missing or truncated file
    tensorflow-io brings the process down.
    """

    def __init__(self, path: str):
        super().__init__(path)
        try:
            # All that is in the file is looked at by another HDF5 library.
            self._plain.check_all()
            import tensorflow_io

            self._tensor = tensorflow_io.IOTensor.from_hdf5(path)
        except Exception as error:
            # ImportError where it is not installed, NotImplementedError where
            # its ops do not load, InvalidArgumentError for float16.
            self.close()
            if isinstance(error, FeatureError):
                raise
            fail(
                path,
                "tensorflow-io cannot read it (it needs TensorFlow 2.16 or "
                "2.17, and float32 or float64 data); use reader='h5py'. "
                f"{type(error).__name__}: {str(error)[:200]}",
            )

    def _values(self, dataset):
        name = text_of(h5i.get_name(dataset))
        try:
            return self._tensor(name).to_tensor().numpy()
        except Exception as error:  # StopIteration if it has no such name
            raise OSError(f"tensorflow-io says {error!r:.200}") from error


def write_hdf5(
    path: str,
    features: Mapping[str, np.ndarray],
    clip_seconds: float | None = None,
    encoder: str | None = None,
) -> None:
    """Writes one HDF5 file, in the form above.

    One of the arrays, by name, is asked for at a time. A name that HDF5 cannot
    hold as it is is a `ValueError`.
    """
    for name in features:
        # It would cut one at a NUL, and take "/" for a group.
        if name in ("", ".") or re.search("[/\0\ud800-\udfff]", name):
            raise ValueError(
                "Names in HDF5 must be text without '/' and NUL, and not '.'. "
                f"Received: {name!a:.100}"
            )
    with _Stream(path, "w+") as stream:
        try:
            with h5py.File(_created(stream)) as written:
                if clip_seconds is not None:
                    written.attrs["clip_seconds"] = clip_seconds
                if encoder is not None:
                    # Of a fixed length, and so within the checksums.
                    written.attrs["encoder"] = np.bytes_(encoder)
                for name, array in features.items():
                    array = np.asarray(array)
                    # Without checksums a flipped byte would pass as a number.
                    checksums = {"fletcher32": True, "chunks": array.shape}
                    written.create_dataset(
                        name, data=array, **(checksums if array.size else {})
                    )
        finally:
            # What HDF5 says of it, if anything, comes of this.
            if stream.error is not None:
                raise stream.error


def _created(stream):
    """A new HDF5 file, as `h5py.File` makes it, but for what follows."""
    access, creation = map(h5p.create, (h5p.FILE_ACCESS, h5p.FILE_CREATE))
    access.set_fileobj_driver(h5fd.fileobj_driver, stream)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    # Readers with HDF5 1.10 or later, such as tensorflow-io's.
    access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
    # The same arrays are the same bytes, whenever they are written.
    creation.set_obj_track_times(False)
    return h5f.create(b"stream", h5f.ACC_TRUNC, fcpl=creation, fapl=access)


class _Stream(io.FileIO):
    """A file that notes the first failure and lets HDF5 go on.

    HDF5 does not survive one: it fails again when it closes, and when the
    process ends.
    """

    error = None

    def write(self, data):
        left = memoryview(data).cast("B")
        while left and self.error is None:
            left = left[self._try(super().write, left) or 0 :]
        return len(data)

    def truncate(self, size=None):
        self._try(super().truncate, size)

    def _try(self, function, *arguments):
        if self.error is None:
            try:
                return function(*arguments)
            except OSError as error:
                self.error = error
        return None
