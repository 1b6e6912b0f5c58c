"""A model that trains in no time, with all that a checkpoint has to hold."""

import keras
import numpy as np
import tensorflow as tf

from acnn_tf.data.batches import Batches
from acnn_tf.models.moment_model import MomentModel

EPOCHS, STEPS, BATCH_SIZE = 3, 3, 5
X = np.random.default_rng(0).normal(size=(STEPS * BATCH_SIZE, 4)).astype("f4")


class NoisyLine(MomentModel):
    """y = w x, with dropout in between."""

    def __init__(self, width=4):
        super().__init__()
        self.dropout = keras.layers.Dropout(0.5)
        self.dense = keras.layers.Dense(width)

    def call(self, x, training=False):
        return self.dense(self.dropout(x, training=training))


def make_model(width=4):
    """Built and compiled; Adam has moments, and averages the weights."""
    model = NoisyLine(width)
    model(X)
    optimizer = keras.optimizers.AdamW(0.1, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


def make_batches(epoch, steps=STEPS):
    """Batches from an epoch on; the epoch decides on their order."""
    orders = [
        np.random.default_rng(number).permutation(len(X))
        for number in range(epoch, EPOCHS + 1)
    ]
    rows = X[np.concatenate(orders)]
    data = tf.data.Dataset.from_tensor_slices((rows, np.sin(rows)))
    return Batches(data.batch(BATCH_SIZE), len(X), steps)
