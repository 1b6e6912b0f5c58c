"""R@n, IoU=m and mIoU, as Keras metrics too; average precision."""

from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import ArrayLike

from acnn_tf import segments as segments_lib


def best_iou(y_true: ArrayLike, y_pred: ArrayLike) -> np.ndarray:
    """IoU of each result with the true segment that it overlaps most.

    Args:
        y_true: True segments, `[Q, 2]`, or `[Q, M, 2]` where queries have
            several, rows of NaN where they have fewer than M.
        y_pred: Results, best first, `[Q, N, 2]` in the same unit; rows of NaN
            where a query has fewer than N.

    Returns:
        `float64 [Q, N]`; 0 for rows of NaN.

    Example:

    >>> from acnn_tf.metrics import best_iou
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


def recall_hits(overlap: np.ndarray, n: int, iou: float) -> np.ndarray:
    """Which queries have one of their top n at IoU >= m.

    Args:
        overlap: `[Q, N]`, from `best_iou`.
        n: How many results of each query count, the best first.
        iou: m, in `(0, 1]`.

    Returns:
        bool `[Q]`.

    Example:

    >>> import acnn_tf
    >>> import numpy as np
    >>> overlap = np.array([[0.2, 0.6], [0.1, 0.3]])
    >>> acnn_tf.metrics.recall_hits(overlap, n=2, iou=0.5).tolist()
    [True, False]
    """
    return (overlap[:, :n] >= iou).any(axis=1)


def top_iou(overlap: np.ndarray) -> np.ndarray:
    """IoU of the first result of each query, 0 where there is none.

    Args:
        overlap: `[Q, N]`, from `best_iou`.

    Returns:
        `float64 [Q]`.

    Example:

    >>> import acnn_tf
    >>> import numpy as np
    >>> acnn_tf.metrics.top_iou(np.array([[0.2, 0.6], [0.1, 0.3]])).tolist()
    [0.2, 0.1]
    """
    return overlap[:, 0] if overlap.shape[1] else np.zeros(len(overlap))


def average_precision(
    y_true: ArrayLike, y_pred: ArrayLike, ious: Sequence[float]
) -> np.ndarray:
    """Average precision of the results of each query.

    The results are taken one by one, the best first. A result takes, of the
    true segments that are still free, the one that it overlaps most. It is
    right if their IoU is m or more, and wrong otherwise. With p_k the share of
    the first k results that are right,

        AP = 1/M sum over right results k of max over j >= k of p_j

    which is interpolated as in PASCAL VOC 2011. If a result overlaps several
    true segments equally, it takes the last of them, as the public code of
    QVHighlights does.

    Args:
        y_true: True segments, `[Q, M, 2]`, rows of NaN where a query has fewer
            than M. One that has none gets NaN.
        y_pred: Results, best first, `[Q, N, 2]`; rows of NaN where a query has
            fewer than N, behind the others.
        ious: The K values of m.

    Returns:
        `float64 [Q, K]`.

    Example:

    >>> from acnn_tf.metrics import average_precision
    >>> true = [[[0.0, 10.0], [20.0, 30.0]]]
    >>> found = [[[0.0, 10.0], [50.0, 60.0], [20.0, 28.0]]]
    >>> average_precision(true, found, ious=[0.5, 0.9]).round(3).tolist()
    [[0.833, 0.5]]
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    ious = np.asarray(ious)
    overlap = segments_lib.iou(y_pred[:, :, None], y_true[:, None])  # [Q, N, M]
    num_true = np.count_nonzero(~np.isnan(y_true[..., 0]), axis=1)
    is_free = np.ones((len(y_true), len(ious), y_true.shape[1]), bool)
    is_right = np.zeros((len(y_true), len(ious), y_pred.shape[1]))
    for rank in range(y_pred.shape[1]):
        own = overlap[:, None, rank]  # [Q, 1, M]
        fits = is_free & (own >= ious[:, None])  # [Q, K, M]
        # The last of equals.
        taken = np.where(fits, own, -1.0)[..., ::-1].argmax(axis=-1)
        taken = y_true.shape[1] - 1 - taken[..., None]
        found = fits.any(axis=-1)
        is_right[..., rank] = found
        left = np.take_along_axis(is_free, taken, axis=-1) & ~found[..., None]
        np.put_along_axis(is_free, taken, left, axis=-1)
    precision = is_right.cumsum(axis=-1) / np.arange(1, y_pred.shape[1] + 1)
    best = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    with np.errstate(invalid="ignore"):
        return (is_right * best).sum(axis=-1) / num_true[:, None]


def clip_average_precision(is_positive: ArrayLike, scores: ArrayLike) -> float:
    """Average precision of the scores of a video's clips.

    The mean, over the points of the precision-recall curve at which recall
    grows, of the highest precision at that recall or more. Clips of one score
    are one point of the curve. It is 0 where nothing is positive, 1 where all
    is.

    Args:
        is_positive: bool `[C]`, whether each of the C clips is in a moment.
        scores: `[C]`, the score of each clip.

    Example:

    >>> from acnn_tf.metrics import clip_average_precision
    >>> clip_average_precision([True, False, True], [0.9, 0.5, 0.1])
    0.8333333333333333
    >>> clip_average_precision([True, False, True], [0.5, 0.5, 0.5])
    0.6666666666666666

    Reference: public evaluation of QVHighlights.
    """
    is_positive = np.asarray(is_positive, bool)
    if is_positive.all() or not is_positive.any():
        return float(is_positive.any())
    scores, place = np.unique(-np.asarray(scores, float), return_inverse=True)
    # Of each score, the highest first: clips, and those that are positive.
    clips = np.bincount(place, minlength=len(scores))
    right = np.bincount(place[is_positive], minlength=len(scores))
    precision = right.cumsum() / clips.cumsum()
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[right > 0].mean())


@keras.saving.register_keras_serializable(package="acnn_tf")
class RecallAtN(keras.metrics.Mean):
    """R@n, IoU=m: share of queries with one of the top n at IoU >= m.

    The state is a sum and a count, so the states of two parts of a split add
    up to that of the whole. Runs eagerly: results come out of a search, not
    out of a compiled step.

    Args:
        n: How many results of each query count.
        iou: m, in `(0, 1]`.
        name: Defaults to the way in which papers print it, `"R@1_IoU=0.5"`.
        **kwargs: Arguments of every Keras metric.

    Call arguments:
        y_true: `[Q, 2]` or `[Q, M, 2]`, see `best_iou`. A query with several
            true segments is answered by any of them.
        y_pred: `[Q, N, 2]`, best first, after any suppression of overlapping
            results (`acnn_tf.search`).
        sample_weight: `[Q]` or None.

    Example:

    >>> import acnn_tf
    >>> metric = acnn_tf.metrics.RecallAtN(n=1, iou=0.5)
    >>> y_true = [[0.0, 10.0], [0.0, 10.0]]
    >>> metric.update_state(y_true, [[[5.0, 10.0]], [[9.0, 20.0]]])
    >>> metric.name, float(metric.result())
    ('R@1_IoU=0.5', 0.5)
    """

    def __init__(
        self, n: int = 1, iou: float = 0.5, name: str | None = None, **kwargs
    ):
        if n < 1:
            raise ValueError(f"`n` must be at least 1. Received: {n}")
        if not 0 < iou <= 1:
            raise ValueError(f"`iou` must be in (0, 1]. Received: {iou}")
        super().__init__(name=name or f"R@{n}_IoU={iou:g}", **kwargs)
        self.n = n
        self.iou = iou

    def update_state(
        self,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> None:
        hits = recall_hits(best_iou(y_true, y_pred), self.n, self.iou)
        return super().update_state(hits.astype("float32"), sample_weight)

    def get_config(self) -> dict:
        return {**super().get_config(), "n": self.n, "iou": self.iou}


@keras.saving.register_keras_serializable(package="acnn_tf")
class MeanIoU(keras.metrics.Mean):
    """mIoU: mean over queries of the IoU of the first result.

    If a query has several true segments, the one counts that the result
    overlaps most. The state is a sum and a count, and it runs eagerly, as
    `RecallAtN` does.

    Args:
        name: Defaults to `"mIoU"`.
        **kwargs: Arguments of every Keras metric.

    Call arguments:
        y_true: `[Q, 2]` or `[Q, M, 2]`, see `best_iou`.
        y_pred: `[Q, N, 2]`, best first; only the first counts.
        sample_weight: `[Q]` or None.

    Example:

    >>> import acnn_tf
    >>> metric = acnn_tf.metrics.MeanIoU()
    >>> metric.update_state([[0.0, 10.0]], [[[5.0, 10.0]]])
    >>> float(metric.result())
    0.5
    """

    def __init__(self, name: str = "mIoU", **kwargs):
        super().__init__(name=name, **kwargs)

    def update_state(
        self,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> None:
        overlap = top_iou(best_iou(y_true, y_pred))
        return super().update_state(overlap.astype("float32"), sample_weight)
