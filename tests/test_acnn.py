"""The model: one forward path, whichever way its windows come in."""

import keras
import numpy as np
import pytest

from acnn_tf import layers, losses
from acnn_tf.models import ACNN, load_model, save_model

RNG = np.random.default_rng(0)
SMALL = {
    "window_lengths": (2.0, 3.5),
    "kernel_sizes": (1, 3, 5),
    "filters": 6,
    "embedding_dim": 5,
    "hidden_dim": 7,
    "query_encoder": "mean",
    "clip_seconds": 0.5,
}
GRU = {"query_encoder": "gru", "query_units": 4}
VARIANTS = [
    {},
    {"vocabulary": ["a", "red", "square"], "word_dim": 3, **GRU},
    {"hidden_dim": None, "first_order_query": False},
    {"position_features": False, "scorer_activation": "relu"},
    {"window_lengths": (16, 32), "frame_rate": 8.0, "offset_unit": "frames"},
    {"dtype": "mixed_bfloat16"},
    {
        "embedding_dim": 6,
        "project_first": True,
        "own_scorers": True,
        "scorer_activation": ("relu", "tanh"),
        "unit_length": True,
        "cross_pool_size": 3,
    },
]


def clips(num_clips=(12, 9), dim=4):
    return [RNG.normal(size=(n, dim)).astype("float32") for n in num_clips]


def video_inputs(model, videos):
    durations = [len(clip) * model.clip_seconds for clip in videos]
    windows = [model.grid.windows(duration) for duration in durations]
    contexts = [model.grid.contexts(w, model.context_size) for w in windows]
    num_clips, num_windows = max(map(len, videos)), max(map(len, windows))
    inputs = {
        "clip": np.zeros((len(videos), num_clips, 4), "float32"),
        "clip_mask": np.zeros((len(videos), num_clips), bool),
        "segment": np.zeros(
            (len(videos), num_windows, model.context_size, 2), "float32"
        ),
        "duration": np.array(durations, "float32"),
    }
    for row, (clip, context) in enumerate(zip(videos, contexts)):
        inputs["clip"][row, : len(clip)] = clip
        inputs["clip_mask"][row, : len(clip)] = True
        inputs["segment"][row, : len(context)] = context
    return inputs, windows


def query_inputs(model, count):
    if model.vocabulary is None:
        return RNG.normal(size=(count, 8)).astype("float32")
    words = len(model.vocabulary) + 2
    query = RNG.integers(1, words, (count, 5)).astype("int32")
    query[0, 3:] = 0
    return query


def training_batch(model):
    inputs, _ = video_inputs(model, clips())
    inputs["query"] = query_inputs(model, 2)
    inputs["positive"] = np.array([1, 0], "int32")
    num_windows = inputs["segment"].shape[1]
    offset = RNG.normal(size=(2, num_windows, 3)).astype("float32")
    offset[..., 2] = offset[..., 2] > 0  # a weight
    targets = {
        "score": RNG.random((2, num_windows)).astype("float32"),
        "offset": offset,
        "batch_score": np.array([0, 1], "int32"),
    }
    return inputs, targets


def compiled(model, optimizer="adam"):
    model.compile(
        optimizer,
        loss={
            "score": losses.VideoAlignmentLoss(),
            "offset": losses.OffsetLoss(),
            "batch_score": losses.AlignmentLoss(),
        },
        loss_weights={"score": 1.0, "offset": 0.5, "batch_score": 0.5},
        run_eagerly=True,  # quicker, for a few steps
        jit_compile=False,
    )
    return model


def by_hand(make, **arguments):
    """A model, and a video of one clip a second in windows of two seconds."""
    model = make(
        window_lengths=(2.0,),
        window_overlap=0.5,
        dilation=1,
        position_features=False,
        **arguments,
    )
    windows = model.grid.windows(4.0)
    inputs = {
        "clip": np.array([[[1.0], [3.0], [5.0], [7.0]]], "float32"),
        "clip_mask": np.ones((1, 4), bool),
        "segment": model.grid.contexts(windows, model.context_size)[None],
        "duration": np.array([4.0], "float32"),
        "query": np.array([[2.0]], "float32"),
        "positive": np.array([0]),
    }
    model(inputs)
    return model, inputs


def test_equations_by_hand():
    # All widths 1 and every weight set, so that each number can be followed.
    model, inputs = by_hand(
        ACNN,
        kernel_sizes=(1, 3),
        filters=1,
        embedding_dim=1,
        hidden_dim=1,
        scorer_activation=None,
    )
    model.context.set_weights(
        [
            *np.array([2.0, 0.0, 1.0, 1.0]).reshape(4, 1, 1),
            np.array([0.0]),
            np.array([1.0]),
        ]
    )
    model.pooling.set_weights([np.array([[np.log(2.0)]]), np.zeros(1)])
    model.window_projection.set_weights([np.array([[3.0]]), np.array([1.0])])
    model.query_projection.set_weights([np.array([[2.0]]), np.array([1.0])])
    model.head.set_weights(
        [
            np.array([[[0.5]]]),  # cross
            np.array([[2.0]]),  # window
            np.array([[-1.0]]),  # query
            np.array([0.25]),
            np.array([[1.0, 0.5, -0.5]]),
            np.array([0.0, 1.0, 2.0]),
        ]
    )
    # Windows [0, 2) and [1, 3) pool to 2 and 4. Context of the first:
    # 2 * 2 = 4 and 2 + 4 + 1 = 7; attention 2^4 : 2^7 = 1/9 : 8/9.
    # m = 60/9; m_c = 3 * 60/9 + 1 = 21. m_q = 2 * 2 + 1 = 5.
    # h = 0.5 * 21 * 5 + 2 * 21 - 5 + 0.25 = 89.75.
    outputs = model(inputs)
    np.testing.assert_allclose(outputs["score"][0, 0], 89.75, rtol=1e-5)
    np.testing.assert_allclose(
        outputs["offset"][0, 0], [45.875, -42.875], rtol=1e-5
    )
    np.testing.assert_allclose(outputs["batch_score"], [[89.75]], rtol=1e-5)


def test_equations_of_the_authors_code_by_hand():
    model, inputs = by_hand(
        ACNN,
        kernel_sizes=(1, 3),
        filters=2,
        embedding_dim=2,
        hidden_dim=1,
        context_activation="relu",
        scorer_activation=("relu", "tanh"),
        own_scorers=True,
        project_first=True,
        unit_length=True,
        cross_pool_size=2,
    )
    eye, zero = np.eye(2), np.zeros((2, 2))
    model.window_projection.set_weights([np.array([[1.0, -1.0]]), np.ones(2)])
    model.context.set_weights(
        [eye, zero, zero, eye, np.zeros(2), np.array([0.0, 7.0])]
    )
    model.pooling.set_weights(
        [np.array([[1 / 6, 0.0], [0.0, -1.0]]), np.zeros(2)]
    )
    model.query_projection.set_weights(
        [np.array([[1.5, 1.5]]), np.array([0.0, 1.0])]
    )
    model.head.set_weights(
        [
            np.array([[[10.0]]]),  # cross
            np.array([[1.0], [2.0]]),  # window
            np.array([[1.0], [1.0]]),  # query
            np.array([0.25]),
            np.array([[1.0, 0.5, -0.5]]),
            np.array([0.0, 1.0, 2.0]),
        ]
    )
    # Windows pool to 2 and 4, projected to [3, -1] and [5, -3]. Context of the
    # first: ReLU [3, 0] and, of its neighbour, ReLU [5, 4]. Their own scorers:
    # tanh ReLU .5 and tanh ReLU -4 = 0.
    share = np.exp(np.tanh(0.5)) / (1 + np.exp(np.tanh(0.5)))
    window = share * np.array([3, 0]) + (1 - share) * np.array([5, 4])
    window /= np.linalg.norm(window)
    # m_q = [3, 4], of unit length [.6, .8]: mean .7, sum 1.4.
    hidden = 10 * window.mean() * 0.7 + window @ [1, 2] + 1.4 + 0.25
    outputs = model(inputs)
    np.testing.assert_allclose(outputs["score"][0, 0], hidden, rtol=1e-5)
    np.testing.assert_allclose(
        outputs["offset"][0, 0], [hidden / 2 + 1, 2 - hidden / 2], rtol=1e-5
    )
    np.testing.assert_allclose(
        model.encode_windows(
            {
                "window": np.float32([[[0, 2, 4], [2, 4, 6], [4, 6, 0]]])[
                    ..., None
                ],
                "segment": inputs["segment"],
                "duration": inputs["duration"],
            }
        ),
        model.encode_windows(inputs),
        rtol=1e-5,
    )


def test_scores_follow_a_permutation_of_the_windows():
    model = ACNN(**SMALL)
    inputs, _ = training_batch(model)
    order = RNG.permutation(inputs["segment"].shape[1])
    before = model(inputs)
    inputs["segment"] = inputs["segment"][:, order]
    inputs["positive"] = np.argsort(order)[inputs["positive"]].astype("int32")
    after = model(inputs)
    for key in ("score", "offset"):
        np.testing.assert_allclose(
            after[key], np.asarray(before[key])[:, order], atol=1e-5
        )
    np.testing.assert_allclose(
        after["batch_score"], before["batch_score"], atol=1e-5
    )


def test_archive_after_training_keeps_the_numbers(subtests, tmp_path):
    for arguments in VARIANTS:
        with subtests.test(**arguments):
            model = compiled(ACNN(**{**SMALL, **arguments}))
            model.adapt(np.concatenate(clips()))
            inputs, targets = training_batch(model)
            model.train_on_batch(inputs, targets)
            save_model(model, tmp_path / "model.keras")
            loaded = load_model(tmp_path / "model.keras")
            assert loaded.get_config() == model.get_config()
            assert loaded.grid == model.grid
            for key, value in model(inputs).items():
                np.testing.assert_array_equal(
                    keras.ops.cast(value, "float32"),
                    keras.ops.cast(loaded(inputs)[key], "float32"),
                )


def test_training_lowers_every_loss(monkeypatch):
    # The same data, whatever tests of other files have drawn before.
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))
    keras.utils.set_random_seed(1)
    model = compiled(ACNN(**SMALL, dropout=0.0, clip_dropout=0.0))
    model.optimizer.learning_rate = 0.03
    inputs, targets = training_batch(model)
    targets["score"] = np.eye(2, inputs["segment"].shape[1], dtype="float32")
    first = model.evaluate(inputs, targets, verbose=0, return_dict=True)
    model.fit(inputs, targets, epochs=8, verbose=0, shuffle=False)
    last = model.evaluate(inputs, targets, verbose=0, return_dict=True)
    for key, value in first.items():
        assert last[key] < value, key


def test_half_precision_keeps_seconds_exact():
    # 1000.25 s is no bfloat16: a window so late must still find its clip.
    model = ACNN(**{**SMALL, "clip_seconds": 0.25}, dtype="mixed_bfloat16")
    inputs = {
        "clip": np.zeros((1, 4100, 4), "float32"),
        "clip_mask": np.ones((1, 4100), bool),
        "segment": np.array([[[[1000.25, 1000.5]] * 5]], "float32"),
        "duration": np.array([1025.0], "float32"),
    }

    def encode(clip):
        inputs["clip"][:] = 0
        inputs["clip"][0, clip] = 1
        return keras.ops.cast(model.encode_windows(inputs), "float32").numpy()

    assert (encode(4000) == encode(4002)).all()
    assert (encode(4000) != encode(4001)).any()


def test_a_name_is_short_for_a_layer(subtests):
    for name, layer in (
        ("attention", layers.AttentionPooling),
        ("mean", layers.MeanPooling),
        ("concat", layers.ConcatPooling),
    ):
        results = []
        for pooling in (name, layer()):
            keras.utils.set_random_seed(0)
            model = ACNN(**SMALL, context_pooling=pooling)
            inputs, _ = video_inputs(model, [np.ones((9, 4), "float32")])
            model.build({"clip": (None, None, 4), "query": (None, 8)})
            results.append(model.encode_windows(inputs))
            weights = model.attention_weights(inputs)
            with subtests.test(name):
                assert (weights is None) == (name != "attention")
        with subtests.test(name):
            np.testing.assert_array_equal(*results)


def test_a_layer_must_pool():
    model = ACNN(**SMALL, context_pooling=keras.layers.Dense(3))
    with pytest.raises(ValueError, match=r"must make \[\.\.\., F'\]"):
        model.build({"clip": (None, None, 4), "query": (None, 8)})


def test_nothing_makes_the_context_narrower_after_an_early_projection():
    model = ACNN(**SMALL, project_first=True)  # 6 filters, 5 numbers
    with pytest.raises(ValueError, match=r"`embedding_dim` = 5.*Received: 6"):
        model.build({"clip": (None, None, 4), "query": (None, 8)})


def test_word_vectors_land_on_their_words():
    model = ACNN(**SMALL, vocabulary=["a", "red", "box"], word_dim=3)
    before = np.array(model.words(np.array([0, 1, 3])))
    vectors = np.arange(6.0).reshape(2, 3)
    model.set_word_vectors(["box", "a"], vectors)
    np.testing.assert_array_equal(model.words(np.array([4, 2])), vectors)
    np.testing.assert_array_equal(model.words(np.array([0, 1, 3])), before)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        model.set_word_vectors(["box", "a"], np.zeros((3, 3)))
    with pytest.raises(ValueError, match="green"):
        model.set_word_vectors(["green"], np.zeros((1, 3)))
    with pytest.raises(ValueError, match="vocabulary"):
        ACNN(**SMALL).set_word_vectors(["a"], np.zeros((1, 3)))


def test_bad_arguments_are_named(refused):
    for arguments in (
        {"offset_unit": "hours"},
        {"offset_unit": "frames"},
        {"consensus_iou": 1.0},
        {"consensus_iou": (0.5, -0.1)},
        {"consensus_iou": ()},
        {"decay_sigma": 0.0},
        {"window_lengths": ()},
        {"kernel_sizes": (2,)},
        {"query_encoder": "lstm"},
    ):
        with refused(ValueError, r"Received|needs", **arguments):
            ACNN(**{**SMALL, **arguments})
