"""ACNN as one would write it first: what its training step is held against."""

import keras
import numpy as np
from keras import ops

from acnn_tf import layers
from acnn_tf.models import ACNN
from experiments.benchmarks.cross import literal_kernel


def weights(model):
    """Trainable weights: context, what is between, head."""
    between = (model.pooling, model.window_projection, model.query_projection)
    return [
        weight
        for layer in (model.context, *between, model.head)
        for weight in layer.trainable_weights
    ]


class PlainACNN(ACNN):
    """ACNN out of plain Keras layers and the literal cross feature."""

    def __init__(self, **arguments):
        super().__init__(name="plain", **arguments)
        self.context = _Convolutions(self.kernel_sizes, self.filters)
        self.head = _LiteralHead(self.hidden_dim, self.first_order_query)

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

    def copy_weights(self, model):
        """Takes the weights of an `ACNN`."""
        arrays = [weight.numpy() for weight in weights(model)]
        for weight, array in zip(
            weights(self), self.matching(model, arrays), strict=True
        ):
            weight.assign(array)

    def matching(self, model, arrays):
        """Arrays like the weights of an `ACNN`, laid out as those of this."""
        arrays = list(map(np.asarray, arrays))
        # Ours are the taps of all kernels and then biases; a convolution has
        # a kernel and a bias.
        context = []
        for size in self.kernel_sizes:
            context += [np.stack(arrays[:size]), None]
            arrays = arrays[size:]
        num_kernels = len(self.kernel_sizes)
        context[1::2], arrays = arrays[:num_kernels], arrays[num_kernels:]
        names = [weight.name for weight in model.head.trainable_weights]
        between = arrays[: -len(names)]
        head = dict(zip(names, arrays[-len(names) :]))
        return [
            *context,
            *between,
            literal_kernel(head),
            head["output_kernel"],
            head["output_bias"],
        ]


class _Convolutions(keras.layers.Layer):
    """One convolution a kernel size, over the middle of each context."""

    def __init__(self, kernel_sizes, filters):
        super().__init__(name="convolutions")
        self.supports_masking = True
        self.filters = filters
        self.context_size = max(kernel_sizes)
        self.convolutions = [
            keras.layers.Conv1D(filters, size) for size in kernel_sizes
        ]

    def build(self, shape):
        for convolution in self.convolutions:
            convolution.build((None, None, shape[-1]))

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
        return ops.reshape(
            outputs, (-1, num_windows, len(self.convolutions), self.filters)
        )

    def compute_mask(self, window, mask=None):
        return None


class _LiteralHead(keras.layers.Layer):
    """Two dense layers on the cross feature."""

    def __init__(self, hidden_dim, first_order_query):
        super().__init__(name="literal_head")
        self.feature = layers.CrossFeature(first_order_query)
        # The feature ends on a one, whose row is the bias.
        self.hidden = keras.layers.Dense(hidden_dim, "relu", use_bias=False)
        self.output_layer = keras.layers.Dense(3)
        self.first_order_query = first_order_query

    def build(self, query_shape, window_shape):
        query, window = query_shape[-1], window_shape[-1]
        width = query * window + window + 1
        width += query if self.first_order_query else 0
        self.hidden.build((None, None, width))
        self.output_layer.build((None, None, self.hidden.units))

    def call(self, query, window):
        outputs = self.output_layer(self.hidden(self.feature(query, window)))
        return {"score": outputs[..., 0], "offset": outputs[..., 1:]}
