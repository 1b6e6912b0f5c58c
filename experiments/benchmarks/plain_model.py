"""ACNN as one would write it first: what its training step is held against."""

import keras
from keras import ops

from acnn_tf.models import ACNN
from experiments.benchmarks.context import convolutions
from experiments.benchmarks.cross import LiteralHead


class PlainACNN(ACNN):
    """An `ACNN` out of plain Keras layers and the literal cross feature.

    Args:
        model: `ACNN`, built, whose weights it takes.
        **arguments: Those of the model.
    """

    def __init__(self, model, **arguments):
        super().__init__(name="plain", **arguments)
        self.context = _Convolutions(model.context)
        weights = {one.name: one.numpy() for one in model.head.weights}
        self.head = _LiteralHead(weights)
        self.build(
            {
                "window": (None, None, None, model.clip_dim),
                "query": (None, model.query_dim),
            }
        )
        for name in ("pooling", "window_projection", "query_projection"):
            weights = getattr(model, name).get_weights()
            getattr(self, name).set_weights(weights)

    def call(self, inputs, training=None):
        window = self.encode_windows(inputs, training=training)  # [B, W, t]
        query = self.encode_queries(inputs["query"], training=training)
        own = self.head(query[:, None], window)
        positive = ops.reshape(inputs["positive"], (-1, 1, 1))
        positive = ops.take_along_axis(window, positive, axis=1)[:, 0]
        return {
            "score": own["score"][:, 0],
            "offset": own["offset"][:, 0],
            "batch_score": self.head(query, positive)["score"],
        }


class _Convolutions(keras.layers.Layer):
    """One convolution a kernel size, over the middle of each context."""

    def __init__(self, context):
        super().__init__(name="convolutions")
        self.context_size = context.context_size
        self.convolutions = convolutions(context)
        self.built = True

    def call(self, window, mask=None, pooling=None):
        if mask is not None:
            window = ops.where(mask[..., None], window, ops.zeros_like(window))
        _, num_windows, _, width = window.shape
        window = ops.reshape(window, (-1, self.context_size, width))
        outputs = []
        for convolution in self.convolutions:
            (size,) = convolution.kernel_size
            first = (self.context_size - size) // 2
            outputs.append(convolution(window[:, first : first + size])[:, 0])
        outputs = ops.stack(outputs, axis=-2)  # [B * W, K, F]
        return ops.reshape(outputs, (-1, num_windows, *outputs.shape[1:]))


class _LiteralHead(LiteralHead):
    """The literal head, with its outputs by their names."""

    def call(self, query, window):
        outputs = super().call(query, window)
        return {"score": outputs[..., 0], "offset": outputs[..., 1:]}
