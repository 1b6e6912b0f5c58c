"""Fits a small model with `ResumableTraining`, and may be stopped on the way.

python -m tests.resumed_fit FOLDER EVERY [HOW STEP], with TF_CONFIG set for
workers. HOW is `kill` or `term` after a step; `save`, which kills while the
next checkpoint from STEP on is half written; or `full`, from when on there is
no room for one. Prints `WEIGHTS`, a hash of the weights, and `STEPS`, how many
it did.
"""

import hashlib
import os
import resource
import signal
import sys
import threading

import keras
import numpy as np
import tensorflow as tf

from acnn_tf.data.batches import Batches
from acnn_tf.models.moment_model import MomentModel
from acnn_tf.training import ResumableTraining
from tests import distributed_fit

EPOCHS, STEPS, BATCH_SIZE = 3, 3, 5
X = np.random.default_rng(0).normal(size=(STEPS * BATCH_SIZE, 4)).astype("f4")


class NoisyLine(MomentModel):
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


def limit_files(size):
    most = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


class Stop(keras.callbacks.Callback):
    """Ends the process at a step, one way or another."""

    def __init__(self, folder, how, step):
        super().__init__()
        self.folder, self.how, self.step = folder, how, step
        self.steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.steps == self.step and self.how == "save":
            before = set(os.listdir(self.folder))
            threading.Thread(
                target=self.kill_in_save, args=[before], daemon=True
            ).start()
        if self.steps == self.step and self.how == "full":
            entries = os.scandir(self.folder)
            limit = max(entry.stat().st_size for entry in entries) // 2
            limit_files(limit)

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == self.step and self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.steps == self.step and self.how == "term":
            os.kill(os.getpid(), signal.SIGTERM)

    def kill_in_save(self, before):
        while True:
            new = set(os.listdir(self.folder)) - before
            if any("ckpt-" in name for name in new):
                os.kill(os.getpid(), signal.SIGKILL)


def fit(folder, every, how=None, step=0):
    workers = "TF_CONFIG" in os.environ
    strategy = distributed_fit.make_strategy(
        "multi_worker" if workers else "none"
    )
    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    with strategy.scope():
        model = make_model()
    stop = Stop(folder, how, int(step))
    try:
        ResumableTraining(model, folder, int(every)).fit(
            make_batches,
            epochs=EPOCHS,
            verbose=0,
            callbacks=[stop],
        )
    finally:  # what is printed is a file, too
        limit_files(resource.RLIM_INFINITY)
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    print("STEPS", stop.steps)  # noqa: T201
    print("WEIGHTS", digest.hexdigest())  # noqa: T201


if __name__ == "__main__":
    fit(*sys.argv[1:])
