"""Networks side by side: each as it would be alone, and together their mean."""

import json

import keras
import numpy as np
import pytest

from acnn_tf import layers, search, servable
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
from tests.test_acnn import compiled, training_batch

RNG = np.random.default_rng(0)
SETTINGS = {"embedding_dim": 4, "hidden_dim": 4, "query_encoder": "mean"}
VOCABULARY = ["a", "man", "runs"]


def floats(*shape):
    return RNG.normal(size=shape).astype("float32")


def make_inputs(model):
    return training_batch(model)[0]


def make_model(network=ACNN, members=3, **settings):
    model = Ensemble(
        network,
        members,
        vocabulary=VOCABULARY,
        window_lengths=(3.0, 5.0),
        **{**SETTINGS, **settings},
    )
    model.adapt([floats(20, 4)])
    model(make_inputs(model))
    return model


def numbers(tensors):
    return {k: keras.ops.convert_to_numpy(v) for k, v in tensors.items()}


def test_it_answers_with_the_mean_of_its_networks(subtests):
    for network in (ACNN, ACRN, CTRL):
        model = make_model(network)
        inputs = make_inputs(model)
        queries = inputs["query"]
        query = model.encode_queries(queries)
        window = model.encode_windows(inputs)[0]
        one = [
            n.match(n.encode_queries(queries), n.encode_windows(inputs)[0])
            for n in model.networks
        ]
        found = numbers(model.match(query, window))
        # The fast ways of search.
        folded = model.fold(query)
        scores = model.score(folded, window)
        rows = np.array([1, 0])
        located = model.locate(folded, rows, keras.ops.stack([window, window]))
        with subtests.test(network.__name__):
            assert np.abs(one[0]["score"] - one[1]["score"]).max() > 1e-3
            for name, value in found.items():
                mean = np.mean([output[name] for output in one], axis=0)
                np.testing.assert_allclose(value, mean, rtol=1e-5, atol=1e-6)
                np.testing.assert_allclose(
                    located[name], value[rows], rtol=1e-4, atol=1e-5
                )
            np.testing.assert_allclose(
                scores, found["score"].T, rtol=1e-4, atol=1e-5
            )


def test_a_network_learns_as_it_would_alone():
    model = make_model(dropout=0.0, clip_dropout=0.0)
    inputs, targets = training_batch(model)
    alone = make_model(members=1, dropout=0.0, clip_dropout=0.0)
    for weight, own in zip(
        alone.networks[0].weights, model.networks[1].weights, strict=True
    ):
        weight.assign(own)
    loss = [
        compiled(one, keras.optimizers.SGD(0.1)).train_on_batch(inputs, targets)
        for one in (model, alone)
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


def test_a_file_of_other_settings_is_refused(refused, tmp_path):
    path = tmp_path / "model.keras"
    save_model(make_model(members=2), path)
    members = hostile_archives.read(path)
    for change, words in (
        (lambda c: c.update(network="acnn_tf>ClipNormalization"), "a model"),
        (lambda c: c.update(network="acnn_tf>Ensemble"), "a model"),
        (lambda c: c.update(members="3"), "TypeError"),
        (lambda c: c.update(members=33), "from 1 to 32"),
        (lambda c: c.update(members=10**6), "at most 1,000"),
        (lambda c: c["settings"].update(layers=[]), r"settings of .*'layers'"),
        (lambda c: c.update(layers=[]), r"settings of .*'layers'"),
        (lambda c: c["settings"].update(embedding_dim=10**9), "ask for"),
        (lambda c: c.pop("settings"), "KeyError: 'settings'"),
    ):
        config = json.loads(members["config.json"])
        change(config["config"])
        changed = {**members, "config.json": json.dumps(config)}
        hostile_archives.pack(path, changed.items())
        with refused(ModelFileError, words):
            load_model(path)


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
    model.adapt([np.array([[1.0] * 4, [3.0] * 4])])
    for network in model.networks:
        np.testing.assert_array_equal(network.normalization.mean, 2.0)


def test_bad_arguments_are_named(refused):
    for arguments in ((ACNN, 0), (ACNN, 33), ("ACNN", 3), (keras.Model, 3)):
        with refused(ValueError, r"`network`|`members`"):
            Ensemble(*arguments)


@pytest.mark.soak
def test_it_is_searched_and_served_as_one_model(tmp_path):
    model = make_model(CTRL, members=2)
    index = search.MomentIndex(model)
    index.append({"v": floats(12, 4)}, {"v": 12.0})
    words = np.array([[2, 3, 4]])
    ((best, *_),) = index.search_queries(words, top_n=3)
    (video,) = index.videos()
    _, scores = search.candidates(model, model.encode_queries(words), video)
    np.testing.assert_allclose(best.score, scores.max(), rtol=1e-5)
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
