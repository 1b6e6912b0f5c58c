"""The mean of vectors, weighted by attention."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="acnn_tf")
class AttentionPooling(keras.layers.Layer):
    """Weighted mean of vectors; the weights come from the vectors themselves.

        a'_i = activation(w . m_i + b);  a = softmax(a');  y = sum_i a_i m_i

    One scorer is shared by all vectors. The paper's `"relu"` gives equal
    weights and no gradient once every score is negative; `"tanh"` does not.

    Args:
        activation: Activation of the scorer. Defaults to `"tanh"`.

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

    def __init__(self, activation="tanh", **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        self.supports_masking = True
        self.softmax = keras.layers.Softmax(axis=-1, dtype=self.dtype_policy)

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], 1))
        self.bias = self.add_weight(
            name="bias", shape=(1,), initializer="zeros"
        )

    def call(self, inputs, mask=None, return_weights=False):
        score = ops.matmul(inputs, self.kernel) + self.bias
        score = self.activation(ops.squeeze(score, -1))  # [..., K]
        weights = self.softmax(score, mask=mask)
        if mask is not None:
            weights = weights * ops.cast(mask, weights.dtype)
        pooled = ops.squeeze(
            ops.matmul(ops.expand_dims(weights, -2), inputs), -2
        )
        return (pooled, weights) if return_weights else pooled

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-2], input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
        }
