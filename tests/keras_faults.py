"""Takes away one workaround of `MomentModel` after the other.

python -m tests.keras_faults STRATEGY

Prints `FAULT` and a word for each fault of Keras that then shows.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from acnn_tf.models.moment_model import MomentModel
from tests import distributed_fit

# One batch, which two replicas share as two rows and one.
X = np.arange(3.0, dtype="float32")[:, None]
# -d/dw mean((w x - (x + 1))^2) at 0
SLOPE = 2 * float(np.mean(X * (X + 1)))


class Line(MomentModel):
    """y = w x, where w begins at 0."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(
            1, use_bias=False, kernel_initializer="zeros"
        )

    def call(self, x):
        return self.dense(x)


def without(name):
    """A `Line` that has the method of Keras in place of ours."""
    return type("Line", (Line,), {name: getattr(keras.Model, name)})


NoBuild = without("_maybe_symbolic_build")


def weight(strategy, model_class, **optimizer):
    """After one step."""
    with strategy.scope():
        model = model_class()
        if model_class is not NoBuild:
            model.build((None, 1))
        model.compile(keras.optimizers.SGD(1.0, **optimizer), "mse")
    data = tf.data.Dataset.from_tensor_slices((X, X + 1)).batch(3).repeat()
    data = strategy.experimental_distribute_dataset(data)
    model.fit(data, steps_per_epoch=1, epochs=1, verbose=0)
    return float(model.dense.kernel.numpy()[0, 0])


CASES = {
    "none": (Line, SLOPE, {}),
    "none, clipping": (Line, 1.0, {"clipnorm": 1.0}),
    "build": (NoBuild, SLOPE, {}),
    "logs": (without("_make_function"), SLOPE, {}),
    "weighting": (without("train_step"), SLOPE, {}),
    "clipping": (without("train_step"), 1.0, {"clipnorm": 1.0}),
}


def is_right(strategy, model_class, expected, optimizer):
    try:
        return abs(weight(strategy, model_class, **optimizer) - expected) < 1e-4
    except (ValueError, RuntimeError, TypeError, tf.errors.OpError) as error:
        print(type(error), str(error)[:300])  # noqa: T201
        return False


if __name__ == "__main__":
    used = distributed_fit.make_strategy(sys.argv[1])
    for name, case in CASES.items():
        if not is_right(used, *case):
            print("FAULT", name)  # noqa: T201
