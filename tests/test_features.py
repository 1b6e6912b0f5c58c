"""Feature files of every kind, sound and broken."""

import json
import os
import re
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from acnn_tf.data.features import open_features, write_features
from acnn_tf.files.problems import FeatureError, UnknownIdError
from acnn_tf.files.tfrecord import write_tfrecord
from tests.processes import Started

KINDS = ("features.hdf5", "features.h5", "features.tfrecord", "features")
CLIPS = {
    "b": np.array([[1.5, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32),
    "a": np.array([[0.0, -1.0]], np.float16),
}
NAN = np.array([[1.0, 2.0], [3.0, np.nan]], np.float32)


@pytest.fixture(params=KINDS)
def path(request, tmp_path):
    return str(tmp_path / request.param)


def write_hdf5(path, arrays, **attributes):
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        for name, array in arrays.items():
            file[name] = array


def write_npy(path, arrays):
    os.mkdir(path)
    for name, array in arrays.items():
        np.save(os.path.join(path, f"{name}.npy"), array)


def write(path, arrays):
    """Writes arrays as they are, sound or not."""
    if path.endswith(".tfrecord"):
        write_tfrecord(path, arrays, 1.0)
    elif path.endswith("5"):
        write_hdf5(path, arrays)
    else:
        write_npy(path, arrays)


def with_broken_arrays(path):
    """Sound videos "s1", "s2", "s3", and one broken in each way."""
    arrays = {
        "s1": np.ones((3, 2), np.float32),
        "s2": np.ones((1, 2), np.float64),
        "s3": np.ones((4, 2), np.float32),
        "nan": NAN,
        "inf": np.full((1, 2), np.inf, np.float32),
        "large": np.full((1, 2), 1e300),
        "rank": np.ones(2, np.float32),
        "empty": np.ones((0, 2), np.float32),
        "wide": np.ones((3, 5), np.float32),
        "whole": np.ones((3, 2), np.int64),
    }
    if path.endswith(".tfrecord"):
        arrays.pop("whole")  # the file knows no dtype
    write(path, arrays)
    return sorted(arrays.keys() - {"s1", "s2", "s3"})


def test_reading_what_was_written_gives_the_same_features(path):
    write_features(path, CLIPS, 0.1)
    with open_features(path) as features:
        assert list(features) == ["a", "b"]
        assert len(features) == 2
        assert features.clip_seconds == 0.1
        assert features.dim == 2
        assert features.path == path
        for video, clips in CLIPS.items():
            assert features[video].dtype == np.float32
            np.testing.assert_array_equal(features[video], clips)
        assert features.problems() == {}


@pytest.mark.parametrize("kind", KINDS[1:])
@settings(max_examples=25)
@given(
    array=st_numpy.arrays(
        st.sampled_from([np.float16, np.float32]),
        st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=4),
        elements=st.floats(-1000, 1000, width=16),
    )
)
def test_any_numbers_come_back(tmp_path_factory, kind, array):
    path = tmp_path_factory.mktemp("features") / kind
    write_features(path, {"é/1" if "tf" in kind else "é": array}, 2.0)
    with open_features(path) as features:
        (clips,) = features.values()
        np.testing.assert_array_equal(clips, array)


def test_files_of_other_file_systems_are_read_through_tensorflow(tmp_path):
    for kind in ("features.hdf5", "features.tfrecord"):
        write_features(tmp_path / kind, CLIPS, 1.0)
        with open_features(f"file://{tmp_path / kind}") as features:
            np.testing.assert_array_equal(features["b"], CLIPS["b"])


# What made them


MADE_BY = {"encoder": "mine", "name": "mine:ä", "frame_rate": 2.0, "dim": 2}


class Raw(bytes):
    """Bytes that are written where a text should be."""

    def encode(self):
        return bytes(self)


def write_described(path, text):
    """Writes `CLIPS` with bytes, whatever they are, in place of JSON."""
    if path.endswith(".tfrecord"):
        write_tfrecord(path, CLIPS, 1.0, Raw(text))
    elif path.endswith("5"):
        write_hdf5(path, CLIPS, clip_seconds=1.0, encoder=np.bytes_(text))
    else:
        write_npy(path, CLIPS)
        for name, content in ("clip_seconds.txt", b"1"), ("encoder.json", text):
            with open(os.path.join(path, name), "wb") as file:
                file.write(content)


def test_the_bytes_do_not_tell_when_they_were_written(tmp_path):
    paths = [tmp_path / "a" / "features.hdf5", tmp_path / "features.hdf5"]
    paths[0].parent.mkdir()
    for path in paths:
        # HDF5 counts in seconds.
        second = int(time.time())
        write_features(path, CLIPS, 1.0)
        while path == paths[0] and int(time.time()) == second:
            time.sleep(0.01)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_made_them_comes_back(path):
    write_features(path, CLIPS, 1.0, MADE_BY)
    with open_features(path) as features:
        assert features.encoder == MADE_BY
        features.save_manifest()
    # By hand, without a manifest.
    other = path.replace("features", "others")
    write_described(other, b' {"encoder": "mine",\n"name": "ours"}\n')
    with open_features(other) as features:
        assert features.encoder == {"encoder": "mine", "name": "ours"}
        # Which notes a file that is changed afterwards.
        features.save_manifest()
    if not other.endswith(("5", "tfrecord")):
        os.remove(os.path.join(other, "encoder.json"))
        with pytest.raises(FeatureError, match=r"encoder\.json: is missing"):
            open_features(other)


def test_a_malformed_description_is_told(refused, tmp_path):
    for number, (text, words) in enumerate(
        [
            (b"{", "is not JSON"),
            (b"mine", "is not JSON"),
            (b'["mine"]', "expected an object"),
            (b'{"encoder": "mine", "name": "\xff"}', "codec can't decode"),
            (b'{"encoder": "a", "encoder": "b", "name": "a"}', "twice"),
            (b'{"encoder": "a", "name": "a", "b": NaN}', "plain values"),
            (b'{"encoder": "a", "name": 1}', "expected text as `name`"),
            (b"[" * 9_000, "is not JSON"),
            (b'{"encoder": "a", "name": "a"}' + b" " * 2**14, "at most 16,384"),
        ]
    ):
        for kind in KINDS:
            path = str(tmp_path / f"{number}{kind}")
            write_described(path, text)
            with refused(FeatureError, f"^{re.escape(path)}.*{words}"):
                open_features(path)


def test_an_attribute_that_is_no_text_is_told(refused, tmp_path):
    path = tmp_path / "features.h5"
    text = '{"encoder": "mine", "name": "mine"}'
    values = [1.5, [text], [1] * 99, h5py.Empty("S1"), np.zeros(8000)]
    # Of variable length, as h5py writes what is not `numpy.bytes_`.
    values += [text, text.encode()]
    for value in values:
        write_hdf5(path, CLIPS, clip_seconds=1.0, encoder=value)
        with refused(FeatureError, "`encoder`.* must be a text", value=value):
            open_features(path)
    write_hdf5(path, CLIPS, clip_seconds=1.0, encoder=np.bytes_(text))
    assert open_features(path).encoder["name"] == "mine"


def test_a_heap_that_hdf5_would_search_for_ever_is_left_alone(tmp_path):
    """Of texts of any length; of its free space the size is made zero."""
    text = json.dumps({**MADE_BY, "preprocessing": "p" * 400})
    for name in ("clip_seconds", "encoder"):
        path = tmp_path / f"{name}.h5"
        write_hdf5(path, CLIPS, **{"clip_seconds": 1.0, name: text})
        data = bytearray(path.read_bytes())
        # Behind the text, which is padded to eight bytes, and four numbers.
        size = data.index(text.encode()) + -(-len(text) // 8) * 8 + 8
        assert 0 < int.from_bytes(data[size : size + 8], "little") < len(data)
        data[size : size + 8] = bytes(8)
        path.write_bytes(data)
        script = (
            "import sys; from acnn_tf.data.features import open_features;"
            "open_features(sys.argv[1])"
        )
        done = Started("-c", script, path).finish(timeout=30)
        assert f"FeatureError: {path}: `{name}`" in done.stderr


def test_videos_of_two_encoders_are_refused(tmp_path):
    slower = MADE_BY | {"frame_rate": 1.0}
    write_features(tmp_path / "a.tfrecord", {"a": CLIPS["a"]}, 1.0, slower)
    newer = MADE_BY | {"versions": {"keras": "99"}}
    for name, encoder in (("b", MADE_BY), ("c", newer)):
        write_features(
            tmp_path / f"{name}.tfrecord", {name: CLIPS["b"]}, 1.0, encoder
        )
    with pytest.raises(FeatureError, match=r"2 fps, those before it by .* 1 f"):
        open_features(tmp_path)
    (tmp_path / "a.tfrecord").unlink()
    (tmp_path / "a.tfrecord.manifest.json").unlink()
    assert open_features(tmp_path).encoder == MADE_BY


def test_a_description_of_others_is_not_written(refused, path):
    for encoder, error, words in (
        (MADE_BY | {"dim": 3}, FeatureError, "has 2 .* but `encoder` says 3"),
        (MADE_BY | {"name": None}, ValueError, "`encoder`: expected text"),
        ("mine", ValueError, "`encoder`: expected an object"),
    ):
        with refused(error, words):
            write_features(path, CLIPS, 1.0, encoder)
        assert not os.path.exists(path)


def test_clip_seconds_must_come_from_somewhere_and_agree(tmp_path):
    path = tmp_path / "features.hdf5"
    write_hdf5(path, CLIPS)
    with pytest.raises(FeatureError, match=r"features\.hdf5.*`clip_seconds`"):
        open_features(path)
    assert open_features(path, clip_seconds=2.0).clip_seconds == 2.0
    write_hdf5(path, CLIPS, clip_seconds=1.0)
    assert open_features(path, clip_seconds=1.0).clip_seconds == 1.0
    with pytest.raises(FeatureError, match=r"lasts 1 s, but .* is 2"):
        open_features(path, clip_seconds=2.0)
    with pytest.raises(ValueError, match="Received: 0"):
        open_features(path, clip_seconds=0)


def test_bad_clip_seconds_in_a_file_are_told(refused, tmp_path):
    path = tmp_path / "features.h5"
    for value in (0.0, -1.0, np.nan, "fast", [1.0, 2.0], [1.0] * 999):
        write_hdf5(path, CLIPS, clip_seconds=value)
        with refused(FeatureError, r"h5: `clip_seconds`", value=value):
            open_features(path)


def test_group_with_a_single_dataset_counts_as_that_dataset(tmp_path):
    path = tmp_path / "features.h5"
    write_hdf5(path, {"v/c3d": CLIPS["b"]})
    features = open_features(path, clip_seconds=1.0)
    np.testing.assert_array_equal(features["v"], CLIPS["b"])


def test_unknown_video_names_the_file_and_the_video(path):
    write_features(path, CLIPS, 1.0)
    with open_features(path) as features:
        assert "c" not in features
        assert features.get("c") is None
        with pytest.raises(UnknownIdError) as error:
            features["c"]
    assert str(error.value).startswith(f"{path} has no video 'c'")


def test_every_broken_video_is_found_and_the_others_are_read(path):
    bad = with_broken_arrays(path)
    with open_features(path, clip_seconds=1.0) as features:
        found = features.problems()
        problems = {v: found[v] for v in found if found[v].dropped}
        assert sorted(problems) == bad
        for video, problem in problems.items():
            assert problem.path.startswith(path)
            assert repr(video) in problem.message
            with pytest.raises(FeatureError) as error:
                features[video]
            assert error.value.problems[0].path == problem.path
        assert "clip 1, number 1 is nan" in problems["nan"].message
        assert "has 5 features a clip" in problems["wide"].message
        assert "shape (0, 2)" in problems["empty"].message
        assert "shape (2,)" in problems["rank"].message
        if "whole" in problems:
            assert "found int64" in problems["whole"].message
        assert features["s3"].shape == (4, 2)


def test_one_video_of_another_width_does_not_bring_down_the_others(path):
    # "a" comes first, and is the odd one.
    arrays = {name: np.ones((2, 3), np.float32) for name in "bcd"}
    arrays["a"] = np.ones((2, 4), np.float32)
    write(path, arrays)
    with open_features(path, clip_seconds=1.0) as features:
        assert features.dim == 3
        assert features["b"].shape == (2, 3)
        with pytest.raises(FeatureError, match=r"'a': has 4 .*others have 3"):
            features["a"]


def test_missing_file_is_named_and_the_forms_are_listed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.hdf5 is not there"):
        open_features(tmp_path / "none.hdf5")
    (tmp_path / "x.mat").touch()
    with pytest.raises(
        ValueError, match=r"\.tfrecord, \.npz, \.pkl or \.pt file"
    ):
        open_features(tmp_path / "x.mat")


def test_bad_features_are_not_written_and_the_old_file_stays(subtests, path):
    if path.endswith(("5", "tfrecord")):
        write_features(path, CLIPS, 1.0)
    before = set(os.listdir(os.path.dirname(path)))
    for name, bad in {
        "no video": {},
        "nan": {"a": NAN},
        "widths": {"a": CLIPS["b"], "b": np.ones((2, 3), np.float32)},
        "no clip": {"a": np.ones((0, 2), np.float32)},
        "rank": {"a": np.ones(2, np.float32)},
    }.items():
        with subtests.test(name):
            with pytest.raises(FeatureError) as error:
                write_features(path, bad, 1.0)
            assert "partial" not in str(error.value)
            assert set(os.listdir(os.path.dirname(path))) == before
            if before:
                with open_features(path) as features:
                    assert len(features) == 2


def test_folder_that_is_there_is_not_written_into(tmp_path):
    with pytest.raises(FileExistsError, match="remove it"):
        write_features(tmp_path, CLIPS, 1.0)


def test_slash_in_a_video_id_is_refused_where_it_would_be_a_folder(tmp_path):
    for kind in ("features.hdf5", "features"):
        with pytest.raises(ValueError, match=r"\.tfrecord files only"):
            write_features(tmp_path / kind, {"../a": CLIPS["b"]}, 1.0)
    assert os.listdir(tmp_path) == []


def test_reader_that_does_not_fit_is_refused(tmp_path):
    for kind, reader in (("a.tfrecord", "tfio"), ("a.h5", "numpy")):
        write_features(tmp_path / kind, CLIPS, 1.0)
        with pytest.raises(ValueError, match="`reader`"):
            open_features(tmp_path / kind, reader=reader)


def test_real_features(shared_data):
    path = shared_data / "charades_sta_clip" / "clip_vitb32_1fps_val.hdf5"
    with open_features(path) as features:
        assert (len(features), features.dim) == (144, 512)
        assert features.clip_seconds == 1.0
        assert features.problems() == {}
