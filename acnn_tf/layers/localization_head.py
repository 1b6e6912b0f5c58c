"""The head on first-order terms and outer product of query and window."""

import keras
from keras import ops

from acnn_tf.layers.folded_head import FoldedHead


@keras.saving.register_keras_serializable(package="acnn_tf")
class LocalizationHead(FoldedHead):
    """Score and offsets from the cross feature, computed in the cheap order.

    `FoldedHead` with the cross feature `f = [m_c, m_q, m_c (x) m_q, 1]`:

        W f = (W_cross m_q + W_window)^T m_c + (W_query m_q + b)

    The outer product is never made. That takes `t^2 H` operations for each
    query and `t H` for each pair, in place of `t^2 H` for each pair, and gives
    the same numbers. With a `pool_size` of p the product is one of shorter
    vectors, the means of every p numbers, and a pair takes `t H / p`.

    Args:
        hidden_dim: Width H of the hidden ReLU layer; `None` goes straight
            from `f` to the outputs, as the paper does. Defaults to 256.
        first_order_query: Whether `f` has the term `m_q`. Defaults to `True`.
        dropout: Rate on the hidden layer. Defaults to 0.
        pool_size: p, numbers of `m_c` and of `m_q` that become one, their
            mean, before the outer product; the terms of first order stay as
            they are. 16 in the code of the paper. Defaults to 1.

    Call arguments:
        query: `[..., Q, t]`.
        window: `[..., W, t]`.
        training: bool.

    Returns:
        `{"score": [..., Q, W], "offset": [..., Q, W, 2]}`.

    Example:

    >>> import acnn_tf, keras
    >>> head = acnn_tf.layers.LocalizationHead(hidden_dim=16)
    >>> out = head(keras.ops.ones((2, 4)), keras.ops.ones((3, 4)))
    >>> tuple(out["score"].shape), tuple(out["offset"].shape)
    ((2, 3), (2, 3, 2))

    Reference: paper, Eq. 7 and section 3.3; for the hidden layer, Liu et al.,
    "Attentive Moment Retrieval in Videos", SIGIR 2018.
    """

    def __init__(
        self,
        hidden_dim: int | None = 256,
        first_order_query: bool = True,
        dropout: float = 0.0,
        pool_size: int = 1,
        **kwargs,
    ):
        super().__init__(hidden_dim, dropout, **kwargs)
        self.first_order_query = first_order_query
        self.pool_size = pool_size

    def _add_kernels(self, query_dim, window_dim, width):
        size = self.pool_size
        if size < 1 or query_dim % size or window_dim % size:
            raise ValueError(
                "`pool_size` must divide the widths of query and window, "
                f"{query_dim} and {window_dim}. Received: {size}"
            )
        cross_shape = window_dim // size, width, query_dim // size
        fan_in = cross_shape[0] * cross_shape[2] + window_dim + 1
        fan_in += query_dim if self.first_order_query else 0

        def kernel(name, *shape):
            return self._add_kernel(name, shape, fan_in, width)

        # Separate variables, since slices of one large variable cost time. The
        # query's axis comes last: its gradient is then a plain product, and
        # takes a half to a quarter of the time that it takes with it first.
        self.cross_kernel = kernel("cross_kernel", *cross_shape)
        self.window_kernel = kernel("window_kernel", window_dim, width)
        if self.first_order_query:
            self.query_kernel = kernel("query_kernel", query_dim, width)

    def fold(
        self, query: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Folds each query `[..., Q, t]` into a matrix and a bias."""
        window_dim, width, query_dim = self.cross_kernel.shape
        query = ops.cast(query, self.compute_dtype)
        matrix = ops.einsum(
            "qi,jhi->qjh",
            ops.reshape(entry_means(query, self.pool_size), (-1, query_dim)),
            self._cast(self.cross_kernel),
        )
        matrix = ops.reshape(
            matrix, (*ops.shape(query)[:-1], window_dim, width)
        )
        bias = self._cast(self.bias)
        if self.first_order_query:
            bias = bias + ops.matmul(query, self._cast(self.query_kernel))
        else:
            bias = ops.broadcast_to(bias, (*ops.shape(query)[:-1], width))
        if self.pool_size > 1:  # the windows' own term is in `_of_windows`
            return matrix, bias
        return matrix + self._cast(self.window_kernel), bias

    def _of_windows(self, window):
        if self.pool_size == 1:
            return window, None
        term = ops.matmul(window, ops.cast(self.window_kernel, window.dtype))
        return entry_means(window, self.pool_size), term

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "first_order_query": self.first_order_query,
            "pool_size": self.pool_size,
        }


def entry_means(vector: keras.KerasTensor, size: int) -> keras.KerasTensor:
    """Means of every `size` entries of vectors `[..., t]`.

    Example:

    >>> import keras
    >>> from acnn_tf.layers.localization_head import entry_means
    >>> entry_means(keras.ops.array([1.0, 3.0, 5.0, 9.0]), 2).numpy().tolist()
    [2.0, 7.0]
    """
    if size == 1:
        return vector
    *rows, width = ops.shape(vector)
    means = ops.mean(ops.reshape(vector, (-1, size)), axis=-1)
    return ops.reshape(means, (*rows, width // size))
