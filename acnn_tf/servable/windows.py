"""Makes the windows of videos and their contexts, in a graph."""

import tensorflow as tf

from acnn_tf.data.windows import HAIR, WindowGrid, adjacent


def contexts(
    grid: WindowGrid, size: int, duration: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes the windows and contexts of several videos, as `WindowGrid` does.

    Of C context windows, `size`, and durations float64 `[B]`, in seconds, it
    makes segments, float64 `[B, W, C, 2]` in seconds, zeros where there is no
    such window; and the number of windows, int64 `[B]`.
    """
    own = duration[:, None]
    if grid.frame_rate:
        own = tf.round(own * grid.frame_rate)
    step, count = (_frames if grid.frame_rate else _seconds)(grid, own)
    # A video that no window fits into has one: all of it.
    whole = tf.equal(tf.reduce_sum(count, 1, keepdims=True), 0)
    length = tf.broadcast_to(
        tf.constant(grid.lengths, tf.float64), tf.shape(count)
    )
    length = tf.concat([length, own], axis=1)  # [B, lengths + 1]
    step = tf.concat([step, tf.zeros_like(own)], axis=1)
    count = tf.concat([count, tf.cast(whole, count.dtype)], axis=1)
    num_windows = tf.reduce_sum(count, axis=1)

    # Windows of one length in one video make a run.
    count = tf.reshape(count, [-1])
    run = tf.repeat(tf.range(tf.size(count)), count)  # [sum of W]
    first = tf.gather(tf.cumsum(count, exclusive=True), run)
    place = tf.range(tf.size(run, tf.int64)) - first
    hops = [grid.dilation * hop for hop in range(-(size // 2), size // 2 + 1)]
    if grid.context_length is not None:
        hops = [0]
    place = place[:, None] + tf.constant(hops, tf.int64)  # [sum of W, C]
    inside = (place >= 0) & (place < tf.gather(count, run)[:, None])

    def of_run(value):
        return tf.gather(tf.reshape(value, [-1]), run)[:, None]

    start = tf.cast(place, tf.float64) * of_run(step)
    end = start + of_run(length)
    if grid.frame_rate:
        start, end = (1 + start) / grid.frame_rate, (1 + end) / grid.frame_rate
    segment = tf.where(inside[..., None], tf.stack([start, end], -1), 0.0)
    if grid.context_length is not None:
        last = tf.repeat(duration, num_windows) + HAIR
        segment = _adjacent(grid, size // 2, segment[:, 0], last)
    segment = tf.RaggedTensor.from_row_lengths(segment, num_windows)
    return segment.to_tensor(), num_windows


def _adjacent(grid, side, window, last):
    """Makes contexts `[N, C, 2]` of windows `[N, 2]` by `context_length`."""
    length = grid.context_length / (grid.frame_rate or 1)

    def at(start, next_to):
        end = start + length
        is_there = (start >= -HAIR) & (end <= last)
        return tf.where(is_there[:, None], tf.stack([start, end], -1), next_to)

    return tf.stack(adjacent(window, length, side, at), axis=1)


def _seconds(grid, duration):
    """Computes step and number of windows of each length, `[B, lengths]`."""
    span = duration - tf.constant(grid.lengths, tf.float64)
    step = tf.constant(
        [(1 - grid.overlap) * length for length in grid.lengths], tf.float64
    )
    # A hair off, so that rounding never adds a window.
    num_steps = tf.maximum(tf.math.ceil(span / step - 1e-6), 0.0)
    count = tf.where(span >= 0, tf.cast(num_steps, tf.int64) + 1, 0)
    return tf.math.divide_no_nan(span, num_steps), count


def _frames(grid, num_frames):
    """Computes `_seconds` in frames, by the paper's rule."""
    last = num_frames + 1 - tf.constant(grid.lengths, tf.float64)
    steps = [
        max(1, int(round((1 - grid.overlap) * length, 6) // 1))
        for length in grid.lengths
    ]
    step = tf.constant(steps, tf.float64)
    count = tf.cast(tf.math.ceil(tf.maximum(last, 0.0) / step), tf.int64)
    return tf.broadcast_to(step, tf.shape(count)), count
