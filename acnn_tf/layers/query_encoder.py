"""A sentence as one vector."""

import keras
from keras import ops

ENCODERS = ("gru", "mean")


@keras.saving.register_keras_serializable(package="acnn_tf")
class QueryEncoder(keras.layers.Layer):
    """Encodes the word vectors of each sentence as one vector.

    `"gru"` runs a GRU over the words in both directions and takes the mean of
    its outputs over the real words. `"mean"` takes the mean of the word
    vectors themselves. Sentence vectors stay as they are.

    Args:
        encoder: `"gru"` or `"mean"`. Defaults to `"gru"`.
        units: Units of the GRU in each direction. Defaults to 128.
        dropout: Rate on the word or sentence vectors. Defaults to 0.

    Call arguments:
        query: `[Q, L, E]` word vectors, or `[Q, E]` sentence vectors.
        mask: bool `[Q, L]`, `True` = real word. A sentence without words
            gives zeros.
        training: bool.

    Returns:
        `[Q, 2 * units]` from a GRU, else `[Q, E]`.

    Example:

    >>> import acnn_tf, keras
    >>> layer = acnn_tf.layers.QueryEncoder("gru", units=8)
    >>> tuple(layer(keras.ops.ones((2, 5, 4))).shape)
    (2, 16)
    """

    def __init__(
        self,
        encoder: str = "gru",
        units: int = 128,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if encoder not in ENCODERS:
            raise ValueError(
                f"`encoder` must be one of {ENCODERS}. Received: {encoder}"
            )
        self.encoder = encoder
        self.units = units
        self.dropout = dropout
        self.supports_masking = True
        self._drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self._gru = None
        if encoder == "gru":
            self._gru = keras.layers.Bidirectional(
                keras.layers.GRU(
                    units, return_sequences=True, dtype=self.dtype_policy
                ),
                dtype=self.dtype_policy,
                name="gru",
            )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) == 3 and self._gru is not None:
            self._gru.build(input_shape)

    def call(
        self,
        query: keras.KerasTensor,
        mask: keras.KerasTensor | None = None,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        query = self._drop(query, training=training)
        if len(query.shape) == 2:
            return query
        if self._gru is not None:
            query = self._gru(query, mask=mask, training=training)
        if mask is None:
            return ops.mean(query, axis=1)
        mask = ops.cast(ops.expand_dims(mask, -1), query.dtype)  # [Q, L, 1]
        return ops.sum(query * mask, axis=1) / ops.maximum(
            ops.sum(mask, axis=1), 1
        )

    def compute_mask(
        self, query: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> None:
        return None

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        if len(input_shape) == 3 and self._gru is not None:
            return (input_shape[0], 2 * self.units)
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "encoder": self.encoder,
            "units": self.units,
            "dropout": self.dropout,
        }
