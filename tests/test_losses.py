"""Losses against numbers worked by hand."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acnn_tf import losses
from acnn_tf.models import ACNN
from experiments import losses_and_optimizer


def softplus(x):
    return np.log1p(np.exp(x))


def test_alignment_loss_by_hand():
    scores = np.array([[1.0, -2.0], [0.5, 3.0]], "float32")
    loss = losses.AlignmentLoss(positive_weight=2.0, negative_weight=0.5)
    positives = 2.0 * (softplus(-1.0) + softplus(-3.0))
    negatives = 0.5 * (softplus(-2.0) + softplus(0.5))
    np.testing.assert_allclose(
        loss(np.array([7, 8]), scores), (positives + negatives) / 4, rtol=1e-6
    )


def test_default_weights_follow_the_batch():
    # B = 2: positives weigh 1 + 1/2, negatives 1/2; softplus(0) = log 2.
    loss = losses.AlignmentLoss()(np.array([0, 1]), np.zeros((2, 2)))
    expected = (2 * 1.5 + 2 * 0.5) * np.log(2.0) / 4
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_sentences_of_one_moment_are_no_negatives_of_each_other():
    loss = losses.AlignmentLoss(positive_weight=1.0, negative_weight=1.0)
    scores = np.full((2, 2), 20.0, "float32")
    assert float(loss(np.array([5, 5]), scores)) < 1e-6
    assert float(loss(np.array([5, 6]), scores)) > 9.0


def test_large_scores_stay_finite():
    scores = np.array([[-1e4, 1e4], [1e4, -1e4]], "float32")
    loss = losses.AlignmentLoss(positive_weight=1.0, negative_weight=1.0)
    np.testing.assert_allclose(loss(np.array([0, 1]), scores), 1e4)


def test_video_alignment_loss_by_hand():
    iou = np.array([[0.9, 0.7, 0.4, 0.0]], "float32")
    scores = np.log(np.array([[4.0, 2.0, 1.0, 1.0]], "float32"))
    # Targets 0.4 : 0.2, so 2/3 and 1/3; softmax 1/2, 1/4, 1/8, 1/8.
    expected = -(2 / 3 * np.log(1 / 2) + 1 / 3 * np.log(1 / 4))
    np.testing.assert_allclose(
        losses.VideoAlignmentLoss(min_iou=0.5)(iou, scores), expected, rtol=1e-5
    )


def test_the_best_window_is_the_target_where_none_is_good():
    iou = np.array([[0.1, 0.3, -1.0]], "float32")
    scores = np.log(np.array([[3.0, 1.0, 50.0]], "float32"))
    np.testing.assert_allclose(
        losses.VideoAlignmentLoss(min_iou=0.5)(iou, scores),
        np.log(4.0),
        rtol=1e-5,
    )


@settings(max_examples=30)
@given(
    st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=6),
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=0, max_size=4),
)
def test_padding_changes_neither_loss_nor_gradient(scores, padding):
    import tensorflow as tf

    loss = losses.VideoAlignmentLoss()
    iou = np.linspace(0.0, 1.0, len(scores), dtype="float32")
    results = []
    for extra in ([], padding):
        y_true = np.array([[*iou, *[-1.0] * len(extra)]], "float32")
        y_pred = tf.Variable(np.array([[*scores, *extra]], "float32"))
        with tf.GradientTape() as tape:
            value = loss(y_true, y_pred)
        gradient = tape.gradient(value, y_pred).numpy()[0]
        results.append((float(value), gradient[: len(scores)]))
        np.testing.assert_array_equal(gradient[len(scores) :], 0)
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-6)


def test_video_alignment_gradient_is_softmax_less_target():
    import tensorflow as tf

    scores = tf.Variable(np.log([[1.0, 2.0, 1.0]]).astype("float32"))
    with tf.GradientTape() as tape:
        value = losses.VideoAlignmentLoss()(np.array([[0.0, 1.0, 0.2]]), scores)
    np.testing.assert_allclose(
        tape.gradient(value, scores), [[0.25, -0.5, 0.25]], rtol=1e-5
    )


def test_offset_loss_by_hand():
    y_true = np.array(
        [
            [[1.0, 2.0, 1.0], [3.0, 3.0, 1.0], [9.0, 9.0, 0.0]],
            [[0.0, 0.0, 1.0], [9.0, 9.0, 0.0], [9.0, 9.0, 0.0]],
        ],
        "float32",
    )
    y_pred = np.array(
        [
            [[0.0, 4.0], [3.0, 2.0], [0.0, 0.0]],
            [[0.5, -0.5], [0.0, 0.0], [0.0, 0.0]],
        ],
        "float32",
    )
    # Example 1: (1 + 2 + 0 + 1) over two positives; example 2: 1 over one.
    np.testing.assert_allclose(
        losses.OffsetLoss()(y_true, y_pred), (4 / 2 + 1) / 2
    )


def test_an_example_without_positives_costs_no_offsets():
    y_true = np.array([[[9.0, 9.0, 0.0]]], "float32")
    assert float(losses.OffsetLoss()(y_true, np.ones((1, 1, 2)))) == 0.0


def test_config_rebuilds_every_loss():
    for loss in (
        losses.AlignmentLoss(positive_weight=2.0),
        losses.VideoAlignmentLoss(min_iou=0.3),
        losses.OffsetLoss(),
    ):
        rebuilt = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(loss)
        )
        assert type(rebuilt) is type(loss)
        assert rebuilt.get_config() == loss.get_config()


def test_bad_bound_is_refused():
    with pytest.raises(ValueError, match="min_iou"):
        losses.VideoAlignmentLoss(min_iou=1.0)


def test_a_training_weighs_each_loss_and_pair_by_its_own_flag():
    rng = np.random.default_rng(0)
    truth = {"score": rng.random((2, 3)), "batch_score": np.arange(2)}
    truth["offset"] = np.ones((2, 3, 3))
    shapes = {"score": (2, 3), "batch_score": (2, 2), "offset": (2, 3, 2)}
    found = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    parts = {
        "score": losses.VideoAlignmentLoss(0.2),
        "batch_score": losses.AlignmentLoss(7.0, 0.5),
        "offset": losses.OffsetLoss(),
    }
    terms = [float(one(truth[n], found[n])) for n, one in parts.items()]
    model = ACNN(vocabulary=["a"])
    losses_and_optimizer.compile_model(
        model,
        num_steps=10,
        target_iou=0.2,
        positive_weight=7.0,
        negative_weight=0.5,
        video_weight=2.0,
        batch_weight=3.0,
        offset_weight=5.0,
    )
    loss = float(model.compute_loss(None, truth, found))
    assert loss == pytest.approx(np.dot((2, 3, 5), terms), rel=1e-5)
