"""Temporal context as training computes it, against Keras convolutions.

Forward, and backward to the weights: in training the features are data.
"""

import keras
import numpy as np
import tensorflow as tf

from acnn_tf import layers
from acnn_tf.data.windows import WindowGrid
from experiments.benchmarks import measure

# Videos, clips, features, filters; windows, in clips; kernel sizes.
VIDEOS = (8, 64, 4096, 256)
SMOKE_VIDEOS = (2, 12, 16, 8)
GRID = WindowGrid((4.0, 8.0, 16.0, 32.0))
VIDEO_KERNELS = (1, 3, 5)
# Windows, features, filters; kernel sizes.
PAIRS = (64, 4096, 256)
SMOKE_PAIRS = (4, 16, 8)
PAIR_KERNELS = (1, 3, 5, 7)


def rows(smoke=False, rounds=5):
    """`TemporalContext` against one `Conv1D` for each kernel size.

    `gemm_share` counts the FLOPs of our products, two for each multiplication,
    and as many again for the gradient of the weights.

    Args:
        smoke: Tiny cases.
        rounds: Timed rounds.

    Returns:
        List of rows.
    """
    makers = {
        videos: SMOKE_VIDEOS if smoke else VIDEOS,
        pairs: SMOKE_PAIRS if smoke else PAIRS,
    }
    found = []
    for make, shape in makers.items():
        (memory,) = measure.peaks(make, [shape])
        functions = make(*shape)
        ours, theirs = (function() for function in functions.values())
        results = [list(map(np.asarray, ours)), theirs]
        error = {"keras_conv1d": measure.max_relative_error(*results)}
        del ours, theirs, results
        found += measure.compare(
            "context",
            f"{make.__name__}, {'x'.join(map(str, shape[:-1]))}",
            functions,
            rounds,
            smoke=smoke,
            flops=2 * _products(make, *shape),
            memory=memory,
            error=error,
        )
    return found


def _products(make, batch, *shape):
    """FLOPs of our products, forward."""
    *clips, width, filters = shape
    if make is pairs:
        return 2 * batch * sum(PAIR_KERNELS) * width * filters
    (num_clips,) = clips
    num_windows = len(GRID.windows(float(num_clips)))
    taps = sum(VIDEO_KERNELS)
    return 2 * batch * num_clips * taps * filters * (width + num_windows)


def videos(batch, num_clips, width, filters):
    """Functions of training on whole videos, by name; the first is ours.

    Ours projects clips and pools them afterwards. The plain way pools them
    into the windows of each length, which the convolutions then run over.
    """
    windows = GRID.windows(float(num_clips))
    contexts = GRID.contexts(windows, max(VIDEO_KERNELS))
    share = layers.clip_share(
        tf.constant(contexts[None], tf.float32), tf.ones((1, num_clips), bool)
    )
    own = share[0, :, max(VIDEO_KERNELS) // 2]  # [W, T]
    lengths = (windows[:, 1] - windows[:, 0]).round(6)
    of_length = [own[lengths == length] for length in np.unique(lengths)]
    pooling = tf.repeat(share, batch, axis=0)
    layer = _layer(VIDEO_KERNELS, width, filters)
    plain = convolutions(layer, padding="same", dilation_rate=GRID.dilation)

    def convolve(clip):
        found = []
        for one in of_length:
            pooled = tf.matmul(one, clip)
            found.append(tf.stack([conv(pooled) for conv in plain], axis=-2))
        return tf.concat(found, axis=1)

    return _functions(
        layer,
        plain,
        lambda clip: layer(clip, pooling=pooling),
        convolve,
        (batch, num_clips, width),
    )


def pairs(batch, width, filters):
    """Functions of training on pairs of a window and a query, ours first.

    Each window comes with its context. Ours multiplies tap by tap; the plain
    convolutions run over the middle of the context, as wide as they are.
    """
    size = max(PAIR_KERNELS)
    layer = _layer(PAIR_KERNELS, width, filters)
    plain = convolutions(layer)

    def convolve(window):
        found = []
        for conv in plain:
            first = (size - conv.kernel_size[0]) // 2
            found.append(conv(window[:, 0, first : size - first]))
        return tf.stack(found, axis=-2)

    return _functions(layer, plain, layer, convolve, (batch, 1, size, width))


def _layer(kernel_sizes, width, filters):
    keras.utils.set_random_seed(0)
    layer = layers.TemporalContext(kernel_sizes, filters)
    layer.build((None, None, width))
    return layer


def convolutions(layer, **arguments):
    """A `Conv1D` for each kernel of a `TemporalContext`, with its weights."""
    found = []
    for size, taps, bias in zip(
        layer.kernel_sizes, layer.kernels, layer.biases
    ):
        one = keras.layers.Conv1D(layer.filters, size, **arguments)
        one.build((None, None, taps[0].shape[0]))
        one.set_weights([np.stack(taps), bias])
        found.append(one)
    return found


def _functions(layer, plain, ours, theirs, shape):
    rng = np.random.default_rng(0)
    features = tf.constant(rng.normal(size=shape), tf.float32)
    # Both in one order: kernels, then biases. The taps of a kernel are a list.
    weights = [*layer.kernels, *layer.biases]
    plain = [one.kernel for one in plain] + [one.bias for one in plain]
    return {
        "temporal_context": _step(ours, features, weights),
        "keras_conv1d": _step(theirs, features, plain),
    }


def _step(forward, features, weights):
    """A function that returns the outputs and the gradients of the weights."""
    sources = tf.nest.map_structure(lambda weight: weight.value, weights)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            outputs = forward(features)
            loss = tf.reduce_sum(outputs**2)
        return [outputs, *tape.gradient(loss, sources)]

    return step
