"""The models that ACNN is compared with, and what holds for all models."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from acnn_tf import search, servable
from acnn_tf.data import batches, pair_batches
from acnn_tf.data.annotations import Moment
from acnn_tf.data.windows import pool_clips
from acnn_tf.models import ACNN, ACRN, CTRL, load_model, save_model
from tests.test_acnn import (
    by_hand,
    clips,
    compiled,
    training_batch,
    video_inputs,
)

RNG = np.random.default_rng(0)
ACNN_SIZE = {"kernel_sizes": (1, 3, 5), "filters": 6}


class GatedPooling(keras.layers.Layer):
    """Somebody's: the largest of gated vectors, then a layer; no `build`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gate = keras.layers.Dense(1, "sigmoid")
        self.widen = keras.layers.Dense(9)

    def call(self, inputs):
        pooled = keras.ops.max(inputs * self.gate(inputs), axis=-2)
        return self.widen(pooled)


MODELS = {
    "acnn": (ACNN, ACNN_SIZE),
    "acnn_concat": (ACNN, {"context_pooling": "concat", **ACNN_SIZE}),
    "acnn_gated": (
        ACNN,
        {
            "context_pooling": GatedPooling,
            "first_order_query": False,
            **ACNN_SIZE,
        },
    ),
    "acrn": (ACRN, {"context_size": 5}),
    "ctrl": (CTRL, {"context_size": 5}),
}


def make_model(name, **arguments):
    keras.utils.set_random_seed(1)
    make, own = MODELS[name]
    settings = {
        "window_lengths": (2.0, 3.5),
        "window_overlap": 0.5,
        "dilation": 1,
        "embedding_dim": 8,
        "hidden_dim": 7,
        "clip_seconds": 0.5,
        "dropout": 0.0,
        "clip_dropout": 0.0,
        "query_encoder": "mean",
    }
    settings |= {k: v() if isinstance(v, type) else v for k, v in own.items()}
    model = make(**settings | arguments)
    model.build({"clip": (None, None, 4), "query": (None, 8)})
    model.adapt(np.concatenate(clips()) * 3 + 1)
    for weight in model.trainable_weights:  # biases and offsets too
        weight.assign(0.4 * RNG.normal(size=weight.shape))
    return model


@pytest.fixture(scope="module")
def models():
    """Name -> model, which no test changes."""
    return {name: make_model(name) for name in MODELS}


def pairs(model):
    """Encoded queries, and the encoded windows of one video."""
    inputs, windows = video_inputs(model, clips())
    window = model.encode_windows(inputs)[0, : len(windows[0])]
    query = model.encode_queries(RNG.normal(size=(3, 8)).astype("float32"))
    return query, window


# Equations by hand: clips 1, 3, 5, 7 pool to windows 2, 4, 6.


def test_ctrl_by_hand():
    model, inputs = by_hand(CTRL, context_size=5, embedding_dim=1, hidden_dim=1)
    model.context.set_weights(
        [*np.array([2.0, 1.0, 5.0]).reshape(3, 1, 1), np.array([1.0])]
    )
    model.query_projection.set_weights([np.array([[2.0]]), np.array([1.0])])
    model.head.set_weights(
        [
            np.array([[0.5]]),  # product
            np.array([[1.0]]),  # sum
            np.array([[2.0]]),  # window
            np.array([[-1.0]]),  # query
            np.array([0.25]),
            np.array([[1.0, 0.5, -0.5]]),
            np.array([0.0, 1.0, 2.0]),
        ]
    )
    # First window: nothing before, 2, after it the mean of 4 and 6:
    # 2 + 5 * 5 + 1 = 28. Second: 2 * 2 + 4 + 5 * 6 + 1 = 39. Third: before it
    # the mean of 2 and 4: 2 * 3 + 6 + 1 = 13.
    np.testing.assert_allclose(
        model.encode_windows(inputs)[0, :, 0], [28, 39, 13], rtol=1e-6
    )
    # q = 2 * 2 + 1 = 5; v = 13: 0.5 * 65 + 18 + 2 * 13 - 5 + 0.25 = 71.75.
    outputs = model(inputs)
    np.testing.assert_allclose(outputs["score"][0, 2], 71.75, rtol=1e-6)
    np.testing.assert_allclose(
        outputs["offset"][0, 2], [36.875, -33.875], rtol=1e-6
    )


def test_acrn_by_hand():
    model, inputs = by_hand(
        ACRN,
        embedding_dim=2,
        pool_size=2,
        hidden_dim=None,
        memory_activation=None,
    )
    model.window_projection.set_weights([np.array([[1.0, 2.0]])])
    model.memory.set_weights([np.array([1.0, 0.0])])
    quarter = np.log(3.0) / 4
    model.query_projection.set_weights(
        [np.zeros((1, 2)), np.array([quarter, 0.0])]
    )
    model.head.set_weights(
        [
            np.array([8.0, 0.0, 0.0]).reshape(1, 3, 1),  # cross
            np.array([[2.0, 1.0, -1.0]]),  # window
            np.array([[8.0, 0.0, 0.0]]),  # query
            np.array([0.5, 0.0, 0.0]),
        ]
    )
    # The first window has none before it, itself (2) and one after it (4).
    np.testing.assert_allclose(
        model.encode_windows(inputs)[0, 0], [0, 0, 2, 4, 4, 8], rtol=1e-6
    )
    # Read so far: (2, 4) + (1, 0) = (3, 4), then (6, 12) + (1, 0) = (7, 12).
    # Against the query (log 3 / 4, 0) they differ by log 3: weights 1/4, 3/4.
    # m = (3, 4) / 4 + 3 (5, 8) / 4 = (4.5, 7), pooled 5.75; q' = log 3 / 8.
    outputs = model(inputs)
    expected = 5.75 * np.log(3) + 2 * 5.75 + np.log(3) + 0.5
    np.testing.assert_allclose(outputs["score"][0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(
        outputs["offset"][0, 0], [5.75, -5.75], rtol=1e-6
    )


def test_acnn_without_attention_by_hand():
    taps = np.array([2.0, 0.0, 1.0, 1.0]).reshape(4, 1, 1)
    for pooling, kernel, expected in (
        # Kernels of 1 and 3 see 2 * 2 = 4 and 2 + 4 + 1 = 7.
        ("mean", [[3.0]], 3 * 5.5 + 1),
        ("concat", [[1.0], [2.0]], 4 + 2 * 7 + 1),
    ):
        model, inputs = by_hand(
            ACNN,
            kernel_sizes=(1, 3),
            filters=1,
            embedding_dim=1,
            context_pooling=pooling,
        )
        model.context.set_weights([*taps, np.zeros(1), np.ones(1)])
        model.window_projection.set_weights([np.array(kernel), np.ones(1)])
        np.testing.assert_allclose(
            model.encode_windows(inputs)[0, 0, 0], expected, rtol=1e-6
        )
        assert model.attention_weights(inputs) is None


# Fast ways against plain ones


def literal_acrn(model, q, memory):
    """Score and offsets of one pair, equation by equation."""
    width = model.embedding_dim
    cells = [cell for cell in memory.reshape(-1, width) if cell.any()]
    bias = np.asarray(model.memory.bias)
    read = [sum(cells[: j + 1]) + bias for j in range(len(cells))]
    e = np.array([np.tanh(one) @ np.tanh(q) for one in read])
    weights = np.exp(e - e.max())
    weights /= weights.sum()
    m = sum(a * (cell + bias) for a, cell in zip(weights, cells))
    m, q = (x.reshape(-1, model.pool_size).mean(axis=1) for x in (m, q))
    head = {w.name: np.asarray(w) for w in model.head.weights}
    hidden = np.einsum("jhi,i,j->h", head["cross_kernel"], q, m)
    hidden += m @ head["window_kernel"] + q @ head["query_kernel"]
    hidden = np.maximum(hidden + head["bias"], 0)
    return hidden @ head["output_kernel"] + head["output_bias"]


def test_acrn_equals_its_equations_pair_by_pair(models):
    model = models["acrn"]
    query, window = pairs(model)
    output = model.match(query, window)
    for i, q in enumerate(np.asarray(query)):
        for j, memory in enumerate(np.asarray(window)):
            found = [output["score"][i, j], *output["offset"][i, j]]
            np.testing.assert_allclose(
                found, literal_acrn(model, q, memory), atol=1e-4
            )


def test_folded_queries_score_and_locate_as_match_does(subtests, models):
    plain = {
        f"{name} without hidden layer": make_model(name, hidden_dim=None)
        for name in ("acnn_gated", "acrn", "ctrl")
    }
    for name, model in (models | plain).items():
        query, window = pairs(model)
        expected = model.match(query, window)
        folded = model.fold(query)
        row = np.array([2, 0])
        located = model.locate(folded, row, np.stack([window[:2], window[1:3]]))
        score = model.score(folded, window)
        rough = model.score(folded, keras.ops.cast(window, "bfloat16"))
        with subtests.test(name):
            np.testing.assert_allclose(
                score, keras.ops.transpose(expected["score"]), atol=1e-4
            )
            for key, value in expected.items():
                picked = np.stack([value[2, :2], value[0, 1:3]])
                np.testing.assert_allclose(located[key], picked, atol=1e-4)
            assert rough.dtype == "bfloat16"
            scale = np.abs(score).max()
            np.testing.assert_allclose(
                keras.ops.cast(rough, "float32"), score, atol=0.1 * scale
            )


# What holds for all models


def test_pooled_windows_and_clips_give_the_same_numbers(subtests, models):
    (clip,) = clips((9,))
    half = make_model("acnn", dtype="mixed_bfloat16")
    frames = {"window_lengths": (16, 28), "frame_rate": 8.0}
    others = {"half": half, "frames": make_model("acnn", **frames)}
    for name, model in (models | others).items():
        # 4.5 s of a video that is said to last 6: the last windows are
        # missing.
        windows = model.grid.windows(6.0)
        context = model.grid.contexts(windows, model.context_size)
        shared = {
            "segment": context[None].astype("float32"),
            "duration": np.array([6.0], "float32"),
        }
        pooled = pool_clips(clip, context, model.clip_seconds)
        mask = np.ones((1, 9), bool)
        whole = {"clip": clip[None], "clip_mask": mask, **shared}
        with subtests.test(name):
            found = [
                keras.ops.cast(model.encode_windows(inputs), "float32")
                for inputs in ({"window": pooled[None], **shared}, whole)
            ]
            np.testing.assert_allclose(
                *found, atol=0.2 if name == "half" else 1e-5
            )


def test_padding_changes_nothing(subtests, models):
    for name, model in models.items():
        together, windows = video_inputs(model, videos := clips())
        together = model.encode_windows(together)
        for row, clip in enumerate(videos):
            alone, _ = video_inputs(model, [clip])
            with subtests.test(name, row=row):
                np.testing.assert_allclose(
                    together[row, : len(windows[row])],
                    model.encode_windows(alone)[0],
                    atol=1e-5,
                )


def test_training_scores_are_those_of_match(subtests, models):
    for name, model in models.items():
        inputs, _ = training_batch(model)
        outputs = model(inputs)
        window = model.encode_windows(inputs)
        query = model.encode_queries(inputs["query"])
        for row in range(2):
            found = model.match(query[row : row + 1], window[row])
            best = window[row, inputs["positive"][row]]
            column = model.match(query, best[None])["score"][:, 0]
            with subtests.test(name, row=row):
                for key in ("score", "offset"):
                    np.testing.assert_allclose(
                        outputs[key][row], found[key][0], atol=1e-4
                    )
                np.testing.assert_allclose(
                    outputs["batch_score"][:, row], column, atol=1e-4
                )


def test_gradients_reach_all_weights():
    unreached = []
    for name in MODELS:
        model = make_model(name, vocabulary=["a", "b", "c"], word_dim=3)
        inputs, _ = training_batch(model)
        with tf.GradientTape() as tape:
            outputs = model(inputs).values()
            total = sum(keras.ops.sum(keras.ops.sin(o)) for o in outputs)
        weights = model.trainable_weights
        gradients = tape.gradient(total, [weight.value for weight in weights])
        unreached += [
            f"{name}: {weight.path}"
            for weight, gradient in zip(weights, gradients)
            if not np.abs(tf.convert_to_tensor(gradient)).max() > 0
        ]
    assert not unreached


def moments_and_features():
    moments, features = [], {}
    for number in range(4):
        features[f"v{number}"] = RNG.normal(size=(12, 4)).astype("float32")
        for start, end in ((0.0, 2.0), (3.0, 6.0)):
            query_id = f"q{number}_{start:g}"
            moments.append(
                Moment(query_id, "a", f"v{number}", 6.0, ((start, end),))
            )
    return moments, features


@pytest.mark.parametrize("name", ["acnn_concat", "acrn", "ctrl"])
def test_both_kinds_of_batches_train_it_and_its_archive_keeps_it(
    name, tmp_path
):
    model = compiled(make_model(name))
    moments, features = moments_and_features()
    queries = RNG.normal(size=(len(moments), 8)).astype("float32")
    for make in (batches.training_videos, pair_batches.training_pairs):
        data = make(moments, queries, features, model, batch_size=2)
        before = model.get_weights()
        history = model.fit(
            data.dataset, steps_per_epoch=1, shuffle=False, verbose=0
        ).history
        assert np.isfinite(history["loss"]).all()
        assert any((a != b).any() for a, b in zip(before, model.get_weights()))
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert loaded.get_config() == model.get_config()
    inputs, _ = training_batch(model)
    for key, value in model(inputs).items():
        np.testing.assert_array_equal(value, loaded(inputs)[key])


def test_a_layer_without_build_is_built_by_training():
    model = compiled(ACNN(**ACNN_SIZE, context_pooling=GatedPooling()))
    inputs, targets = training_batch(model)
    history = model.fit(inputs, targets, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert model.window_projection.kernel.shape[0] == 9


def test_it_is_searched_and_served_with_the_numbers_of_match(models, tmp_path):
    # As CTRL is by an ensemble, in its tests.
    model = models["acrn"]
    features = {
        f"v{number}": RNG.normal(size=(6 + number, 4)) for number in range(7)
    }
    index = search.MomentIndex(model)
    index.append(features)
    queries = RNG.normal(size=(2, 8)).astype("float32")
    for query, found in zip(queries, index.search_queries(queries, top_n=3)):
        query = model.encode_queries(query[None])
        best = [
            scores.max()
            for video in index.videos()
            for scores in search.candidates(model, query, video)[1]
        ]
        np.testing.assert_allclose(found[0].score, max(best), rtol=1e-5)
    errors = servable.export(model, tmp_path / "1", index=index, top_n=3)
    assert set(errors) > {"search", "localize"}
    assert max(errors.values()) < 1e-5


def test_bad_arguments_are_named(refused):
    for make, arguments in (
        (CTRL, {"context_size": 2}),
        (ACRN, {"pool_size": 3, "embedding_dim": 8}),
        (ACNN, {"context_pooling": "max"}),
    ):
        with refused(ValueError, "Received"):
            make(**arguments)


def test_a_file_asks_for_no_more_context_than_is_sane(refused, tmp_path):
    for make in (CTRL, ACRN):
        model = make(context_size=1001, query_encoder="mean")
        model.build({"clip": (None, None, 1), "query": (None, 1)})
        model.save(tmp_path / "model.keras")
        with refused(ValueError, "at most 1,000 context windows"):
            load_model(tmp_path / "model.keras")
