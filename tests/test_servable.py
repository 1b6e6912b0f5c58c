"""The servable: graphs against the library, then the SavedModel itself."""

import functools
import types
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from acnn_tf import search, servable
from acnn_tf.data.sentences import Vocabulary
from acnn_tf.data.windows import WindowGrid, contexts_of
from acnn_tf.files.text import MAX_CHARACTERS
from acnn_tf.models import ACNN, ZeroShot
from acnn_tf.servable import encoding, windows
from acnn_tf.servable import signatures as signatures_module
from acnn_tf.servable.normal_forms import NFC
from acnn_tf.servable.word_ids import WordIds
from tests.small_acnn import CLIP_DIM, MODELS, WORDS, make_index, make_model

RNG = np.random.default_rng(0)


# Sentences


@functools.cache
def word_ids():
    return WordIds(WORDS)


@functools.cache
def word_ids_graph():
    """The graph of `word_ids`, as a servable has it."""
    strings = tf.TensorSpec([None], tf.string)
    return tf.function(word_ids(), [strings], autograph=False)


def test_word_ids_are_those_of_training():
    sentences = [
        "A person opens the door.",
        "the PERSON'S door",
        "the person\N{RIGHT SINGLE QUOTATION MARK}s door?!",
        "don't",
        "caf\u00e9",
        "cafe\u0301",
        "CAFE\u0301s",
        # e with circumflex and dot below, in each way of writing it.
        "vi\u1ec7t",
        "vie\u0323\u0302t",
        "vie\u0302\u0323t",
        "vi\u00ea\u0323t",
        "\u0323a person",
        "\u212b ngstrom \ud55c\uad6d",
        "unknown words only",
        "",
        "  ...  ",
        "the\tdoor\nopens\0now",
        "\N{GRINNING FACE} door",
        "\ufeffthe door",
    ]
    assert_reads_alike(sentences)
    for sentence in sentences:
        assert_reads_alike([sentence])


def assert_reads_alike(sentences):
    expected = Vocabulary(WORDS).read(sentences)
    ids, unknown_words = word_ids_graph()(tf.constant(sentences))
    np.testing.assert_array_equal(ids, expected.queries)
    for words, row in zip(expected.unknown_words, unknown_words.numpy()):
        # In the letters of the sentence, and as often as they stand there.
        text = unicodedata.normalize("NFC", row.decode())
        assert list(dict.fromkeys(text.split())) == words


# Halves of letters, and numbers that stand for none: old versions of TensorFlow
# take some of them for no UTF-8.
NO_LETTERS = ["Cs", "Cn"]
LETTERS = st.characters(exclude_categories=NO_LETTERS)
NEAR = st.sampled_from(
    "aAeEsS'\u2019 .\u0301\u0302\u0323\u0327\u00e9\u1ec7Σİß한"
)
CONTROLS = st.sampled_from(
    "\0\x1b\x7f\x9f\u202a\u202e\u2066\u2069\u200b\u00ad\n"
)
TEXTS = st.text(LETTERS | NEAR, max_size=12) | st.text(NEAR | CONTROLS)


@settings(max_examples=50)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_word_ids_of_any_text_are_those_of_training(sentences):
    assert_reads_alike(sentences)


def test_normal_forms_are_those_of_python():
    letters = [
        letter
        for letter in map(chr, range(1, 0x30000))
        if unicodedata.category(letter) not in NO_LETTERS
    ]
    marks = "".join(filter(unicodedata.combining, letters))
    parts = "aeoq<" + marks[:60] + "\u1112\u1161\u11ab\u0dd9\u0dcf\u0dca"
    texts = RNG.choice(list(parts), (500, 6)).tolist()
    texts = [*letters, *map("".join, texts), ""]
    for name, graph in (("NFD", word_ids()._decompose), ("NFC", NFC())):
        expected = [unicodedata.normalize(name, text) for text in texts]
        written = graph(tf.constant(texts)).numpy()
        assert [one.decode() for one in written] == expected


def test_a_sentence_is_too_long_for_the_graph_where_it_is_for_training():
    for letter in ("a", "a ", "\u00e9", "\U0001f600", "e\u0301"):
        sentence = (letter * 2 * MAX_CHARACTERS)[:MAX_CHARACTERS]
        Vocabulary(WORDS).encode([sentence])
        word_ids_graph()(tf.constant([sentence]))
        for more in (1, 100):
            longer = [sentence + more * letter[:1]]
            with pytest.raises(ValueError, match="characters"):
                Vocabulary(WORDS).encode(longer)
            with pytest.raises(
                tf.errors.InvalidArgumentError, match="characters"
            ):
                word_ids_graph()(tf.constant(longer))


def test_bad_sentences_are_refused_by_their_row(refused):
    cases = [([b"a door", b"caf\xe9"], "must be UTF-8(.|\n)*1")]
    cases += [
        ([b"a door", data * 10**6], "2,000 characters(.|\n)*1")
        for data in (b"a", b"\x80", b"\xff", b"\0")
    ]
    for case, message in cases:
        with refused(tf.errors.InvalidArgumentError, message):
            word_ids_graph()(tf.constant(case))


# Windows


GRIDS = [
    WindowGrid((2.0, 4.0, 7.0), 0.5),
    WindowGrid((3.0, 4.5, 6.0, 8.0, 10.5, 14.0, 19.0), 0.8),
    WindowGrid((64, 128, 256, 512), 0.8, frame_rate=29.4),
    WindowGrid((2.0, 4.0, 7.0), 0.5, context_length=3.0),
    WindowGrid((64, 128), 0.8, frame_rate=29.4, context_length=128),
]


# That the last window of some length just fits into.
JUST = [2.0, 7.0, 14.0, 30.0, 38.0, 60.0]


@example(GRIDS[0], JUST)
@example(GRIDS[1], JUST)
@example(GRIDS[2], JUST)
@example(GRIDS[3], JUST)
@example(GRIDS[4], JUST)
@given(
    st.sampled_from(GRIDS),
    st.lists(st.floats(0.1, 90.0), min_size=1, max_size=4),
)
def test_windows_and_contexts_are_those_of_the_grid(grid, durations):
    segment, num_windows = windows.contexts(
        grid, 5, tf.constant(durations, tf.float64)
    )
    model = types.SimpleNamespace(grid=grid, context_size=5)
    for row, duration in enumerate(durations):
        expected = contexts_of(model, grid.windows(duration), duration)
        assert num_windows[row] == len(expected)
        own = segment[row, : len(expected)]
        np.testing.assert_allclose(own, expected, atol=1e-9)
        assert not np.any(segment[row, len(expected) :])


# Signatures


@pytest.fixture(params=MODELS, scope="module")
def served(request):
    """A model, its index, and its signatures as functions."""
    model = make_model(**MODELS[request.param])
    index = make_index(model)
    signatures = servable.Signatures(model, index, top_n=6, nms_threshold=0.4)
    return model, index, signatures.concrete_functions(), request.param


def call(functions, name, inputs):
    tensors = {key: tf.constant(value) for key, value in inputs.items()}
    return {k: v.numpy() for k, v in functions[name](**tensors).items()}


def assert_outputs(answer, expected, signature, atol=1e-4):
    assert set(answer) == set(expected)
    for key, value in expected.items():
        if value.dtype == object:
            found = np.char.decode(answer[key].astype(bytes))
            assert found.tolist() == value.tolist()
        else:
            np.testing.assert_allclose(
                answer[key], value, atol=atol, err_msg=f"{signature} {key}"
            )


def test_signatures_give_the_numbers_of_the_library(served):
    model, index, functions, kind = served
    atol = 0.2 if kind == "half" else 1e-4
    for num_clips in [(9, 5), (1,), (3, 24, 8, 24, 2)]:
        inputs = servable.example_inputs(model, num_clips)
        expected = servable.expected_outputs(model, inputs, index, 6, 0.4)
        assert set(functions) == {"serving_default", *expected}
        for name, outputs in expected.items():
            answer = call(functions, name, inputs[name])
            if kind == "half" and name in ("search", "localize"):
                continue  # near ties are ranked either way
            assert_outputs(answer, outputs, name, atol)


def test_a_row_alone_gives_what_it_gives_in_a_padded_batch(served):
    model, _, functions, kind = served
    if kind == "half":
        pytest.skip("in half precision products round by their shapes")
    inputs = servable.example_inputs(model, (3, 17, 9, 1))
    for name, arrays in inputs.items():
        spoilt = {key: np.array(value) for key, value in arrays.items()}
        if "clip" in spoilt:
            for row, count in enumerate(spoilt["num_clips"]):
                spoilt["clip"][row, count:] = np.nan
        together = call(functions, name, spoilt)
        for row in range(4):
            one = {key: value[row : row + 1] for key, value in arrays.items()}
            if "clip" in one:
                one["clip"] = one["clip"][:, : one["num_clips"][0]]
            for key, value in call(functions, name, one).items():
                other = together[key][row : row + 1]
                if key in ("window", "segment"):
                    assert not np.any(other[:, value.shape[1] :])
                    other = other[:, : value.shape[1]]
                if value.dtype == object:
                    np.testing.assert_array_equal(value, other)
                else:
                    np.testing.assert_allclose(
                        value, other, rtol=1e-6, atol=1e-6
                    )


def test_long_videos_in_pieces_give_the_numbers_of_whole_ones(monkeypatch):
    zero_shot, coarse = (
        ZeroShot(clip_seconds=1.0, window_lengths=lengths)
        for lengths in ((2.0, 4.0, 7.0), (24.0,))  # pieces without windows
    )
    for model in (zero_shot, coarse):
        model.build({"clip": (None, None, 6), "query": (None, 6)})
    own = make_model(query_encoder="mean")
    monkeypatch.setattr(signatures_module, "_WINDOWS", 30)
    for model, long in ((own, 16), (own, 1024), (zero_shot, 16), (coarse, 16)):
        monkeypatch.setattr(encoding, "_LONG", long)
        monkeypatch.setattr(encoding, "_SHARES", 3_000)
        signatures = servable.Signatures(model, top_n=4, nms_threshold=0.4)
        inputs = servable.example_inputs(model, (3, 30, 9))
        expected = servable.expected_outputs(model, inputs, None, 4, 0.4)
        answer = signatures.localize(
            **{k: tf.constant(v) for k, v in inputs["localize"].items()}
        )
        answer = {k: v.numpy() for k, v in answer.items()}
        assert_outputs(answer, expected["localize"], "localize")


def test_one_video_answers_several_queries_and_the_other_way_round(served):
    model, _, functions, _ = served
    arrays = servable.example_inputs(model, (7, 7, 7))["localize"]
    for is_one in (lambda key: key == "query", lambda key: key != "query"):
        one, many = (
            {k: v[rows] if is_one(k) else v for k, v in arrays.items()}
            for rows in ([0], [0, 0, 0])
        )
        expected = call(functions, "localize", many)
        answer = call(functions, "localize", one)
        words = (
            answer.pop("unknown_words", None),
            expected.get("unknown_words"),
        )
        np.testing.assert_array_equal(*words)
        for key, value in answer.items():
            np.testing.assert_allclose(
                value, expected[key], rtol=1e-5, atol=1e-5
            )


def test_moments_lie_within_the_video(served):
    model, _, functions, _ = served
    inputs = servable.example_inputs(model, (20, 3, 1))["localize"]
    inputs["duration"] = np.array([19.3, 2.5, 0.0])
    answer = call(functions, "localize", inputs)
    real = answer["score"] > servable.NO_SCORE
    assert real.any(axis=1).all()
    assert np.all(answer["start"][real] < answer["end"][real])
    assert np.all(answer["start"] >= 0)
    assert np.all(answer["end"].max(axis=1) <= np.float32([19.3, 2.5, 1.0]))


def test_bad_input_is_refused_by_the_graph_itself(refused):
    model = make_model(query_encoder="mean")
    signatures = servable.Signatures(model)  # holds what the graph needs
    specs = signatures.inputs()["localize"]
    graph = tf.function(signatures.localize, autograph=False)
    functions = {"localize": graph.get_concrete_function(**specs)}

    def localize(change):
        inputs = servable.example_inputs(model)["localize"]
        for key, value in change.items():
            inputs[key] = np.array(value, np.asarray(inputs[key]).dtype)
        call(functions, "localize", inputs)

    nan = np.full((2, 9, CLIP_DIM), np.nan)
    for case, message in (
        ({"num_clips": [0, 5]}, "`num_clips` must be at least 1"),
        ({"num_clips": [10, 5]}, "at most the clips given"),
        ({"num_clips": [9, 5, 5]}, "as many rows"),
        ({"duration": [-1.0, 5.0]}, "`duration` must be seconds"),
        ({"duration": [np.nan, 5.0]}, "`duration` must be seconds"),
        ({"duration": [1e9, 5.0]}, "or near to that"),
        ({"clip": nan}, "`clip` must be finite"),
        ({"query": ["a", "b", "c"]}, "`query` and `clip` must have as"),
        ({"query": [b"\xff", b"a"]}, "must be UTF-8"),
        ({"query": ["a", "a" * 2001]}, "at most 2,000 characters"),
    ):
        with refused(tf.errors.InvalidArgumentError, message):
            localize(case)


def test_equal_scores_are_ranked_by_video_and_start():
    model = make_model(consensus_iou=None, query_encoder="mean")
    clip = RNG.normal(1, 2, size=(9, CLIP_DIM))
    copies = dict.fromkeys(("c", "a", "b"), clip)
    index = make_index(model, features=copies)
    answer = servable.Signatures(model, index, 9).search(["a person"])
    (found,) = index.search(["a person"], top_n=9)
    names = [name.decode() for name in answer["video_id"].numpy()[0] if name]
    assert names == [moment.video_id for moment in found]


def test_a_servable_needs_a_model_that_is_built_and_an_index_with_videos():
    with pytest.raises(ValueError, match="must be built"):
        servable.Signatures(ACNN(vocabulary=WORDS))
    model = make_model()
    with pytest.raises(ValueError, match="has no videos"):
        servable.Signatures(model, search.MomentIndex(model))
    with pytest.raises(ValueError, match="top_n"):
        servable.Signatures(model, top_n=0)
