"""Fits a small model with `ResumableTraining`, and may be killed on the way.

python -m tests.resumed_fit FOLDER EVERY [kill STEP | save STEP | term STEP],
with TF_CONFIG set for workers. `save` kills while the next checkpoint from
STEP on is half written. Prints `WEIGHTS`, a hash of the weights, and `STEPS`,
how many it did.
"""

import hashlib
import os
import signal
import sys
import threading

import keras
import tensorflow as tf

from acnn_tf.training import ResumableTraining
from tests import distributed_fit

EPOCHS = 3


class Killer(keras.callbacks.Callback):
    """Ends the process at a step, one way or another."""

    def __init__(self, folder, how, step):
        super().__init__()
        self.folder, self.how, self.step = folder, how, step
        self.steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.steps == self.step and self.how == "save":
            threading.Thread(target=self.kill_in_save, daemon=True).start()

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == self.step and self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.steps == self.step and self.how == "term":
            os.kill(os.getpid(), signal.SIGTERM)

    def kill_in_save(self):
        before = set(os.listdir(self.folder))
        while True:
            new = set(os.listdir(self.folder)) - before
            if any("ckpt-" in name for name in new):
                os.kill(os.getpid(), signal.SIGKILL)


def fit(folder, every, how=None, step=0):
    workers = "TF_CONFIG" in os.environ
    strategy = distributed_fit.make_strategy(
        "multi_worker" if workers else "none"
    )
    tf.config.experimental.enable_op_determinism()
    with strategy.scope():
        model, make_batches = distributed_fit.make_model(dropout=0.3)
    killer = Killer(folder, how, int(step))
    ResumableTraining(model, folder, int(every)).fit(
        make_batches, epochs=EPOCHS, verbose=0, callbacks=[killer]
    )
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    print("STEPS", killer.steps)  # noqa: T201
    print("WEIGHTS", digest.hexdigest())  # noqa: T201


if __name__ == "__main__":
    fit(*sys.argv[1:])
