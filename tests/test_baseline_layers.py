"""The layers of the baselines against their equations."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from acnn_tf import layers

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


@pytest.mark.parametrize("hidden_dim", [None, 5])
def test_elementwise_head_equals_the_literal_feature(hidden_dim):
    # In float64, where no ReLU can flip by rounding.
    head = layers.ElementwiseHead(hidden_dim, dtype="float64")
    query = tf.Variable(RNG.normal(size=(2, 3, 4)))
    window = tf.Variable(RNG.normal(size=(2, 6, 4)))
    head(query, window)

    def literal(query, window):
        q, v = query[:, :, None], window[:, None]
        both = ops.zeros((2, 3, 6, 4), "float64")
        feature = ops.concatenate([v * q, v + q, v + both, q + both], -1)
        names = ("product", "sum", "window", "query")
        kernels = [getattr(head, f"{name}_kernel") for name in names]
        out = ops.matmul(feature, ops.concatenate(kernels, 0)) + head.bias
        if hidden_dim is not None:
            out = ops.matmul(ops.relu(out), head.output_kernel)
            out = out + head.output_bias
        return {"score": out[..., 0], "offset": out[..., 1:]}

    results = []
    for forward in (head, literal):
        with tf.GradientTape() as tape:
            outputs = forward(query, window)
            total = ops.sum(outputs["score"] ** 2)
            total = total + ops.sum(ops.sin(outputs["offset"]))
        sources = [query, window, *[w.value for w in head.weights]]
        gradients = tape.gradient(total, sources)
        results.append(
            list(map(np.array, outputs.values()))
            + [np.array(g) for g in gradients]
        )
    for folded, expected in zip(*results):
        np.testing.assert_allclose(folded, expected, atol=1e-12)
    with pytest.raises(ValueError, match="one width"):
        layers.ElementwiseHead()(normal(2, 4), normal(2, 3))


def test_memory_without_windows_gives_zeros():
    layer = layers.MemoryAttention(3)
    layer.build((None, 2), (None, 6))
    layer.bias.assign([1.0, 2.0])
    window = np.array([[0.0] * 6, [0, 0, 3, 4, 0, 0]], "float32")
    read = layer(normal(1, 2), window)[0]
    # The second has one cell, which takes all the weight: (3, 4) + (1, 2).
    np.testing.assert_allclose(read, [[0, 0], [4, 6]], rtol=1e-6)
    with pytest.raises(ValueError, match="3 cells"):
        layers.MemoryAttention(3)(normal(1, 2), normal(1, 4))
