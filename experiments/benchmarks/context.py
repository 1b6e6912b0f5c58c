"""Temporal context over a sequence of windows, against Keras convolutions.

Forward and backward. In training the windows are data, so that the gradients
are those of the weights alone; the second case has those of the windows too.
"""

import keras
import numpy as np
import tensorflow as tf

from acnn_tf import layers
from experiments.benchmarks import measure

KERNEL_SIZES = (1, 3, 5, 7)
# Videos, windows, features, filters.
SHAPE = (8, 64, 4096, 256)
SMOKE_SHAPE = (2, 10, 16, 8)


def rows(smoke=False, rounds=5):
    """`TemporalContext` against one `Conv1D` a kernel size.

    `gemm_share` counts the FLOPs of the plain form, two for each window, tap,
    feature and filter, and as many again for each gradient. A layer that gets
    by with fewer of them, by minimal filtering, may pass 1.

    Args:
        smoke: A tiny case.
        rounds: Timed rounds.

    Returns:
        List of rows.
    """
    shape = SMOKE_SHAPE if smoke else SHAPE
    batch, num_windows, width, filters = shape
    product = 2 * batch * num_windows * sum(KERNEL_SIZES) * width * filters
    cases = [(*shape, with_windows) for with_windows in (False, True)]
    found = []
    for case, memory in zip(cases, measure.peaks(candidates, cases)):
        *_, with_windows = case
        functions = candidates(*case)
        ours, theirs = (function() for function in functions.values())
        results = [list(map(np.asarray, ours)), theirs]
        error = {"keras_conv1d": measure.max_relative_error(*results)}
        del ours, theirs, results
        gradients = "weights and windows" if with_windows else "weights"
        found += measure.compare(
            "context",
            f"{batch}x{num_windows}x{width}, gradients of {gradients}",
            functions,
            rounds,
            smoke=smoke,
            flops=(3 if with_windows else 2) * product,
            memory=memory,
            error=error,
        )
    return found


def candidates(batch, num_windows, width, filters, with_windows):
    """Functions of a case, by name; the first is ours."""
    rng = np.random.default_rng(0)
    window = tf.constant(
        rng.normal(size=(batch, num_windows, width)), tf.float32
    )
    target = tf.constant(
        rng.normal(size=(batch, num_windows, len(KERNEL_SIZES), filters)),
        tf.float32,
    )
    keras.utils.set_random_seed(0)
    layer = layers.TemporalContext(KERNEL_SIZES, filters)
    layer.build(window.shape)
    convolutions = []
    for size, taps, bias in zip(KERNEL_SIZES, layer.kernels, layer.biases):
        one = keras.layers.Conv1D(filters, size, padding="same")
        one.build(window.shape)
        one.set_weights([np.stack(taps), bias])
        convolutions.append(one)

    def convolve(window):
        return tf.stack([one(window) for one in convolutions], axis=-2)

    # Both in one order: kernels, then biases.
    ours = [*layer.kernels, *layer.biases]
    theirs = [one.kernel for one in convolutions]
    theirs += [one.bias for one in convolutions]
    return {
        "temporal_context": _step(layer, window, target, ours, with_windows),
        "keras_conv1d": _step(convolve, window, target, theirs, with_windows),
    }


def _step(forward, window, target, weights, with_windows):
    """A function that returns the outputs and the gradients.

    Those of weights in a list, the taps of a kernel, make a list.
    """
    sources = tf.nest.map_structure(lambda weight: weight.value, weights)

    @tf.function
    def step(window):
        with tf.GradientTape() as tape:
            if with_windows:
                tape.watch(window)
            outputs = forward(window)
            loss = tf.reduce_sum((outputs - target) ** 2)
        wanted = [window, *sources] if with_windows else sources
        return [outputs, *tape.gradient(loss, wanted)]

    return lambda: step(window)
