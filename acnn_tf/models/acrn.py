"""The attentive cross-modal retrieval network."""

from collections.abc import Callable, Mapping

import keras
from keras import ops

from acnn_tf import layers
from acnn_tf.data.windows import odd_size
from acnn_tf.layers.localization_head import entry_means
from acnn_tf.models.window_model import WindowModel, build


@keras.saving.register_keras_serializable(package="acnn_tf")
class ACRN(WindowModel):
    """Lets each query weigh the context of a window anew.

    Windows: each context window is projected, `x_j = W_c c_j`; the C of them
    are the window's memory. Queries: words -> `QueryEncoder` -> `q`. Pairs:
    `MemoryAttention` weighs the memory for the query, `m`; means of every
    `pool_size` numbers make both shorter, `m'` and `q'`; `LocalizationHead`
    on `[m', q', m' (x) q', 1]`.

    A window's vector depends on the query, so `encode_windows` returns, and an
    index holds, the memory, `C * t` numbers, which `match` reads. `score` and
    `locate` fold the head, as in all models.

    The weights are a softmax of `e`, positive whatever the activation. Context
    windows that a video does not have get no weight, where public code repeats
    the window itself. The GRU and the places of windows are not the paper's.

    Args:
        context_size: Odd number C of context windows, the window itself
            included.
        memory_activation: Activation of memory and query in the attention.
        pool_size: Number of entries that become one before the cross feature;
            divides `embedding_dim`.
        **kwargs: Arguments of `WindowModel`, such as `window_lengths`.

    Example:

    >>> import acnn_tf, keras
    >>> model = acnn_tf.models.ACRN(window_lengths=(4.0, 8.0), embedding_dim=8)
    >>> windows = model.grid.windows(duration=16.0)
    >>> window = model.encode_windows({
    ...     "clip": keras.ops.ones((1, 16, 32)),
    ...     "clip_mask": keras.ops.ones((1, 16), "bool"),
    ...     "segment": model.grid.contexts(windows, model.context_size)[None],
    ...     "duration": keras.ops.array([16.0]),
    ... })
    >>> tuple(window.shape) == (1, len(windows), 3 * 8)
    True

    Reference: Liu et al., "Attentive Moment Retrieval in Videos", SIGIR 2018,
    section 3.
    """

    def __init__(
        self,
        context_size: int = 3,
        memory_activation: str | Callable = "tanh",
        pool_size: int = 2,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.context_size = odd_size(context_size)
        self.memory_activation = memory_activation
        self.pool_size = pool_size
        if pool_size < 1 or self.embedding_dim % pool_size:
            raise ValueError(
                "`pool_size` must divide `embedding_dim`. "
                f"Received: {pool_size} and {self.embedding_dim}"
            )
        common = {"dtype": self.dtype_policy}
        self.window_projection = keras.layers.Dense(
            self.embedding_dim,
            use_bias=False,
            name="window_projection",
            **common,
        )
        self.memory = layers.MemoryAttention(
            context_size, memory_activation, name="memory", **common
        )
        self._add_query_layers()
        self.head = layers.LocalizationHead(
            self.hidden_dim, dropout=self.dropout, name="head", **common
        )

    def encode_windows(
        self,
        inputs: Mapping[str, keras.KerasTensor],
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Encodes the windows of videos as memories `[B, W, C * t]`."""
        features, mask, share = self._features(inputs, training)
        cells = self.window_projection(features)
        _, num_windows, size, _ = ops.shape(inputs["segment"])
        rows = (-1, num_windows * size)  # [B, W * C]
        if share is not None:
            mask = ops.any(share > 0, axis=-1)
            share = ops.reshape(share, (*rows, ops.shape(features)[1]))
            cells = ops.matmul(ops.cast(share, cells.dtype), cells)
        cells = ops.reshape(cells, (*rows, self.embedding_dim))
        segment = ops.reshape(inputs["segment"], (*rows, 2))
        cells = self.drop(cells, training=training)
        cells = self._placed(cells, segment, inputs["duration"])
        mask = ops.reshape(mask, (*rows, 1))
        cells = ops.where(mask, cells, ops.zeros_like(cells))
        width = self.context_size * self.embedding_dim
        return ops.reshape(cells, (-1, num_windows, width))

    def match(
        self,
        query: keras.KerasTensor,
        window: keras.KerasTensor,
        training: bool | None = None,
    ) -> dict[str, keras.KerasTensor]:
        """Score and offsets of every query with every window."""
        read = self._pool(self.memory(query, window))  # [..., Q, W, t']
        query = ops.expand_dims(self._pool(query), -2)  # [..., Q, 1, t']
        output = self.head(query, read, training=training)
        return {
            "score": output["score"][..., 0, :],
            "offset": output["offset"][..., 0, :, :],
        }

    def fold(self, query: keras.KerasTensor) -> tuple[keras.KerasTensor, ...]:
        return (*self.head.fold(self._pool(query)), query)

    def score(
        self, folded: tuple[keras.KerasTensor, ...], window: keras.KerasTensor
    ) -> keras.KerasTensor:
        *folded, query = folded
        read = self._pool(self.memory.attend(query, window))  # [Q, W, t']
        scores = [
            self.head.score((matrix[None], bias[None]), own)
            for matrix, bias, own in zip(*map(ops.unstack, (*folded, read)))
        ]
        return ops.concatenate(scores, axis=1)

    def locate(
        self,
        folded: tuple[keras.KerasTensor, ...],
        row: keras.KerasTensor,
        window: keras.KerasTensor,
    ) -> dict[str, keras.KerasTensor]:
        *folded, query = folded
        query = ops.take(query, row, axis=0)[:, None]  # [P, 1, t]
        read = self._pool(self.memory(query, window))[:, 0]  # [P, W, t']
        return self.head.locate(folded, row, read)

    def _pool(self, vector):
        return entry_means(vector, self.pool_size)

    def _build_windows(self, clip_dim):
        build(self.window_projection, (None, None, clip_dim))
        cells = self.context_size * self.embedding_dim
        build(self.memory, (None, self.embedding_dim), (None, cells))

    def build(self, input_shape: Mapping[str, tuple]) -> None:
        pooled = (None, self.embedding_dim // self.pool_size)
        build(self.head, pooled, pooled)
        super().build(input_shape)
