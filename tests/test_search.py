"""From encoded windows to ranked moments."""

import keras
import numpy as np
import pytest

from acnn_tf import search
from acnn_tf import segments as segments_lib
from acnn_tf.data.windows import WindowGrid, pool_clips
from tests.small_acnn import make_model


class BrightnessModel:
    """Scores a window by query times mean clip; offsets are always the same.

    Plain arrays: a search asks no more of a model than these names.
    """

    vocabulary = None
    context_size = 3
    clip_seconds = 1.0

    def __init__(self, offset=(0.0, 0.0), unit="seconds", grid=None):
        self.grid = grid or WindowGrid((4.0,), overlap=0.5)
        self.offset, self.offset_unit = np.array(offset), unit
        self.consensus_iou = self.decay_sigma = None
        self.batches = []

    def encode_windows(self, inputs):
        self.batches.append(len(inputs["clip"]))
        return np.stack(
            [
                pool_clips(clip[mask], segment[:, 1], self.clip_seconds)
                for clip, mask, segment in zip(
                    inputs["clip"],
                    inputs["clip_mask"],
                    inputs["segment"],
                    strict=True,
                )
            ]
        )

    def encode_queries(self, query):
        return np.asarray(query, np.float32)

    def fold(self, query):
        return [query.T]

    def score(self, folded, window):
        return keras.ops.matmul(window, folded[0])

    def locate(self, folded, row, window):
        query = keras.ops.take(folded[0], row, axis=1)  # [t, P]
        score = keras.ops.einsum("pwt,tp->pw", window, query)
        offset = keras.ops.cast(self.offset, score.dtype)
        return {
            "score": score,
            "offset": offset + keras.ops.zeros_like(score)[..., None],
        }

    def match(self, query, window):
        score = query @ np.swapaxes(window, -1, -2)
        return {
            "score": score,
            "offset": np.broadcast_to(self.offset, (*score.shape, 2)),
        }


# Brightness of eight, four and six clips of a second.
FEATURES = {
    "a": np.array([[0], [0], [0], [0], [9], [9], [9], [9]], np.float32),
    "b": np.array([[5], [5], [5], [5]], np.float32),
    "c": np.array([[0], [0], [2], [2], [2], [2]], np.float32),
}
DURATIONS = {"a": 8.0, "b": 4.0, "c": 6.0}
QUERY = np.ones((1, 1), np.float32)


def search_all(model, features, queries, durations=None, **arguments):
    index = search.MomentIndex(model)
    index.append(features, durations)
    return index.search_queries(queries, **arguments)


def _candidates(model, video_id="a", features=FEATURES, durations=DURATIONS):
    (video,) = search.encode_videos(
        model, features, {video_id: durations[video_id]}
    )
    return search.candidates(model, QUERY, video)


def test_windows_are_scored_by_what_they_show():
    segments, scores = _candidates(BrightnessModel())
    assert segments[0].tolist() == [[0, 4], [2, 6], [4, 8]]
    assert scores[0].tolist() == [0.0, 4.5, 9.0]


def test_offsets_shift_windows_in_their_own_unit():
    for unit, offset in {
        "seconds": (1.0, -0.5),
        "window_lengths": (0.25, -0.125),
    }.items():
        segments, _ = _candidates(BrightnessModel(offset, unit))
        assert segments[0].tolist() == [[1, 3.5], [3, 5.5], [5, 7.5]]
    grid = WindowGrid((8,), overlap=0.5, frame_rate=2.0)
    segments, _ = _candidates(BrightnessModel((1.0, -1.0), "frames", grid))
    # Windows [1, 9), [5, 13), [9, 17) of 16 frames, a frame shorter each side.
    assert segments[0].tolist() == [[1, 4], [3, 6], [5, 8]]


def test_shifted_windows_are_cut_at_the_ends_or_stay_if_nothing_is_left():
    segments, _ = _candidates(BrightnessModel((-1.0, 1.0)))
    assert segments[0].tolist() == [[0, 5], [1, 7], [3, 8]]
    for offset in ((3.0, -3.0), (20.0, 20.0), (2.0, -2.0)):
        segments, _ = _candidates(BrightnessModel(offset))
        assert segments[0].tolist() == [[0, 4], [2, 6], [4, 8]]


def test_output_that_is_not_finite_names_the_video():
    with pytest.raises(ValueError, match="video 'a' is not finite"):
        _candidates(BrightnessModel((np.nan, 0.0)))


def test_each_video_is_encoded_once_and_batches_are_bounded():
    model = BrightnessModel()  # 1, 2 and 3 windows
    videos = list(search.encode_videos(model, FEATURES, DURATIONS))
    assert [video.video_id for video in videos] == ["b", "c", "a"]
    assert [len(video.windows) for video in videos] == [1, 2, 3]
    assert model.batches == [3]
    for max_windows, expected in [(1, [1, 1, 1]), (4, [2, 1]), (9, [3])]:
        model = BrightnessModel()
        alone = search.encode_videos(
            model, FEATURES, DURATIONS, max_windows=max_windows
        )
        for one, other in zip(alone, videos, strict=True):
            np.testing.assert_array_equal(one.encoding, other.encoding)
        assert model.batches == expected


def test_clips_of_another_length_than_learned_are_refused():
    class Features(dict):
        clip_seconds, path = 2.0, "features.hdf5"

    with pytest.raises(ValueError, match=r"features\.hdf5 last 2 s.* 1 s"):
        list(search.encode_videos(BrightnessModel(), Features(), DURATIONS))


def test_search_ranks_moments_of_all_videos():
    (found,) = search_all(
        BrightnessModel(), FEATURES, QUERY, DURATIONS, top_n=4
    )
    # Neighbours overlap by 2 / 6 and stay at the default of 0.5.
    assert found == [
        ("a", 4.0, 8.0, 9.0),
        ("b", 0.0, 4.0, 5.0),
        ("a", 2.0, 6.0, 4.5),
        ("c", 2.0, 6.0, 2.0),
    ]
    assert found[0].video_id == "a"


def test_search_suppresses_within_a_video():
    (found,) = search_all(
        BrightnessModel(), FEATURES, QUERY, DURATIONS, nms_threshold=0.3
    )
    # [2, 6) of "a" and [0, 4) of "c" go: 2 / 6 with a better one.
    assert [(f.video_id, f.start) for f in found] == [
        ("a", 4.0),
        ("b", 0.0),
        ("c", 2.0),
        ("a", 0.0),
    ]


def test_videos_are_as_long_as_their_clips_unless_told():
    model = BrightnessModel()
    assert search_all(model, FEATURES, QUERY) == search_all(
        model, FEATURES, QUERY, DURATIONS
    )
    (found,) = search_all(model, FEATURES, QUERY, {"b": 2.0})
    assert found == [("b", 0.0, 2.0, 5.0)]


def test_search_answers_each_query_for_itself():
    bright, dark = search_all(
        BrightnessModel(), FEATURES, [[1.0], [-1.0]], DURATIONS, top_n=1
    )
    assert bright == [("a", 4.0, 8.0, 9.0)]
    assert dark == [("a", 0.0, 4.0, 0.0)]


def test_suppression_thresholds_of_the_three_protocols():
    assert segments_lib.suppression_iou("none") == 1.0
    assert segments_lib.suppression_iou("fixed", 0.4, iou=0.7) == 0.4
    expected = {0.1: 0.05, 0.3: 0.25, 0.5: 0.45, 0.7: 0.65, 0.02: 0.0}
    for iou, max_iou in expected.items():
        assert (
            segments_lib.suppression_iou("per_threshold", 0.4, iou) == max_iou
        )


def test_suppression_names_what_is_wrong():
    for wrong in (("soft",), ("fixed", 1.5), ("per_threshold",)):
        with pytest.raises(ValueError, match=r"suppression|nms_threshold|iou"):
            segments_lib.suppression_iou(*wrong)


def test_padding_in_a_batch_does_not_change_a_video():
    model = make_model(vocabulary=None, query_encoder="mean")
    rng = np.random.default_rng(0)
    lengths = {"long": 50, "short": 5, "middle": 11}
    features = {
        name: rng.normal(size=(length, 6)).astype(np.float32)
        for name, length in lengths.items()
    }
    # The last clip is a part of one, or there are a few clips too many.
    durations = {"long": 49.3, "short": 4.5, "middle": 9.0}
    queries = rng.normal(size=(2, 9)).astype(np.float32)
    together = list(search.encode_videos(model, features, durations))
    queries = model.encode_queries(queries)
    assert len(together) == 3
    for video in together:
        (alone,) = search.encode_videos(
            model, features, {video.video_id: video.duration}
        )
        clip = features[video.video_id][None]
        contexts = model.grid.contexts(video.windows, 3)
        bare = model.encode_windows(
            {
                "clip": clip,
                "clip_mask": np.ones(clip.shape[:2], bool),
                "segment": contexts[None].astype(np.float32),
                "duration": np.array([video.duration], np.float32),
            }
        )
        for other in (alone.encoding, keras.ops.convert_to_numpy(bare)[0]):
            np.testing.assert_allclose(video.encoding, other, atol=1e-5)
        segments, _ = search.candidates(model, queries, video)
        assert segments.min() >= 0.0
        assert segments.max() <= video.duration
        assert (segments[..., 0] < segments[..., 1]).all()


def test_features_of_another_width_are_named():
    model = BrightnessModel()
    model.clip_dim = 5
    with pytest.raises(
        ValueError, match=r"'v': has features of shape .*, 3.*clips x 5"
    ):
        list(search.encode_videos(model, {"v": np.ones((8, 3))}, {"v": 8.0}))
