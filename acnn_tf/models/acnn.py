"""The attentive n-gram convolutional network."""

import inspect
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
from keras import ops

from acnn_tf import layers
from acnn_tf.models.window_model import WindowModel, build

POOLINGS = {
    "attention": layers.AttentionPooling,
    "mean": layers.MeanPooling,
    "concat": layers.ConcatPooling,
}


@keras.saving.register_keras_serializable(package="acnn_tf")
class ACNN(WindowModel):
    """Scores the windows of videos for queries, with boundary offsets.

    Windows: clips -> pooled into windows -> `TemporalContext` at several
    widths -> `AttentionPooling` -> `m_c`. Queries: words -> `QueryEncoder` ->
    `m_q`. Pairs: `LocalizationHead` on `[m_c, m_q, m_c (x) m_q, 1]`.

    The paper's equations and its authors' code differ. Both can be set;
    docs/paper.md says where they part.

    Args:
        kernel_sizes: Odd widths of the context, in windows.
        filters: F, width of the context vectors.
        context_pooling: How the K context vectors of a window become one:
            `"attention"` (`AttentionPooling`), `"mean"` (`MeanPooling`),
            `"concat"` (`ConcatPooling`), or a layer from `[..., K, F]` to
            `[..., F']`.
        context_activation: Activation of the context vectors; default none,
            as in the paper.
        scorer_activation: Activation of the scorer of `"attention"`, or
            several, one after the other; the paper's is `"relu"`, that of its
            authors' code `("relu", "tanh")`.
        first_order_query: Keep `m_q` in the cross feature; `False` is the
            paper's printed form.
        own_scorers: Whether `"attention"` has a scorer for each kernel, as in
            the authors' code, or one for all, as in the paper.
        project_first: Whether the linear layer to `embedding_dim` comes before
            the convolutions, as in the authors' code, or after the pooling, as
            in the paper. Nothing follows the pooling then, so that its result
            must have `embedding_dim` numbers: set `filters` to it.
        unit_length: Whether `m_c` and `m_q` are divided by their length, as in
            the authors' code.
        cross_pool_size: Numbers of `m_c` and of `m_q` that become one, their
            mean, in the outer product; 16 in the authors' code.
        **kwargs: Arguments of `WindowModel`, such as `window_lengths`. The
            paper's `hidden_dim` is `None`.

    Example:

    >>> import acnn_tf, keras
    >>> model = acnn_tf.models.ACNN(window_lengths=(4.0, 8.0), filters=8)
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

    A pooling of your own is a layer. If it is registered,
    `keras.saving.load_model` reads models with it:

    >>> @keras.saving.register_keras_serializable(package="example")
    ... class MaxPooling(keras.layers.Layer):
    ...     def call(self, inputs):  # [..., K, F]
    ...         return keras.ops.max(inputs, axis=-2)  # [..., F]
    >>> model = acnn_tf.models.ACNN(context_pooling=MaxPooling())

    Reference: paper, section 3.
    """

    def __init__(
        self,
        kernel_sizes: Sequence[int] = (1, 3, 5),
        filters: int = 256,
        context_pooling: str | keras.layers.Layer = "attention",
        context_activation: str | Callable | None = None,
        scorer_activation: str | Callable | Sequence[str | Callable] = "tanh",
        first_order_query: bool = True,
        own_scorers: bool = False,
        project_first: bool = False,
        unit_length: bool = False,
        cross_pool_size: int = 1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kernel_sizes = tuple(kernel_sizes)
        self.filters = filters
        self.context_pooling = context_pooling
        self.context_activation = context_activation
        self.scorer_activation = scorer_activation
        if isinstance(scorer_activation, (list, tuple)):
            self.scorer_activation = tuple(scorer_activation)
        self.first_order_query = first_order_query
        self.own_scorers = own_scorers
        self.project_first = project_first
        self.unit_length = unit_length
        self.cross_pool_size = cross_pool_size

        common = {"dtype": self.dtype_policy}
        self.context = layers.TemporalContext(
            self.kernel_sizes,
            filters,
            activation=context_activation,
            name="context",
            **common,
        )
        self.pooling = context_pooling
        if not isinstance(context_pooling, keras.layers.Layer):
            if context_pooling not in POOLINGS:
                raise ValueError(
                    "`context_pooling` must be a layer or one of "
                    f"{tuple(POOLINGS)}. Received: {context_pooling}"
                )
            own = {}
            if context_pooling == "attention":
                own = {
                    "activation": scorer_activation,
                    "own_scorers": own_scorers,
                }
            make = POOLINGS[context_pooling]
            self.pooling = make(**own, name="pooling", **common)
        self.window_projection = keras.layers.Dense(
            self.embedding_dim, name="window_projection", **common
        )
        self._add_query_layers()
        self.head = layers.LocalizationHead(
            self.hidden_dim,
            first_order_query,
            self.dropout,
            cross_pool_size,
            name="head",
            **common,
        )

    @property
    def context_size(self) -> int:
        """C: windows that the largest kernel sees."""
        return max(self.kernel_sizes)

    def encode_windows(
        self,
        inputs: Mapping[str, keras.KerasTensor],
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Encodes the windows of videos as vectors `[B, W, t]`."""
        window = self.pooling(self._context(inputs, training))
        window = self.drop(window, training=training)
        if not self.project_first:
            window = self.window_projection(window)
        own = inputs["segment"][:, :, self.context_size // 2]
        return self._scaled(self._placed(window, own, inputs["duration"]))

    def encode_queries(
        self,
        query: np.ndarray | keras.KerasTensor,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        return self._scaled(super().encode_queries(query, training))

    def _scaled(self, vector):
        return ops.normalize(vector) if self.unit_length else vector

    def attention_weights(
        self, inputs: Mapping[str, keras.KerasTensor]
    ) -> keras.KerasTensor | None:
        """Weights of the widths of the context, `[B, W, K]`.

        `None` where `call` of the pooling has no argument `return_weights`.
        """
        arguments = inspect.signature(self.pooling.call).parameters
        if "return_weights" not in arguments:
            return None
        return self.pooling(self._context(inputs), return_weights=True)[1]

    def _context(self, inputs, training=None):
        """Context vectors of all widths, `[B, W, K, F]`."""
        features, mask, share = self._features(inputs, training)
        if self.project_first:
            features = self.window_projection(features)
        return self.context(features, mask=mask, pooling=share)

    def _build_windows(self, clip_dim):
        if self.project_first:
            build(self.window_projection, (None, None, clip_dim))
            clip_dim = self.embedding_dim
        build(self.context, (None, None, clip_dim))
        shape = (None, None, len(self.kernel_sizes), self.filters)
        # A call, since a layer of somebody else may have no `build`.
        pooled = self.pooling(keras.KerasTensor(shape, self.compute_dtype))
        if len(pooled.shape) != 3 or pooled.shape[-1] is None:
            raise ValueError(
                "`context_pooling` must make [..., F'] of [..., K, F]. "
                f"Received: {self.context_pooling}, which makes {pooled.shape} "
                f"of {shape}"
            )
        if self.project_first and pooled.shape[-1] != self.embedding_dim:
            raise ValueError(
                "With `project_first` the pooled context must have "
                f"`embedding_dim` = {self.embedding_dim} numbers, as many as "
                f"`filters`. Received: {pooled.shape[-1]}"
            )
        build(self.window_projection, pooled.shape)
