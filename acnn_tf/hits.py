"""What became of each query: hits and IoU, one by one."""

import numpy as np

from acnn_tf import metrics, search
from acnn_tf import segments as segments_lib


def query_hits(
    moments, predictions, *, ns, ious, suppression="none", nms_threshold=0.5
):
    """Which queries are hit, and how well the first result fits.

    Means over queries are the figures of `acnn_tf.evaluation`; query by query
    they tell whether two models differ, see `acnn_tf.significance`.

    Args:
        moments: List of `Moment`; may be empty.
        predictions: For each moment `[N, 3]`: start, end (seconds), score.
            Ranked by score, equal scores in the order given.
        ns: Ints, n of R@n.
        ious: Floats, m of IoU=m.
        suppression: One of `acnn_tf.search.SUPPRESSIONS`, applied to the
            predicted segments.
        nms_threshold: Float, of `"fixed"` suppression.

    Returns:
        Dictionary of arrays `[Q]`: bool `"R@1,IoU=0.5"` for every m and n,
        and float64 `"iou"`, the IoU of the first result.

    Example:

    >>> from acnn_tf.data.annotations import Moment
    >>> moment = Moment("1", "a man runs", "v", 20.0, ((0.0, 10.0),))
    >>> found = query_hits([moment], [[[0, 8, 0.9]]], ns=(1,), ious=(0.5, 0.9))
    >>> {name: values.tolist() for name, values in found.items()}
    {'R@1,IoU=0.5': [True], 'R@1,IoU=0.9': [False], 'iou': [0.8]}
    """
    num_true = max((len(moment.segments) for moment in moments), default=1)
    num_found = max([1, *map(len, predictions)])
    truth = np.full((len(moments), num_true, 2), np.nan)
    segments = np.full((len(moments), num_found, 2), np.nan)
    scores = np.full((len(moments), num_found), -np.inf)
    for row, (moment, found) in enumerate(
        zip(moments, predictions, strict=True)
    ):
        truth[row, : len(moment.segments)] = moment.segments
        found = np.asarray(found, np.float64).reshape(-1, 3)
        segments[row, : len(found)] = found[:, :2]
        scores[row, : len(found)] = found[:, 2]
    overlap = metrics.best_iou(truth, segments)  # [Q, N]

    hits, ranked = {}, {}
    for m in ious:
        max_iou = search.max_overlap(suppression, nms_threshold, iou=m)
        if max_iou not in ranked:
            index = segments_lib.nms(segments, scores, max_iou, max(ns))
            ranked[max_iou] = np.where(
                index >= 0, np.take_along_axis(overlap, index, axis=1), 0.0
            )
        for n in ns:
            hits[f"R@{n},IoU={m:g}"] = metrics.recall_hits(
                ranked[max_iou], n, m
            )
    # No protocol changes the first result.
    return {**hits, "iou": metrics.top_iou(ranked[max_iou])}
