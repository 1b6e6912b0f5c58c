"""Validation and saving around `model.fit`."""

import keras
import numpy as np
import pytest

from acnn_tf import callbacks, evaluation
from acnn_tf.data import batches
from acnn_tf.data.annotations import Moment
from acnn_tf.models import ACNN, load_model
from tests.test_acnn import compiled

RNG = np.random.default_rng(0)
MOMENTS = [
    Moment(str(i), f"word{i % 5}", f"v{i % 4}", 12.0, ((i % 6, i % 6 + 4.0),))
    for i in range(12)
]
FEATURES = {
    f"v{i}": RNG.normal(size=(12, 3)).astype("float32") for i in range(4)
}
VECTORS = {m.query_id: RNG.normal(size=4).astype("float32") for m in MOMENTS}


def make_model():
    keras.utils.set_random_seed(0)
    model = ACNN(
        window_lengths=(3.0, 5.0),
        kernel_sizes=(1, 3),
        filters=4,
        embedding_dim=4,
        hidden_dim=4,
        dropout=0.3,
    )
    compiled(
        model, keras.optimizers.AdamW(0.01, use_ema=True, ema_momentum=0.9)
    )
    model(next(iter(data(model).dataset))[0])
    return model


def data(model, first_epoch=0):
    queries = np.stack([VECTORS[moment.query_id] for moment in MOMENTS])
    return batches.training_videos(
        MOMENTS, queries, FEATURES, model, batch_size=4, first_epoch=first_epoch
    )


def fit(model, epochs, first_epoch=0, **kwargs):
    made = data(model, first_epoch)
    return model.fit(
        made.dataset,
        steps_per_epoch=made.steps_per_epoch,
        initial_epoch=first_epoch,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        **kwargs,
    ).history


def validation(**kwargs):
    return callbacks.Validation(
        MOMENTS, FEATURES, sentence_vectors=VECTORS, **kwargs
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A model that was validated while it was fitted, and what was logged."""
    path = tmp_path_factory.mktemp("fitted") / "model.keras"
    model, checked = make_model(), validation(path=path)
    other = validation(monitor=None, prefix="train_")
    history = fit(model, 3, callbacks=[checked, other])
    return model, model.get_weights(), history, checked, other


def test_the_saved_model_is_the_best_and_averaged_one(fitted):
    _, _, history, checked, other = fitted
    assert history["train_mIoU"] == history["val_mIoU"]
    assert other.best < 0  # keeps none
    assert float(checked.best) == max(history["val_mIoU"])
    other.set_state(checked.get_state())
    assert other.best == checked.best
    loaded = load_model(checked.path)
    results, _ = evaluation.evaluate(
        loaded, MOMENTS, FEATURES, sentence_vectors=VECTORS
    )
    assert results["mIoU"] == max(history["val_mIoU"])
    best = int(np.argmax(history["val_mIoU"]))
    assert results["R@1,IoU=0.5"] == history["val_R@1_IoU=0.5"][best]


def test_of_equally_good_models_the_first_is_kept(tmp_path, monkeypatch):
    found = iter([0.2, 0.5, 0.5])
    monkeypatch.setattr(
        callbacks, "evaluate", lambda *_, **__: ({"mIoU": next(found)}, None)
    )
    saved = []
    monkeypatch.setattr(
        callbacks, "save_model", lambda model, path: saved.append(path)
    )
    checked = validation(path=tmp_path / "model.keras")
    model = keras.Sequential()
    model.compile("adam")
    checked.set_model(model)
    for epoch in range(3):
        checked.on_epoch_end(epoch, {})
    assert len(saved) == 2
    assert checked.best == 0.5


def test_validation_leaves_the_weights_as_they_were(fitted):
    model = make_model()
    fit(model, 3)
    for one, other in zip(fitted[1], model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_averages_are_lent_and_given_back(fitted):
    model = fitted[0]
    # `fit` ends on the averages; one more step parts the two.
    model.train_on_batch(*next(iter(data(model).dataset)))
    own = model.get_weights()
    with callbacks.averaged_weights(model):
        lent = model.get_weights()
    assert any((a != b).any() for a, b in zip(own, lent))
    for before, after in zip(own, model.get_weights()):
        np.testing.assert_array_equal(before, after)


def test_an_unknown_monitor_is_named():
    checked = validation(monitor="val_nothing")
    checked.set_model(make_model())
    with pytest.raises(ValueError, match=r"one of .*val_mIoU.*val_nothing"):
        checked.on_epoch_end(0, {})
