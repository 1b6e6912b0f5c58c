"""R@n, IoU=m and mIoU: numbers over queries, and as Keras metrics."""

import keras
import numpy as np

from acnn_tf import segments as segments_lib


def best_iou(y_true, y_pred):
    """IoU of each result with the true segment that it overlaps most.

    Args:
        y_true: True segments, `[Q, 2]`, or `[Q, M, 2]` where queries have
            several, rows of NaN where they have fewer than M.
        y_pred: Results, best first, `[Q, N, 2]` in the same unit; rows of NaN
            where a query has fewer than N.

    Returns:
        `float64 [Q, N]`; 0 for rows of NaN.

    Example:

    >>> best_iou([[0.0, 10.0]], [[[5.0, 10.0], [10.0, 20.0]]]).tolist()
    [[0.5, 0.0]]
    """
    y_true = np.asarray(keras.ops.convert_to_numpy(y_true), np.float64)
    y_pred = np.asarray(keras.ops.convert_to_numpy(y_pred), np.float64)
    if y_true.ndim == 2:
        y_true = y_true[:, None]
    if (
        y_true.ndim != 3
        or y_pred.ndim != 3
        or y_true.shape[2:] != (2,)
        or y_pred.shape[2:] != (2,)
        or len(y_true) != len(y_pred)
    ):
        raise ValueError(
            "`y_true` must be [Q, 2] or [Q, M, 2] and `y_pred` [Q, N, 2]. "
            f"Received shapes: {y_true.shape} and {y_pred.shape}"
        )
    overlap = np.zeros(y_pred.shape[:2])
    for true_segment in np.moveaxis(y_true, 1, 0):  # [Q, 2]
        overlap = np.fmax(
            overlap, segments_lib.iou(y_pred, true_segment[:, None])
        )
    return overlap


def recall_hits(overlap, n, iou):
    """Which queries have one of their top n at IoU >= m.

    Args:
        overlap: `[Q, N]`, from `best_iou`.
        n: Int.
        iou: Float, m.

    Returns:
        bool `[Q]`.
    """
    return (overlap[:, :n] >= iou).any(axis=1)


def top_iou(overlap):
    """IoU of the first result of each query, 0 where there is none.

    Args:
        overlap: `[Q, N]`, from `best_iou`.

    Returns:
        `float64 [Q]`.
    """
    return overlap[:, 0] if overlap.shape[1] else np.zeros(len(overlap))


@keras.saving.register_keras_serializable(package="acnn_tf")
class RecallAtN(keras.metrics.Mean):
    """R@n, IoU=m: share of queries with one of the top n at IoU >= m.

    The state is a sum and a count, so the states of two parts of a split add
    up to that of the whole. Runs eagerly: results come out of a search, not
    out of a compiled step.

    Args:
        n: Int, how many results of each query count.
        iou: Float in `(0, 1]`, m.
        name: Defaults to the way papers print it, `"R@1_IoU=0.5"`.
        **kwargs: As of every Keras metric.

    Call arguments:
        y_true: `[Q, 2]` or `[Q, M, 2]`, see `best_iou`. A query with several
            true segments is answered by any of them.
        y_pred: `[Q, N, 2]`, best first, after any suppression of overlapping
            results (`acnn_tf.search`).
        sample_weight: `[Q]` or None.

    Example:

    >>> metric = RecallAtN(n=1, iou=0.5)
    >>> y_true = [[0.0, 10.0], [0.0, 10.0]]
    >>> metric.update_state(y_true, [[[5.0, 10.0]], [[9.0, 20.0]]])
    >>> metric.name, float(metric.result())
    ('R@1_IoU=0.5', 0.5)
    """

    def __init__(self, n=1, iou=0.5, name=None, **kwargs):
        if n < 1:
            raise ValueError(f"`n` must be at least 1. Received: {n}")
        if not 0 < iou <= 1:
            raise ValueError(f"`iou` must be in (0, 1]. Received: {iou}")
        super().__init__(name=name or f"R@{n}_IoU={iou:g}", **kwargs)
        self.n = n
        self.iou = iou

    def update_state(self, y_true, y_pred, sample_weight=None):
        hits = recall_hits(best_iou(y_true, y_pred), self.n, self.iou)
        return super().update_state(hits.astype("float32"), sample_weight)

    def get_config(self):
        return {**super().get_config(), "n": self.n, "iou": self.iou}


@keras.saving.register_keras_serializable(package="acnn_tf")
class MeanIoU(keras.metrics.Mean):
    """mIoU: mean over queries of the IoU of the first result.

    Where a query has several true segments, the one counts that the result
    overlaps most. State and way of running as of `RecallAtN`.

    Args:
        name: Defaults to `"mIoU"`.
        **kwargs: As of every Keras metric.

    Call arguments:
        y_true: `[Q, 2]` or `[Q, M, 2]`, see `best_iou`.
        y_pred: `[Q, N, 2]`, best first; only the first counts.
        sample_weight: `[Q]` or None.

    Example:

    >>> metric = MeanIoU()
    >>> metric.update_state([[0.0, 10.0]], [[[5.0, 10.0]]])
    >>> float(metric.result())
    0.5
    """

    def __init__(self, name="mIoU", **kwargs):
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true, y_pred, sample_weight=None):
        overlap = top_iou(best_iou(y_true, y_pred))
        return super().update_state(overlap.astype("float32"), sample_weight)
