"""Words that a model does not know: named, and never answered by chance."""

import os

import numpy as np
import pytest
import tensorflow as tf

from acnn_tf import evaluation, plots, search
from acnn_tf.data.annotations import Moment
from acnn_tf.data.sentences import Vocabulary
from acnn_tf.servable.signatures import NO_SCORE, Signatures
from experiments import evaluation_plots, splits
from export.protocol.merging import read_moments
from tests import small_acnn

SENTENCES = ["A person opens teh dor", "the door", "xx yy", "?!", ""]
UNKNOWN = [["teh", "dor"], [], ["xx", "yy"], [], []]
IS_KNOWN = [True, True, False, False, False]


@pytest.fixture(scope="module")
def index():
    return small_acnn.make_index(
        small_acnn.make_model(), features=small_acnn.make_features(5)
    )


def test_a_vocabulary_names_them():
    read = Vocabulary(small_acnn.WORDS).read(SENTENCES)
    assert read.unknown_words == UNKNOWN
    assert read.is_known == IS_KNOWN
    words = Vocabulary(["a"]).read(["b a b c"]).unknown_words
    assert words == [["b", "c"]]


def test_a_search_names_them_and_answers_the_others(index):
    found = index.search(SENTENCES, top_n=3)
    assert [moments.query for moments in found] == SENTENCES
    assert [moments.unknown_words for moments in found] == UNKNOWN
    assert [bool(moments) for moments in found] == IS_KNOWN
    # As if they had been asked alone.
    alone = index.search(["the door"], top_n=3)
    small_acnn.assert_alike(found[1:2], alone)
    ids = Vocabulary(small_acnn.WORDS).encode(["the door"])
    assert alone == index.search_queries(ids, top_n=3)
    assert index.search([]) == []
    assert index.search(["?!"], top_n=3) == [[]]


def test_sentences_are_lists_of_strings(index):
    for wrong in ("a door", [1], [b"a door"]):
        with pytest.raises(ValueError, match="`sentences` must be"):
            index.search(wrong)
    vectors = search.MomentIndex(small_acnn.make_model(vocabulary=None))
    with pytest.raises(ValueError, match="takes vectors of sentences"):
        vectors.search(["a door"])


def test_the_servable_names_them_row_by_row(index):
    signatures = Signatures(index.model, index, top_n=3)
    clip = np.random.default_rng(0).normal(size=(1, 9, small_acnn.CLIP_DIM))
    outputs = {
        "search": signatures.search(tf.constant(SENTENCES)),
        "localize": signatures.localize(
            tf.constant(clip, tf.float32),
            tf.constant([9]),
            tf.constant([0.0], tf.float64),
            tf.constant(SENTENCES),
        ),
    }
    for name, output in outputs.items():
        output = {key: value.numpy() for key, value in output.items()}
        words = [b" ".join(w.encode() for w in row) for row in UNKNOWN]
        assert output["unknown_words"].tolist() == words
        nothing = ~np.array(IS_KNOWN)
        assert (output["score"][nothing] == np.float32(NO_SCORE)).all()
        assert (output["end"][nothing] == 0).all()
        if name == "search":
            assert (output["video_id"][nothing] == b"").all()
        # What a client makes of it.
        found = read_moments(output)
        assert [moments.unknown_words for moments in found] == UNKNOWN
        assert [bool(moments) for moments in found] == IS_KNOWN


def test_an_evaluation_counts_them_as_misses(index):
    rng = np.random.default_rng(0)
    features = {"v": rng.normal(size=(20, small_acnn.CLIP_DIM))}
    moments = [
        Moment(str(row), sentence, "v", 20.0, ((0.0, 20.0),))
        for row, sentence in enumerate(["the door", "xx yy"])
    ]
    results, predictions = evaluation.evaluate(index.model, moments, features)
    alone, _ = evaluation.evaluate(index.model, moments[:1], features)
    assert (results["num_unknown"], alone["num_unknown"]) == (1, 0)
    assert len(predictions[0]) > len(predictions[1]) == 0
    for key, value in alone.items():
        if isinstance(value, float):
            assert results[key] == pytest.approx(value / 2)
    assert "1 queries, of which" in evaluation.format_table(results)


def test_plots_leave_out_what_found_nothing(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "recall_table", lambda *_: "table.png")
    monkeypatch.setattr(plots, "timeline", lambda path, **_: drawn.append(path))
    monkeypatch.setattr(evaluation, "attention", lambda *_: None)
    monkeypatch.setattr(evaluation, "score_curve", lambda *_: None)
    moments = [
        Moment(name, "a door", "v", 9.0, ((0.0, 3.0),)) for name in "abc"
    ]
    found, nothing = np.array([[0.0, 3.0, 1.0]]), np.zeros((0, 3))
    for predictions, names in (
        ([found, nothing, found], ["a", "c"]),
        ([nothing] * 3, []),
    ):
        drawn.clear()
        evaluation_plots.draw_evaluation(
            str(tmp_path),
            None,
            splits.Split(moments, {}, None),
            {"protocol": ""},
            predictions,
            timelines=2,
        )
        assert [os.path.basename(path)[0] for path in drawn] == names
