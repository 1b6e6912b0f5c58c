"""Features of windows, a vector each, in place of those of clips."""

import keras
import numpy as np
import pytest

from acnn_tf import servable
from acnn_tf.data.annotations import Moment
from acnn_tf.data.batches import training_videos
from acnn_tf.data.features import open_features, pack_windows
from acnn_tf.data.inspection import with_usable_features
from acnn_tf.data.pair_batches import training_pairs
from acnn_tf.data.windows import VideoWindows, WindowGrid, pool_clips
from acnn_tf.evaluation import attention
from acnn_tf.files.problems import FeatureError, UnknownIdError
from acnn_tf.models import ACNN
from acnn_tf.search import MomentIndex, encode_videos
from acnn_tf.servable.signatures import Signatures
from tests.processes import run_module

# A frame is a second here; frame f is [f, f + 1), so that clip 0 is no frame.
FRAMES = {"a": 40, "b": 31}
GRID = WindowGrid(lengths=(5, 10), overlap=0.8, frame_rate=1.0)
RNG = np.random.default_rng(0)
CLIPS = {
    video: RNG.normal(size=(frames + 1, 3)).astype(np.float32)
    for video, frames in FRAMES.items()
}
DURATIONS = {video: float(frames) for video, frames in FRAMES.items()}
MOMENTS = [
    Moment("0", "he cuts", "a", 40.0, ((3.0, 8.0),), ((3, 8),)),
    Moment("1", "she cuts", "a", 40.0, ((20.0, 31.0),), ((20, 31),)),
    Moment("2", "a man", "b", 31.0, ((12.0, 21.0),), ((12, 21),)),
]
QUERIES = np.eye(3, dtype=np.float32)


def write_windows(folder, lengths=(5, 10)):
    """A file a window, as the mean of its frames."""
    folder.mkdir()
    for video, clips in CLIPS.items():
        for length in lengths:
            grid = WindowGrid(lengths=(length,), frame_rate=1.0)
            for start, end in grid.frames(FRAMES[video]):
                vector = pool_clips(clips, [start, end], 1.0)
                np.save(folder / f"{video}.avi_{start}_{end}.npy", vector)
    return folder


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    folder = write_windows(tmp_path_factory.mktemp("windows") / "c3d")
    return open_features(folder, clip_seconds=1.0)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = ACNN(
        window_lengths=GRID.lengths,
        frame_rate=1.0,
        kernel_sizes=(1, 3),
        filters=4,
        embedding_dim=4,
        hidden_dim=4,
    )
    model.adapt(CLIPS.values())
    return model


def test_contexts_of_one_length_are_the_last_there_is_on_the_way():
    frames = [(1, 6), (6, 16), (16, 21), (21, 26), (31, 36)]
    video = VideoWindows("v", frames, None, 3)
    grid = WindowGrid(lengths=(5, 10), frame_rate=1.0, context_length=5)
    found = grid.contexts([[6, 16]], 7, lambda s: video.has(s, 1.0))
    # Before [6, 16) comes [1, 6), and nothing; after it [16, 21), [21, 26),
    # and of [26, 31) there is no file.
    assert found[0].tolist() == [
        *([1, 6], [1, 6], [1, 6], [6, 16], [16, 21], [21, 26], [21, 26])
    ]
    # Nothing before: the window itself.
    assert grid.contexts([[1, 6]], 3, lambda s: video.has(s, 1.0))[0][
        0
    ].tolist() == [1, 6]


def test_pairs_and_encodings_are_those_of_the_clips(model, windows, tmp_path):
    settings = {"batch_size": 8, "video_negatives": 1, "seed": 1}
    batches = [
        next(
            iter(training_pairs(MOMENTS, QUERIES, f, model, **settings).dataset)
        )
        for f in (CLIPS, windows)
    ]
    (of_clips, _), (of_windows, _) = batches
    assert of_clips.keys() == of_windows.keys()
    for name, array in of_clips.items():
        np.testing.assert_allclose(array, of_windows[name], atol=1e-5)
    encoded = [
        {v.video_id: v for v in encode_videos(model, f, DURATIONS)}
        for f in (CLIPS, windows)
    ]
    for video, of_clips in encoded[0].items():
        np.testing.assert_allclose(
            of_clips.encoding, encoded[1][video].encoding, atol=1e-4
        )
    weights = [
        attention(model, MOMENTS[0], f, 5.0)["weights"]
        for f in (CLIPS, windows)
    ]
    np.testing.assert_allclose(*weights, atol=1e-5)
    index = MomentIndex(model, tmp_path / "index")
    index.append(windows, DURATIONS)
    assert index.num_windows == sum(len(GRID.windows(s)) for s in (40, 31))
    # Folders of before say nothing of it, and are still those of this grid.
    for file in (tmp_path / "index").rglob("*.json"):
        assert "context_length" not in file.read_text()


def test_contexts_of_one_length_are_the_same_in_training_and_search(windows):
    model = ACNN(
        window_lengths=GRID.lengths,
        frame_rate=1.0,
        context_length=5,
        kernel_sizes=(1, 3),
        filters=4,
        dropout=0.0,
        clip_dropout=0.0,
    )
    pairs = training_pairs(
        MOMENTS, QUERIES, windows, model, batch_size=99, shuffle=False
    )
    (inputs, _), *_ = pairs.dataset.take(1)
    trained = model.encode_windows(inputs).numpy()[:, 0]
    found = {v.video_id: v for v in encode_videos(model, windows, DURATIONS)}
    assert len(trained) > 5
    for row, segment in zip(trained, inputs["segment"].numpy()[:, 0, 1]):
        equal = [
            np.allclose(row, encoding, atol=1e-5)
            for video in found.values()
            for own, encoding in zip(video.windows, video.encoding)
            if np.allclose(own, segment)
        ]
        assert any(equal)
    # Each is adjacent, and five long, or the window itself.
    before = inputs["segment"].numpy()[:, 0, 0]
    own = inputs["segment"].numpy()[:, 0, 1]
    is_own = (before == own).all(axis=1)
    np.testing.assert_allclose(before[~is_own, 1], own[~is_own, 0])
    np.testing.assert_allclose(np.diff(before[~is_own])[:, 0], 5.0)
    assert (~is_own).any()


def test_a_model_with_contexts_of_one_length_is_served():
    model = ACNN(
        vocabulary=["a"],
        window_lengths=(5, 9),
        window_overlap=0.5,
        frame_rate=2.0,
        context_length=4,
    )
    model.build({"clip": (None, None, 3), "query": (None, None)})
    inputs = servable.example_inputs(model, (12, 7))["encode_windows"]
    expected = servable.expected_outputs(
        model, servable.example_inputs(model, (12, 7))
    )["encode_windows"]
    found = Signatures(model).encode_windows(**inputs)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)


def test_windows_of_tacos_are_read_as_they_are_distributed(shared_data):
    features = open_features(shared_data / "tacos" / "c3d_windows_sample")
    video = features["s13-d21"]
    assert video.frames.tolist() == [[1, 129], [1, 257]]
    norms = np.linalg.norm(np.asarray(video), axis=1)
    assert norms.round().tolist() == [87, 97]
    rate = features.clip_seconds
    assert video.has([[rate, 129 * rate], [0, 128 * rate]], rate).tolist() == [
        *(True, False)
    ]


def test_a_window_without_a_file_is_named(model, windows, tmp_path):
    folder = write_windows(tmp_path / "c3d")
    (folder / "a.avi_3_8.npy").unlink()
    features = open_features(folder, clip_seconds=1.0)
    message = "no window a_3_8 .1 of the"
    with pytest.raises(UnknownIdError, match=message):
        training_pairs(MOMENTS, QUERIES, features, model)
    with pytest.raises(UnknownIdError, match=message):
        list(encode_videos(model, features, DURATIONS))
    usable, (problem,) = with_usable_features(MOMENTS, features, GRID)
    assert [moment.video_id for moment in usable] == ["b"]
    assert problem.message.startswith("has no window a_3_8 (1 of the")
    assert with_usable_features(MOMENTS, windows, GRID) == (MOMENTS, [])
    with pytest.raises(ValueError, match="--batches=pairs"):
        training_videos(MOMENTS, QUERIES, windows, model)


def test_a_last_window_is_stood_for_by_the_one_before(tmp_path):
    """TACoS has none that ends with the last frame: 14 of 161,410 in all."""
    folder = write_windows(tmp_path / "c3d")
    (folder / "b.avi_27_32.npy").unlink()  # which has 31 frames
    features = open_features(folder, clip_seconds=1.0)
    usable, (note,) = with_usable_features(MOMENTS, features, GRID)
    assert usable == MOMENTS
    assert not note.dropped
    assert note.message.startswith("has no window b_27_32, which ends with")
    pooled = features["b"].pool([[27, 32], [26, 31]], 1.0)
    np.testing.assert_array_equal(*pooled)
    # No other, and none that lies further away.
    for segment in ([28, 33], [30, 40]):
        with pytest.raises(UnknownIdError, match="has no window"):
            features["b"].pool([segment], 1.0)


def test_a_bad_window_is_named(tmp_path, subtests):
    vector = np.ones(3, np.float32)
    for name, array, message in (
        ("a_8_3", vector, "'a_8_3': expected VIDEO_START_END, frames from 1"),
        ("a_0_3", vector, "'a_0_3': expected VIDEO_START_END"),
        ("b", vector, "'b': expected VIDEO_START_END"),
        ("a_1_6", vector, "'a_1_6': is the window of 'a.avi_1_6', too"),
        ("a_9_14", vector[:2], "'a_9_14': expected 3 numbers as in the others"),
        ("a_9_14", vector * np.nan, "'a_9_14': number 0 is nan"),
        ("a_9_14", vector[None], r"'a_9_14': .* shape \(1, 3\)"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for other in ("a.avi_1_6", "a.avi_2_7", "a.avi_3_8"):
            np.save(folder / f"{other}.npy", vector)
        np.save(folder / f"{name}.npy", array)
        with subtests.test(name), pytest.raises(FeatureError, match=message):
            raise FeatureError(open_features(folder).problems().values())


def test_packed_windows_are_the_same_and_damage_to_them_is_told(
    windows, tmp_path
):
    path = tmp_path / "packed"
    pack_windows(windows, path)
    packed = open_features(path)
    for video, expected in windows.items():
        np.testing.assert_array_equal(packed[video].frames, expected.frames)
        np.testing.assert_array_equal(packed[video], expected)
    assert packed.problems() == {}
    data = bytearray((path / "packed.npy").read_bytes())
    data[-1] ^= 1
    (path / "packed.npy").write_bytes(data)
    with pytest.raises(FeatureError, match=r"packed\.npy: has other bytes"):
        open_features(path).problems()
    (path / "packed.npy").write_bytes(data[:-12])
    with pytest.raises(FeatureError, match=r"packed\.npy: has .* bytes, but"):
        open_features(path)
    (path / "manifest.json").unlink()
    with pytest.raises(FeatureError, match=r"takes 1,080 bytes, and 1,068"):
        open_features(path)
    bad = write_windows(tmp_path / "bad")
    np.save(bad / "a.avi_3_8.npy", np.full(3, np.nan, np.float32))
    with pytest.raises(FeatureError, match=r"'a\.avi_3_8': number 0 is nan"):
        pack_windows(open_features(bad), tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.soak
def test_a_folder_of_many_windows_is_packed_and_inspected(tmp_path):
    folder, count = tmp_path / "c3d", 20_000
    folder.mkdir()
    vector = np.ones(3, np.float32)
    for start in range(1, count + 1):
        np.save(folder / f"s13-d21.avi_{start}_{start + 64}.npy", vector)
    path = tmp_path / "packed"
    done = run_module(
        "experiments.pack_windows", f"--features={folder}", f"--out={path}"
    )
    assert done.stdout == (
        f"{path}: 20,000 windows of 1 videos, 3 numbers each\n"
    )
    (tmp_path / "samples.txt").write_text("s13-d21.avi_1_65:A man.#\n")
    (tmp_path / "frames.json").write_text('{"s13-d21.avi": 20063}')
    arguments = [
        *("--dataset=tacos", f"--annotations={tmp_path / 'samples.txt'}"),
        *(f"--num_frames={tmp_path / 'frames.json'}", f"--features={path}"),
    ]
    run_module("experiments.inspect_data", *arguments, "--window_frames=64")
    done = run_module(
        *("experiments.inspect_data", *arguments, "--window_frames=64,128"),
        code=2,
    )
    assert "has no window s13-d21_1_129 (798 of the" in done.stdout
