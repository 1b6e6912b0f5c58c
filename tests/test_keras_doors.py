"""What Keras offers for every model: it works, or says what does."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest

from acnn_tf import (
    callbacks,
    evaluation,
    losses,
    models,
    search,
    servable,
    training,
)
from acnn_tf.data import batches
from acnn_tf.data.annotations import Moment
from acnn_tf.data.sentences import query_inputs
from tests import small_acnn

RNG = np.random.default_rng(0)
FEATURES = {
    name: RNG.normal(size=(20, small_acnn.CLIP_DIM)).astype("float32")
    for name in ("v", "w")
}
MOMENTS = [
    Moment(str(row), query, video, 20.0, ((2.0, 8.0),))
    for row, (query, video) in enumerate(
        itertools.product(("the door", "a person opens"), FEATURES)
    )
]


def make(**arguments):
    """A compiled model and its training batches."""
    model = small_acnn.make_model(**arguments)
    model.compile(
        "adam",
        loss={
            "score": losses.VideoAlignmentLoss(),
            "batch_score": losses.AlignmentLoss(),
            "offset": losses.OffsetLoss(),
        },
        jit_compile=False,
    )
    queries = query_inputs(MOMENTS, model.vocabulary)
    return model, batches.training_videos(MOMENTS, queries, FEATURES, model)


def test_ways_out_that_lead_nowhere_name_the_one_that_does(tmp_path):
    for kind in (models.ACNN, models.CTRL, models.ACRN):
        model = kind(vocabulary=["a"])
        with pytest.raises(ValueError, match=r"acnn_tf\.servable\.export"):
            model.export(tmp_path / "servable")
        with pytest.raises(ValueError, match=r"must end in \.keras"):
            model.save(tmp_path / "model.h5")
    with pytest.raises(ValueError, match=r"acnn_tf\.servable\.export"):
        models.Ensemble(models.ACNN, vocabulary=["a"]).export(tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_what_needs_tensorflow_says_so_on_other_backends(tmp_path, monkeypatch):
    model = small_acnn.make_model()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for call in (
        lambda: servable.export(model, tmp_path / "servable"),
        lambda: training.ResumableTraining(model, tmp_path / "checkpoints"),
    ):
        with pytest.raises(ValueError, match=r"TensorFlow backend.*jax"):
            call()
    assert not list(tmp_path.iterdir())


def test_half_precision_of_variables_is_refused():
    for dtype in ("float16", "bfloat16"):
        with pytest.raises(ValueError, match=f"'mixed_{dtype}'"):
            models.ACNN(vocabulary=["a"], dtype=dtype)
    # As of `keras.config.set_floatx("float16")` in a new process.
    keras.config.set_dtype_policy("float16")
    try:
        with pytest.raises(ValueError, match="Seconds do not fit float16"):
            models.CTRL(vocabulary=["a"])
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.soak
def test_a_model_trained_in_mixed_precision_is_exported(tmp_path):
    model, made = make(dtype="mixed_bfloat16")
    model.fit(made.dataset, steps_per_epoch=2, shuffle=False, verbose=0)
    errors = servable.export(model, tmp_path / "servable")
    assert errors
    assert (tmp_path / "servable" / "saved_model.pb").exists()


def test_predict_and_summary_work(capsys):
    model, made = make()
    inputs, _ = next(iter(made.dataset))
    whole = model.predict(inputs, verbose=0)
    inputs = dict(inputs)
    del inputs["positive"]
    alone = model.predict(inputs, verbose=0)
    assert alone.keys() == {"score", "offset"}
    for name, value in alone.items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-5, atol=1e-5)
    model.summary()
    assert "context (TemporalContext)" in capsys.readouterr().out


@pytest.mark.soak
def test_early_stopping_sees_the_validation_before_it():
    model, made = make()
    stopping = keras.callbacks.EarlyStopping(
        "val_mIoU", mode="max", min_delta=1.0
    )
    history = model.fit(
        made.dataset,
        steps_per_epoch=1,
        epochs=20,
        shuffle=False,
        verbose=0,
        callbacks=[callbacks.Validation(MOMENTS, FEATURES), stopping],
    )
    assert 1 < len(history.history["val_mIoU"]) < 20


def test_arguments_of_python_are_checked():
    for error, call in (
        ("`vocabulary` must be a list", lambda: models.ACNN(vocabulary="abc")),
        ("`vocabulary` must be a list", lambda: models.ACNN(vocabulary=[1])),
        ("`vocabulary` must be a list", lambda: models.ACNN(vocabulary="aa")),
        ("`clip_seconds`", lambda: models.ACNN(clip_seconds=-1.0)),
        (
            "must be finite",
            lambda: models.ACNN().adapt(np.full((2, 3), np.nan)),
        ),
    ):
        with pytest.raises(ValueError, match=error):
            call()
    model = small_acnn.make_model()
    queries = query_inputs(MOMENTS, model.vocabulary)

    def train(moments=MOMENTS, queries=queries, features=FEATURES, **settings):
        batches.training_videos(moments, queries, features, model, **settings)

    for error, arguments in (
        ("`moments` must not be empty", {"moments": []}),
        ("a row for each of the 4", {"queries": queries[:3]}),
        ("have no video 'v'", {"features": {}}),
        ("'w'", {"features": {"v": FEATURES["v"]}}),
        ("6", {"features": {**FEATURES, "w": FEATURES["w"][:, :5]}}),
        ("from 0 to 10", {"queries": -queries}),
        ("from 0 to 10", {"queries": queries + 20}),
        ("from 0 to 10", {"queries": queries.astype("float32")}),
        ("not finite", {"features": {**FEATURES, "w": FEATURES["w"] * np.nan}}),
        ("type <U", {"features": {**FEATURES, "w": FEATURES["w"].astype(str)}}),
        ("`batch_size`", {"batch_size": -1}),  # which never came to an end
        ("`batch_size`", {"batch_size": 0}),
        ("`crop`", {"crop": np.nan}),
    ):
        with pytest.raises((ValueError, KeyError), match=error):
            train(**arguments)
    index = search.MomentIndex(model)
    for wrong in ([[-1, 2]], [[2, 11]], [[True, False]], [2, 3], [[2.0]]):
        for call in (model.encode_queries, index.search_queries):
            with pytest.raises(ValueError, match="word ids"):
                call(np.array(wrong))
    for wrong in ((), ((6.0, 2.0),), ((30.0, 40.0),), ((np.nan, 2.0),)):
        moments = [dataclasses.replace(MOMENTS[0], segments=wrong)]
        error = "within their videos" if wrong else "must have segments"
        with pytest.raises(ValueError, match=error):
            train(moments, queries[:1])
        with pytest.raises(ValueError, match=error):
            evaluation.evaluate(model, moments, FEATURES)
    with pytest.raises(ValueError, match="`duration` must be positive"):
        index.add_missing(FEATURES, {"v": 0.0})
    for duration in (np.inf, np.nan, 0.0, 1e11):
        with pytest.raises(ValueError, match=r"duration|windows"):
            model.grid.windows(duration)
    hours = {"v": np.zeros((86400, small_acnn.CLIP_DIM), np.float32)}
    long = Moment("q", "the door", "v", 86400.0, ((2.0, 8.0),))
    with pytest.raises(ValueError, match="--batches=pairs"):
        batches.training_videos([long], queries[:1], hours, model)
