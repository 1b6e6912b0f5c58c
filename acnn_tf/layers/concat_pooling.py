"""Several vectors side by side."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="acnn_tf")
class ConcatPooling(keras.layers.Layer):
    """Vectors side by side, as one long vector.

        y = [m_1, ..., m_K]

    Call arguments:
        inputs: `[..., K, D]`.

    Returns:
        `[..., K * D]`.

    Example:

    >>> import acnn_tf, keras
    >>> layer = acnn_tf.layers.ConcatPooling()
    >>> layer(keras.ops.array([[1.0, 2.0], [3.0, 6.0]])).numpy().tolist()
    [1.0, 2.0, 3.0, 6.0]
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return ops.reshape(inputs, self.compute_output_shape(ops.shape(inputs)))

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-2], math.prod(input_shape[-2:]))
