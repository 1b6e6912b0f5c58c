"""Clips and durations that do not agree, at every door where the two meet."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from acnn_tf import evaluation, search, servable
from acnn_tf.data import batches, open_features, pair_batches, write_features
from acnn_tf.data.annotations import Moment
from acnn_tf.data.inspection import with_usable_features
from acnn_tf.data.sentences import query_inputs
from acnn_tf.data.windows import clips_problem
from tests import small_acnn

MOMENT = Moment("q", "a door opens", "v1", 20.0, ((2.0, 6.0),))
WRONG = "video 'v1': .* its duration is 20 s; check clip_seconds"
# How many clips of a second, or none at all of a sensible number.
NUM_CLIPS = (1, 7, 40, 200)


def clips(count):
    rng = np.random.default_rng(count)
    return rng.normal(size=(count, small_acnn.CLIP_DIM)).astype("float32")


def test_worked_by_hand():
    # Video of 100 s: less than a clip off is nothing, up to two clips or 2 % a
    # note, whichever is more.
    expected = {
        (100, 1.0): (False, True),
        (101, 1.0): (False, True),
        (102, 1.0): (True, True),
        (98, 1.0): (True, True),
        (103, 1.0): (True, False),
        (97, 1.0): (True, False),
        (21, 5.0): (False, True),
        (22, 5.0): (True, True),
        (23, 5.0): (True, False),
        (1, 1.0): (True, False),
    }
    for (count, seconds), (is_told, is_note) in expected.items():
        message, note = clips_problem("v", count, seconds, 100.0)
        assert (message is not None, note) == (is_told, is_note), count
    message, _ = clips_problem("v1", 20, 2.0, 20.0)
    assert message.startswith(
        "video 'v1': 20 clips of 2 s are 40 s, its duration is 20 s; check "
        "clip_seconds"
    )


@pytest.fixture(scope="module")
def model():
    return small_acnn.make_model()


@pytest.mark.parametrize("count", NUM_CLIPS)
def test_training_search_and_evaluation_refuse(model, count):
    features = {"v1": clips(count)}
    queries = query_inputs([MOMENT], model.vocabulary)
    for make in (batches.training_videos, pair_batches.training_pairs):
        with pytest.raises(ValueError, match=WRONG):
            make([MOMENT], queries, features, model)
    with pytest.raises(ValueError, match=WRONG):
        evaluation.evaluate(model, [MOMENT], features)
    index = search.MomentIndex(model)
    with pytest.raises(ValueError, match=WRONG):
        index.append(features, {"v1": 20.0})
    assert len(index) == 0


def test_a_clip_or_two_are_taken_everywhere(model):
    for count in (18, 19, 20, 21, 22):
        features = {"v1": clips(count)}
        queries = query_inputs([MOMENT], model.vocabulary)
        made = batches.training_videos([MOMENT], queries, features, model)
        next(iter(made.dataset))
        evaluation.evaluate(model, [MOMENT], features)


def test_files_that_are_read_later_are_refused_when_they_are_read(
    model, tmp_path
):
    write_features(tmp_path / "f.hdf5", {"v1": clips(40)}, 1.0)
    queries = query_inputs([MOMENT], model.vocabulary)
    with open_features(tmp_path / "f.hdf5") as features:
        made = batches.training_videos([MOMENT], queries, features, model)
        with pytest.raises(tf.errors.OpError, match="check clip_seconds"):
            next(iter(made.dataset))
        with pytest.raises(ValueError, match=WRONG):
            pair_batches.training_pairs([MOMENT], queries, features, model)


def test_the_servable_refuses(model):
    call = servable.signatures.Signatures(model).localize
    for count, duration in itertools.product(NUM_CLIPS, (0.0, 20.0)):
        arguments = (
            tf.constant(clips(count)[None]),
            tf.constant([count]),
            tf.constant([duration], tf.float64),
            tf.constant(["a door"]),
        )
        if duration:
            with pytest.raises(tf.errors.InvalidArgumentError, match="seconds"):
                call(*arguments)
        else:
            call(*arguments)


def test_inspection_tells_problems_from_notes(tmp_path):
    moments = [
        Moment(name, "a", name, 20.0, ((2.0, 6.0),))
        for name in ("right", "rounded", "short", "still", "zero")
    ]
    features = {
        "right": clips(20),
        "rounded": clips(22),
        "short": clips(7),
        "still": np.ones((20, small_acnn.CLIP_DIM), np.float32),
        "zero": np.zeros((20, small_acnn.CLIP_DIM), np.float32),
    }
    write_features(tmp_path / "f.hdf5", features, 1.0)
    with open_features(tmp_path / "f.hdf5") as opened:
        usable, problems = with_usable_features(moments, opened)
    assert [m.video_id for m in usable] == [
        "right",
        "rounded",
        "still",
        "zero",
    ]
    told = {p.message.split("'")[1]: p.dropped for p in problems}
    assert told == {
        "rounded": False,
        "short": True,
        "still": False,
        "zero": False,
    }
