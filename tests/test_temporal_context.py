"""The context of windows: by hand, and the three kinds of input alike."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from acnn_tf import layers
from tests.test_layers import assert_same_gradients

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


def test_context_convolves_by_hand():
    layer = layers.TemporalContext(kernel_sizes=(1, 3), filters=1)
    layer.build((None, None, 1))
    layer.set_weights(
        [
            *np.array([2.0, 1.0, 10.0, 100.0]).reshape(4, 1, 1),
            np.array([0.5]),
            np.array([0.0]),
        ]
    )
    outputs = layer(np.array([[[1.0], [2.0], [3.0]]]))
    # Kernel 1: 2x + 0.5. Kernel 3: left + 10 own + 100 right, zeros outside.
    np.testing.assert_allclose(
        outputs[0, :, :, 0], [[2.5, 210.0], [4.5, 321.0], [6.5, 32.0]]
    )


def test_context_sees_dilated_neighbours():
    layer = layers.TemporalContext(kernel_sizes=(3,), filters=1, dilation=2)
    layer.build((None, None, 1))
    layer.set_weights(
        [*np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1), np.zeros(1)]
    )
    outputs = layer(np.arange(1.0, 6.0).reshape(1, 5, 1))
    np.testing.assert_allclose(
        outputs[0, :, 0, 0], [310, 420, 531, 42, 53], rtol=1e-6
    )


@pytest.mark.parametrize(
    "num_windows, dilation", [(1, 1), (2, 5), (7, 2), (12, 5)]
)
def test_context_equals_the_plain_sum_over_taps(num_windows, dilation):
    # In float64, forward and backward.
    sizes = (1, 3, 7)
    layer = layers.TemporalContext(
        sizes, filters=3, dilation=dilation, dtype="float64"
    )
    window = tf.Variable(RNG.normal(size=(2, num_windows, 4)))
    layer(window)

    def plain(window):
        reach = 3 * dilation
        padded = tf.pad(window, ((0, 0), (reach, reach), (0, 0)))
        outputs = []
        for size, taps, total in zip(sizes, layer.kernels, layer.biases):
            for tap in range(size):
                first = reach + (tap - size // 2) * dilation
                seen = padded[:, first : first + num_windows]
                total = total + seen @ taps[tap]
            outputs.append(total)
        return tf.stack(outputs, axis=2)

    assert_same_gradients(layer, plain, window)


@pytest.mark.parametrize("dilation", [1, 2])
def test_sequences_contexts_and_clips_give_the_same_numbers(dilation):
    layer = layers.TemporalContext((1, 3, 5), filters=6, dilation=dilation)
    clip = normal(2, 10, 4)
    share = RNG.random((2, 9, 10)).astype("float32")  # [B, W, T]
    sequence = share @ clip

    def contexts(array):
        """Each row of `[B, W, X]` with those around it, `[B, W, 5, X]`."""
        reach = 2 * dilation
        padded = np.pad(array, ((0, 0), (reach, reach), (0, 0)))
        rows = [padded[:, w : w + 2 * reach + 1 : dilation] for w in range(9)]
        return np.stack(rows, axis=1)

    expected = layer(sequence)
    np.testing.assert_allclose(layer(contexts(sequence)), expected, atol=1e-5)
    np.testing.assert_allclose(
        layer(clip, pooling=contexts(share)), expected, atol=1e-5
    )


def test_masked_windows_do_not_reach_their_neighbours():
    layer = layers.TemporalContext((3,), filters=3)
    window = normal(1, 6, 4)
    mask = np.array([[True] * 4 + [False] * 2])
    spoilt = np.where(mask[..., None], window, np.nan).astype("float32")
    np.testing.assert_allclose(
        layer(spoilt, mask=mask)[:, :4], layer(window[:, :4]), atol=1e-6
    )


def test_masked_context_windows_count_as_zeros():
    layer = layers.TemporalContext((1, 3), filters=3)
    window = normal(2, 6, 3, 4)
    mask = RNG.random((2, 6, 3)) < 0.5
    zeros = np.where(mask[..., None], window, 0).astype("float32")
    spoilt = np.where(mask[..., None], window, np.nan).astype("float32")
    np.testing.assert_allclose(
        layer(spoilt, mask=mask), layer(zeros), atol=1e-6
    )


def test_kernels_start_as_wide_as_those_of_keras():
    keras.utils.set_random_seed(0)
    layer = layers.TemporalContext((3, 7), filters=50)
    layer.build((None, None, 100))
    for taps in layer.kernels:
        limit = (6 / (len(taps) * 150)) ** 0.5  # Glorot's
        largest = [np.abs(tap).max() for tap in taps]
        np.testing.assert_allclose(largest, limit, rtol=0.01)
        assert not np.allclose(taps[0], taps[1])


def test_context_refuses_bad_arguments(refused):
    for arguments in (
        {"kernel_sizes": (2,), "filters": 1},
        {"kernel_sizes": (), "filters": 1},
        {"kernel_sizes": (1, 1), "filters": 1},
        {"kernel_sizes": (1,), "filters": 0},
        {"kernel_sizes": (1,), "filters": 1, "dilation": 0},
    ):
        with refused(ValueError, "Received", **arguments):
            layers.TemporalContext(**arguments)


def test_context_refuses_too_few_windows():
    layer = layers.TemporalContext((1, 5), filters=3)
    with pytest.raises(ValueError, match="5 windows"):
        layer(normal(2, 4, 3, 6))
