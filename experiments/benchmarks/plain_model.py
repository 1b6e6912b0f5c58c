"""ACNN as one would write it first: what its training step is held against."""

import keras
from keras import ops

from acnn_tf import layers
from acnn_tf.models import ACNN
from experiments.benchmarks.context import convolutions
from experiments.benchmarks.cross import literal_kernel


class PlainACNN(ACNN):
    """An `ACNN` out of plain Keras layers and the literal cross feature.

    Args:
        model: `ACNN`, built, whose weights it takes.
        **arguments: Those of the model.
    """

    def __init__(self, model, **arguments):
        super().__init__(name="plain", **arguments)
        self.context = _Convolutions(model.context)
        self.head = _LiteralHead(model.head)
        self.build(
            {
                "window": (None, None, None, model.clip_dim),
                "query": (None, model.query_projection.kernel.shape[0]),
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


class _LiteralHead(keras.layers.Layer):
    """Two dense layers on the cross feature."""

    def __init__(self, head):
        super().__init__(name="literal_head")
        weights = {weight.name: weight.numpy() for weight in head.weights}
        kernel = literal_kernel(weights)
        self.feature = layers.CrossFeature("query_kernel" in weights)
        # The feature ends on a one, whose row is the bias.
        self.hidden = keras.layers.Dense(
            kernel.shape[1], "relu", use_bias=False
        )
        self.hidden.build((None, None, len(kernel)))
        self.hidden.set_weights([kernel])
        self.output_layer = keras.layers.Dense(3)
        self.output_layer.build((None, None, kernel.shape[1]))
        self.output_layer.set_weights(
            [weights["output_kernel"], weights["output_bias"]]
        )
        self.built = True

    def call(self, query, window):
        outputs = self.output_layer(self.hidden(self.feature(query, window)))
        return {"score": outputs[..., 0], "offset": outputs[..., 1:]}
