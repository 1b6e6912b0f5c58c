"""Training pairs against slow loops, from memory and from disk."""

import collections.abc
import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from acnn_tf import segments
from acnn_tf.data.annotations import Moment
from acnn_tf.data.features import open_features, write_features
from acnn_tf.data.pair_batches import training_pairs
from acnn_tf.data.windows import WindowGrid, pool_clips, video_pairs
from acnn_tf.models import ACNN
from tests.processes import run_script

RNG = np.random.default_rng(0)
# Seven videos; some moments have a second segment, and some two sentences.
DURATIONS = {f"v{n}": 12.0 + 3.5 * n for n in range(7)}
MOMENTS = []
for name, seconds in DURATIONS.items():
    for start in (1.0, 5.5):
        own = ((start, start + 4.3),)
        if start > 5:
            own += ((0.0, 2.1), (seconds - 4.0, seconds))
        for _ in range(2 if start < 5 else 1):
            MOMENTS.append(Moment(str(len(MOMENTS)), "a", name, seconds, own))
# A query holds the number of its moment.
QUERIES = np.arange(len(MOMENTS), dtype="float32")[:, None]
FEATURES = {
    name: RNG.normal(size=(int(np.ceil(seconds)), 3)).astype("float32")
    for name, seconds in DURATIONS.items()
}


@functools.cache
def model(**arguments):
    return ACNN(
        **{
            "window_lengths": (2.0, 4.0, 8.0),
            "kernel_sizes": (1, 3),
            **arguments,
        }
    )


def epochs(made, count=1):
    """The batches of each epoch, as a list of lists."""
    batches = made.dataset.take(count * made.steps_per_epoch)
    batches = list(batches.as_numpy_iterator())
    steps = made.steps_per_epoch
    return [batches[steps * n :][:steps] for n in range(count)]


def rows(batches):
    """What the batches hold, a tuple of bytes for each pair, sorted."""
    return sorted(
        tuple(np.asarray(value[row]).tobytes() for value in arrays)
        for arrays in map(tf.nest.flatten, batches)
        for row in range(len(arrays[0]))
    )


def make(moments=MOMENTS, features=FEATURES, own=None, **arguments):
    queries = QUERIES[: len(moments)]
    return training_pairs(
        moments, queries, features, own or model(), **arguments
    )


def assert_rows_are_those_of_a_loop(inputs, targets, own, min_iou=0.5):
    """Derives every entry of a batch from its query and its segments."""
    for row, query in enumerate(inputs["query"]):
        moment = MOMENTS[int(query[0])]
        assert inputs["duration"][row] == np.float32(moment.duration)
        assert inputs["positive"][row] == 0
        scores, offsets = [], []
        for number, context in enumerate(inputs["segment"][row]):
            middle = context[len(context) // 2]
            by_segment = [segments.iou(middle, s) for s in moment.segments]
            nearest = moment.segments[int(np.argmax(by_segment))]
            scores.append(max(by_segment))
            offsets.append(
                segments.encode_offsets(
                    np.array(nearest), middle, own.offset_unit
                )
            )
            for place, segment in enumerate(context):
                np.testing.assert_array_equal(
                    inputs["window"][row, number, place],
                    pool_clips(FEATURES[moment.video_id], segment, 1.0),
                )
        weight = np.array(scores) > min_iou
        weight[np.argmax(scores)] = True
        np.testing.assert_allclose(targets["score"][row], scores, atol=1e-6)
        np.testing.assert_allclose(
            targets["offset"][row, :, :2], offsets, atol=1e-5
        )
        np.testing.assert_array_equal(targets["offset"][row, :, 2], weight)


@pytest.mark.parametrize("videos_in_memory", [None, 2])
@pytest.mark.parametrize("video_negatives", [0, 3])
def test_every_row_is_what_a_loop_makes_of_it(
    videos_in_memory, video_negatives
):
    own = model()
    made = make(
        own=own,
        batch_size=8,
        video_negatives=video_negatives,
        videos_in_memory=videos_in_memory,
    )
    for inputs, targets in epochs(made)[0]:
        assert inputs["window"].shape[1:] == (1 + video_negatives, 3, 3)
        assert_rows_are_those_of_a_loop(inputs, targets, own)


def test_pairs_of_several_segments_are_those_of_a_loop():
    own = model()
    expected = []
    for index, moment in enumerate(MOMENTS):
        for window in own.grid.windows(moment.duration):
            # A window shows one annotated interval: the nearest of all.
            shown = [
                (segments.iou(window, interval), other is moment, interval)
                for other in MOMENTS
                if other.video_id == moment.video_id
                for interval in other.segments
                if segments.iou(window, interval) > 0.5
                and segments.niol(window, interval) < 0.15
            ]
            best = max(shown, key=lambda found: found[0], default=None)
            if best is not None and best[2] in moment.segments:
                expected.append((index, *np.float32(window).tolist()))
    found = [
        (int(query[0]), *segment[0, 1].tolist())
        for inputs, _ in epochs(make(batch_size=8))[0]
        for query, segment in zip(inputs["query"], inputs["segment"])
    ]
    assert sorted(found) == sorted(expected)
    shown = {moment for moment, *_ in found}
    assert len(shown) == len(MOMENTS)


def test_video_pairs_is_by_video_and_by_window():
    grid = WindowGrid((2.0, 4.0, 8.0))
    total = 0
    for video, windows, window, moment in video_pairs(MOMENTS, grid):
        np.testing.assert_array_equal(windows, grid.windows(DURATIONS[video]))
        assert (np.diff(window) >= 0).all()
        assert {MOMENTS[index].video_id for index in moment} == {video}
        total += len(window)
    assert total == make().num_examples


def test_an_interval_that_a_moment_has_twice_makes_one_pair():
    moment = Moment("0", "a", "v0", 12.0, ((1.0, 5.0), (1.0, 5.0)))
    twice = make([moment], own=model(window_lengths=(4.0,)))
    once = make(
        [Moment("0", "a", "v0", 12.0, ((1.0, 5.0),))],
        own=model(window_lengths=(4.0,)),
    )
    assert twice.num_examples == once.num_examples > 0


def test_negatives_are_drawn_from_all_windows_of_low_overlap():
    own = model(window_lengths=(4.0,))
    made = make(own=own, batch_size=100, video_negatives=20)
    drawn = {}
    for ((inputs, targets),) in epochs(made, 20):
        for query, segment, score in zip(
            inputs["query"], inputs["segment"], targets["score"]
        ):
            assert (score[1:] < 0.3).all()
            seen = drawn.setdefault(int(query[0]), set())
            seen |= {tuple(window) for window in segment[1:, 1].tolist()}
    for index, seen in drawn.items():
        moment = MOMENTS[index]
        windows = own.grid.windows(moment.duration)
        low = np.ones(len(windows), bool)
        for segment in moment.segments:
            low &= segments.iou(windows, segment) < 0.3
        assert seen == {tuple(w) for w in np.float32(windows[low]).tolist()}


def test_without_a_window_of_low_overlap_the_own_one_is_repeated():
    moments = [
        Moment("0", "a", "short", 4.0, ((0.0, 4.0),)),
        Moment("1", "b", "v3", DURATIONS["v3"], ((1.0, 5.0),)),
    ]
    features = {**FEATURES, "short": np.ones((4, 3), np.float32)}
    made = make(
        moments,
        features,
        model(window_lengths=(4.0,)),
        video_negatives=2,
        videos_in_memory=1,
        shuffle=False,
    )
    inputs, targets = epochs(made)[0][0]
    assert inputs["query"][0] == 0
    np.testing.assert_allclose(targets["score"][0], [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(
        inputs["segment"][0, 1:], inputs["segment"][0, [0, 0]]
    )
    assert (targets["score"][1:, 1:] < 0.3).all()


@pytest.mark.parametrize(
    "kind, videos_in_memory", [("f.hdf5", 1), ("f.tfrecord", 3), ("f", 100)]
)
def test_from_disk_come_the_pairs_that_come_from_memory(
    tmp_path, kind, videos_in_memory
):
    write_features(tmp_path / kind, FEATURES, 1.0)
    expected = rows(epochs(make(batch_size=5))[0])
    with open_features(tmp_path / kind) as features:
        made = make(
            features=features, batch_size=5, videos_in_memory=videos_in_memory
        )
        found = epochs(made, 3)
    for epoch in found:
        sizes = [len(inputs["query"]) for inputs, _ in epoch]
        assert set(sizes[:-1]) == {5}
        assert sum(sizes) == made.num_examples == len(expected)
        assert rows(epoch) == expected


@pytest.mark.parametrize(
    "videos_in_memory, shuffle", [(None, True), (2, True), (2, False)]
)
def test_order_follows_from_seed_and_epoch(videos_in_memory, shuffle):
    def order(count, **arguments):
        made = make(
            batch_size=4,
            video_negatives=1,
            videos_in_memory=videos_in_memory,
            shuffle=shuffle,
            **arguments,
        )
        return [
            [value.tobytes() for value in tf.nest.flatten(batch)]
            for epoch in epochs(made, count)
            for batch in epoch
        ]

    whole = order(3, seed=1)
    steps = len(whole) // 3
    assert whole[steps:] == order(2, seed=1, first_epoch=1)
    assert whole[:steps] != whole[steps : 2 * steps]
    assert whole[:steps] != order(1, seed=2)


@pytest.mark.parametrize("videos_in_memory", [None, 2])
def test_unshuffled_pairs_come_video_after_video(videos_in_memory):
    made = make(batch_size=4, videos_in_memory=videos_in_memory, shuffle=False)
    first, second = epochs(made, 2)
    numbers = np.concatenate([inputs["query"][:, 0] for inputs, _ in first])
    videos = [MOMENTS[int(number)].video_id for number in numbers]
    assert videos == sorted(videos)
    for a, b in zip(tf.nest.flatten(first), tf.nest.flatten(second)):
        np.testing.assert_array_equal(a, b)


class Watched(collections.abc.Mapping):
    """Features that note which videos are read."""

    def __init__(self):
        self.read = []

    def __getitem__(self, video):
        self.read.append(video)
        return FEATURES[video]

    def __iter__(self):
        return iter(FEATURES)

    def __len__(self):
        return len(FEATURES)


def test_no_more_videos_are_read_ahead_than_two_groups():
    watched = Watched()
    made = make(features=watched, batch_size=1, videos_in_memory=2)
    del watched.read[:]
    delivered = {}
    # Not `take`, behind which tf.data would put a buffer of its own.
    for inputs, _ in itertools.islice(made.dataset, made.steps_per_epoch):
        delivered[MOMENTS[int(inputs["query"][0, 0])].video_id] = True
        # The next batches may be of the next group already, and then the
        # group after that is being read.
        num_groups = -(-len(delivered) // 2)
        assert len(watched.read) <= 2 * (num_groups + 2)
    assert sorted(watched.read[:7]) == sorted(delivered) == sorted(DURATIONS)
    for group in (slice(0, 2), slice(2, 4), slice(4, 6)):
        assert set(list(delivered)[group]) == set(watched.read[group])


def test_iterators_of_one_dataset_do_not_disturb_each_other():
    made = make(batch_size=4, videos_in_memory=2)
    first, second = iter(made.dataset), iter(made.dataset)
    for _ in range(made.steps_per_epoch + 2):
        for a, b in zip(
            tf.nest.flatten(next(first)), tf.nest.flatten(next(second))
        ):
            np.testing.assert_array_equal(a, b)


def test_missing_video_is_told_before_training(tmp_path):
    some = {video: FEATURES[video] for video in ("v0", "v1")}
    write_features(tmp_path / "f.hdf5", some, 1.0)
    with open_features(tmp_path / "f.hdf5") as features:
        for videos_in_memory in (None, 2):
            with pytest.raises(KeyError, match="have no video 'v2'"):
                make(features=features, videos_in_memory=videos_in_memory)


def test_video_that_breaks_during_training_is_named(tmp_path):
    write_features(tmp_path / "f", FEATURES, 1.0)
    with open_features(tmp_path / "f") as features:
        made = make(features=features, videos_in_memory=1)
        (tmp_path / "f" / "v5.npy").write_bytes(b"")
        with pytest.raises(tf.errors.OpError, match=r"v5\.npy: has 0 bytes"):
            epochs(made)


def test_nothing_to_hold_is_an_error():
    with pytest.raises(ValueError, match="Received: 0"):
        make(videos_in_memory=0)


@pytest.mark.soak
def test_exit_waits_for_the_group_that_is_being_read():
    # A thread that is stopped in the midst of it can hang TensorFlow.
    script = """
import time
from tests import test_pair_batches as own

class Slow(own.Watched):
    def __getitem__(self, video):
        print("starts", flush=True)
        time.sleep(0.1)
        print("ends", flush=True)
        return super().__getitem__(video)

made = own.make(features=Slow(), batch_size=4, videos_in_memory=2)
batches = iter(made.dataset)
next(batches)
"""
    printed = run_script(script)
    assert printed.count("starts") == printed.count("ends") > 2
