"""Encodes the windows of videos in a graph, in bounded memory."""

import keras
import tensorflow as tf

from acnn_tf.search.ranking import in_blocks

# Clips beyond which a video is encoded in pieces, of half so many.
_LONG = 1024
# Shares of clips in windows that are computed at a time: bounds memory.
_SHARES = 1 << 26


def encode_windows(
    model: keras.Model,
    clip: tf.Tensor,
    clip_mask: tf.Tensor,
    segment: tf.Tensor,
    duration: tf.Tensor,
) -> tf.Tensor:
    """Encodes the windows of videos of any length.

    Pooling all windows from all clips costs windows times clips. Here long
    videos are cut into pieces, as `acnn_tf.search.encode_videos` does it, each
    with the clips that its windows need: time and memory are linear in their
    length. Short videos go through the model together.

    Args:
        model: One of `acnn_tf.models`.
        clip: float32 `[B, T, D]`.
        clip_mask: bool `[B, T]`, `True` = real.
        segment: float64 `[B, W, C, 2]`, from `acnn_tf.servable.windows`.
        duration: float64 `[B]`, seconds.

    Returns:
        float32 `[B, W, t]`.
    """
    num_videos, num_windows, num_contexts, _ = tf.unstack(tf.shape(segment))
    longest = tf.shape(clip)[1]
    shares = tf.cast(longest * num_contexts, tf.int64) * tf.cast(
        num_windows, tf.int64
    )
    together = tf.cast(tf.maximum(_SHARES // (shares + 1), 1), tf.int32)
    if hasattr(model, "whole_video"):  # which tells of one video
        together = 1
    together = tf.where(longest > _LONG, 1, together)

    def of_videos(first, last):
        rows = slice(first, last)
        encoding = _encode(
            model,
            clip[rows],
            clip_mask[rows],
            tf.cast(segment[rows], tf.float32),
            tf.cast(duration[rows], tf.float32),
        )
        return tf.reshape(encoding, (tf.shape(encoding)[0], -1))

    encoding = in_blocks(of_videos, num_videos, together, tf.float32)
    return tf.reshape(encoding, (num_videos, num_windows, -1))


def _encode(model, clip, clip_mask, segment, duration):
    """Encodes one long video, or several short ones."""
    num_videos, longest = tf.unstack(tf.shape(clip)[:2])
    middle = segment[0, :, segment.shape[2] // 2]  # [W, 2]
    piece_of = tf.reduce_mean(middle, axis=1) / model.clip_seconds
    piece_of = tf.cast(piece_of, tf.int32) // (_LONG // 2)
    # Numbered anew, for a coarse grid leaves some without a window.
    _, piece_of = tf.unique(tf.where(longest > _LONG, piece_of, 0))
    whole = {}
    if hasattr(model, "whole_video"):
        whole = model.whole_video(tf.boolean_mask(clip, clip_mask))

    def of_piece(number, _):
        part = tf.gather(
            segment, tf.where(piece_of == number)[:, 0], axis=1
        )  # [B, w, C, 2]
        is_real = part[..., 1] > part[..., 0]
        start = tf.reduce_min(tf.where(is_real, part[..., 0], part.dtype.max))
        end = tf.reduce_max(part)
        first = tf.cast(start / model.clip_seconds, tf.int32)
        last = tf.cast(tf.math.ceil(end / model.clip_seconds), tf.int32)
        # All clips of a single piece: its videos end in different places.
        is_piece = longest > _LONG
        first = tf.where(is_piece, tf.minimum(first, longest - 1), 0)
        last = tf.where(is_piece, tf.maximum(last, first + 1), longest)
        encoding = model.encode_windows(
            {
                "clip": clip[:, first:last],
                "clip_mask": clip_mask[:, first:last],
                "first_clip": tf.fill([num_videos], first),
                "segment": part,
                "duration": duration,
                **whole,
            }
        )
        encoding = tf.transpose(tf.cast(encoding, tf.float32), (1, 0, 2))
        return tf.reshape(encoding, (tf.shape(part)[1], -1))  # [w, B * t]

    num_pieces = tf.reduce_max(piece_of) + 1
    encoding = in_blocks(of_piece, num_pieces, 1, tf.float32)
    # From the order of the pieces to that of the windows.
    order = tf.argsort(tf.argsort(piece_of, stable=True))
    encoding = tf.reshape(
        tf.gather(encoding, order), (tf.size(order), num_videos, -1)
    )
    return tf.transpose(encoding, (1, 0, 2))
