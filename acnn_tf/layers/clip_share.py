"""Which clips lie under a segment, and how much of each."""

import keras
from keras import ops


def clip_share(
    segment: keras.KerasTensor,
    clip_mask: keras.KerasTensor,
    first_clip: keras.KerasTensor | None = None,
) -> keras.KerasTensor:
    """The share of each clip in each segment, which pools clips into windows.

    Args:
        segment: float `[B, W, C, 2]`, start and end in clips from the start
            of the video.
        clip_mask: bool `[B, T]`, `True` = real.
        first_clip: int `[B]`, how many clips of the video come before the T
            clips that are given. Default: 0.

    Returns:
        `[B, W, C, T]`. The shares of a segment add up to 1; a clip that it
        covers in part counts by the length of that part. A segment that
        covers no clip has zeros. `TemporalContext` takes this as `pooling`.

    Example:

    >>> import acnn_tf, keras
    >>> segment = keras.ops.array([[[[0.5, 1.5]]]])
    >>> mask = keras.ops.ones((1, 3), "bool")
    >>> acnn_tf.layers.clip_share(segment, mask).numpy().tolist()
    [[[[0.5, 0.5, 0.0]]]]
    """
    clip_mask = ops.cast(clip_mask, segment.dtype)
    start, end = segment[..., :1], segment[..., 1:]
    first = ops.arange(ops.shape(clip_mask)[1], dtype=segment.dtype)
    if first_clip is not None:
        first_clip = ops.cast(first_clip, segment.dtype)
        first = first + ops.reshape(first_clip, (-1, 1, 1, 1))
    covered = ops.minimum(end, first + 1) - ops.maximum(start, first)
    covered = ops.relu(covered) * clip_mask[:, None, None, :]
    total = ops.sum(covered, axis=-1, keepdims=True)
    return covered / ops.where(total > 0, total, ops.ones_like(total))
