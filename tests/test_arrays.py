"""The one door for arrays: what is hostile, broken, damaged, old or foreign."""

import ast
import itertools
import json
import os
import re

import h5py
import numpy as np
import pytest

from acnn_tf.data.features import open_features, write_features
from acnn_tf.data.sentences import write_sentence_vectors
from acnn_tf.files.hdf5_checks import PlainFile
from acnn_tf.files.problems import FeatureError
from tests.damaged_arrays import KINDS
from tests.hostile_arrays import FILES, REMEDY, build_all, expected, path_of
from tests.processes import run_module, run_script
from tests.test_project import assert_none

CLIPS = {
    "a": np.array([[1.5, 2.0], [3.0, 4.0]], np.float32),
    "b": np.array([[5.5, 6.0], [7.0, 8.0]], np.float32),
}


def test_hostile_files_are_named_with_a_remedy_in_little_memory(tmp_path):
    kept = build_all(tmp_path)
    # One process opens all of them.
    done = run_module("tests.hostile_arrays", tmp_path)
    del kept
    offenders, names = [], []
    for name, messages, growth in map(json.loads, done.stdout.splitlines()):
        names.append(name)
        offenders += [
            f"{name}, {reader}: {message}"
            for reader, message in messages.items()
            if "tensorflow-io cannot read it" not in message
            and not (
                message.startswith(path_of(tmp_path, name))
                and re.search(expected(name), message)
                and re.search(REMEDY, message)
            )
        ]
        if growth >= 500:
            offenders.append(f"{name} takes {growth} MB")
    assert_none(offenders)
    assert names == list(FILES)


def links(path):
    with h5py.File(path, "w") as file:
        file["a"] = h5py.SoftLink("/b")
        file["b"] = h5py.ExternalLink("source.h5", "/a")


def virtual(path):
    layout = h5py.VirtualLayout((2, 2), np.float32)
    layout[:] = h5py.VirtualSource("source.h5", "a", (2, 2))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("a", layout)


def external(path):
    stored = path.parent / "raw"
    stored.write_bytes(CLIPS["a"].tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (2, 2), "f4", external=[(str(stored), 0, 16)])


def groups(path):
    with h5py.File(path, "w") as file:
        file["a/fc6"] = CLIPS["a"]
        file["a/fc7"] = CLIPS["b"]


def test_remedy_makes_one_plain_file(tmp_path):
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["a"] = CLIPS["a"]
    for write in (links, virtual, external, groups):
        path = tmp_path / f"{write.__name__}.h5"
        write(path)
        with open_features(path, clip_seconds=1.0) as features:
            with pytest.raises(FeatureError) as error:
                features["a"]
        (command,) = re.findall('python -c "(.*)"', str(error.value))
        run_script(command.replace("SET", "fc6"), cwd=tmp_path)
        path = tmp_path / "plain.h5"
        with open_features(path, clip_seconds=1.0) as features:
            np.testing.assert_array_equal(features["a"], CLIPS["a"])
        path.unlink()


def test_arrays_of_a_whole_file_are_counted_and_linked_once(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a"] = CLIPS["a"]
        file.create_dataset("g/h/packed", data=CLIPS["b"], compression="gzip")
        file["scalar"] = np.float64(1.0)
        file["empty"] = np.ones((0, 2))
    with h5py.File(path) as file:
        plain = PlainFile(file, "x.h5")
        assert plain.size == path.stat().st_size
        assert plain.check_all() == 16 + 16 + 8
        place = file["a"].id.get_offset()
        plain.size = place + 15
        with pytest.raises(FeatureError, match=r"^x\.h5: 'a' declares"):
            plain.check(file["a"].id)
    for name, target in {"twice": "/a", "circle": "/g"}.items():
        with h5py.File(path, "r+") as file:
            file[f"g/{name}"] = file[target]
        with h5py.File(path) as file:
            with pytest.raises(FeatureError, match="is linked twice; make one"):
                PlainFile(file, "x.h5").check_all()
    with h5py.File(path, "w") as file:
        file["/".join("g" * 40)] = CLIPS["a"]
    with h5py.File(path) as file:
        with pytest.raises(FeatureError, match=r"'g' must be .* less than 32"):
            PlainFile(file, "x.h5").check_all()


@pytest.mark.parametrize(
    "number", [100, pytest.param(5000, marks=pytest.mark.soak)]
)
def test_damage_without_a_manifest_is_told_or_does_no_harm(number):
    for kind in KINDS:
        done = run_module("tests.damaged_arrays", kind, 0, number)
        counts = ast.literal_eval(done.stdout)
        assert sum(counts.values()) == number, kind
        assert "not named" not in counts, kind
        assert counts["told"] > number / 20, kind
        if kind == "written here":
            # No wrong number without a word, but for what Fletcher-32 takes
            # for the same.
            assert "changed" not in counts
            assert counts.get("swapped", 0) <= number / 1000


def test_file_that_lost_its_end_and_its_manifest_is_told(tmp_path):
    for kind in ("features.h5", "features.tfrecord"):
        path = tmp_path / kind
        write_features(path, CLIPS, 1.0)
        os.remove(f"{path}.manifest.json")
        data = path.read_bytes()
        for size in {*range(0, len(data), 40), len(data) - 1}:
            path.write_bytes(data[:size])
            told = rf"{kind}:.*extract its feat"
            with pytest.raises(FeatureError, match=told):
                dict(open_features(path))


def test_flipped_byte_without_a_manifest_is_told_with_its_video(tmp_path):
    path = tmp_path / "features.h5"
    write_features(path, CLIPS, 1.0)
    os.remove(f"{path}.manifest.json")
    with h5py.File(path) as file:
        place = file["b"].id.get_chunk_info(0).byte_offset
    data = path.read_bytes()
    for flipped in range(place, place + 16):
        changed = bytearray(data)
        changed[flipped] ^= 0x20
        path.write_bytes(changed)
        with open_features(path) as features:
            np.testing.assert_array_equal(features["a"], CLIPS["a"])
            with pytest.raises(FeatureError, match="'b' cannot be read"):
                features["b"]


def test_other_programs_read_what_is_written(tmp_path):
    for dtype in ("<f2", "<f4", "<f8", ">f4"):
        clips = {"é": CLIPS["a"].astype(dtype), "0": CLIPS["b"].astype(dtype)}
        write_features(tmp_path / "f.h5", clips, 0.5)
        with h5py.File(tmp_path / "f.h5") as file:
            assert file.attrs["clip_seconds"] == 0.5
            assert sorted(file) == ["0", "é"]
            assert file["é"].dtype == dtype
            assert file["é"].fletcher32
            np.testing.assert_array_equal(file["é"], clips["é"])
        with open_features(tmp_path / "f.h5") as features:
            np.testing.assert_array_equal(features["0"], clips["0"])


def test_name_that_hdf5_would_change_is_not_written(tmp_path):
    for name in ("", ".", "a\0b", "a/b", "\ud800"):
        vectors = {"a": CLIPS["a"], name: CLIPS["b"]}
        with pytest.raises(ValueError, match="Names in HDF5 must be text"):
            write_sentence_vectors(tmp_path / "v.h5", vectors)
    assert os.listdir(tmp_path) == []


def test_files_of_versions_before_this_are_read(tmp_path):
    """They have attributes and, behind HDF5's end, a checksum of their own."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.attrs.update(clip_seconds=0.5, acnn_tf_videos=2)
        for name, clips in CLIPS.items():
            file.create_dataset(name, data=clips, fletcher32=True)
            file[name].attrs["acnn_tf_crc32"] = np.uint32(7)
    with path.open("ab") as file:
        file.write(bytes(40) + b"acnn_tf.")
    with open_features(path) as features:
        assert features.clip_seconds == 0.5
        np.testing.assert_array_equal(features["b"], CLIPS["b"])


LAYOUTS = (
    {},
    {"track_times": True, "maxshape": (None, 512), "chunks": True},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
    {"compression": "gzip", "chunks": (700, 512)},
    {"compression": "lzf", "chunks": (7, 500)},
    {"scaleoffset": 3},
)


def test_layouts_of_other_programs_are_read(tmp_path):
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(700, 512)).astype(np.float32)
    path = tmp_path / "f.h5"
    versions = ("earliest", "v110", "latest")
    for libver, options in itertools.product(versions, LAYOUTS):
        with h5py.File(path, "w", libver=libver, userblock_size=512) as file:
            file.create_dataset("a", data=clips, **options)
            file.create_dataset("g/c3d", data=clips, **options)
            file.create_dataset("zeros", data=0 * clips, **options)
            expected = file["a"][()]
        with open_features(path, clip_seconds=1.0) as features:
            np.testing.assert_array_equal(features["a"], expected)
            np.testing.assert_array_equal(features["g"], expected)
            assert not features["zeros"].any()


def test_npy_of_other_programs_are_read(tmp_path):
    clips = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "columns.npy", np.asfortranarray(clips))
    np.save(tmp_path / "swapped.npy", clips.astype(">f8"))
    with open(tmp_path / "version2.npy", "wb") as file:
        np.lib.format.write_array(file, clips, version=(2, 0))
    with open_features(tmp_path, clip_seconds=1.0) as features:
        assert len(features) == 3
        for array in features.values():
            np.testing.assert_array_equal(array, clips)


def test_folder_of_tfrecord_files_is_one_mapping(tmp_path):
    write_features(tmp_path / "1.tfrecord", {"a": CLIPS["a"]}, 1.0)
    write_features(tmp_path / "2.tfrecord", {"b": CLIPS["b"]}, 1.0)
    assert list(open_features(tmp_path)) == ["a", "b"]
    write_features(tmp_path / "3.tfrecord", {"a": CLIPS["a"]}, 1.0)
    with pytest.raises(
        FeatureError, match=r"3\.tfrecord:1: video 'a' is already at .*1\.tf"
    ):
        open_features(tmp_path)


def open_by_tensorflow_io(path):
    """Opens features, or skips the test where its operations do not load."""
    try:
        return open_features(path, reader="tfio")
    except FeatureError as error:
        pytest.skip(error.problems[0].message)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["written here", "earliest"])
def test_damage_that_tensorflow_io_reads_is_told(tmp_path, kind):
    write_features(tmp_path / "f.h5", CLIPS, 1.0)
    open_by_tensorflow_io(tmp_path / "f.h5").close()
    # Seed 111 changes a name into one that tensorflow-io does not find.
    run_module("tests.damaged_arrays", kind, 0, 200, "tfio")


def test_tensorflow_io_reads_what_h5py_reads(tmp_path):
    path = tmp_path / "features.h5"
    rng = np.random.default_rng(0)
    clips = {
        "a": rng.random((5, 3)),
        "b c": rng.random((1, 3)).astype(np.float32),
        "é": rng.random((700, 3)).astype(np.float32),
        "g/c3d": rng.random((2, 3)).astype(np.float32),
    }
    with h5py.File(path, "w") as file:
        file.attrs["clip_seconds"] = 0.5
        file.update(clips)
    with open_by_tensorflow_io(path) as theirs, open_features(path) as ours:
        assert theirs.clip_seconds == 0.5
        assert list(theirs) == list(ours)
        for video in ours:
            np.testing.assert_array_equal(theirs[video], ours[video])


def test_what_tensorflow_io_cannot_read_points_to_h5py(tmp_path):
    # float16, where it works; everything, where it does not.
    path = tmp_path / "features.h5"
    write_features(path, {"a": CLIPS["a"].astype(np.float16)}, 1.0)
    with pytest.raises(FeatureError, match=r"features\.h5.*reader='h5py'"):
        open_features(path, reader="tfio")
