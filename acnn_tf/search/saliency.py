"""From scores of windows to scores of equal parts of a video."""

import numpy as np
from numpy.typing import ArrayLike


def clip_saliency(
    windows: ArrayLike, scores: ArrayLike, duration: float, clip_seconds: float
) -> np.ndarray:
    """Estimates how likely each clip lies in the moment, from its windows.

        saliency_c = sum_w softmax(scores)_w |w and c| / |c|

    The softmax of a query's scores over the windows of a video says where the
    moment may be; a clip is as salient as the windows that hold it, each of
    which counts by the share of the clip within it. Clips of one window differ
    by what other windows hold them. The best of these windows alone, in place
    of the sum, leaves all its clips equal; docs/results.md compares the two.

    Args:
        windows: `[W, 2]`, seconds: all windows of a video.
        scores: `[Q, W]`, the score of each window with each query, as a model
            gives it.
        duration: Seconds of the video.
        clip_seconds: Seconds of a clip. What is left of the video after the
            last whole clip does not count as a clip.

    Returns:
        `float64 [Q, C]`, in `[0, 1]`.

    Example:

    >>> from acnn_tf.search.saliency import clip_saliency
    >>> windows = [[0.0, 4.0], [2.0, 6.0]]
    >>> clip_saliency(windows, [[0.0, 0.0]], 6.5, clip_seconds=2.0).tolist()
    [[0.5, 1.0, 0.5]]
    """
    start, end = np.asarray(windows, np.float64).T
    scores = np.asarray(scores, np.float64)
    first = clip_seconds * np.arange(int(duration / clip_seconds))
    shared = np.minimum(end[:, None], first + clip_seconds)
    shared = shared - np.maximum(start[:, None], first)
    share = np.maximum(shared, 0.0) / clip_seconds  # [W, C]
    weight = np.exp(scores - scores.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)  # [Q, W]
    return weight @ share


def score_curve(
    segments: ArrayLike, scores: ArrayLike, duration: float, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Estimates how well the moments around each time answer a query.

    Args:
        segments: `[W, 2]`, seconds: moments of a video.
        scores: `[W]`, of each with the query.
        duration: Seconds of the video.
        step: Seconds from one time to the next.

    Returns:
        `(times, scores)`: arrays `[N]`. The times are the middles of steps; a
        score is that of the best moment that holds the time, and where there
        is none, the lowest of all.

    Example:

    >>> from acnn_tf.search.saliency import score_curve
    >>> times, best = score_curve([[0, 3], [2, 4]], [0.5, 2.0], 6.0, step=2.0)
    >>> times.tolist(), best.tolist()
    ([1.0, 3.0, 5.0], [0.5, 2.0, 0.5])
    """
    segments, scores = np.asarray(segments, float), np.asarray(scores, float)
    times = (np.arange(max(round(duration / step), 1)) + 0.5) * step
    best = np.full(len(times), scores.min())
    # The first and the last of the times that each moment holds.
    rows = np.ceil(segments / step - 0.5).astype(int)
    for row in np.argsort(scores, kind="stable"):  # the best comes last
        first, last = rows[row]
        best[first : max(last, first + 1)] = scores[row]
    return times, best
