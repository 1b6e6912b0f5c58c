"""Training that starts from a trained model: its words, weights and flags."""

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from acnn_tf.data.annotations import Moment
from acnn_tf.models import ACNN, CTRL, Ensemble, ZeroShot, start_from
from experiments import model_flags, run_settings, splits, train
from export import command

SMALL = {
    "window_lengths": (2.0, 4.0),
    "kernel_sizes": (1, 3),
    "filters": 4,
    "embedding_dim": 4,
    "hidden_dim": 4,
    "query_encoder": "mean",
    "word_dim": 3,
    "vocabulary": ["a", "dog"],
}
CLIPS = np.random.default_rng(0).normal(size=(9, 6)).astype("float32")


def built(make=ACNN, **changes):
    """A model with weights that no initializer makes, but for its words."""
    model = make(**{**SMALL, **changes})
    query = (None, 5) if model.vocabulary is None else (None, None)
    model.build({"clip": (None, None, 6), "query": query})
    model.adapt(CLIPS)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if not weight.path.endswith(("mean", "scale")):
            weight.assign(rng.normal(size=weight.shape))
    return model


def answers(model, query):
    windows = model.grid.windows(9.0)
    contexts = model.grid.contexts(windows, model.context_size)
    inputs = {
        "clip": CLIPS[None],
        "clip_mask": np.ones((1, 9), bool),
        "segment": np.float32(contexts[None]),
        "duration": np.float32([9.0]),
    }
    window = model.encode_windows(inputs)[0]
    found = model.match(model.encode_queries(query), window)
    return {name: keras.ops.convert_to_numpy(v) for name, v in found.items()}


OF_ACNN = ("kernel_sizes", "filters")


def test_known_words_answer_as_before_and_new_ones_get_rows(subtests):
    plain = {n: v for n, v in SMALL.items() if n not in OF_ACNN}
    for name, trained in (
        ("ACNN", built()),
        ("GRU", built(query_encoder="gru", context_pooling="concat")),
        ("CTRL", built(lambda **own: CTRL(**{n: own[n] for n in plain}))),
        ("Ensemble", built(lambda **own: Ensemble(ACNN, 2, **own))),
    ):
        with subtests.test(name):
            model = start_from(trained, ["cat", "dog", "the"], dropout=0.1)
            assert type(model) is type(trained)
            assert (model.dropout, trained.dropout) == (0.1, 0.3)
            # 0 is padding, 1 an unknown word; then come words, new ones last.
            assert trained.vocabulary == ["a", "dog"]
            assert model.vocabulary == ["a", "dog", "cat", "the"]
            read = model.read_sentences(["A dog", "The cat"])
            assert read.queries.tolist() == [[2, 3], [5, 4]]
            assert read.unknown_words == [[], []]
            query = np.array([[2, 3], [2, 1], [3, 0]])
            before, after = answers(trained, query), answers(model, query)
            for key in ("score", "offset"):
                np.testing.assert_array_equal(after[key], before[key])
            for one, old in zip(
                getattr(model, "networks", [model]),
                getattr(trained, "networks", [trained]),
            ):
                rows = keras.ops.convert_to_numpy(one.words.embeddings)
                np.testing.assert_array_equal(rows[:4], old.words.embeddings)
                # Those of `Embedding`: uniform, up to 0.05.
                assert (0 < np.abs(rows[4:]).max(axis=1)).all()
                assert np.abs(rows[4:]).max() <= 0.05


def test_a_model_of_sentence_vectors_answers_as_before():
    trained = built(vocabulary=None)
    model = start_from(trained, window_lengths=(2.0, 4.0))
    query = np.float32(np.random.default_rng(2).normal(size=(3, 5)))
    before, after = answers(trained, query), answers(model, query)
    np.testing.assert_array_equal(after["score"], before["score"])


def test_what_cannot_be_started_from_is_refused_with_what_differs(refused):
    trained = built()
    for match, call in (
        (
            r"kernel_sizes is \(1, 3\) in the trained model and \(1, 5\) here; "
            "filters is 4 in the trained model and 8 here",
            lambda: start_from(trained, kernel_sizes=(1, 5), filters=8),
        ),
        (
            "offset_unit is window_lengths in the .* and seconds here",
            lambda: start_from(trained, offset_unit="seconds"),
        ),
        ("ACNN, which is not built", lambda: start_from(ACNN())),
        (
            "ACNN, ACRN, CTRL or an Ensemble .* Received: ZeroShot",
            lambda: start_from(ZeroShot()),
        ),
        (
            "takes vectors of sentences.* 1 words, such as 'cat'",
            lambda: start_from(built(vocabulary=None), ["cat"]),
        ),
        (
            "`context_length` is 3 seconds .* windows now count in frames",
            lambda: start_from(
                built(context_length=3.0), frame_rate=4.0, window_lengths=(8,)
            ),
        ),
    ):
        with refused(ValueError, match):
            call()


def split_of(*queries, width=6, encoder=None, vectors=None):
    moments = [
        Moment(str(row), query, "v", 9.0, ((1.0, 4.0),))
        for row, query in enumerate(queries)
    ]
    clips = {"v": CLIPS[:, :width]}
    clips = splits.Preloaded(clips, clips, 1.0, encoder, "clips.hdf5")
    return splits.Split(moments, clips, vectors)


def filled_flags(trained, *words):
    """The flags of a model, once they are filled in."""
    with flagsaver.flagsaver():
        flags.FLAGS(["train", "--workdir=run", *words], known_only=True)
        train.fill_in_flags(trained)
        return command.flag_values(model_flags)


def make(trained, split, *words):
    values = filled_flags(trained, *words)
    return model_flags.make_model(split, trained=trained, **values)


def test_flags_that_are_not_given_are_those_of_the_trained_model(subtests):
    split = split_of("A cat.", "a dog")
    for name, trained, words, changed in (
        ("as it is", built(), [], {}),
        ("frames", built(window_lengths=(2, 4), frame_rate=1.0), [], {}),
        (
            "seconds in place of frames",
            built(window_lengths=(2, 4), frame_rate=1.0),
            ["--window_seconds=3"],
            {"window_lengths": (3.0,), "frame_rate": None},
        ),
        ("mean", built(context_pooling="mean", scorer_activation=None), [], {}),
        (
            "members",
            built(lambda **own: Ensemble(ACNN, 2, **own)),
            ["--dropout=0", "--members=2"],
            {"dropout": 0.0},
        ),
    ):
        with subtests.test(name):
            model = make(trained, split, *words)
            network, old = (
                getattr(one, "networks", [one])[0].settings()
                for one in (model, trained)
            )
            changed["vocabulary"] = ["a", "dog", "cat"]
            for name in old.keys() - {"context_pooling"}:
                assert network[name] == changed.get(name, old[name]), name


def test_word_vectors_are_for_new_words_alone(tmp_path):
    glove = tmp_path / "glove.txt"
    glove.write_text("of 7 7 7\ndog 9 9 9\ncat 1 2 3\n")
    trained = built()
    model = make(trained, split_of("a cat"), f"--word_vectors={glove}")
    # "of" is there because it is common.
    assert model.vocabulary == ["a", "dog", "cat", "of"]
    rows = keras.ops.convert_to_numpy(model.words.embeddings)
    np.testing.assert_array_equal(rows[:4], trained.words.embeddings)
    assert rows[4:].tolist() == [[1, 2, 3], [7, 7, 7]]


def test_flags_and_data_that_do_not_fit_are_refused(refused, tmp_path):
    wide = tmp_path / "glove.txt"
    wide.write_text("a 1 2\n")
    words, vectors = built(encoder=encoder("one")), built(vocabulary=None)
    split = split_of("a cat")
    of_width = {"0": np.ones(7, "float32")}
    for match, trained, data, given in (
        (
            r"--model=acnn and --members=1, not of --model=ctrl",
            *(words, split, ["--model=ctrl"]),
        ),
        (
            r"filters is 4 in the trained model and 8 here",
            *(words, split, ["--filters=8"]),
        ),
        (
            r"clips\.hdf5, video 'v': .* \(9, 5\), but .* clips x 6",
            *(words, split_of("a cat", width=5), []),
        ),
        (
            r"clips\.hdf5: made by two, the model learned from one",
            *(words, split_of("a cat", encoder=encoder("two")), []),
        ),
        (
            r"has 2 numbers for a word, the model of --init_from 3",
            *(words, split, [f"--word_vectors={wide}"]),
        ),
        (
            r"takes words, but sentences come as vectors",
            *(words, split_of("a cat", vectors=of_width), []),
        ),
        (
            r"takes vectors of sentences of 5 numbers .* come as words",
            *(vectors, split, []),
        ),
        (
            r"have 7 numbers, those that .* learned from 5",
            *(vectors, split_of("a cat", vectors=of_width), []),
        ),
        (
            r"--word_vectors are for words",
            vectors,
            split_of("a cat", vectors=of_width),
            [f"--word_vectors={wide}"],
        ),
    ):
        with refused(ValueError, match):
            make(trained, data, *given)


def encoder(name):
    return {"encoder": name, "name": name}


def test_a_run_may_not_go_on_from_another_model(tmp_path):
    workdir, model = tmp_path / "run", tmp_path / "model.keras"
    workdir.mkdir()
    model.write_text("one")
    words, files = [f"--init_from={model}"], {"init_from": model}
    run_settings.write_flags(workdir, words, files)
    moved = model.rename(tmp_path / "moved.keras")
    words = [f"--init_from={moved}"]
    run_settings.check_same(workdir, words, {"init_from": moved})
    moved.write_text("two")
    with pytest.raises(ValueError, match=r"moved\.keras is not the file of th"):
        run_settings.check_same(workdir, words, {"init_from": moved})
    with pytest.raises(ValueError, match="init_from: no file now"):
        run_settings.check_same(workdir, [], {})


def test_a_run_does_not_start_from_itself(tmp_path):
    with flagsaver.flagsaver():
        flags.FLAGS(
            ["train", f"--workdir={tmp_path}", f"--init_from={tmp_path}"],
            known_only=True,
        )
        with pytest.raises(ValueError, match="what --workdir itself writes"):
            train.initial_model()
