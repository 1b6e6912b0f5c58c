"""From scores and offsets to the best moments of each row, in a graph.

What `acnn_tf.search` does with arrays, for the same numbers; the tests hold
one against the other.
"""

import numpy as np
import tensorflow as tf

from acnn_tf import segments

# Windows that others are compared with at a time, which bounds memory.
_BLOCK = 256


def rank(model, windows, score, offset, duration, top_n, max_iou):
    """Shift by the offsets, rescore, suppress: the best moments.

    Args:
        model: For `offset_unit`, `grid`, `consensus_iou` and `decay_sigma`.
        windows: float64 `[P, W, 2]`, seconds.
        score: float32 `[P, W]`; `-inf` marks padding.
        offset: float32 `[P, W, 2]`, in the model's `offset_unit`.
        duration: float64 `[P]`, seconds.
        top_n: Int n.
        max_iou: Float, IoU that two moments of a row may have.

    Returns:
        `(segment, score)`: float64 `[P, n, 2]` and `[P, n]`, best first;
        zeros and `-inf` where fewer are left.
    """
    segment = _shift(model, windows, offset, duration)
    score = tf.cast(score, tf.float64)
    if model.consensus_iou is not None:
        score = _consensus(segment, score, model.consensus_iou)
    if model.decay_sigma is not None:
        score = _decay(segment, score, model.decay_sigma)
    return _best(segment, score, top_n, max_iou)


def iou(a, b):
    """`acnn_tf.segments.iou` of tensors."""
    start = tf.maximum(a[..., 0], b[..., 0])
    end = tf.minimum(a[..., 1], b[..., 1])
    shared = tf.maximum(end - start, 0.0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - shared
    return tf.math.divide_no_nan(shared, union)


def _shift(model, windows, offset, duration):
    shifted = segments.decode_offsets(
        tf.cast(offset, tf.float64),
        windows,
        model.offset_unit,
        model.grid.frame_rate,
    )
    duration = duration[:, None, None]
    shifted = tf.clip_by_value(shifted, 0.0, duration)
    windows = tf.clip_by_value(windows, 0.0, duration)
    return tf.where(shifted[..., :1] < shifted[..., 1:], shifted, windows)


def _over_blocks(add, segment, start):
    """Folds `add(total, overlap, block)` over others, a block at a time.

    Args:
        add: Function of what it returned last, `[P, W]`, the IoU
            `[P, W, block]` of all windows with some, and the slice of these.
        segment: `[P, W, 2]`.
        start: `[P, W]`, what `add` is given first.
    """
    num_windows = tf.shape(segment)[1]

    def body(first, total):
        block = slice(first, first + _BLOCK)
        overlap = iou(segment[:, :, None], segment[:, None, block])
        return first + _BLOCK, add(total, overlap, block)

    _, total = tf.while_loop(
        lambda first, _: first < num_windows,
        body,
        (0, start),
        parallel_iterations=1,
    )
    return total


def _consensus(segment, score, min_iou):
    """`acnn_tf.search.consensus`."""
    highest = tf.reduce_max(score, axis=-1, keepdims=True)
    weight = tf.exp(score - highest)  # [P, W], 0 for padding
    min_iou = np.atleast_1d(min_iou).tolist()

    def add(total, overlap, block):
        gains = [tf.nn.relu((overlap - m) / (1.0 - m)) for m in min_iou]
        gain = tf.add_n(gains) / len(gains)
        return total + tf.linalg.matvec(gain, weight[:, block])

    total = _over_blocks(add, segment, tf.zeros_like(score))
    total = tf.maximum(total, np.finfo(np.float64).tiny)
    return tf.where(score > -np.inf, tf.math.log(total) + highest, score)


def _decay(segment, score, sigma):
    """`acnn_tf.search.decay`."""
    best_first = tf.argsort(-score, axis=-1, stable=True)
    rank = tf.argsort(best_first, axis=-1)

    def of_better(overlap, block):
        better = rank[:, None, block] < rank[:, :, None]
        return tf.where(better, overlap, 0.0)

    def cover(most, overlap, block):
        over = of_better(overlap, block)
        return tf.maximum(most, tf.reduce_max(over, axis=-1))

    covered = _over_blocks(cover, segment, tf.zeros_like(score))

    def lower(most, overlap, block):
        over = of_better(overlap, block) ** 2 - covered[:, None, block] ** 2
        return tf.maximum(most, tf.reduce_max(over, axis=-1))

    return score - _over_blocks(lower, segment, tf.zeros_like(score)) / sigma


def _best(segment, score, top_n, max_iou):
    """Greedy suppression, `acnn_tf.segments.nms`."""

    def body(number, score, segments_found, scores_found):
        best = tf.argmax(score, axis=-1)  # [P], the first among equals
        highest = tf.gather(score, best, batch_dims=1)
        chosen = tf.gather(segment, best, batch_dims=1)  # [P, 2]
        there = (highest > -np.inf)[:, None]
        dropped = iou(chosen[:, None], segment) > max_iou
        # By index too: a segment without length does not overlap itself.
        itself = tf.equal(tf.range(tf.shape(score, tf.int64)[1]), best[:, None])
        score = tf.where(~(dropped | itself), score, -np.inf)
        return (
            number + 1,
            score,
            segments_found.write(number, tf.where(there, chosen, 0.0)),
            scores_found.write(number, highest),
        )

    found = [tf.TensorArray(tf.float64, top_n) for _ in range(2)]
    *_, segments_found, scores_found = tf.while_loop(
        lambda number, *_: number < top_n,
        body,
        (0, score, *found),
        parallel_iterations=1,
    )
    return (
        tf.transpose(segments_found.stack(), (1, 0, 2)),
        tf.transpose(scores_found.stack()),
    )
