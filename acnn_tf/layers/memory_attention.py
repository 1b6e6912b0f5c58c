"""Attention of a query over the context of a window."""

from collections.abc import Callable

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="acnn_tf")
class MemoryAttention(keras.layers.Layer):
    """Weighs the context of a window by how well it answers a query.

    The memory of a window is a cell `x_j` for each of its C context windows,
    in time order, itself in the middle. The query is compared with the sum of
    the cells up to `j`, and the result is the weighted mean of the cells:

        e_j = activation(sum_{i <= j} x_i + b) . activation(q)
        a = softmax(e);  m = sum_j a_j (x_j + b)

    A cell of zeros stands for a window that does not exist, and gets no
    weight. If all cells of a memory are zeros, the result is zeros.

    Args:
        context_size: C, how many cells the memory of a window has.
        activation: Activation of memory and query. Defaults to `"tanh"`.

    Call arguments:
        query: `[..., Q, t]`.
        window: `[..., W, C * t]`, the cells of each memory side by side.

    Returns:
        `[..., Q, W, t]`, a vector for every query and window.

    Example:

    >>> import acnn_tf, keras
    >>> layer = acnn_tf.layers.MemoryAttention(context_size=3)
    >>> tuple(layer(keras.ops.ones((2, 4)), keras.ops.ones((5, 12))).shape)
    (2, 5, 4)

    Reference: Liu et al., "Attentive Moment Retrieval in Videos", SIGIR 2018,
    the memory attention network.
    """

    def __init__(
        self, context_size: int, activation: str | Callable = "tanh", **kwargs
    ):
        super().__init__(**kwargs)
        self.context_size = context_size
        self.activation = keras.activations.get(activation)
        self.softmax = keras.layers.Softmax(axis=-1, dtype=self.dtype_policy)

    def build(
        self,
        query_shape: tuple[int | None, ...],
        window_shape: tuple[int | None, ...],
    ) -> None:
        if window_shape[-1] != self.context_size * query_shape[-1]:
            raise ValueError(
                f"`window` must hold {self.context_size} cells as wide as "
                f"`query`. Received shapes: {query_shape}, {window_shape}"
            )
        self.bias = self.add_weight(
            name="bias", shape=(query_shape[-1],), initializer="zeros"
        )

    def call(
        self, query: keras.KerasTensor, window: keras.KerasTensor
    ) -> keras.KerasTensor:
        return self.attend(query, window)

    def attend(
        self, query: keras.KerasTensor, window: keras.KerasTensor
    ) -> keras.KerasTensor:
        """`call` in the precision of `window`, whatever the layer's dtype."""
        bias = ops.cast(self.bias, window.dtype)
        width = bias.shape[0]
        query = self.activation(ops.cast(query, window.dtype))
        cells = [
            window[..., place * width : (place + 1) * width]
            for place in range(self.context_size)
        ]  # C of [..., W, t]
        read, scores = bias, []
        for cell in cells:
            read = read + cell
            key = self.activation(read)
            scores.append(ops.matmul(query, ops.swapaxes(key, -1, -2)))
        there = ops.stack(
            [ops.any(ops.not_equal(cell, 0), axis=-1) for cell in cells], -1
        )[..., None, :, :]  # [..., 1, W, C]
        weights = self.softmax(ops.stack(scores, axis=-1), mask=there)
        weights = ops.cast(weights, window.dtype)  # [..., Q, W, C]
        weights = weights * ops.cast(there, window.dtype)
        # Cell by cell: as one product it would be one of many tiny ones.
        return sum(
            weights[..., place, None] * ops.expand_dims(cell + bias, -3)
            for place, cell in enumerate(cells)
        )

    def compute_output_shape(
        self,
        query_shape: tuple[int | None, ...],
        window_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return (*query_shape[:-1], window_shape[-2], query_shape[-1])

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "context_size": self.context_size,
            "activation": keras.activations.serialize(self.activation),
        }
