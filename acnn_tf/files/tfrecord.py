"""TFRecord files of clip features.

A `tf.train.Example` per video:

| feature | |
|---|---|
| `video_id` | bytes, UTF-8 |
| `clip_seconds` | float |
| `shape` | int64 `[2]` |
| `features` | bytes: float32, little-endian, row by row |
| `num_videos` | int64, optional: Examples in this file |
| `encoder` | bytes, optional: what made the features, as JSON |
"""

import math
import os
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from acnn_tf.files.manifests import check_file, open_file, read_manifest
from acnn_tf.files.problems import AGAIN, FeatureError, Problem, fail

# A length and its checksum before the data, a checksum behind it.
_HEAD, _TAIL = 12, 4
_LONGEST = (1 << 31) - 1  # that protobuf reads
_RECORDS = 1_000_000
_PROBLEMS = 100
_RANK = 32
_KINDS = {
    "video_id": ("bytes_list", bytes),
    "features": ("bytes_list", bytes),
    "clip_seconds": ("float_list", float),
    "num_videos": ("int64_list", int),
    "encoder": ("bytes_list", bytes),
}


class TFRecordFiles:
    """Named arrays in TFRecord files; see `acnn_tf.files.arrays`.

    Opening reads the files from end to end once, and with that verifies every
    checksum, and whatever a manifest says. Without either `num_videos` or a
    manifest, a file that was cut just between two records cannot be told from
    a whole one.
    """

    def __init__(self, path: str, files: Sequence[str]):
        self.path, self.others = path, []
        self.clip_seconds, self.encoders = None, {}
        self._places = {}
        problems = []
        # Of a folder; that of a single file is looked at with it.
        manifest = None if path in files else read_manifest(path, problems)
        if manifest is not None:
            names = map(os.path.basename, files)
            problems += manifest.check_names(path, names)
        for file in files:
            number = self._index(file, problems)
            problems += check_file(file, number)
            name = os.path.basename(file)
            if manifest is not None and name in manifest.files:
                problems += manifest.check(file, None, number)
        if problems:
            raise FeatureError(problems)
        self.names = list(self._places)

    def _index(self, file, problems):
        """Notes where the records of a file are; returns how many."""
        import tensorflow as tf

        try:
            places = _places(file)
        except FeatureError as error:
            problems += error.problems
            return None
        known, expected = len(problems), None
        records = tf.data.TFRecordDataset(file).as_numpy_iterator()

        def add_problem(number, message):
            problems.append(Problem(file, number, f"{message}; {AGAIN}"))

        for number, (offset, length) in enumerate(places, start=1):
            try:
                data = next(records)
            except (tf.errors.OpError, StopIteration) as error:
                found = getattr(error, "message", "another length")[:200]
                add_problem(number, f"is damaged: {found}")
                return None
            place = (file, number, offset, length, zlib.crc32(data))
            try:
                expected = self._add(data, place)
            except FeatureError as error:
                problems += error.problems
            if len(problems) - known >= _PROBLEMS and number < len(places):
                message = "the records from here on were not read"
                add_problem(number + 1, message)
                return None
        if expected not in (None, len(places)):
            held = f"{len(places)} of its {expected} videos"
            add_problem(len(places), f"is cut short: it holds {held}")
        return len(places)

    def _add(self, data, place):
        """Notes where a record is; returns its `num_videos`, if it has one."""
        file, number = place[:2]
        features = _parse(data, file, number)
        try:
            name = _value(features, "video_id", file, number).decode()
        except UnicodeDecodeError as error:
            fail(file, f"`video_id` is not UTF-8: {error}; rename it", number)
        if name in self._places:
            other, record = self.place(name)
            message = f"video {name!r} is already at {other}:{record}; "
            fail(file, message + "remove one of the two", number)
        self._places[name] = place
        if "clip_seconds" in features:
            # float32 in the file: 0.1 should come back as it was.
            seconds = round(_value(features, "clip_seconds", file, number), 6)
            if self.clip_seconds is None:
                self.clip_seconds = seconds
            elif self.clip_seconds != seconds:
                fail(
                    file,
                    f"video {name!r}: `clip_seconds` {seconds:g} is not the "
                    f"{self.clip_seconds:g} of the videos before it; extract "
                    "all of them alike",
                    number,
                )
        if "encoder" in features:
            text = _value(features, "encoder", file, number)
            self.encoders.setdefault(text, (file, number))
        if "num_videos" not in features:
            return None
        return _value(features, "num_videos", file, number)

    def place(self, name: str) -> tuple[str, int | None]:
        return self._places[name][:2]

    def read(self, name: str) -> np.ndarray:
        file, number, offset, length, checksum = self._places[name]
        with open_file(file) as stream:
            stream.seek(offset + _HEAD)
            data = stream.read(length)
        # 0.04 of 0.09 ms for 75 clips of 512 numbers. The file's own checksum
        # is another, which nothing here computes.
        if zlib.crc32(data) != checksum:
            fail(file, "has changed since it was opened; open it again", number)
        features = _parse(data, file, number)
        data = _value(features, "features", file, number)
        shape = tuple(features["shape"].int64_list.value[:_RANK])
        if min(shape, default=0) < 0 or 4 * math.prod(shape) != len(data):
            fail(
                file,
                f"video {name!r}: `features` has {len(data)} bytes, which is "
                f"not 4 for each number of `shape` {list(shape)}; extract it "
                "again",
                number,
            )
        return np.frombuffer(data, "<f4").reshape(shape)

    def close(self) -> None:
        pass


def _places(file):
    """Where the records of a file are: list of `(offset, length)`.

    TensorFlow takes the memory that a length asks for before it looks for the
    data, and the process ends if there is none; so no length may go beyond
    the end of the file.
    """
    places, offset = [], 0
    with open_file(file) as stream:
        stream.seek(0, os.SEEK_END)
        size = stream.tell()
        while offset < size:
            stream.seek(offset)
            length = int.from_bytes(stream.read(8), "little")
            places.append((offset, length))
            offset += _HEAD + length + _TAIL
            if offset > size:
                fail(
                    file,
                    f"is damaged or cut short: it ends after {size:,} bytes, "
                    f"this record after {offset:,}; {AGAIN}",
                    len(places),
                )
            if length > _LONGEST or len(places) > _RECORDS:
                fail(
                    file,
                    f"must have at most {_RECORDS:,} records of at most "
                    f"{_LONGEST:,} bytes; write several files",
                    len(places),
                )
    if not places:
        fail(file, f"holds no records; {AGAIN}")
    return places


def _parse(data, file, number):
    """A serialized `tf.train.Example` -> its features by name."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        return tf.train.Example.FromString(data).features.feature
    except DecodeError as error:
        fail(file, f"is not a tf.train.Example: {error}; {AGAIN}", number)


def _value(features, key, file, number):
    """The one value of a feature."""
    kind, expected = _KINDS[key]
    values = getattr(features[key], kind).value if key in features else ()
    if len(values) != 1:
        fail(
            file,
            f"`{key}` must be one {expected.__name__}; the record has "
            f"{sorted(features)!a:.200}; {AGAIN}",
            number,
        )
    return values[0]


def write_tfrecord(
    path: str,
    features: Mapping[str, np.ndarray],
    clip_seconds: float,
    encoder: str | None = None,
) -> None:
    """Writes one TFRecord file, in the form above."""
    import tensorflow as tf

    try:
        with tf.io.TFRecordWriter(path) as writer:
            for video_id, clips in features.items():
                with np.errstate(over="ignore"):  # becomes infinite
                    clips = np.asarray(clips).astype("<f4")
                example = tf.train.Example()
                values = example.features.feature
                values["video_id"].bytes_list.value.append(video_id.encode())
                values["clip_seconds"].float_list.value.append(clip_seconds)
                values["shape"].int64_list.value.extend(clips.shape)
                values["num_videos"].int64_list.value.append(len(features))
                values["features"].bytes_list.value.append(clips.tobytes())
                if encoder is not None:
                    values["encoder"].bytes_list.value.append(encoder.encode())
                writer.write(example.SerializeToString())
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
