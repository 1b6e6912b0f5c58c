"""The head on elementwise product and sum of query and window."""

import keras
from keras import ops

from acnn_tf.layers.folded_head import FoldedHead


@keras.saving.register_keras_serializable(package="acnn_tf")
class ElementwiseHead(FoldedHead):
    """Score and offsets from the product and the sum of query and window.

    `FoldedHead` with the feature `f = [v * q, v + q, v, q]`:

        W f = (diag(q) W_product + W_sum + W_window)^T v
              + (W_sum + W_query)^T q + b

    That takes `t H` operations for each query and `t H` for each pair. With
    `f` it would take `4 t H` for each pair.

    Args:
        hidden_dim: Width H of the hidden ReLU layer; `None` goes straight
            from `f` to the outputs. Defaults to 256.
        dropout: Rate on the hidden layer. Defaults to 0.

    Call arguments:
        query: `[..., Q, t]`.
        window: `[..., W, t]`.
        training: bool.

    Returns:
        `{"score": [..., Q, W], "offset": [..., Q, W, 2]}`.

    Example:

    >>> import acnn_tf, keras
    >>> head = acnn_tf.layers.ElementwiseHead(hidden_dim=16)
    >>> out = head(keras.ops.ones((2, 4)), keras.ops.ones((3, 4)))
    >>> tuple(out["score"].shape), tuple(out["offset"].shape)
    ((2, 3), (2, 3, 2))

    Reference: Gao et al., "TALL: Temporal Activity Localization via Language
    Query", ICCV 2017, the multi-modal processing module.
    """

    def _add_kernels(self, query_dim, window_dim, width):
        if query_dim != window_dim:
            raise ValueError(
                "Query and window must be of one width. "
                f"Received: {query_dim} and {window_dim}"
            )

        self.product_kernel, self.sum_kernel, *others = (
            self._add_kernel(
                f"{part}_kernel", (query_dim, width), 4 * query_dim, width
            )
            for part in ("product", "sum", "window", "query")
        )
        self.window_kernel, self.query_kernel = others

    def fold(
        self, query: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Folds each query `[..., Q, t]` into a matrix and a bias."""
        query = ops.cast(query, self.compute_dtype)
        both = self._cast(self.sum_kernel)
        matrix = ops.expand_dims(query, -1) * self._cast(self.product_kernel)
        matrix = matrix + (both + self._cast(self.window_kernel))
        bias = ops.matmul(query, both + self._cast(self.query_kernel))
        return matrix, bias + self._cast(self.bias)
