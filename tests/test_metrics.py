"""R@n, IoU=m and mIoU against numbers worked by hand, as Keras metrics."""

import keras
import numpy as np
import pytest

from acnn_tf import metrics

# Four queries: equal, half of it, touching, disjoint; then no length.
TRUTH = np.array([[0, 10], [0, 10], [0, 10], [0, 10], [0, 10]], float)
FOUND = np.array([[0, 10], [5, 10], [10, 20], [15, 20], [5, 5]], float)[:, None]


def _result(metric, y_true, y_pred, **kwargs):
    metric.update_state(y_true, y_pred, **kwargs)
    return float(metric.result())


def test_best_iou_of_equal_half_touching_disjoint_and_empty():
    overlap = metrics.best_iou(TRUTH, FOUND)
    assert overlap.tolist() == [[1.0], [0.5], [0.0], [0.0], [0.0]]


def test_recall_counts_the_boundary():
    assert _result(metrics.RecallAtN(1, 0.5), TRUTH, FOUND) == pytest.approx(
        2 / 5
    )
    assert _result(metrics.RecallAtN(1, 0.51), TRUTH, FOUND) == pytest.approx(
        1 / 5
    )


def test_recall_looks_at_the_top_n_only():
    y_pred = [[[20, 30], [30, 40], [0, 10]]]
    for n, expected in [(1, 0.0), (2, 0.0), (3, 1.0), (10, 1.0)]:
        assert _result(metrics.RecallAtN(n, 0.5), [[0, 10]], y_pred) == expected


def test_mean_iou_is_of_the_first_result():
    # 1 + .5 over five queries; what is ranked second does not count.
    y_pred = np.concatenate([FOUND, TRUTH[:, None]], axis=1)
    assert _result(metrics.MeanIoU(), TRUTH, y_pred) == pytest.approx(1.5 / 5)


def test_any_of_several_true_segments_counts_and_padding_does_not():
    nan = [np.nan, np.nan]
    y_true = [[[0, 10], [20, 30]], [[0, 10], nan]]
    y_pred = [[[20, 25], nan], [nan, nan]]
    assert metrics.best_iou(y_true, y_pred).tolist() == [[0.5, 0], [0, 0]]
    assert _result(metrics.MeanIoU(), y_true, y_pred) == 0.25
    assert _result(metrics.RecallAtN(5, 0.5), y_true, y_pred) == 0.5


def test_a_query_without_results_is_a_miss():
    nothing = np.zeros((2, 0, 2))
    assert _result(metrics.RecallAtN(1, 0.1), TRUTH[:2], nothing) == 0.0
    assert _result(metrics.MeanIoU(), TRUTH[:2], nothing) == 0.0


def test_thresholds_are_compared_in_double_precision():
    # 7 of 10; float32 has no odd numbers this large and would make it 8 of 12.
    y_true, y_pred = [[16777217, 16777227]], [[[16777217, 16777224]]]
    assert metrics.best_iou(y_true, y_pred).dtype == np.float64
    assert _result(metrics.RecallAtN(1, 0.7), y_true, y_pred) == 1.0


def test_states_of_parts_add_up_to_the_whole():
    for metric in (metrics.RecallAtN(1, 0.5), metrics.MeanIoU()):
        config = metric.get_config()
        whole, *parts = (type(metric).from_config(config) for _ in range(3))
        for part, rows in zip(parts, (slice(2), slice(2, 5))):
            part.update_state(TRUTH[rows], FOUND[rows])
            whole.update_state(TRUTH[rows], FOUND[rows])
        one, two, both = (
            list(map(float, metric.variables)) for metric in (*parts, whole)
        )
        assert [a + b for a, b in zip(one, two, strict=True)] == both
        whole.reset_state()
        assert float(whole.result()) == 0.0


def test_sample_weights_weigh_queries():
    weights = np.array([3.0, 1.0, 0.0, 0.0, 0.0])
    value = _result(metrics.MeanIoU(), TRUTH, FOUND, sample_weight=weights)
    assert value == pytest.approx((3 * 1 + 0.5) / 4)


def test_config_round_trip_through_keras():
    metric = metrics.RecallAtN(n=5, iou=0.7, name="mine")
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert (copy.n, copy.iou, copy.name) == (5, 0.7, "mine")
    assert copy.get_config() == metric.get_config()
    assert metrics.MeanIoU().name == "mIoU"


def test_metrics_take_tensors_of_the_backend():
    y_true = keras.ops.convert_to_tensor(TRUTH)
    y_pred = keras.ops.convert_to_tensor(FOUND)
    assert _result(metrics.MeanIoU(), y_true, y_pred) == pytest.approx(0.3)


def test_arguments_out_of_range_are_named(refused):
    for arguments in ({"n": 0}, {"iou": 0.0}, {"iou": 1.1}):
        with refused(ValueError, "Received", **arguments):
            metrics.RecallAtN(**arguments)
    for y_true, y_pred in (
        (TRUTH, FOUND[:, 0]),  # no axis of ranks
        (TRUTH[:2], FOUND),  # other queries
        (TRUTH[:, :1], FOUND),  # no pairs
    ):
        with refused(ValueError, "Received shapes"):
            metrics.best_iou(y_true, y_pred)
