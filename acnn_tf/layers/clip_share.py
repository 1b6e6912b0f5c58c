"""Which clips lie under a segment, and how much of each."""

from keras import ops


def clip_share(segment, clip_mask, first_clip=None):
    """Shares of clips in segments: the weights that pool clips to windows.

    Args:
        segment: `[B, W, C, 2]`, in clips from the start of the video.
        clip_mask: bool `[B, T]`, `True` = real.
        first_clip: `[B]`, how many clips of the video there are before the T
            that are given. Default: none.

    Returns:
        `[B, W, C, T]`: adds up to 1 over the clips that a segment covers,
        parts of clips by their length; zeros where it covers none. It is the
        `pooling` of `TemporalContext`.

    Example:

    >>> segment = ops.array([[[[0.5, 1.5]]]])
    >>> share = clip_share(segment, ops.ones((1, 3), "bool"))
    >>> ops.convert_to_numpy(share).tolist()
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
