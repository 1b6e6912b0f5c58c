"""Score and boundary offsets of query-window pairs."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="acnn_tf")
class LocalizationHead(keras.layers.Layer):
    """The cross feature and the perceptron over it, in the cheap order.

    On the cross feature `f = [m_c, m_q, m_c (x) m_q, 1]` stand, with a hidden
    layer, `h = ReLU(W f)` and `(score, offsets) = V h + c`, and without,
    `(score, offsets) = W f`. `W f` is linear in `f`, so each query is first
    folded into a matrix, which then meets every window:

        W f = (W_cross m_q + W_window)^T m_c + (W_query m_q + b)

    The outer product is never made: `t^2 H` operations a query and `t H` a
    pair instead of `t^2 H` a pair, with the same numbers.

    Args:
        hidden_dim: Width H of the hidden ReLU layer; `None` goes straight
            from `f` to the outputs, as the paper does. Defaults to 256.
        first_order_query: Keep the term in `m_q`. Defaults to `True`.
        dropout: Rate on the hidden layer. Defaults to 0.

    Call arguments:
        query: `[..., Q, t]`.
        window: `[..., W, t]`.
        training: bool.

    Returns:
        `{"score": [..., Q, W], "offset": [..., Q, W, 2]}`.

    Example:

    >>> head = LocalizationHead(hidden_dim=16)
    >>> out = head(keras.ops.ones((2, 4)), keras.ops.ones((3, 4)))
    >>> tuple(out["score"].shape), tuple(out["offset"].shape)
    ((2, 3), (2, 3, 2))

    Reference: paper, Eq. 7 and section 3.3; for the hidden layer, Liu et al.,
    "Attentive Moment Retrieval in Videos", SIGIR 2018.
    """

    def __init__(
        self, hidden_dim=256, first_order_query=True, dropout=0.0, **kwargs
    ):
        super().__init__(**kwargs)
        if hidden_dim is not None and hidden_dim < 1:
            raise ValueError(
                f"`hidden_dim` must be positive or None. Received: {hidden_dim}"
            )
        self.hidden_dim = hidden_dim
        self.first_order_query = first_order_query
        self.dropout = dropout
        self._drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, query_shape, window_shape):
        query_dim, window_dim = query_shape[-1], window_shape[-1]
        width = self.hidden_dim or 3
        # What Glorot's rule gives for the literal layer over all of `f`.
        fan_in = query_dim * window_dim + window_dim + 1
        fan_in += query_dim if self.first_order_query else 0
        limit = (6.0 / (fan_in + width)) ** 0.5

        def weight(name, *shape):
            # Each with a seed of its own, drawn from the global one.
            initializer = keras.initializers.RandomUniform(-limit, limit)
            return self.add_weight(
                name=name, shape=shape, initializer=initializer
            )

        # Separate variables: slices of one large one cost time. The query's
        # axis comes last, since its gradient is then a plain product; with
        # that axis first it takes 2 to 4 times as long.
        self.cross_kernel = weight("cross_kernel", window_dim, width, query_dim)
        self.window_kernel = weight("window_kernel", window_dim, width)
        if self.first_order_query:
            self.query_kernel = weight("query_kernel", query_dim, width)
        self.bias = self.add_weight(
            name="bias", shape=(width,), initializer="zeros"
        )
        if self.hidden_dim is not None:
            self.output_kernel = self.add_weight(
                name="output_kernel", shape=(width, 3)
            )
            self.output_bias = self.add_weight(
                name="output_bias", shape=(3,), initializer="zeros"
            )

    def call(self, query, window, training=None):
        return self.meet(self.fold(query), window, training=training)

    def fold(self, query):
        """Folds each query into a matrix and a bias: the costly half.

        Args:
            query: `[..., Q, t]`.

        Returns:
            `([..., Q, t, H], [..., Q, H])`.
        """
        window_dim, width, query_dim = self.cross_kernel.shape
        query = ops.cast(query, self.compute_dtype)
        matrix = ops.einsum(
            "qi,jhi->qjh",
            ops.reshape(query, (-1, query_dim)),
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
        return matrix + self._cast(self.window_kernel), bias

    def meet(self, folded, window, training=None):
        """Meets folded queries with windows.

        Args:
            folded: What `fold` returned for `[..., Q, t]` queries.
            window: `[..., W, t]`.
            training: bool.

        Returns:
            As `call`.
        """
        matrix, bias = folded
        window = ops.cast(window, self.compute_dtype)
        hidden = ops.matmul(ops.expand_dims(window, -3), matrix)
        hidden = hidden + ops.expand_dims(bias, -2)  # [..., Q, W, H]
        if self.hidden_dim is not None:
            hidden = self._drop(ops.relu(hidden), training=training)
            hidden = ops.matmul(hidden, self._cast(self.output_kernel))
            hidden = hidden + self._cast(self.output_bias)
        return {"score": hidden[..., 0], "offset": hidden[..., 1:]}

    def score(self, folded, window):
        """Scores of all windows for all queries, and no offsets: for search.

        Query by query, so that a hidden layer is still in the cache when it
        is summed up: best given some hundreds of windows at a time.

        Args:
            folded: What `fold` returned for `[Q, t]` queries.
            window: `[W, t]`, float32 or less.

        Returns:
            `[W, Q]`, the scores of `call` in the precision of `window`.
        """
        scores = []
        output_kernel = output_bias = None
        if self.hidden_dim is not None:
            output_kernel = ops.cast(self.output_kernel[:, :1], window.dtype)
            output_bias = ops.cast(self.output_bias[:1], window.dtype)
        for matrix, bias in zip(*map(ops.unstack, folded)):
            hidden = ops.matmul(window, ops.cast(matrix, window.dtype))
            hidden = hidden + ops.cast(bias, window.dtype)  # [W, H]
            if self.hidden_dim is None:
                scores.append(hidden[:, :1])
            else:
                scores.append(ops.matmul(ops.relu(hidden), output_kernel))
        scores = ops.concatenate(scores, axis=1)
        return scores if output_bias is None else scores + output_bias

    def locate(self, folded, row, window):
        """Scores and offsets of windows of its own for each of some queries.

        Args:
            folded: What `fold` returned for `[Q, t]` queries.
            row: int `[P]`, which of them.
            window: `[P, W, t]`.

        Returns:
            `{"score": [P, W], "offset": [P, W, 2]}`.
        """
        matrix, bias = (ops.take(part, row, axis=0) for part in folded)
        output = self.meet((matrix[:, None], bias[:, None]), window)
        return {name: value[:, 0] for name, value in output.items()}

    def _cast(self, weight):
        # Outside `__call__` Keras leaves weights in their own precision.
        return ops.cast(weight, self.compute_dtype)

    def compute_output_shape(self, query_shape, window_shape):
        pairs = (*query_shape[:-1], window_shape[-2])
        return {"score": pairs, "offset": (*pairs, 2)}

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "first_order_query": self.first_order_query,
            "dropout": self.dropout,
        }
