"""Temporal context as training computes it, against Keras convolutions.

Forward, and backward to the weights: in training the features are data.
"""

import keras
import numpy as np
import tensorflow as tf

from acnn_tf import layers
from acnn_tf.data.windows import WindowGrid
from experiments.benchmarks import measure

KERNEL_SIZES = (1, 3, 5, 7)
GRID = WindowGrid((4.0, 8.0, 16.0, 32.0))  # in clips


def rows(smoke, rounds):
    """`TemporalContext` against one `Conv1D` for each kernel size.

    `gemm_share` counts the FLOPs of our products, two for each multiplication,
    and as many again for the gradient of the weights.
    """
    width, filters = (16, 8) if smoke else (4096, 256)
    # Examples, and clips or windows of each. A pair has one window.
    cases = (
        ((videos, 2, 12), (pairs, 4, 1))
        if smoke
        else ((videos, 8, 64), (pairs, 64, 1))
    )
    found = []
    for make, batch, count in cases:
        products = width
        if make is videos:
            products += len(GRID.windows(float(count)))
        shape = batch, count, width, filters
        found += measure.compare(
            "context",
            f"{make.__name__}, {batch}x{count}x{width}",
            make(*shape),
            rounds,
            flops=4 * batch * count * sum(KERNEL_SIZES) * filters * products,
            memory=measure.peaks(make, *shape),
        )
    return found


def videos(batch, num_clips, width, filters):
    """Functions of training on whole videos, by name; the first is ours.

    Ours projects clips and pools them afterwards. The plain way pools them
    into the windows of each length, which the convolutions then run over.
    """
    layer = _layer(width, filters)
    windows = GRID.windows(float(num_clips))
    contexts = GRID.contexts(windows, layer.context_size)
    share = layers.clip_share(
        tf.constant(contexts[None], tf.float32), tf.ones((1, num_clips), bool)
    )
    pooling = tf.repeat(share, batch, axis=0)
    of_length = by_length(windows, share[0, :, layer.context_size // 2])
    plain = convolutions(layer, padding="same", dilation_rate=GRID.dilation)

    def convolve(clip):
        found = []
        for one in of_length:  # [W, T]
            window = tf.matmul(one, clip)
            found.append(tf.stack([conv(window) for conv in plain], axis=-2))
        return tf.concat(found, axis=1)

    return _functions(
        layer,
        plain,
        lambda clip: layer(clip, pooling=pooling),
        convolve,
        (batch, num_clips, width),
    )


def pairs(batch, num_windows, width, filters):
    """Functions of training on pairs of a window and a query, ours first.

    Each window comes with its context. Ours multiplies tap by tap; the plain
    convolutions run over the middle of the context, as wide as they are.
    """
    layer = _layer(width, filters)
    plain = convolutions(layer)
    size = layer.context_size

    def convolve(window):
        found = []
        for conv in plain:
            first = (size - conv.kernel_size[0]) // 2
            found.append(conv(window[:, 0, first : size - first]))
        return tf.stack(found, axis=-2)

    shape = (batch, num_windows, size, width)
    return _functions(layer, plain, layer, convolve, shape)


def by_length(windows, rows):
    """The rows of the windows of each length: a list of arrays."""
    lengths = (windows[:, 1] - windows[:, 0]).round(6)
    return [rows[lengths == length] for length in np.unique(lengths)]


def convolutions(layer, **arguments):
    """A `Conv1D` for each kernel of a `TemporalContext`, with its weights."""
    found = []
    for taps, bias in zip(layer.kernels, layer.biases):
        one = keras.layers.Conv1D(layer.filters, len(taps), **arguments)
        one.build((None, None, taps[0].shape[0]))
        one.set_weights([np.stack(taps), bias])
        found.append(one)
    return found


def _layer(width, filters):
    keras.utils.set_random_seed(0)
    layer = layers.TemporalContext(KERNEL_SIZES, filters)
    layer.build((None, None, width))
    return layer


def _functions(layer, plain, ours, theirs, shape):
    """Functions, by name, that return outputs and gradients of the weights."""
    rng = np.random.default_rng(0)
    features = tf.constant(rng.normal(size=shape), tf.float32)
    # Both in one order: kernels, then biases. The taps of a kernel are a list.
    weights = [*layer.kernels, *layer.biases]
    plain = [one.kernel for one in plain] + [one.bias for one in plain]

    def step(forward, weights):
        sources = tf.nest.map_structure(lambda weight: weight.value, weights)

        @tf.function
        def run():
            with tf.GradientTape() as tape:
                outputs = forward(features)
                loss = tf.reduce_sum(outputs**2)
            return [outputs, *tape.gradient(loss, sources)]

        return run

    return {
        "temporal_context": step(ours, weights),
        "keras_conv1d": step(theirs, plain),
    }
