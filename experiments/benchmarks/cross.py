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
SMOKE_CASES = [(8, 16, 4)]
# The literal form of the largest case would take 9 GB in float64.
FLOAT64_BATCH = 16


def literal_kernel(weights):
    """The kernel of a `Dense` over the whole cross feature.

    Args:
        weights: Weights of a `LocalizationHead` by name, or their gradients.

    Returns:
        `[F, H]`, rows in the order of `CrossFeature`.
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


def rows(smoke=False, rounds=5):
    """The folded head against the literal ones.

    FLOPs of the folded head, forward and twice as many backward, are
    `6 (B t^2 H + B^2 t H)`. ReLUs that flip by rounding make float32
    gradients differ, also those of the literal forms from each other:
    `max_relative_error_float64` is of the same weights in float64, at a batch
    of `FLOAT64_BATCH` at most, against literal TensorFlow.

    Args:
        smoke: One tiny case.
        rounds: Timed rounds; two for what takes seconds.

    Returns:
        List of rows.
    """
    cases = SMOKE_CASES if smoke else CASES
    found = []
    for case, memory in zip(cases, measure.peaks(candidates, cases)):
        width, hidden, batch = case
        small = _Problem(width, hidden, min(batch, FLOAT64_BATCH), "float64")
        exact = _errors(small, small.candidates())["literal_tensorflow"]
        del small
        problem = _Problem(*case)
        functions = problem.candidates()
        found += measure.compare(
            "cross",
            f"t={width},H={hidden},B={batch}",
            functions,
            rounds,
            smoke=smoke,
            flops=6 * batch * width * hidden * (width + batch),
            memory=memory,
            error=_errors(problem, functions),
            max_relative_error_float64=exact,
        )
    return found


def candidates(width, hidden, batch):
    """Functions of a case, by name; the first is ours."""
    return _Problem(width, hidden, batch).candidates()


def _errors(problem, functions):
    """Error of ours by candidate, over all outputs and gradients."""
    results = {
        name: [np.asarray(array) for array in function()]
        for name, function in functions.items()
    }
    ours = problem.in_literal_layout(results.pop("folded"))
    return {
        name: measure.max_relative_error(ours, result)
        for name, result in results.items()
    }


class _Problem:
    """Weights, inputs and targets, and the ways to the gradients.

    Every candidate returns the scores and offsets as `[B, B, 3]` or apart,
    and then the gradients of query, window and weights.
    """

    def __init__(self, width, hidden, batch, dtype="float32"):
        self.dtype = dtype
        self.hidden = hidden
        rng = np.random.default_rng(0)
        self.query, self.window = rng.normal(size=(2, batch, width)).astype(
            dtype
        )
        self.target = rng.normal(size=(batch, batch, 3)).astype(dtype)
        keras.utils.set_random_seed(0)
        self.head = layers.LocalizationHead(hidden, dtype=dtype)
        self.head.build((batch, width), (batch, width))

    def candidates(self):
        """Functions without arguments by name; the first is ours."""
        found = {
            "folded": self._folded(),
            "literal_tensorflow": self._literal_tensorflow(),
        }
        pytorch = self._literal_pytorch()
        if pytorch is not None:
            found["literal_pytorch"] = pytorch
        return found

    def in_literal_layout(self, result):
        """Outputs and gradients of ours, laid out as those of the others."""
        score, offset, query, window, *gradients = result
        outputs = np.concatenate([score[..., None], offset], axis=-1)
        names = [weight.name for weight in self.head.trainable_weights]
        by_name = dict(zip(names, gradients, strict=True))
        return [
            outputs,
            query,
            window,
            literal_kernel(by_name),
            by_name["output_kernel"],
            by_name["output_bias"],
        ]

    def _weights(self):
        return {weight.name: weight.numpy() for weight in self.head.weights}

    def _folded(self):
        score_target, offset_target = self.target[..., 0], self.target[..., 1:]
        weights = [weight.value for weight in self.head.trainable_weights]

        @tf.function
        def step(query, window):
            with tf.GradientTape() as tape:
                tape.watch([query, window])
                outputs = self.head(query, window)
                score, offset = outputs["score"], outputs["offset"]
                loss = tf.reduce_sum((score - score_target) ** 2)
                loss += tf.reduce_sum((offset - offset_target) ** 2)
            gradients = tape.gradient(loss, [query, window, *weights])
            return [score, offset, *gradients]

        query, window = tf.constant(self.query), tf.constant(self.window)
        return lambda: step(query, window)

    def _literal_tensorflow(self):
        feature = layers.CrossFeature(dtype=self.dtype)
        hidden = keras.layers.Dense(
            self.hidden, "relu", use_bias=False, dtype=self.dtype
        )
        output = keras.layers.Dense(3, dtype=self.dtype)
        weights = self._weights()
        kernel = literal_kernel(weights)
        hidden.build((None, None, len(kernel)))
        hidden.set_weights([kernel])
        output.build((None, None, self.hidden))
        output.set_weights([weights["output_kernel"], weights["output_bias"]])
        sources = [
            weight.value
            for layer in (hidden, output)
            for weight in layer.trainable_weights
        ]

        @tf.function
        def step(query, window):
            with tf.GradientTape() as tape:
                tape.watch([query, window])
                outputs = output(hidden(feature(query, window)))
                loss = tf.reduce_sum((outputs - self.target) ** 2)
            gradients = tape.gradient(loss, [query, window, *sources])
            return [outputs, *gradients]

        query, window = tf.constant(self.query), tf.constant(self.window)
        return lambda: step(query, window)

    def _literal_pytorch(self):
        """`None` where PyTorch is not installed; it is no requirement."""
        try:
            import torch
        except ImportError:
            return None
        weights = self._weights()

        def variable(array):
            return torch.tensor(array, requires_grad=True)

        query, window = variable(self.query), variable(self.window)
        # As in `torch.nn.Linear`, the outputs come first.
        kernel = variable(np.ascontiguousarray(literal_kernel(weights).T))
        output_kernel = variable(
            np.ascontiguousarray(weights["output_kernel"].T)
        )
        output_bias = variable(weights["output_bias"])
        target = torch.tensor(self.target)
        sources = [query, window, kernel, output_kernel, output_bias]
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
            gradients = torch.autograd.grad(loss, sources)
            gradients = [
                *gradients[:2],
                gradients[2].T,
                gradients[3].T,
                gradients[4],
            ]
            return [outputs.detach(), *gradients]

        return step
