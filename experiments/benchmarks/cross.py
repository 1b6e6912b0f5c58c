"""The cross feature and the head: folded, against the equation as it stands.

Forward and backward, with the gradients of queries, windows and all weights.
The literal forms make the outer product of every query and every window,
`[B, B, t * t]`, with TensorFlow and with PyTorch, from the same weights.
"""

import keras
import numpy as np
import tensorflow as tf

from acnn_tf import layers
from experiments.benchmarks import measure

# (t, H, B): width of the vectors, hidden width, queries and windows.
CASES = [
    (128, 64, 64),
    (128, 256, 64),
    (256, 256, 32),
    (128, 64, 128),
    (128, 256, 128),
]
# The literal form of the largest case would take 9 GB in float64.
FLOAT64_BATCH = 16


def rows(smoke, rounds):
    """The folded head against the literal ones.

    FLOPs of the folded head, forward and twice as many backward, are
    `6 (B t^2 H + B^2 t H)`. ReLUs that flip by rounding make float32
    gradients differ, also those of the literal forms from each other:
    `max_relative_error_float64` is of the same weights in float64, at a batch
    of `FLOAT64_BATCH` at most, against literal TensorFlow.
    """
    found = []
    for width, hidden, batch in [(8, 16, 4)] if smoke else CASES:
        memory = measure.peaks(candidates, width, hidden, batch)
        small = min(batch, FLOAT64_BATCH)
        exact = _errors(candidates(width, hidden, small, "float64"))
        functions = candidates(width, hidden, batch)
        found += measure.compare(
            "cross",
            f"t={width},H={hidden},B={batch}",
            functions,
            rounds,
            flops=6 * batch * width * hidden * (width + batch),
            memory=memory,
            error=_errors(functions),
            max_relative_error_float64=exact["literal_tensorflow"],
        )
    return found


def candidates(width, hidden, batch, dtype="float32"):
    """Functions that return outputs and gradients, by name; ours is first."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, batch, width)).astype(dtype)
    target = rng.normal(size=(batch, batch, 3)).astype(dtype)
    keras.utils.set_random_seed(0)
    head = layers.LocalizationHead(hidden, dtype=dtype)
    head.build((batch, width), (batch, width))
    weights = {weight.name: weight.numpy() for weight in head.weights}
    found = {
        "folded": _folded(head, inputs, target),
        "literal_tensorflow": _literal_tensorflow(weights, inputs, target),
    }
    try:
        found["literal_pytorch"] = _literal_pytorch(weights, inputs, target)
    except ImportError:
        pass  # it is no requirement
    return found


def literal_kernel(weights):
    """The kernel of a `Dense` over the whole cross feature, `[F, H]`.

    It is made of the weights of a `LocalizationHead`, or of their gradients,
    by their names; rows are in the order of `CrossFeature`.
    """
    cross = np.asarray(weights["cross_kernel"]).transpose(0, 2, 1)
    names = [n for n in ("window_kernel", "query_kernel") if n in weights]
    return np.concatenate(
        [
            *(np.asarray(weights[name]) for name in names),
            cross.reshape(-1, cross.shape[-1]),
            np.asarray(weights["bias"])[None],
        ]
    )


class LiteralHead(keras.layers.Layer):
    """Two dense layers on the cross feature: `[..., 3]`, of each pair.

    Their weights are those of a `LocalizationHead`, by name.
    """

    def __init__(self, weights, **arguments):
        super().__init__(name="literal_head", **arguments)
        own = {"dtype": self.dtype_policy}
        kernel = literal_kernel(weights)
        self.feature = layers.CrossFeature("query_kernel" in weights, **own)
        # The feature ends on a one, whose row is the bias.
        self.hidden = keras.layers.Dense(
            kernel.shape[1], "relu", use_bias=False, **own
        )
        self.hidden.build((None, None, len(kernel)))
        self.hidden.set_weights([kernel])
        self.output_layer = keras.layers.Dense(3, **own)
        self.output_layer.build((None, None, kernel.shape[1]))
        self.output_layer.set_weights(
            [weights["output_kernel"], weights["output_bias"]]
        )
        self.built = True

    def call(self, query, window):
        return self.output_layer(self.hidden(self.feature(query, window)))


def _errors(functions):
    """Error of ours by the name of the other, over outputs and gradients."""
    functions = dict(functions)
    ours = functions.pop("folded")()
    outputs = np.concatenate([ours["score"][..., None], ours["offset"]], -1)
    names = ("query", "window", "output_kernel", "output_bias")
    ours = [outputs, literal_kernel(ours), *(ours[name] for name in names)]
    return {
        name: measure.max_relative_error(ours, function())
        for name, function in functions.items()
    }


def _folded(head, inputs, target):
    """Returns outputs, and gradients, by name."""
    query, window = map(tf.constant, inputs)
    weights = {one.name: one.value for one in head.trainable_weights}

    @tf.function
    def step(query, window):
        with tf.GradientTape() as tape:
            tape.watch([query, window])
            outputs = head(query, window)
            loss = tf.reduce_sum((outputs["score"] - target[..., 0]) ** 2)
            loss += tf.reduce_sum((outputs["offset"] - target[..., 1:]) ** 2)
        sources = {"query": query, "window": window, **weights}
        return {**outputs, **tape.gradient(loss, sources)}

    return lambda: step(query, window)


def _literal_tensorflow(weights, inputs, target):
    query, window = map(tf.constant, inputs)
    head = LiteralHead(weights, dtype=query.dtype.name)
    sources = [weight.value for weight in head.trainable_weights]

    @tf.function
    def step(query, window):
        with tf.GradientTape() as tape:
            tape.watch([query, window])
            outputs = head(query, window)
            loss = tf.reduce_sum((outputs - target) ** 2)
        q, w, k, o, b = tape.gradient(loss, [query, window, *sources])
        return [outputs, k, q, w, o, b]

    return lambda: step(query, window)


def _literal_pytorch(weights, inputs, target):
    import torch

    def variable(array):
        return torch.tensor(array, requires_grad=True)

    query, window = map(variable, inputs)
    # As in `torch.nn.Linear`, the outputs come first.
    kernel = variable(literal_kernel(weights).T.copy())
    output_kernel = variable(weights["output_kernel"].T.copy())
    output_bias = variable(weights["output_bias"])
    target = torch.tensor(target)
    sources = [kernel, query, window, output_kernel, output_bias]
    linear = torch.nn.functional.linear

    def step():
        batch, width = query.shape
        pairs = (batch, batch, width)
        cross = window[None, :, :, None] * query[:, None, None, :]
        feature = torch.cat(
            [
                window[None].expand(pairs),
                query[:, None].expand(pairs),
                cross.reshape(batch, batch, width * width),
                torch.ones((batch, batch, 1), dtype=cross.dtype),
            ],
            dim=-1,
        )
        hidden = torch.relu(linear(feature, kernel))
        outputs = linear(hidden, output_kernel, output_bias)
        loss = ((outputs - target) ** 2).sum()
        k, q, w, o, b = torch.autograd.grad(loss, sources)
        return [outputs.detach(), k.T, q, w, o.T, b]

    return step
