"""What became of each query, against evaluations that add it up."""

import numpy as np
import pytest

from acnn_tf import evaluation, segments
from acnn_tf.data.annotations import Moment
from acnn_tf.evaluation import query_hits


def moment(name, *segments):
    return Moment(name, "a man runs", "v", 20.0, segments)


def test_each_query_by_hand():
    moments = [
        moment("hit", (0.0, 10.0)),
        moment("second", (0.0, 10.0)),
        moment("nothing found", (0.0, 10.0)),
        moment("either", (0.0, 4.0), (10.0, 20.0)),
    ]
    predictions = [
        [[0, 8, 0.9]],  # IoU 8 / 10
        [[0, 10, 0.1], [10, 20, 0.9]],  # ranked: 0, then 1
        [],
        [[10, 16, 0.5]],  # 6 / 10 of the second segment
    ]
    found = query_hits(moments, predictions, ns=(1, 2), ious=(0.5, 0.7))
    assert {name: values.tolist() for name, values in found.items()} == {
        "R@1,IoU=0.5": [True, False, False, True],
        "R@2,IoU=0.5": [True, True, False, True],
        "R@1,IoU=0.7": [True, False, False, False],
        "R@2,IoU=0.7": [True, True, False, False],
        "iou": [0.8, 0.0, 0.0, 0.6],
    }


def test_suppression_frees_a_place_among_the_best():
    # The second repeats the first (IoU 9 / 10); without it the third is second.
    predictions = [[[0, 10, 3], [0, 9, 2], [10, 20, 1]]]
    settings = {"ns": (2,), "ious": (0.5,)}
    truth = [moment("1", (10.0, 20.0))]
    for suppression, hit in (("none", False), ("fixed", True)):
        found = query_hits(
            truth, predictions, suppression=suppression, **settings
        )
        assert found["R@2,IoU=0.5"].tolist() == [hit]


def test_means_are_the_figures_of_an_evaluation():
    rng = np.random.default_rng(0)
    moments, predictions = [], []
    for number in range(40):
        start, end = np.sort(rng.uniform(0, 20, 2))
        moments.append(moment(str(number), (start, end)))
        ends = np.sort(rng.uniform(0, 20, (12, 2)))
        predictions.append(np.column_stack([ends, rng.random(12)]))
    data = moments, predictions
    for name in segments.SUPPRESSIONS:
        settings = {"ns": (1, 5), "ious": (0.3, 0.5), "suppression": name}
        found = query_hits(*data, **settings)
        results = evaluation.score_predictions(*data, **settings)
        assert results["mIoU"] == pytest.approx(found.pop("iou").mean())
        for measure, hit in found.items():
            assert results[measure] == pytest.approx(hit.mean()), measure


def test_no_queries_have_no_hits():
    found = query_hits([], [], ns=(1,), ious=(0.5,))
    assert {name: len(values) for name, values in found.items()} == {
        "R@1,IoU=0.5": 0,
        "iou": 0,
    }
