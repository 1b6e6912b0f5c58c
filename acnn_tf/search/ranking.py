"""From scores and offsets to ranked segments: shift, rescore, suppress."""

import numpy as np

from acnn_tf import segments as segments_lib
from acnn_tf.search.encoding import to_numpy

# Windows of a video up to which all pairs of them are looked at, and those
# of a block of rows where there are more.
_BAND = 128
# Pairs of windows held at a time.
_BLOCK = 1 << 19


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
    if refined:
        scores = rescore(model, segments, scores)
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


def rescore(model, segments, scores):
    """Scores of windows in the light of each other, as the model sets it.

    Args:
        model: For `consensus_iou` and `decay_sigma`.
        segments: `[..., W, 2]`: the shifted windows of one video.
        scores: `[..., W]`; `-inf` marks padding and stays.

    Returns:
        `[..., W]`.
    """
    if model.consensus_iou is not None:
        scores = consensus(segments, scores, model.consensus_iou)
    if model.decay_sigma is not None:
        scores = decay(segments, scores, model.decay_sigma)
    return scores


def consensus(segments, scores, min_iou):
    """Lets the windows of a video support those that they agree with.

        s'_w = log sum_v exp(s_v) gain(iou(w, v))
        gain(o) = mean over m of max(0, (o - m) / (1 - m))

    The softmax of the scores says where the moment may be; `s'` ranks windows
    by how much of it, on average over these places, they would catch. One
    window that stands alone gives way to several that nearly coincide.

    Args:
        segments: `[..., W, 2]`: the windows of one video.
        scores: `[..., W]`; `-inf` marks padding and stays.
        min_iou: m, floats in `[0, 1)`, or one of them: IoU up to which two do
            not agree. A high one asks for sharp ends, a low one forgives.

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
    num_windows = scores.shape[-1]
    videos = segments.reshape(-1, num_windows, 2)
    weights = np.exp(scores - highest).reshape(-1, num_windows)
    total = np.zeros_like(weights)
    for rows, near in _pairs(videos):
        overlap = _overlap(videos[rows], videos[near])
        gain = np.zeros_like(overlap)
        for m in np.atleast_1d(min_iou):
            gain += np.maximum(0.0, (overlap - m) / (1.0 - m))
        gain /= np.size(min_iou)
        total[rows] = np.squeeze(gain @ weights[near][..., None], -1)
    total = np.maximum(total, np.finfo(total.dtype).tiny)
    supported = np.log(total.reshape(scores.shape)) + highest
    return np.where(scores > -np.inf, supported, scores)


def decay(segments, scores, sigma):
    """Lowers the scores of windows that lie under better ones.

        s'_w = s_w - max(0, max over v of iou(w, v)^2 - c_v^2) / sigma
        c_v = max over u of iou(v, u)

    with v better than w, and u better than v. Matrix NMS with a Gaussian
    (Wang et al., 2020: SOLOv2), the scores taken as logarithms: soft
    suppression of all windows at once. A window that is covered itself, c,
    lowers others by less. The best keeps its score; what suppression leaves
    of the rest then looks elsewhere earlier.

    Args:
        segments: `[..., W, 2]`: the windows of one video.
        scores: `[..., W]`; `-inf` marks padding and stays. Of equal ones, the
            first is better.
        sigma: Positive float; the smaller, the more.

    Returns:
        `[..., W]`, at most `scores`.

    Example:

    >>> segments = np.array([[0.0, 4.0], [0.0, 5.0], [10.0, 14.0]])
    >>> decay(segments, np.array([1.0, 0.9, 0.5]), 0.4).round(2).tolist()
    [1.0, -0.7, 0.5]
    """
    segments, scores = np.asarray(segments), np.asarray(scores, np.float64)
    num_windows = scores.shape[-1]
    videos = segments.reshape(-1, num_windows, 2)
    best_first = np.argsort(-scores, axis=-1, kind="stable")
    rank = np.argsort(best_first, axis=-1).reshape(-1, num_windows)
    covered, loss = np.zeros(rank.shape), np.zeros(rank.shape)
    for rows, near in _pairs(videos):
        over = _overlap_of_better(videos, rank, rows, near)
        covered[rows] = over.max(axis=-1)
    for rows, near in _pairs(videos):
        over = _overlap_of_better(videos, rank, rows, near)
        over = over**2 - covered[near][:, None] ** 2
        loss[rows] = np.maximum(0.0, over.max(axis=-1))
    return scores - loss.reshape(scores.shape) / sigma


def _overlap(segments, others):
    """IoU of all pairs: `[V, W, 2]` and `[V, N, 2]` -> `[V, W, N]`."""
    return segments_lib.iou(segments[:, :, None], others[:, None])


def _overlap_of_better(videos, rank, rows, near):
    """The same of windows with those that rank before them, 0 with others."""
    better = rank[near][:, None] < rank[rows][:, :, None]
    return np.where(better, _overlap(videos[rows], videos[near]), 0.0)


def _pairs(videos):
    """Indices `(rows, near)` of windows, such that all that overlap meet.

    Args:
        videos: `[V, W, 2]`.

    Yields:
        Two indices into arrays `[V, W]`, each window once among the rows.
    """
    num_windows = videos.shape[1]
    if num_windows <= _BAND:
        step = max(1, _BLOCK // max(1, num_windows**2))
        for first in range(0, len(videos), step):
            block = slice(first, first + step)
            yield (block, slice(None)), (block, slice(None))
        return
    for number, segments in enumerate(videos):
        # By start, the windows that a run of windows may overlap are a run.
        video = slice(number, number + 1)
        order = np.argsort(segments[:, 0], kind="stable")
        segments = segments[order]
        starts = segments[:, 0]
        longest = (segments[:, 1] - starts).max()
        for first in range(0, len(segments), _BAND):
            rows = slice(first, first + _BAND)
            nearest = np.searchsorted(starts, starts[rows][0] - longest)
            farthest = np.searchsorted(starts, segments[rows, 1].max(), "right")
            yield (video, order[rows]), (video, order[nearest:farthest])
