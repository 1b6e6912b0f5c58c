"""The fused optimizer, against the one of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from acnn_tf.optimizers import FusedAdam

RNG = np.random.default_rng(0)


def fitted(optimizer, strategy=None):
    """Weights, losses and state after a few steps of a small model."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(1)
    with (strategy or tf.distribute.get_strategy()).scope():
        model = keras.Sequential(
            [
                keras.layers.Embedding(7, 3),  # its gradients are sparse
                keras.layers.Flatten(),
                keras.layers.Dense(5, "tanh"),
                keras.layers.Dense(2),
            ]
        )
        model.build((None, 4))
        # As in training: XLA would compile for longer than it runs.
        model.compile(optimizer(), "mse", jit_compile=False)
    history = model.fit(
        rng.integers(7, size=(24, 4)),
        rng.normal(size=(24, 2)),
        batch_size=8,
        epochs=3,
        verbose=0,
    )
    state = model.optimizer.variables
    arrays = map(keras.ops.convert_to_numpy, model.weights + state)
    return [*arrays, history.history["loss"]]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"learning_rate": 0.1, "weight_decay": 0.1, "epsilon": 1e-3},
        {"beta_1": 0.5, "beta_2": 0.9, "clipnorm": 0.1},
        {"use_ema": True, "ema_momentum": 0.5},
        {"amsgrad": True},
    ],
)
def test_every_step_is_that_of_keras(arguments):
    ours = fitted(lambda: FusedAdam(**arguments))
    theirs = fitted(lambda: keras.optimizers.Adam(**arguments))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_step_by_hand():
    # m = .1 * 3, v = .01 * 9; corrected by .1 and .01: 3 / 3, so w - lr.
    weight = keras.Variable([1.0])
    optimizer = FusedAdam(learning_rate=0.25, beta_1=0.9, beta_2=0.99)
    optimizer.apply([tf.constant([3.0])], [weight])
    np.testing.assert_allclose(weight, [0.75], rtol=1e-6)


def test_state_is_saved_with_the_model(tmp_path):
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile(FusedAdam(learning_rate=0.01), "mse", jit_compile=False)
    inputs, targets = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 2))
    model.fit(inputs, targets, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is FusedAdam
    for each in (model, loaded):
        each.fit(inputs, targets, epochs=2, verbose=0, shuffle=False)
    np.testing.assert_array_equal(model.weights[0], loaded.weights[0])
