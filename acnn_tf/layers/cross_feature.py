"""The literal cross feature of a query and a window."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="acnn_tf")
class CrossFeature(keras.layers.Layer):
    """First-order terms and outer product, one row per query and window.

        f = [m_c, m_q, m_c (x) m_q, 1]

    This is the equation of the paper, for notebooks and tests. It takes
    `t * t` numbers for each pair. `LocalizationHead` computes the scores that
    follow from it without making it.

    Args:
        first_order_query: Keep `m_q`. `False` is the paper's printed form,
            `[m_c, m_c (x) m_q, 1]`. Defaults to `True`.

    Call arguments:
        query: `[..., Q, t]`.
        window: `[..., W, t]`.

    Returns:
        `[..., Q, W, F]`: `m_c`, `m_q`, the rows of `m_c (x) m_q`, one for
        each entry of `m_c`, and the one.

    Example:

    >>> import acnn_tf, keras
    >>> query, window = keras.ops.ones((2, 4)), keras.ops.ones((3, 4))
    >>> tuple(acnn_tf.layers.CrossFeature()(query, window).shape)
    (2, 3, 25)

    Reference: paper, Eq. 7.
    """

    def __init__(self, first_order_query: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.first_order_query = first_order_query

    def call(
        self, query: keras.KerasTensor, window: keras.KerasTensor
    ) -> keras.KerasTensor:
        query = ops.expand_dims(query, -2)  # [..., Q, 1, t]
        window = ops.expand_dims(window, -3)  # [..., 1, W, t]
        cross = ops.expand_dims(window, -1) * ops.expand_dims(query, -2)
        pairs = ops.shape(cross)[:-2]
        width = window.shape[-1] * query.shape[-1]
        parts = [ops.broadcast_to(window, (*pairs, window.shape[-1]))]
        if self.first_order_query:
            parts.append(ops.broadcast_to(query, (*pairs, query.shape[-1])))
        parts.append(ops.reshape(cross, (*pairs, width)))
        parts.append(ops.ones((*pairs, 1), dtype=cross.dtype))
        return ops.concatenate(parts, axis=-1)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "first_order_query": self.first_order_query,
        }
