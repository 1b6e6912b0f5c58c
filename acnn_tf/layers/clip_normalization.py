"""Clip features on a common scale."""

from collections.abc import Iterable

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="acnn_tf")
class ClipNormalization(keras.layers.Layer):
    """Subtracts the mean of a dataset from features and divides by their scale.

        y = (x - mean) / scale

    `adapt` measures both, and they are saved with the weights. Before `adapt`
    they are 0 and 1. (`keras.layers.Normalization` cannot be built within a
    graph, which `fit` does.)

    Args:
        per_feature: Whether each feature has a scale of its own. With one
            scale for all features, their proportions stay. Defaults to `True`.

    Call arguments:
        inputs: `[..., D]`.

    Returns:
        `[..., D]`.

    Example:

    >>> import acnn_tf
    >>> import numpy as np
    >>> layer = acnn_tf.layers.ClipNormalization()
    >>> layer.adapt(np.array([[0.0, 10.0], [2.0, 30.0]]))
    >>> layer(np.array([[2.0, 10.0]])).numpy().tolist()
    [[1.0, -1.0]]
    """

    def __init__(self, per_feature: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.per_feature = per_feature

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (input_shape[-1],)
        self.mean = self.add_weight(
            name="mean", shape=shape, initializer="zeros", trainable=False
        )
        self.scale = self.add_weight(
            name="scale", shape=shape, initializer="ones", trainable=False
        )

    def adapt(self, features: np.ndarray | Iterable[np.ndarray]) -> None:
        """Measures the mean and the scale of features.

        Args:
            features: float `[N, D]`, or an iterable of such arrays. Only one
                of them is in memory at a time.

        Raises:
            ValueError: If there are no features, if they have another rank,
                or if a number is not finite.
        """
        if isinstance(features, np.ndarray) and features.ndim == 2:
            features = [features]
        count, total, squares = 0, 0.0, 0.0
        for rows in features:
            rows = np.asarray(rows, np.float64)
            if rows.ndim != 2:
                raise ValueError(
                    "`features` must be [N, D], or arrays of that rank. "
                    f"Received one of shape: {rows.shape}"
                )
            if not np.isfinite(rows).all():
                raise ValueError(
                    "`features` must be finite. Received: NaN or infinity in "
                    f"an array of shape {rows.shape}"
                )
            if count and rows.shape[1] != len(total):
                raise ValueError(
                    "`features` must be of one width. Received: "
                    f"{len(total)} and {rows.shape[1]}"
                )
            count += len(rows)
            total = total + rows.sum(axis=0)
            squares = squares + np.square(rows).sum(axis=0)
        if not count:
            raise ValueError("`features` must not be empty.")
        if not self.built:
            self.build((None, len(total)))
            self.built = True
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0.0)
        if not self.per_feature:
            variance = np.full_like(variance, variance.mean())
        scale = np.sqrt(variance)
        self.mean.assign(mean)
        # A feature that never changes keeps its scale.
        self.scale.assign(np.where(scale > 1e-6, scale, 1.0))

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return (inputs - self.mean) / self.scale

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "per_feature": self.per_feature}
