"""Networks side by side: each as it would be alone, and together their mean."""

import json

import keras
import numpy as np
import pytest

from acnn_tf import layers, losses, search, servable
from acnn_tf.models import (
    ACNN,
    ACRN,
    CTRL,
    Ensemble,
    ModelFileError,
    load_model,
    save_model,
)
from tests import hostile_archives

RNG = np.random.default_rng(0)
SETTINGS = {"embedding_dim": 4, "hidden_dim": 4, "query_encoder": "mean"}
VOCABULARY = ["a", "man", "runs"]


def floats(*shape):
    return RNG.normal(size=shape).astype("float32")


def make_inputs(model, rows=2, num_clips=12):
    windows = model.grid.windows(float(num_clips))
    segment = model.grid.contexts(windows, model.context_size)
    return {
        "clip": floats(rows, num_clips, 3),
        "clip_mask": np.ones((rows, num_clips), bool),
        "segment": np.repeat(segment[None], rows, axis=0).astype("float32"),
        "duration": np.full(rows, num_clips, "float32"),
        "query": np.array([[2, 3, 0], [4, 3, 2]])[:rows],
        "positive": np.arange(rows, dtype="int32"),
    }


def make_model(network=ACNN, members=3, **settings):
    model = Ensemble(
        network,
        members,
        vocabulary=VOCABULARY,
        window_lengths=(3.0, 5.0),
        **{**SETTINGS, **settings},
    )
    model.adapt([floats(20, 3)])
    model(make_inputs(model))
    return model


def numbers(tensors):
    return {k: keras.ops.convert_to_numpy(v) for k, v in tensors.items()}


@pytest.fixture(scope="module", params=[ACNN, ACRN, CTRL])
def model(request):
    return make_model(request.param)


def test_it_answers_with_the_mean_of_its_networks(model):
    inputs = make_inputs(model)
    one = [
        numbers(
            n.match(
                n.encode_queries(inputs["query"]), n.encode_windows(inputs)[0]
            )
        )
        for n in model.networks
    ]
    assert np.abs(one[0]["score"] - one[1]["score"]).max() > 1e-3
    query = model.encode_queries(inputs["query"])
    window = model.encode_windows(inputs)[0]
    found = numbers(model.match(query, window))
    for name in ("score", "offset"):
        mean = np.mean([output[name] for output in one], axis=0)
        np.testing.assert_allclose(found[name], mean, rtol=1e-5, atol=1e-6)
    # The fast ways of search.
    folded = model.fold(query)
    scores = keras.ops.convert_to_numpy(model.score(folded, window))
    np.testing.assert_allclose(scores.T, found["score"], rtol=1e-4, atol=1e-5)
    rows = np.array([1, 0])
    located = numbers(
        model.locate(folded, rows, keras.ops.stack([window, window]))
    )
    for name in ("score", "offset"):
        np.testing.assert_allclose(
            located[name], found[name][rows], rtol=1e-4, atol=1e-5
        )


def compiled(model):
    model.compile(
        keras.optimizers.SGD(0.1),
        loss={
            "score": losses.VideoAlignmentLoss(),
            "offset": losses.OffsetLoss(),
            "batch_score": losses.AlignmentLoss(),
        },
        jit_compile=False,
    )
    return model


def test_a_network_learns_as_it_would_alone():
    model = make_model(dropout=0.0, clip_dropout=0.0)
    inputs = make_inputs(model)
    num_windows = inputs["segment"].shape[1]
    overlap = np.abs(RNG.uniform(size=(2, num_windows))).astype("float32")
    targets = {
        "score": overlap,
        "offset": np.concatenate(
            [floats(2, num_windows, 2), overlap[..., None]], -1
        ),
        "batch_score": np.array([0, 1], "int32"),
    }
    alone = make_model(members=1, dropout=0.0, clip_dropout=0.0)
    for weight, own in zip(
        alone.networks[0].weights, model.networks[1].weights, strict=True
    ):
        weight.assign(own)
    loss = [
        compiled(one).train_on_batch(inputs, targets) for one in (model, alone)
    ]
    assert loss[0] > loss[1]  # the sum of all
    for weight, own in zip(
        alone.networks[0].weights, model.networks[1].weights, strict=True
    ):
        np.testing.assert_allclose(weight, own, rtol=1e-5, atol=1e-6)


def test_the_file_brings_every_network_back(tmp_path):
    model = compiled(make_model(CTRL, members=2))
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = load_model(path)
    assert loaded.get_config() == model.get_config()
    inputs = make_inputs(model)
    for name, value in numbers(model(inputs)).items():
        np.testing.assert_array_equal(value, numbers(loaded(inputs))[name])


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """What the file of an ensemble holds, by name."""
    path = tmp_path_factory.mktemp("ensemble") / "model.keras"
    save_model(make_model(members=2), path)
    return hostile_archives.read(path)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c.update(network="acnn_tf>ClipNormalization"), "a model"),
        (lambda c: c.update(network="acnn_tf>Ensemble"), "a model"),
        (lambda c: c.update(members="3"), "TypeError"),
        (lambda c: c.update(members=33), "from 1 to 32"),
        (lambda c: c.update(members=10**6), "at most 1,000"),
        (lambda c: c["settings"].update(layers=[]), r"settings of .*'layers'"),
        (lambda c: c.update(layers=[]), r"settings of .*'layers'"),
        (lambda c: c["settings"].update(embedding_dim=10**9), "ask for"),
        (lambda c: c.pop("settings"), "KeyError: 'settings'"),
    ],
)
def test_a_file_of_other_settings_is_refused(change, words, members, tmp_path):
    config = json.loads(members["config.json"])
    change(config["config"])
    changed = {**members, "config.json": json.dumps(config)}
    hostile_archives.pack(tmp_path / "model.keras", changed.items())
    with pytest.raises(ModelFileError, match=words):
        load_model(tmp_path / "model.keras")


def test_every_network_gets_a_layer_of_its_own(tmp_path):
    pooling = layers.AttentionPooling("relu")
    model = make_model(context_pooling=pooling)
    found = [network.pooling for network in model.networks]
    assert len({id(one) for one in [pooling, *found]}) == 4
    assert {one.activation for one in found} == {keras.activations.relu}
    save_model(model, tmp_path / "model.keras")
    inputs = make_inputs(model)
    for load in (load_model, keras.saving.load_model):
        loaded = load(tmp_path / "model.keras")
        for name, value in numbers(model(inputs)).items():
            np.testing.assert_array_equal(value, numbers(loaded(inputs))[name])


def test_a_built_model_is_adapted():
    model = make_model(CTRL, members=2)
    model.adapt([np.array([[1.0] * 3, [3.0] * 3])])
    for network in model.networks:
        np.testing.assert_array_equal(network.normalization.mean, 2.0)


@pytest.mark.parametrize(
    "arguments", [(ACNN, 0), (ACNN, 33), ("ACNN", 3), (keras.Model, 3)]
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=r"`network`|`members`"):
        Ensemble(*arguments)


def test_it_is_searched_and_served_as_one_model(tmp_path):
    model = make_model(members=2)
    index = search.MomentIndex(model)
    index.append({"v": floats(12, 3)}, {"v": 12.0})
    found = index.search(np.array([[2, 3, 4]]), top_n=3)
    assert len(found[0]) >= 1
    errors = servable.export(model, tmp_path / "1", index=index)
    assert max(errors.values()) < 1e-4


def test_word_vectors_and_attention_are_those_of_all():
    model = make_model(members=2)
    model.set_word_vectors(["man"], np.ones((1, 300), "float32"))
    for network in model.networks:
        np.testing.assert_array_equal(network.words.embeddings[3], 1)
    weights = model.attention_weights(make_inputs(model))
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1, rtol=1e-5)
    assert model.kernel_sizes == (1, 3, 5)  # what pictures ask for
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = model.nothing
