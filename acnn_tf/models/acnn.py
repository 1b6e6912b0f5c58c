"""The attentive n-gram convolutional network."""

import keras
from keras import ops

from acnn_tf import layers
from acnn_tf.models.window_model import WindowModel

POOLINGS = ("attention", "mean", "concat")


@keras.saving.register_keras_serializable(package="acnn_tf")
class ACNN(WindowModel):
    """Scores the windows of videos for queries, with boundary offsets.

    Windows: clips -> pooled into windows -> `TemporalContext` at several
    widths -> `AttentionPooling` -> `m_c`. Queries: words -> `QueryEncoder` ->
    `m_q`. Pairs: `LocalizationHead` on `[m_c, m_q, m_c (x) m_q, 1]`.

    To tell what the attention is worth, `context_pooling` replaces it by the
    mean over the widths, or by all of them side by side.

    Args:
        kernel_sizes: Odd widths of the context, in windows.
        filters: Width of the context vectors.
        context_pooling: How one vector is made of those of all widths:
            `"attention"`, `"mean"` or `"concat"`.
        context_activation: Activation of the context vectors; default none,
            as in the paper.
        scorer_activation: Activation of the attention's scorer; the paper's is
            `"relu"`.
        first_order_query: Keep `m_q` in the cross feature; `False` is the
            paper's printed form.
        **kwargs: See `WindowModel`; the paper's `hidden_dim` is `None`.

    Example:

    >>> model = ACNN(window_lengths=(4.0, 8.0), kernel_sizes=(1, 3), filters=8)
    >>> windows = model.grid.windows(duration=16.0)
    >>> window = model.encode_windows({
    ...     "clip": keras.ops.ones((1, 16, 32)),
    ...     "clip_mask": keras.ops.ones((1, 16), "bool"),
    ...     "segment": model.grid.contexts(windows, model.context_size)[None],
    ...     "duration": keras.ops.array([16.0]),
    ... })
    >>> query = model.encode_queries(keras.ops.ones((5, 300)))
    >>> tuple(model.match(query, window[0])["score"].shape) == (5, len(windows))
    True

    Reference: paper, section 3.
    """

    def __init__(
        self,
        kernel_sizes=(1, 3, 5),
        filters=256,
        context_pooling="attention",
        context_activation=None,
        scorer_activation="tanh",
        first_order_query=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kernel_sizes = tuple(kernel_sizes)
        self.filters = filters
        self.context_pooling = context_pooling
        self.context_activation = context_activation
        self.scorer_activation = scorer_activation
        self.first_order_query = first_order_query

        if context_pooling not in POOLINGS:
            raise ValueError(
                f"`context_pooling` must be one of {POOLINGS}. "
                f"Received: {context_pooling}"
            )
        common = {"dtype": self.dtype_policy}
        self.context = layers.TemporalContext(
            self.kernel_sizes,
            filters,
            activation=context_activation,
            name="context",
            **common,
        )
        self.pooling = None
        if context_pooling == "attention":
            self.pooling = layers.AttentionPooling(
                scorer_activation, name="pooling", **common
            )
        self.window_projection = keras.layers.Dense(
            self.embedding_dim, name="window_projection", **common
        )
        self._add_query_layers()
        self.head = layers.LocalizationHead(
            self.hidden_dim,
            first_order_query,
            self.dropout,
            name="head",
            **common,
        )

    @property
    def context_size(self):
        """C: windows that the largest kernel sees."""
        return max(self.kernel_sizes)

    def encode_windows(self, inputs, training=None):
        """Windows of videos to vectors `[B, W, t]`: see `WindowModel`."""
        window = self._pool(self._context(inputs, training))
        window = self.window_projection(self.drop(window, training=training))
        own = inputs["segment"][:, :, self.context_size // 2]
        return self._placed(window, own, inputs["duration"])

    def attention_weights(self, inputs):
        """Attention over kernel sizes, `[B, W, K]`, softmaxed, if any.

        Args:
            inputs: As for `encode_windows`.
        """
        if self.pooling is None:
            return None
        return self.pooling(self._context(inputs), return_weights=True)[1]

    def _context(self, inputs, training=None):
        """The vectors of all kernels, `[B, W, K, F]`."""
        features, mask, share = self._features(inputs, training)
        return self.context(features, mask=mask, pooling=share)

    def _pool(self, context):
        """One vector of those of all kernels."""
        if self.pooling is not None:
            return self.pooling(context)
        if self.context_pooling == "mean":
            return ops.mean(context, axis=-2)
        return ops.reshape(context, (*ops.shape(context)[:2], self._width))

    @property
    def _width(self):
        """Numbers of a window before its projection."""
        is_concat = self.context_pooling == "concat"
        return self.filters * (len(self.kernel_sizes) if is_concat else 1)

    def _window_layers(self, clip_dim):
        return [
            (self.context, (None, None, clip_dim)),
            (self.pooling, (None, len(self.kernel_sizes), self.filters)),
            (self.window_projection, (None, None, self._width)),
        ]
