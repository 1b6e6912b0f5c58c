"""The mean of vectors, weighted by attention."""

from collections.abc import Callable, Sequence

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="acnn_tf")
class AttentionPooling(keras.layers.Layer):
    """Weighted mean of vectors; the weights come from the vectors themselves.

        a'_i = activation(w . m_i + b);  a = softmax(a');  y = sum_i a_i m_i

    One scorer is shared by all vectors. The paper's `"relu"` gives equal
    weights and no gradient once every score is negative; `"tanh"` does not.

    Args:
        activation: Activation of the scorer, or several, which are applied one
            after the other. Defaults to `"tanh"`.
        own_scorers: Give each of the K vectors a scorer with weights of its
            own, `w_i` and `b_i`, as the code of the paper does. Defaults to
            `False`.

    Call arguments:
        inputs: `[..., K, D]`.
        mask: bool `[..., K]`, `True` = real. Without a real vector the
            result is zeros.
        return_weights: bool, whether to return the weights as well.

    Returns:
        `[..., D]`; with `return_weights` a pair, of that and `[..., K]`.

    Example:

    >>> import acnn_tf, keras
    >>> layer = acnn_tf.layers.AttentionPooling(activation="relu")
    >>> tuple(layer(keras.ops.ones((2, 5, 3, 8))).shape)
    (2, 5, 8)

    Reference: paper, Eq. 2 to 4.
    """

    def __init__(
        self,
        activation: str | Callable | Sequence[str | Callable] = "tanh",
        own_scorers: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.activation = _each(keras.activations.get, activation)
        self.own_scorers = own_scorers
        self.supports_masking = True
        self.softmax = keras.layers.Softmax(axis=-1, dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        *_, num_vectors, width = input_shape
        num_scorers = num_vectors if self.own_scorers else 1
        self.kernel = self.add_weight(name="kernel", shape=(width, num_scorers))
        self.bias = self.add_weight(
            name="bias", shape=(num_scorers,), initializer="zeros"
        )

    def call(
        self,
        inputs: keras.KerasTensor,
        mask: keras.KerasTensor | None = None,
        return_weights: bool = False,
    ) -> keras.KerasTensor | tuple[keras.KerasTensor, keras.KerasTensor]:
        if self.own_scorers:
            score = ops.sum(inputs * ops.transpose(self.kernel), axis=-1)
        else:
            score = ops.squeeze(ops.matmul(inputs, self.kernel), -1)
        score = score + self.bias  # [..., K]
        several = isinstance(self.activation, tuple)
        for activation in self.activation if several else [self.activation]:
            score = activation(score)
        weights = self.softmax(score, mask=mask)
        if mask is not None:
            weights = weights * ops.cast(mask, weights.dtype)
        pooled = ops.squeeze(
            ops.matmul(ops.expand_dims(weights, -2), inputs), -2
        )
        return (pooled, weights) if return_weights else pooled

    def compute_mask(
        self, inputs: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> None:
        return None

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-2], input_shape[-1])

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "activation": _each(keras.activations.serialize, self.activation),
            "own_scorers": self.own_scorers,
        }


def _each(function, activation):
    """The function of an activation, or a tuple of it for each of several."""
    if isinstance(activation, (list, tuple)):
        return tuple(map(function, activation))
    return function(activation)
