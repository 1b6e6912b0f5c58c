"""From scores and offsets to ranked segments: shift, support, suppress."""

import numpy as np

from acnn_tf import segments as segments_lib
from acnn_tf.search.encoding import to_numpy

# Windows of a video up to which all pairs of them are looked at, and those
# of a block of rows where there are more.
_BAND = 128
# Pairs of windows held at a time.
_BLOCK = 1 << 19

SUPPRESSIONS = ("none", "fixed", "per_threshold")


def max_overlap(suppression, nms_threshold=0.5, iou=None):
    """Largest IoU that two results of one query may have with each other.

    The three protocols in use, none of which changes the first result:

    - `"none"`: 1, so that all results stay.
    - `"fixed"`: `nms_threshold`.
    - `"per_threshold"`: m - 0.05 where R@n, IoU=m is measured, so that every
      m has a ranking of its own. The paper's tables and the public code of
      this family of models use it.

    Overlap is that of the results themselves: windows shifted by their
    offsets, not the windows that they come from.

    Args:
        suppression: One of `SUPPRESSIONS`.
        nms_threshold: Float, of `"fixed"`.
        iou: Float, m, of `"per_threshold"`.

    Returns:
        Float, the `max_iou` of `acnn_tf.segments.nms`.
    """
    if suppression == "none":
        return 1.0
    if suppression == "fixed":
        if not 0 <= nms_threshold <= 1:
            raise ValueError(
                f"`nms_threshold` must be in [0, 1]. Received: {nms_threshold}"
            )
        return nms_threshold
    if suppression == "per_threshold":
        if iou is None:
            raise ValueError(
                "Suppression per threshold needs the `iou` to measure at."
            )
        return max(0.0, round(iou - 0.05, 9))  # 0.7 - 0.05 is 0.6499999...
    raise ValueError(
        f"`suppression` must be one of {SUPPRESSIONS}. Received: {suppression}"
    )


def candidates(model, queries, video, refined=True):
    """Every window of a video as an answer to every query, unranked.

    Args:
        model: See `acnn_tf.search`.
        queries: `[Q, t]`, from `model.encode_queries`.
        video: `EncodedVideo`.
        refined: Bool: move the windows by their offsets, and let them support
            each other. Otherwise they stay, each with its own score.

    Returns:
        `(segments, scores)`: `float64 [Q, W, 2]` seconds, within
        `[0, duration]`, and `float [Q, W]`.
    """
    output = model.match(queries, video.encoding)
    scores, offsets = to_numpy(output["score"]), to_numpy(output["offset"])
    if not (np.isfinite(scores).all() and np.isfinite(offsets).all()):
        raise ValueError(
            f"The model's output for video {video.video_id!r} is not finite. "
            "Check the features (experiments.inspect_data) and the weights."
        )
    if not refined:
        offsets = np.zeros_like(offsets)
    segments = shift(model, offsets, video.windows, video.duration)
    if refined and model.consensus_iou is not None:
        scores = consensus(segments, scores, model.consensus_iou)
    return segments, scores


def shift(model, offsets, windows, duration):
    """Moves the ends of windows by the predicted offsets.

    The one place where offsets are undone. A shifted window is cut at the
    ends of the video; where that leaves nothing of it, or where its end comes
    before its start, the window stays as it was.

    Args:
        model: See `acnn_tf.search`.
        offsets: `[..., W, 2]`, in `model.offset_unit`.
        windows: `[..., W, 2]`, seconds.
        duration: Seconds: float, or an array that broadcasts with `windows`.

    Returns:
        `float64 [..., W, 2]`, seconds, within `[0, duration]`.
    """
    shifted = segments_lib.decode_offsets(
        np.asarray(offsets, np.float64),
        windows,
        model.offset_unit,
        model.grid.frame_rate,
    )
    shifted = np.clip(shifted, 0.0, duration)
    windows = np.clip(windows, 0.0, duration)
    return np.where(shifted[..., :1] < shifted[..., 1:], shifted, windows)


def consensus(segments, scores, min_iou):
    """Lets the windows of a video support those that they agree with.

        s'_w = log sum_v exp(s_v) max(0, (iou(w, v) - min_iou) / (1 - min_iou))

    The softmax of the scores says where the moment may be; `s'` ranks windows
    by how much of it, on average over these places, they would catch. One
    window that stands alone gives way to several that nearly coincide.

    Args:
        segments: `[..., W, 2]`: the windows of one video.
        scores: `[..., W]`; `-inf` marks padding and stays.
        min_iou: Float in `[0, 1)`: IoU up to which two do not agree.

    Returns:
        `[..., W]`, on the scale of `scores`: that of a window which overlaps
        no other stays as it is.

    Example:

    >>> segments = np.array([[0.0, 4.0], [10.0, 14.0], [10.0, 14.0]])
    >>> consensus(segments, np.array([1.0, 0.9, 0.9]), 0.5).round(2).tolist()
    [1.0, 1.59, 1.59]
    """
    segments, scores = np.asarray(segments), np.asarray(scores, np.float64)
    highest = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - highest)
    num_windows = scores.shape[-1]
    rows = segments.reshape(-1, num_windows, 2)
    flat = weights.reshape(-1, num_windows)
    total = np.zeros_like(flat)
    if num_windows > _BAND:
        for row, one in enumerate(rows):
            total[row] = _banded_support(one, flat[row], min_iou)
    else:
        step = max(1, _BLOCK // num_windows**2)
        for first in range(0, len(rows), step):
            block = slice(first, first + step)
            total[block] = _support(
                rows[block], rows[block], flat[block], min_iou
            )
    total = np.maximum(total, np.finfo(total.dtype).tiny)
    supported = np.log(total.reshape(scores.shape)) + highest
    return np.where(scores > -np.inf, supported, scores)


def _support(segments, others, weights, min_iou):
    """Sum of the weights of `others` by their gain: `[..., W]`."""
    overlap = segments_lib.iou(segments[..., None, :], others[..., None, :, :])
    gain = np.maximum(0.0, (overlap - min_iou) / (1.0 - min_iou))
    return np.squeeze(gain @ weights[..., None], -1)


def _banded_support(segments, weights, min_iou):
    """The same for many windows: only those near can overlap.

    By start, the windows that a run of windows may overlap are a run too.
    """
    order = np.argsort(segments[:, 0], kind="stable")
    segments, weights = segments[order], weights[order]
    starts = segments[:, 0]
    longest = (segments[:, 1] - starts).max()
    total = np.empty_like(weights)
    for first in range(0, len(segments), _BAND):
        rows = slice(first, first + _BAND)
        nearest = np.searchsorted(starts, starts[rows][0] - longest)
        farthest = np.searchsorted(starts, segments[rows, 1].max(), "right")
        near = slice(nearest, farthest)
        total[order[rows]] = _support(
            segments[rows], segments[near], weights[near], min_iou
        )
    return total
