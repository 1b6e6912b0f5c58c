"""TFRecord files of features, sound and broken."""

import numpy as np
import pytest
import tensorflow as tf

from acnn_tf.data.features import open_features, write_features
from acnn_tf.files.problems import FeatureError

CLIPS = {
    "a": np.array([[0.0, -1.0]], np.float32),
    "b": np.array([[1.5, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32),
}


def write_examples(path, *examples):
    """A TFRecord file of examples made of `name=value`."""
    kinds = {bytes: "bytes_list", float: "float_list", int: "int64_list"}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for values in examples:
            example = tf.train.Example()
            for name, value in values.items():
                value = value if isinstance(value, list) else [value]
                feature = example.features.feature[name]
                getattr(feature, kinds[type(value[0])]).value.extend(value)
            writer.write(example.SerializeToString())


def example(video=b"a", array=CLIPS["b"], **values):
    return {
        "video_id": video,
        "clip_seconds": 1.0,
        "shape": list(array.shape),
        "features": array.astype("<f4").tobytes(),
        **values,
    }


def test_tfrecord_cut_between_two_records_is_told(tmp_path):
    path = tmp_path / "features.tfrecord"
    write_features(path, {"a": CLIPS["b"], "b": CLIPS["b"]}, 1.0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        FeatureError, match=r"features\.tfrecord:1: .* 1 of its 2 videos"
    ):
        open_features(path)


def test_flipped_byte_of_tfrecord_is_told_with_its_record(tmp_path):
    path = tmp_path / "features.tfrecord"
    write_features(path, CLIPS, 1.0)
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(FeatureError, match=r"features\.tfrecord:2: is damaged"):
        open_features(path)


BAD_EXAMPLES = {
    "bytes": (example(b"\xff"), "`video_id` is not UTF-8"),
    "twice": (example(b"first"), "'first' is already at .*:1"),
    "no id": ({"clip_seconds": 1.0}, "`video_id` must be one bytes"),
    "id is a number": (example(1), "`video_id` must be one bytes"),
    "clips": (example(b"b", clip_seconds=2.0), "2 is not the 1 of"),
    "no array": (
        {"video_id": b"b", "clip_seconds": 1.0},
        "`features` must be one bytes",
    ),
    "shape": (example(b"b", shape=[3, 3]), "24 bytes, .* `shape` .3, 3"),
    "negative": (example(b"b", shape=[-3, -2]), "`shape` .-3, -2"),
    "no shape": (
        {k: v for k, v in example(b"b").items() if k != "shape"},
        "`shape` ",
    ),
    "huge": (example(b"b", shape=[2**62, 2**62]), "24 bytes"),
}


@pytest.mark.parametrize("name", BAD_EXAMPLES)
def test_bad_example_is_named_by_file_and_record(tmp_path, name):
    bad, words = BAD_EXAMPLES[name]
    path = tmp_path / "features.tfrecord"
    write_examples(path, example(b"first"), bad)
    with pytest.raises(FeatureError, match=rf"features\.tfrecord:2: .*{words}"):
        dict(open_features(path))


def test_records_that_are_no_examples_are_all_told(tmp_path):
    path = tmp_path / "features.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"\xff\xff")
        writer.write(b"\xff\xff\xff")
    with pytest.raises(FeatureError) as error:
        open_features(path)
    assert [p.line for p in error.value.problems] == [1, 2]


def test_folder_of_tfrecord_files_is_one_mapping(tmp_path):
    write_features(tmp_path / "1.tfrecord", {"a": CLIPS["b"]}, 1.0)
    write_features(tmp_path / "2.tfrecord", {"b": CLIPS["b"]}, 1.0)
    features = open_features(tmp_path)
    assert list(features) == ["a", "b"]
    write_features(tmp_path / "3.tfrecord", {"a": CLIPS["b"]}, 1.0)
    with pytest.raises(
        FeatureError, match=r"3\.tfrecord:1: video 'a' is already at .*1\.tf"
    ):
        open_features(tmp_path)
