"""The mean of several vectors."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="acnn_tf")
class MeanPooling(keras.layers.Layer):
    """Mean of vectors, each with the same weight.

        y = 1/K sum_i m_i

    Call arguments:
        inputs: `[..., K, D]`.

    Returns:
        `[..., D]`.

    Example:

    >>> import acnn_tf, keras
    >>> layer = acnn_tf.layers.MeanPooling()
    >>> layer(keras.ops.array([[1.0, 2.0], [3.0, 6.0]])).numpy().tolist()
    [2.0, 4.0]
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return ops.mean(inputs, axis=-2)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-2], input_shape[-1])
