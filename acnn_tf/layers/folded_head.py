"""Score and offsets from a feature of query and window that is never made."""

import keras
from keras import ops


class FoldedHead(keras.layers.Layer):
    """Base of the heads: a perceptron over a feature `f` of query and window.

    With a hidden layer, `h = ReLU(W f)` and `(score, offsets) = V h + c`;
    without, `(score, offsets) = W f`. Where `f` is linear in the window, given
    the query, `W` and the query fold into a matrix and a bias,

        W f = M(q)^T v + b(q)

    and every window is multiplied by that matrix: `t H` operations for each
    pair. A subclass adds its weights in `_add_kernels`, and defines `fold`. Its
    docstring says what goes in and what comes out.

    Example:

    >>> import acnn_tf, keras
    >>> head = acnn_tf.layers.LocalizationHead(hidden_dim=16)
    >>> query, window = keras.ops.ones((2, 4)), keras.ops.ones((3, 4))
    >>> tuple(head(query, window)["score"].shape)
    (2, 3)
    >>> tuple(head.score(head.fold(query), window).shape)
    (3, 2)
    """

    def __init__(
        self, hidden_dim: int | None = 256, dropout: float = 0.0, **kwargs
    ):
        super().__init__(**kwargs)
        if hidden_dim is not None and hidden_dim < 1:
            raise ValueError(
                f"`hidden_dim` must be positive or None. Received: {hidden_dim}"
            )
        self.hidden_dim = hidden_dim
        self.dropout = dropout
        self._drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(
        self,
        query_shape: tuple[int | None, ...],
        window_shape: tuple[int | None, ...],
    ) -> None:
        width = self.hidden_dim or 3
        self._add_kernels(query_shape[-1], window_shape[-1], width)
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

    def _add_kernels(self, query_dim, window_dim, width):
        """Makes the parts of `W`, each as a weight of its own."""
        raise NotImplementedError

    def _add_kernel(self, name, shape, fan_in, width):
        """A part of `W`, which starts as wide as Glorot's rule says of `W`."""
        limit = (6.0 / (fan_in + width)) ** 0.5
        # Each part has a seed of its own, drawn from the global one.
        initializer = keras.initializers.RandomUniform(-limit, limit)
        return self.add_weight(name=name, shape=shape, initializer=initializer)

    def call(
        self,
        query: keras.KerasTensor,
        window: keras.KerasTensor,
        training: bool | None = None,
    ) -> dict[str, keras.KerasTensor]:
        return self.meet(self.fold(query), window, training=training)

    def fold(
        self, query: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """`[..., Q, t]` -> `([..., Q, t, H], [..., Q, H])`."""
        raise NotImplementedError

    def _of_windows(self, window):
        """What the matrix multiplies, and what all queries have in common.

        That is `[..., W, t']`, and `[..., W, H]` or `None`, of windows
        `[..., W, t]`.
        """
        return window, None

    def meet(
        self,
        folded: tuple[keras.KerasTensor, ...],
        window: keras.KerasTensor,
        training: bool | None = None,
    ) -> dict[str, keras.KerasTensor]:
        """`call` for folded queries."""
        matrix, bias = folded
        window = ops.cast(window, self.compute_dtype)
        factor, term = self._of_windows(window)
        hidden = ops.matmul(ops.expand_dims(factor, -3), matrix)
        hidden = hidden + ops.expand_dims(bias, -2)  # [..., Q, W, H]
        if term is not None:
            hidden = hidden + ops.expand_dims(term, -3)
        if self.hidden_dim is not None:
            hidden = self._drop(ops.relu(hidden), training=training)
            hidden = ops.matmul(hidden, self._cast(self.output_kernel))
            hidden = hidden + self._cast(self.output_bias)
        return {"score": hidden[..., 0], "offset": hidden[..., 1:]}

    def score(
        self, folded: tuple[keras.KerasTensor, ...], window: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Scores of all windows for all queries, and no offsets: for search.

        Query by query, so that a hidden layer is still in the cache when it
        is summed up: best given some hundreds of windows at a time, `[W, t]`
        in float32 or less. Gives `[W, Q]` in their precision.
        """
        scores = []
        factor, term = self._of_windows(window)
        output_kernel = output_bias = None
        if self.hidden_dim is not None:
            output_kernel = ops.cast(self.output_kernel[:, :1], window.dtype)
            output_bias = ops.cast(self.output_bias[:1], window.dtype)
        for matrix, bias in zip(*map(ops.unstack, folded)):
            hidden = ops.matmul(factor, ops.cast(matrix, window.dtype))
            hidden = hidden + ops.cast(bias, window.dtype)  # [W, H]
            if term is not None:
                hidden = hidden + term
            if self.hidden_dim is None:
                scores.append(hidden[:, :1])
            else:
                scores.append(ops.matmul(ops.relu(hidden), output_kernel))
        scores = ops.concatenate(scores, axis=1)
        return scores if output_bias is None else scores + output_bias

    def locate(
        self,
        folded: tuple[keras.KerasTensor, ...],
        row: keras.KerasTensor,
        window: keras.KerasTensor,
    ) -> dict[str, keras.KerasTensor]:
        """Scores and offsets of windows `[P, W, t]` for the queries `[P]`."""
        matrix, bias = (ops.take(part, row, axis=0) for part in folded)
        output = self.meet((matrix[:, None], bias[:, None]), window)
        return {name: value[:, 0] for name, value in output.items()}

    def _cast(self, weight):
        # Outside `__call__` Keras leaves weights in their own precision.
        return ops.cast(weight, self.compute_dtype)

    def compute_output_shape(
        self,
        query_shape: tuple[int | None, ...],
        window_shape: tuple[int | None, ...],
    ) -> dict[str, tuple[int | None, ...]]:
        pairs = (*query_shape[:-1], window_shape[-2])
        return {"score": pairs, "offset": (*pairs, 2)}

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "dropout": self.dropout,
        }
