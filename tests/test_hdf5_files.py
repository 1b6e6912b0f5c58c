"""HDF5 files of features: their checksums, and other programs' files."""

import shutil

import h5py
import numpy as np
import pytest

from acnn_tf.data.features import open_features, write_features
from acnn_tf.files.problems import FeatureError

CLIPS = {
    "a": np.array([[1.5, 2.0], [3.0, 4.0]], np.float32),
    "b": np.array([[5.5, 6.0], [7.0, 8.0]], np.float32),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "features.hdf5"
    write_features(path, CLIPS, 0.5)
    return path


def places(path):
    with h5py.File(path) as file:
        chunks = {name: file[name].id.get_chunk_info(0) for name in file}
    return {
        name: slice(chunk.byte_offset, chunk.byte_offset + chunk.size)
        for name, chunk in chunks.items()
    }


def test_other_programs_read_what_is_written(path):
    with h5py.File(path) as file:
        assert file.attrs["clip_seconds"] == 0.5
        assert sorted(file) == ["a", "b"]
        np.testing.assert_array_equal(file["a"][()], CLIPS["a"])


def test_numbers_that_changed_places_with_their_checksums_are_told(path):
    data = path.read_bytes()
    swapped, place = bytearray(data), places(path)
    swapped[place["a"]], swapped[place["b"]] = (
        data[place["b"]],
        data[place["a"]],
    )
    path.write_bytes(swapped)
    # HDF5 itself is content.
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["a"][()], CLIPS["b"])
    with open_features(path) as features:
        for video in CLIPS:
            with pytest.raises(
                FeatureError, match=rf"features\.hdf5: '{video}' cannot be read"
            ):
                features[video]


def test_no_byte_outside_of_the_numbers_may_change(path):
    data = path.read_bytes()
    numbers = {n for s in places(path).values() for n in range(s.start, s.stop)}
    for place in sorted(set(range(len(data))) - numbers):
        changed = bytearray(data)
        changed[place] ^= 0x20
        path.write_bytes(changed)
        with pytest.raises(
            FeatureError, match=r"not a whole HDF5 file.*restore"
        ):
            open_features(path)


def test_no_byte_of_the_numbers_may_change(path):
    data = path.read_bytes()
    for video, numbers in places(path).items():
        for place in range(numbers.start, numbers.stop):
            changed = bytearray(data)
            changed[place] ^= 0x20
            path.write_bytes(changed)
            with open_features(path) as features:
                with pytest.raises(FeatureError, match=rf"'{video}' cannot be"):
                    features[video]


def test_file_that_lost_its_end_is_told(path):
    path.write_bytes(path.read_bytes()[:-1])
    with h5py.File(path) as file:
        assert sorted(file) == ["a", "b"]
    with pytest.raises(FeatureError, match="not a whole HDF5 file"):
        open_features(path)


def test_file_that_another_program_changed_says_how_to_read_it(path):
    with h5py.File(path, "r+") as file:
        file["a"][0, 0] = 9.0
        file["c"] = CLIPS["a"]
    with pytest.raises(FeatureError, match="attribute 'acnn_tf_videos'"):
        open_features(path)
    with h5py.File(path, "r+") as file:
        del file.attrs["acnn_tf_videos"]
        del file["a"].attrs["acnn_tf_crc32"]
    shutil.copy(path, path.with_name("copy.hdf5"))
    with open_features(path.with_name("copy.hdf5")) as features:
        assert features["a"][0, 0] == 9.0
        np.testing.assert_array_equal(features["b"], CLIPS["b"])
        np.testing.assert_array_equal(features["c"], CLIPS["a"])


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_checksum_is_of_the_numbers_whatever_their_type(tmp_path, dtype):
    clips = CLIPS["a"].astype(dtype)
    write_features(
        tmp_path / "f.h5", {"é": clips, "0": clips.T}, np.float32(0.1)
    )
    with open_features(tmp_path / "f.h5") as features:
        np.testing.assert_array_equal(features["é"], clips)
        np.testing.assert_array_equal(features["0"], clips.T)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_files_of_other_programs_are_read_without_checksums(tmp_path, libver):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs["num_videos"] = 7  # says nothing to us
        for video, clips in CLIPS.items():
            file[video] = clips
    with open_features(path, clip_seconds=1.0) as features:
        assert features.problems() == {}
        np.testing.assert_array_equal(features["b"], CLIPS["b"])
