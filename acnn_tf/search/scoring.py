"""Scores of very many windows, a cache-sized tile at a time."""

import functools

import keras
import numpy as np
from keras import ops

from acnn_tf.search.encoding import to_numpy

# Query-window pairs of a tile: the hidden layer of one query then stays in a
# processor's cache until it is summed up; without tiles it travels to memory
# and back, which costs more than the product itself. Smaller ones cost more
# too, as a turn of the loop takes as long as a product of 512 windows.
TILE = 8192


def score_function(model):
    """Function that scores windows, compiled where that can be.

    Args:
        model: Its `score` is called.

    Returns:
        Function of encodings `[N, t]`, what `model.fold` returned for Q
        queries, and `"float32"` or `"bfloat16"`; returns float32 `[N, Q]`.
    """

    def score(encoding, folded, precision):
        encoding = ops.cast(encoding, precision)
        return ops.cast(model.score(folded, encoding), "float32")

    on_tensorflow = keras.backend.backend() == "tensorflow"
    tiles = _compiled_loop(score) if on_tensorflow else _loop(score)

    def score_tiles(encoding, folded, precision):
        folded = [ops.cast(part, precision) for part in folded]
        rows = max(1, TILE // len(folded[0]))
        return tiles(encoding, folded, rows, precision)

    return score_tiles


def _loop(score):
    """The loop over tiles in Python."""

    def tiles(encoding, folded, rows, precision):
        return np.concatenate(
            [
                to_numpy(score(encoding[i : i + rows], folded, precision))
                for i in range(0, len(encoding), rows)
            ]
        )

    return tiles


def _compiled_loop(score):
    """The loop over tiles as one TensorFlow graph."""

    def loop(encoding, folded, rows, precision):
        return tile_by_tile(
            lambda tile: score(tile, folded, precision), encoding, rows
        )

    graphs = {
        precision: _one_graph(functools.partial(loop, precision=precision))
        for precision in ("float32", "bfloat16")
    }

    def tiles(encoding, folded, rows, precision):
        return graphs[precision](encoding, folded, np.int32(rows)).numpy()

    return tiles


def tile_by_tile(score, encoding, rows):
    """Scores all windows, `rows` at a time, within a TensorFlow graph.

    Args:
        score: Function from `[W, t]` to float32 `[W, Q]`.
        encoding: Tensor `[N, t]`.
        rows: Int.

    Returns:
        Tensor, float32 `[N, Q]`.
    """
    import tensorflow as tf

    count = -(-tf.shape(encoding)[0] // rows)
    parts = tf.TensorArray(tf.float32, count, infer_shape=False)

    def body(i, parts):
        tile = encoding[i * rows : (i + 1) * rows]
        return i + 1, parts.write(i, score(tile))

    _, parts = tf.while_loop(
        lambda i, _: i < count, body, (0, parts), parallel_iterations=1
    )
    return tf.ensure_shape(parts.concat(), (None, None))


def locate_function(model):
    """`model.locate`, compiled where that can be, with arrays as results."""
    locate = model.locate
    if keras.backend.backend() == "tensorflow":
        locate = _one_graph(locate)

    def arrays(folded, row, encoding):
        output = locate(folded, np.int32(row), encoding)
        return to_numpy(output["score"]), to_numpy(output["offset"])

    return arrays


def encode_function(model):
    """`model.encode_queries`, compiled where that can be, with an array."""
    encode = model.encode_queries
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if on_tensorflow and isinstance(model, keras.Model):
        import tensorflow as tf

        # Step by step a GRU takes longer than a search.
        encode = tf.function(encode, reduce_retracing=True, autograph=False)
    return lambda queries: to_numpy(encode(queries))


def _one_graph(function):
    """Compiles a function once for all numbers of windows and videos.

    The arrays of a list keep their shapes: TensorFlow adds a bias within the
    product only where it knows how wide both are.
    """
    import tensorflow as tf

    graphs = {}

    def spec(argument):
        if isinstance(argument, list):
            return [tf.TensorSpec(x.shape, x.dtype) for x in argument]
        shape = [None] * argument.shape.rank
        if len(shape) > 1:
            shape[-1] = argument.shape[-1]
        return tf.TensorSpec(shape, argument.dtype)

    def call(*arguments):
        arguments = [
            list(map(tf.convert_to_tensor, argument))
            if isinstance(argument, (list, tuple))
            else tf.convert_to_tensor(argument)
            for argument in arguments
        ]
        specs = list(map(spec, arguments))
        key = tuple(tf.nest.flatten(specs))
        if key not in graphs:
            graphs[key] = tf.function(
                function, input_signature=specs, autograph=False
            )
        return graphs[key](*arguments)

    return call
