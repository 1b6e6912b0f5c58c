"""Scores very many windows, and bounds what each video can score."""

import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from acnn_tf.search.encoding import to_numpy
from acnn_tf.search.ranking import RankingSettings, in_blocks

# Query-window pairs of a tile: the hidden layer of one query then stays in a
# processor's cache until it is summed up; without tiles it travels to memory
# and back, which costs more than the product itself. Smaller ones cost more
# too, as a turn of the loop takes as long as a product of 512 windows.
TILE = 8192


def video_bounds(
    settings: RankingSettings,
    scores: np.ndarray | tf.Tensor,
    owner: np.ndarray | tf.Tensor,
) -> tf.Tensor:
    """Computes an upper bound of the scores of the moments of each video.

    That is the highest score of its windows; where windows support each other
    (`consensus`), the logarithm of the sum of their exponentials, which is
    what a window would have that all others agree with; `decay` only lowers
    scores.

    Args:
        settings: `acnn_tf.search.ranking.RankingSettings`.
        scores: float32 `[N, Q]` of the windows of V videos; `-inf` marks
            padding.
        owner: int32 `[N]`, rising: the number of each window's video.

    Returns:
        float32 `[V, Q]`; NaN for the queries of which a score is NaN.
    """
    bounds = tf.math.segment_max(scores, owner)
    if settings.consensus_iou is not None:
        above = tf.exp(scores - tf.gather(bounds, owner))
        bounds += tf.math.log(tf.math.segment_sum(above, owner))
    # Of NaN and a number, `segment_max` returns the number.
    is_nan = tf.reduce_any(tf.math.is_nan(scores), axis=0)
    return tf.where(is_nan, np.nan, bounds)


def score_tiles(
    score: Callable[[tf.Tensor], tf.Tensor], encoding: tf.Tensor, size: int
) -> tf.Tensor:
    """Scores all windows `[N, t]`, a tile at a time, within a graph.

    `score` makes `[n, Q]` of a tile `[n, t]`; returns float32 `[N, Q]`.
    """
    return in_blocks(
        lambda first, last: tf.cast(score(encoding[first:last]), tf.float32),
        tf.shape(encoding)[0],
        size,
        tf.float32,
    )


def bounds_function(model: keras.Model) -> Callable[..., np.ndarray]:
    """Compiles scores and `video_bounds`, where the backend allows it.

    Returns a function of what `model.fold` returned for Q queries, encodings
    `[N, t]`, the owner of each window, and `"float32"` or `"bfloat16"`, which
    returns an array, float32 `[V, Q]`.
    """
    graphs = {}

    def score(folded, encoding):
        return model.score(folded, ops.cast(encoding, folded[0].dtype))

    def bounds(folded, encoding, owner, precision):
        settings = RankingSettings.of(model)
        folded = [ops.cast(part, precision) for part in folded]
        size = max(1, TILE // len(folded[0]))
        if keras.backend.backend() != "tensorflow":
            scores = [
                to_numpy(score(folded, encoding[first : first + size]))
                for first in range(0, len(encoding), size)
            ]
            return video_bounds(settings, np.concatenate(scores), owner).numpy()
        specs = (
            [any_size(part, *part.shape) for part in folded],
            any_size(encoding, encoding.shape[1]),
            any_size(owner),
            tf.TensorSpec([], tf.int32),
        )
        key = settings, *tf.nest.flatten(specs)
        if key not in graphs:

            def graph(folded, encoding, owner, size):
                tile = functools.partial(score, folded)
                scores = score_tiles(tile, encoding, size)
                return video_bounds(settings, scores, owner)

            graph = tf.function(graph, autograph=False)
            graphs[key] = graph.get_concrete_function(*specs)
        encoding = shared_tensor(encoding)
        return graphs[key](folded, encoding, owner, size).numpy()

    return bounds


def shared_tensor(array: np.ndarray) -> tf.Tensor:
    """Converts a large array to a tensor, without a copy if it is aligned.

    What TensorFlow takes for an array it copies, but what offers one it reads
    where it lies, if that is aligned. Neither may be written to.
    """
    return tf.convert_to_tensor(_Offer(array))


class _Offer:
    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array


def any_size(array: tf.Tensor, *widths: int | None) -> tf.TensorSpec:
    """Returns the spec of arrays of any size with these last axes.

    TensorFlow adds a bias within a product only where it knows how wide both
    are.
    """
    shape = [None] * (len(array.shape) - len(widths)) + list(widths)
    return tf.TensorSpec(shape, array.dtype)


def encode_function(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Compiles `model.encode_queries`, where the backend allows it."""
    encode = model.encode_queries
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if on_tensorflow and isinstance(model, keras.Model):
        # Step by step a GRU takes longer than a search.
        encode = tf.function(encode, reduce_retracing=True, autograph=False)
    return lambda queries: to_numpy(encode(queries))
