"""A whole training step of ACNN.

The step is what `model.fit` runs: next batch, losses, gradients, optimizer.
Shapes, losses and optimizer are those of the paper's experiment; the head has
a hidden layer. The plain model has the same weights and
makes the same numbers with Keras's own layers and Adam, and with the literal
outer product.
"""

import keras
import numpy as np
import tensorflow as tf

from acnn_tf.models import ACNN
from experiments import losses_and_optimizer
from experiments.benchmarks import measure, plain_model

# Of experiments/flags/tacos_paper.flags, as arguments of ACNN and of
# `compile_model`.
NETWORK = {
    "window_lengths": (64, 128, 256, 512),
    "frame_rate": 29.4,
    "window_overlap": 0.8,
    "kernel_sizes": (1, 3, 5),
    "scorer_activation": "relu",
    "context_activation": None,
    "first_order_query": False,
    "position_features": False,
    "dropout": 0.0,
    "clip_dropout": 0.0,
    "consensus_iou": None,
    "offset_unit": "frames",
}
OBJECTIVE = {
    "video_weight": 0.0,
    "batch_weight": 1.0,
    "offset_weight": 0.01,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "clipnorm": 0.0,
    "weight_decay": 0.0,
    "ema_momentum": 0.0,
}
SIZES = {"filters": 256, "embedding_dim": 128, "hidden_dim": 64}
SMOKE_SIZES = {"filters": 8, "embedding_dim": 8, "hidden_dim": 8}
# Batch, features of a window, features of a sentence.
SHAPE = (64, 4096, 4800)
SMOKE_SHAPE = (4, 16, 12)
NUM_BATCHES = 8
TABLE_ROWS = 2048
NUM_PAIRS = 26_963  # of the paper's experiment


def rows(smoke, rounds):
    """ACNN's step against that of the plain model.

    `gemm_share` counts the FLOPs of the products of our step, see
    `product_flops`, and `epoch_seconds` is what an epoch of `NUM_PAIRS` pairs
    would take.
    """
    memory = measure.peaks(candidates, smoke)
    model, plain, dataset = _models(smoke)
    error = measure.max_relative_error(
        *(_results(one, *next(iter(dataset))) for one in (model, plain))
    )
    shape = batch, width, _ = SMOKE_SHAPE if smoke else SHAPE
    (row,) = measure.compare(
        "step",
        f"B={batch},D={width},t={model.embedding_dim},H={model.hidden_dim}",
        _by_name(model, plain, dataset),
        rounds,
        flops=product_flops(model, *shape),
        memory=memory,
        error={"literal_tensorflow": error},
    )
    row["epoch_seconds"] = row["seconds"] * -(-NUM_PAIRS // batch)
    return [row]


def candidates(smoke):
    """Functions by name; the first is ours."""
    return _by_name(*_models(smoke))


def _by_name(model, plain, dataset):
    return {
        "acnn": _step(model, dataset),
        "literal_tensorflow": _step(plain, dataset),
    }


def _models(smoke):
    """ACNN and the plain model, ready to train, and a dataset for them."""
    keras.utils.set_random_seed(0)
    arguments = {**NETWORK, **(SMOKE_SIZES if smoke else SIZES)}
    model = ACNN(**arguments)
    dataset = _make_dataset(model, *(SMOKE_SHAPE if smoke else SHAPE))
    model(next(iter(dataset))[0])  # builds it
    plain = plain_model.PlainACNN(model, **arguments)
    for one in (model, plain):
        losses_and_optimizer.compile_model(one, num_steps=1, **OBJECTIVE)
    plain.optimizer = keras.optimizers.Adam(OBJECTIVE["learning_rate"])
    return model, plain, dataset


def product_flops(model, batch, width, query_width):
    """FLOPs of the matrix products of ACNN's step, forward and backward.

    With `n` taps over all kernels, `D` and `E` features of a window and of a
    sentence, `F` filters:

        context            2 n B D F   forward, and as many for its kernels
        query projection   2 B E t     likewise: both read data
        window projection  2 B F t     three times: its input learns as well
        fold of queries    2 B t^2 H   likewise
        pairs              2 B^2 t H   likewise; of the batch and, 2 B t H,
                                       of each query with its own window
        outputs            6 (B^2 + B) H   likewise

    Args:
        model: The `ACNN`, with a hidden layer.
        batch: B.
        width: D.
        query_width: E.
    """
    t, hidden, filters = model.embedding_dim, model.hidden_dim, model.filters
    of_data = sum(model.kernel_sizes) * width * filters + query_width * t
    pairs = (batch + 1) * hidden * (t + 3)
    of_vectors = filters * t + t * t * hidden + pairs
    return 2 * batch * (2 * of_data + 3 * of_vectors)


def _make_dataset(model, batch, width, query_width):
    """Batches without end, as `training_pairs` makes them, of random numbers.

    They are gathered by index, from a table of windows and one of sentences,
    while the step before is running.
    """
    rng = np.random.default_rng(0)
    size = model.context_size
    windows = tf.constant(rng.normal(size=(TABLE_ROWS, width)), tf.float32)
    queries = tf.constant(
        rng.normal(size=(TABLE_ROWS, query_width)), tf.float32
    )
    start = rng.uniform(0, 200, (TABLE_ROWS, 1))
    segments = tf.constant(np.concatenate([start, start + 8], 1), tf.float32)
    offset = tf.constant(rng.normal(size=(TABLE_ROWS, 1, 3)), tf.float32)
    score = tf.constant(rng.uniform(0.5, 1, (TABLE_ROWS, 1)), tf.float32)

    def gather(row, pair):
        inputs = {
            "window": tf.gather(windows, row),
            "segment": tf.gather(segments, row),
            "duration": tf.fill([batch], 240.0),
            "query": tf.gather(queries, pair),
            "positive": tf.zeros([batch], tf.int32),
        }
        targets = {
            "score": tf.gather(score, pair),
            "offset": tf.abs(tf.gather(offset, pair)),
            "batch_score": pair,
        }
        return inputs, targets

    rows = rng.integers(TABLE_ROWS, size=(NUM_BATCHES, batch, 1, size))
    pairs = rng.integers(TABLE_ROWS, size=(NUM_BATCHES, batch))
    dataset = tf.data.Dataset.from_tensor_slices(
        (rows.astype(np.int32), pairs.astype(np.int32))
    )
    return dataset.repeat().map(gather).prefetch(2)


def _step(model, dataset):
    """A function that does what `fit` does for a batch."""
    iterator = iter(dataset)
    model.make_train_function()
    return lambda: model.train_function(iterator)


def _results(model, inputs, targets):
    """Three outputs, the loss, and its gradients of windows and queries."""
    features = [inputs["window"], inputs["query"]]
    with tf.GradientTape() as tape:
        tape.watch(features)
        outputs = model(inputs, training=True)
        loss = model.compute_loss(inputs, targets, outputs)
    outputs = [outputs[key] for key in sorted(outputs)]
    return [*outputs, loss, *tape.gradient(loss, features)]
