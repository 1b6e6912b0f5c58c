"""Evaluates and fits a small model under a strategy; a process a worker.

python -m tests.distributed_fit STRATEGY OUT BATCH_SIZE [BATCH_SIZE ...], with
TF_CONFIG set for `multi_worker`. OUT is JSON: by the number of videos, figures
and predictions; by the size of a batch, losses and weights.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from acnn_tf import evaluation, losses, optimizers
from acnn_tf.data import batches, sentences, synthetic
from acnn_tf.models import ACNN


def make_strategy(name):
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "none":
        return tf.distribute.get_strategy()
    count = int(name.removeprefix("mirrored"))
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * count,
    )
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])


def make_model():
    """A compiled model, and the function that makes its batches."""
    scenes = synthetic.make_scenes(9)
    words = sentences.Vocabulary.from_sentences(
        [moment.query for moment in scenes.moments]
    ).words
    keras.utils.set_random_seed(0)
    model = ACNN(
        vocabulary=words,
        window_lengths=(2.0, 4.0),
        filters=16,
        embedding_dim=8,
        hidden_dim=8,
        # A GRU would take half of the time, and share nothing of it.
        query_encoder="mean",
        kernel_sizes=(1, 3),
        word_dim=8,
        # Of which replicas draw what one process does not.
        dropout=0.0,
        clip_dropout=0.0,
        clip_seconds=scenes.clip_seconds,
    )
    model.adapt(scenes.features.values())

    def make_batches(batch_size):
        return batches.training_videos(
            scenes.moments,
            sentences.query_inputs(scenes.moments, words),
            scenes.features,
            model,
            batch_size=batch_size,
        )

    model(next(iter(make_batches(7).dataset))[0])  # builds it
    model.compile(
        optimizers.FusedAdam(
            1e-2, weight_decay=1e-3, clipnorm=0.1, use_ema=True
        ),
        loss={
            "score": losses.VideoAlignmentLoss(),
            "offset": losses.OffsetLoss(),
            "batch_score": losses.AlignmentLoss(),
        },
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)
    return model, make_batches


def evaluate(model, strategy, num_videos):
    scenes = synthetic.make_scenes(num_videos, split="val")
    results, predictions = evaluation.evaluate(
        model, scenes.moments, scenes.features, strategy=strategy
    )
    return results, [array.tolist() for array in predictions]


def fit(strategy, model, make_batches, batch_sizes):
    """Fits one model, from the same weights for each size of a batch."""
    variables = model.variables + model.optimizer.variables
    start = [variable.numpy() for variable in variables]
    for size in batch_sizes:
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        data = make_batches(int(size))
        steps = []
        model.fit(
            data.distribute(strategy).dataset,
            steps_per_epoch=data.steps_per_epoch,
            epochs=2,
            shuffle=False,
            verbose=0,
            callbacks=[
                keras.callbacks.LambdaCallback(
                    on_train_batch_end=lambda _, logs, steps=steps: (
                        steps.append([logs[name] for name in sorted(logs)])
                    )
                )
            ],
        )
        weights = [np.ravel(weight) for weight in model.get_weights()]
        weights = np.concatenate(weights).tolist()
        yield size, {"losses": steps, "weights": weights}


def main(name, out, *batch_sizes):
    strategy = make_strategy(name)
    with strategy.scope():
        model, make_batches = make_model()
    # One video leaves a replica without any.
    evaluated = {n: evaluate(model, strategy, n) for n in (5, 1)}
    fitted = dict(fit(strategy, model, make_batches, batch_sizes))
    with open(out, "w", encoding="utf-8") as file:
        json.dump({"evaluated": evaluated, "fitted": fitted}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
