"""Training batches: pairs, whole videos, targets."""

import itertools

import numpy as np
import pytest

from acnn_tf import segments
from acnn_tf.data import batches, pair_batches
from acnn_tf.data.annotations import Moment, read_moments
from acnn_tf.models import ACNN

MOMENTS = [
    Moment("0", "a", "v1", 20.0, ((2.0, 6.0),)),
    Moment("1", "b", "v1", 20.0, ((2.0, 6.0),)),
    Moment("2", "c", "v1", 20.0, ((11.0, 19.0),)),
    Moment("3", "d", "v2", 9.5, ((0.5, 4.5),)),
]
QUERIES = np.arange(8.0, dtype="float32").reshape(4, 2)
FEATURES = {
    "v1": np.arange(60.0, dtype="float32").reshape(20, 3),
    # A clip more than its 9.5 s hold.
    "v2": np.arange(33.0, dtype="float32").reshape(11, 3) + 100,
}


def model(**arguments):
    return ACNN(
        **{"window_lengths": (4.0, 8.0), "kernel_sizes": (1, 3), **arguments}
    )


def take(made, count=1):
    return [
        (
            {k: v.numpy() for k, v in x.items()},
            {k: v.numpy() for k, v in y.items()},
        )
        for x, y in itertools.islice(made.dataset, count)
    ]


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        for one, other in zip(a, b, strict=True):
            for key in one:
                np.testing.assert_array_equal(one[key], other[key])


def test_order_follows_from_seed_and_epoch():
    def make(**kwargs):
        return batches.training_videos(
            MOMENTS, QUERIES, FEATURES, model(), batch_size=2, **kwargs
        )

    steps = make().steps_per_epoch
    whole = take(make(seed=1), 3 * steps)
    assert_equal(whole, take(make(seed=1), 3 * steps))
    later = take(make(seed=1, first_epoch=1), 2 * steps)
    assert_equal(whole[steps:], later)
    with pytest.raises(AssertionError):
        assert_equal(whole, take(make(seed=2), 3 * steps))


def test_every_example_comes_once_an_epoch():
    made = batches.training_videos(
        MOMENTS, QUERIES, FEATURES, model(), batch_size=3
    )
    epoch = take(made, made.steps_per_epoch)
    rows = np.concatenate([x["query"] for x, _ in epoch])
    assert sorted(rows.tolist()) == QUERIES.tolist()
    assert made.num_examples == len(QUERIES)


def test_sentences_of_one_moment_share_their_id():
    for kind in (batches.training_videos, pair_batches.training_pairs):
        made = kind(MOMENTS, QUERIES, FEATURES, model(), batch_size=100)
        inputs, targets = take(made)[0]
        by_query = {}
        for query, moment in zip(inputs["query"], targets["batch_score"]):
            by_query.setdefault(query[0], set()).add(int(moment))
        assert all(len(ids) == 1 for ids in by_query.values())
        assert by_query[0.0] == by_query[2.0]
        assert len(set.union(*by_query.values())) == 3


def test_whole_videos_carry_every_window_and_its_target():
    own = model()
    made = batches.training_videos(
        MOMENTS, QUERIES, FEATURES, own, batch_size=4, crop=0.0
    )
    inputs, targets = take(made)[0]
    order = (inputs["query"][:, 0] / 2).astype(int)
    for row, index in enumerate(order):
        moment = MOMENTS[index]
        windows = own.grid.windows(moment.duration)
        count = len(windows)
        clip = FEATURES[moment.video_id]
        np.testing.assert_array_equal(inputs["clip"][row, : len(clip)], clip)
        assert inputs["clip_mask"][row].sum() == len(clip)
        np.testing.assert_allclose(
            inputs["segment"][row, :count], own.grid.contexts(windows, 3)
        )
        assert (inputs["segment"][row, count:] == 0).all()
        iou = segments.iou(windows, moment.segments[0])
        np.testing.assert_allclose(
            targets["score"][row, :count], iou, rtol=1e-6
        )
        assert (targets["score"][row, count:] == -1).all()
        assert inputs["positive"][row] == iou.argmax()
        offset = targets["offset"][row]
        np.testing.assert_array_equal(offset[:count, 2] > 0, iou > 0.5)
        assert (offset[count:] == 0).all()
        shifted = segments.decode_offsets(
            offset[:count, :2], windows, own.offset_unit
        )
        np.testing.assert_allclose(
            shifted, [moment.segments[0]] * count, atol=1e-5
        )


def test_crops_keep_the_moment_and_its_features():
    own = model()
    made = batches.training_videos(
        MOMENTS, QUERIES, FEATURES, own, batch_size=4, crop=1.0
    )
    durations = set()
    for inputs, targets in take(made, 30):
        for row in range(4):
            index = int(inputs["query"][row, 0] / 2)
            moment = MOMENTS[index]
            clip = inputs["clip"][row][inputs["clip_mask"][row]]
            whole = FEATURES[moment.video_id]
            first = int((clip[0, 0] - whole[0, 0]) / 3)
            np.testing.assert_array_equal(
                clip, whole[first : first + len(clip)]
            )
            duration = inputs["duration"][row]
            durations.add((index, float(duration)))
            assert first + duration <= moment.duration + 1e-6
            assert duration <= len(clip)
            best = inputs["positive"][row]
            window = inputs["segment"][row, best, 1]
            offset = targets["offset"][row, best, :2]
            start, end = segments.decode_offsets(
                offset, window, own.offset_unit
            )
            np.testing.assert_allclose(
                [start + first, end + first], moment.segments[0], atol=1e-4
            )
    assert len(durations) > 10


def test_no_pairs_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="window_lengths"):
        pair_batches.training_pairs(
            MOMENTS, QUERIES, FEATURES, model(window_lengths=(0.5,))
        )


def test_a_moment_that_no_window_reaches_still_has_a_target():
    iou, offset = batches.window_targets(
        np.array([[0.0, 4.0], [4.0, 8.0]]),
        [(7.0, 7.5)],
        "seconds",
        None,
        min_iou=0.5,
    )
    assert iou.tolist() == [0.0, 0.125]
    assert offset[:, 2].tolist() == [0.0, 1.0]


def test_several_segments_answer_with_the_nearest():
    iou, offset = batches.window_targets(
        np.array([[0.0, 4.0], [10.0, 14.0]]),
        [(0.0, 4.0), (11.0, 14.0)],
        "seconds",
        None,
        min_iou=0.5,
    )
    np.testing.assert_allclose(iou, [1.0, 0.75])
    np.testing.assert_allclose(offset, [[0, 0, 1], [1, 0, 1]])


def test_padding_stacks_unlike_shapes():
    stacked = batches.pad([np.ones((1, 3)), np.ones((2, 2))])
    assert stacked.tolist() == [[[1, 1, 1], [0, 0, 0]], [[1, 1, 0], [1, 1, 0]]]


def test_tacos_pairs_are_the_26963_of_the_paper(shared_data):
    moments = read_moments(
        shared_data / "tacos" / "TACoS_train_samples.txt",
        "tacos",
        num_frames=shared_data / "tacos" / "num_frames.json",
    )
    clip_seconds = 16 / 29.4
    features = {
        m.video_id: np.ones((int(m.duration / clip_seconds) + 1, 2), "float32")
        for m in moments
    }
    own = model(
        window_lengths=(64, 128, 256, 512),
        frame_rate=29.4,
        clip_seconds=clip_seconds,
        kernel_sizes=(1, 3, 5),
    )
    made = pair_batches.training_pairs(
        moments, np.zeros((len(moments), 1), "float32"), features, own
    )
    assert made.num_examples == 26_963
