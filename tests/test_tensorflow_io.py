"""HDF5 files read by tensorflow-io, where it works."""

import h5py
import numpy as np
import pytest

from acnn_tf.data.features import open_features, write_features
from acnn_tf.files.problems import FeatureError

CLIPS = np.array([[1.5, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)


def write_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        file.attrs["clip_seconds"] = 0.5
        for name, array in arrays.items():
            file[name] = array


def tensorflow_io_works(tmp_path):
    """Opens with tensorflow-io, or skips where its operations do not load."""
    path = tmp_path / "probe.h5"
    write_features(path, {"a": CLIPS}, 1.0)
    try:
        return open_features(path, reader="tfio").close()
    except FeatureError as error:
        pytest.skip(error.problems[0].message)


def test_tensorflow_io_reads_what_h5py_reads(tmp_path):
    tensorflow_io_works(tmp_path)
    path = tmp_path / "features.h5"
    rng = np.random.default_rng(0)
    clips = {
        "a": rng.random((5, 3)),
        "b c": rng.random((1, 3)).astype(np.float32),
        "é": rng.random((700, 3)).astype(np.float32),
        "g/c3d": rng.random((2, 3)).astype(np.float32),
    }
    write_hdf5(path, clips)
    with open_features(path) as ours:
        with open_features(path, reader="tfio") as theirs:
            assert theirs.clip_seconds == 0.5
            assert list(theirs) == list(ours)
            for video in ours:
                np.testing.assert_array_equal(theirs[video], ours[video])


def test_tensorflow_io_finds_every_broken_video(tmp_path):
    tensorflow_io_works(tmp_path)
    path = tmp_path / "features.h5"
    bad = {
        "nan": np.array([[1.0, 2.0], [3.0, np.nan]]),
        "rank": np.ones(2),
        "empty": np.ones((0, 2)),
        "wide": np.ones((3, 5)),
        "whole": np.ones((3, 2), np.int64),
    }
    write_hdf5(path, {**bad, "a": CLIPS, "b": CLIPS})
    with open_features(path, reader="tfio") as features:
        assert sorted(features.problems()) == sorted(bad)
        assert features["a"].shape == (3, 2)


def test_tensorflow_io_tells_a_flipped_byte_with_its_video(tmp_path):
    tensorflow_io_works(tmp_path)
    path = tmp_path / "features.h5"
    write_features(path, {"b": CLIPS}, 1.0)
    with h5py.File(path) as file:
        offset = file["b"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[offset + 3] ^= 1
    path.write_bytes(data)
    with open_features(path, reader="tfio") as features:
        with pytest.raises(FeatureError, match=r"features\.h5: 'b' cannot"):
            features["b"]


def test_what_tensorflow_io_cannot_read_points_to_h5py(tmp_path):
    # float16, where it works; everything, where it does not.
    path = tmp_path / "features.h5"
    write_features(path, {"a": CLIPS.astype(np.float16)}, 1.0)
    with pytest.raises(FeatureError, match=r"features\.h5.*reader='h5py'"):
        open_features(path, reader="tfio")


def test_truncated_file_does_not_reach_tensorflow_io(tmp_path):
    path = tmp_path / "features.h5"
    write_features(path, {"a": CLIPS}, 1.0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FeatureError, match="not a whole HDF5 file"):
        open_features(path, reader="tfio")
