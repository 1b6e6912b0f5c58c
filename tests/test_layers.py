"""Every layer: hand-worked numbers, and one list of conformance tests."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from acnn_tf import layers

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


PAIRS = normal(2, 4), normal(3, 4)
BATCHED_PAIRS = normal(5, 2, 4), normal(5, 3, 4)
# (layer, arguments, inputs): the tests at the end go through all of these.
CASES = [
    (
        layers.TemporalContext,
        {"kernel_sizes": (1, 3, 5), "filters": 6, "dilation": 2},
        [normal(2, 9, 4)],
    ),
    (
        layers.TemporalContext,
        {"kernel_sizes": (3, 1), "filters": 6, "activation": "relu"},
        [normal(2, 5, 3, 4)],
    ),
    (layers.AttentionPooling, {"activation": "relu"}, [normal(2, 5, 3, 4)]),
    (layers.AttentionPooling, {"activation": None}, [normal(5, 3, 4)]),
    (
        layers.AttentionPooling,
        {"activation": ("relu", "tanh"), "own_scorers": True},
        [normal(2, 5, 3, 4)],
    ),
    (layers.MeanPooling, {}, [normal(2, 5, 3, 4)]),
    (layers.ConcatPooling, {}, [normal(2, 5, 3, 4)]),
    (layers.ClipNormalization, {"per_feature": False}, [normal(2, 5, 4)]),
    (layers.CrossFeature, {}, PAIRS),
    (layers.CrossFeature, {"first_order_query": False}, PAIRS),
    (layers.LocalizationHead, {"hidden_dim": 7, "dropout": 0.5}, PAIRS),
    (
        layers.LocalizationHead,
        {"hidden_dim": None, "first_order_query": False},
        BATCHED_PAIRS,
    ),
    (
        layers.LocalizationHead,
        {"hidden_dim": 7, "pool_size": 2},
        BATCHED_PAIRS,
    ),
    (layers.ElementwiseHead, {"hidden_dim": 7, "dropout": 0.5}, PAIRS),
    (layers.ElementwiseHead, {"hidden_dim": None}, BATCHED_PAIRS),
    (
        layers.MemoryAttention,
        {"context_size": 3, "activation": "relu"},
        (normal(5, 2, 4), normal(5, 3, 12)),
    ),
    (
        layers.QueryEncoder,
        {"encoder": "gru", "units": 3, "dropout": 0.2},
        [normal(2, 5, 4)],
    ),
    (layers.QueryEncoder, {"encoder": "mean"}, [normal(2, 5, 4)]),
    (layers.QueryEncoder, {"encoder": "gru"}, [normal(2, 4)]),
]


def flat(outputs):
    return [ops.convert_to_numpy(x) for x in tf.nest.flatten(outputs)]


# AttentionPooling


def attention(activation, kernel, bias=0.0):
    layer = layers.AttentionPooling(activation)
    layer.build((None, None, len(kernel)))
    layer.set_weights([np.array(kernel)[:, None], np.array([bias])])
    return layer


def test_attention_weights_by_hand():
    layer = attention("relu", [1.0, 0.0])
    inputs = np.array([[np.log(3.0), 4.0], [-5.0, 8.0]], "float32")
    pooled, weights = layer(inputs, return_weights=True)
    # ReLU: log 3 and 0; softmax: 3/4 and 1/4.
    np.testing.assert_allclose(weights, [0.75, 0.25], rtol=1e-6)
    np.testing.assert_allclose(
        pooled, [0.75 * np.log(3.0) - 1.25, 5.0], rtol=1e-6
    )


def test_negative_scores_get_equal_weights_under_relu_but_not_tanh():
    inputs = np.array([[1.0], [2.0], [3.0]], "float32")
    _, relu = attention("relu", [-1.0])(inputs, return_weights=True)
    _, tanh = attention("tanh", [-1.0])(inputs, return_weights=True)
    np.testing.assert_allclose(relu, [1 / 3] * 3, rtol=1e-6)
    assert tanh[0] > tanh[1] > tanh[2]


def test_own_scorers_and_several_activations_by_hand():
    layer = layers.AttentionPooling(("relu", "tanh"), own_scorers=True)
    layer.build((None, 3, 2))
    kernel = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])  # a column a scorer
    layer.set_weights([kernel, np.array([0.0, -1.0, -9.0])])
    inputs = np.array([[0.25, 9.0], [9.0, 0.5], [1.0, 1.0]], "float32")
    _, weights = layer(inputs, return_weights=True)
    # 2 * .25 = .5; 3 * .5 - 1 = .5; 1 + 1 - 9 = -7, of which ReLU makes 0.
    score = np.exp(np.tanh([0.5, 0.5, 0.0]))
    np.testing.assert_allclose(weights, score / score.sum(), rtol=1e-6)


def test_masked_vectors_get_no_attention():
    layer = attention("tanh", [1.0, 2.0])
    inputs = normal(2, 3, 2)
    mask = np.array([[True, True, False], [False, False, False]])
    pooled, weights = layer(inputs, mask=mask, return_weights=True)
    np.testing.assert_allclose(
        pooled[0], layer(inputs[0, :2]), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(weights[1], 0)
    np.testing.assert_array_equal(pooled[1], 0)


# ClipNormalization


def test_normalization_measures_mean_and_scale():
    features = np.array([[0.0, 10.0, 7.0], [2.0, 30.0, 7.0]])
    layer = layers.ClipNormalization()
    layer.adapt(features)
    np.testing.assert_allclose(layer(features), [[-1, -1, 0], [1, 1, 0]])
    layer = layers.ClipNormalization(per_feature=False)
    layer.adapt(features)
    # Variances 1, 100 and 0: one scale, the root of their mean.
    scale = np.sqrt(101 / 3)
    np.testing.assert_allclose(
        layer(features),
        [[-1 / scale, -10 / scale, 0], [1 / scale, 10 / scale, 0]],
        rtol=1e-6,
    )
    layer.adapt([features[:1], features[1:]])
    np.testing.assert_allclose(layer.mean, [1, 20, 7])
    with pytest.raises(ValueError, match="empty"):
        layer.adapt(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="Received"):
        layer.adapt([np.zeros(3)])


# CrossFeature and LocalizationHead


def test_cross_feature_by_hand():
    query, window = np.array([[2.0, 3.0]]), np.array([[5.0, 7.0]])
    np.testing.assert_allclose(
        layers.CrossFeature()(query, window)[0, 0],
        [5, 7, 2, 3, 10, 15, 14, 21, 1],
    )
    np.testing.assert_allclose(
        layers.CrossFeature(first_order_query=False)(query, window)[0, 0],
        [5, 7, 10, 15, 14, 21, 1],
    )


def means_of_every(size, vectors):
    pieces = ops.split(vectors, vectors.shape[-1] // size, axis=-1)
    return ops.concatenate(
        [ops.mean(piece, axis=-1, keepdims=True) for piece in pieces], axis=-1
    )


def literal_head(head, query, window):
    """The head on the cross feature that it never makes."""
    cross = ops.transpose(head.cross_kernel, (0, 2, 1))
    parts = [head.window_kernel]
    if head.first_order_query:
        parts.append(head.query_kernel)
    parts.append(ops.reshape(cross, (-1, cross.shape[-1])))
    parts.append(head.bias[None])
    dtype = head.dtype_policy
    feature = layers.CrossFeature(head.first_order_query, dtype=dtype)(
        query, window
    )
    if head.pool_size > 1:
        first_order = window.shape[-1]
        if head.first_order_query:
            first_order += query.shape[-1]
        pooled = layers.CrossFeature(False, dtype=dtype)(
            means_of_every(head.pool_size, query),
            means_of_every(head.pool_size, window),
        )
        cross = pooled[..., window.shape[-1] // head.pool_size :]
        feature = ops.concatenate([feature[..., :first_order], cross], -1)
    outputs = ops.matmul(feature, ops.concatenate(parts, axis=0))
    if head.hidden_dim is not None:
        outputs = ops.matmul(ops.relu(outputs), head.output_kernel)
        outputs = outputs + head.output_bias
    return {"score": outputs[..., 0], "offset": outputs[..., 1:]}


@pytest.mark.parametrize(
    "hidden_dim, first_order_query, pool_size, batch",
    [
        (None, True, 1, (3,)),
        (32, True, 1, ()),
        (32, False, 1, (3,)),
        (None, False, 1, ()),
        (32, True, 8, (3,)),
        (None, False, 4, ()),
    ],
)
def test_head_equals_the_literal_outer_product(
    hidden_dim, first_order_query, pool_size, batch
):
    # In float64, where no ReLU can flip by rounding.
    head = layers.LocalizationHead(
        hidden_dim, first_order_query, pool_size=pool_size, dtype="float64"
    )
    query = tf.Variable(RNG.normal(size=(*batch, 5, 24)))
    window = tf.Variable(RNG.normal(size=(*batch, 9, 16)))
    head(query, window)
    for weight in head.weights:
        weight.assign(0.3 * RNG.normal(size=weight.shape))
    assert_same_gradients(
        head, lambda q, w: literal_head(head, q, w), query, window
    )


def test_pooled_outer_product_by_hand():
    head = layers.LocalizationHead(hidden_dim=None, pool_size=2)
    query = np.array([[2.0, 4.0]], "float32")
    window = np.array([[5.0, 7.0, 1.0, 3.0]], "float32")
    head.build(query.shape, window.shape)
    head.set_weights(
        [
            np.array([[[10.0], [0.0], [0.0]], [[100.0], [0.0], [0.0]]]),
            np.array([[1.0, 0, 0], [0.1, 0, 0], [0, 0, 0], [0, 0, 0]]),
            np.array([[1.0, 0, 0], [0.1, 0, 0]]),
            np.array([0.5, 1.0, 2.0]),
        ]
    )
    # Means are 3 of the query, 6 and 2 of the window; the others stay whole:
    # 10 * 18 + 100 * 6 + (5 + .7) + (2 + .4) + .5 = 788.6.
    outputs = head(query, window)
    np.testing.assert_allclose(outputs["score"], [[788.6]], rtol=1e-6)
    np.testing.assert_allclose(outputs["offset"], [[[1.0, 2.0]]], rtol=1e-6)
    score = head.score(head.fold(query), window)
    np.testing.assert_allclose(score, [[788.6]], rtol=1e-6)


def assert_same_gradients(layer, literal, *inputs):
    """Forward and backward, in float64."""
    results = []
    for forward in (layer, literal):
        with tf.GradientTape() as tape:
            outputs = forward(*inputs)
            total = sum(ops.sum(ops.sin(x)) for x in tf.nest.flatten(outputs))
        sources = [*inputs, *[weight.value for weight in layer.weights]]
        gradients = tape.gradient(total, sources)
        results.append(flat(outputs) + [np.array(g) for g in gradients])
    for ours, expected in zip(*results, strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, atol=1e-12 * scale)


# ElementwiseHead


@pytest.mark.parametrize("hidden_dim", [None, 5])
def test_elementwise_head_equals_the_literal_feature(hidden_dim):
    # In float64, where no ReLU can flip by rounding.
    head = layers.ElementwiseHead(hidden_dim, dtype="float64")
    query = tf.Variable(RNG.normal(size=(2, 3, 4)))
    window = tf.Variable(RNG.normal(size=(2, 6, 4)))
    head(query, window)

    def literal(query, window):
        q, v = query[:, :, None], window[:, None]
        both = ops.zeros((2, 3, 6, 4), "float64")
        feature = ops.concatenate([v * q, v + q, v + both, q + both], -1)
        names = ("product", "sum", "window", "query")
        kernels = [getattr(head, f"{name}_kernel") for name in names]
        out = ops.matmul(feature, ops.concatenate(kernels, 0)) + head.bias
        if hidden_dim is not None:
            out = ops.matmul(ops.relu(out), head.output_kernel)
            out = out + head.output_bias
        return {"score": out[..., 0], "offset": out[..., 1:]}

    assert_same_gradients(head, literal, query, window)
    with pytest.raises(ValueError, match="one width"):
        layers.ElementwiseHead()(normal(2, 4), normal(2, 3))


# MemoryAttention


def test_memory_without_windows_gives_zeros():
    layer = layers.MemoryAttention(3)
    layer.build((None, 2), (None, 6))
    layer.bias.assign([1.0, 2.0])
    window = np.array([[0.0] * 6, [0, 0, 3, 4, 0, 0]], "float32")
    read = layer(normal(1, 2), window)[0]
    # The second has one cell, which takes all the weight: (3, 4) + (1, 2).
    np.testing.assert_allclose(read, [[0, 0], [4, 6]], rtol=1e-6)
    with pytest.raises(ValueError, match="3 cells"):
        layers.MemoryAttention(3)(normal(1, 2), normal(1, 4))


# clip_share


def test_share_of_clips_by_hand():
    # [0.5, 2) covers half of clip 0 and clip 1; clip 2 is padding; the last
    # segment lies beyond the clips, the one before it has no length.
    segment = np.array(
        [[[[0.5, 2.0]], [[1.0, 3.0]], [[1.0, 1.0]], [[4.0, 5.0]]]], "float32"
    )
    mask = np.array([[True, True, False]])
    expected = [[1 / 3, 2 / 3, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    share = layers.clip_share(segment, mask)
    np.testing.assert_allclose(share[0, :, 0], expected, rtol=1e-6)
    later = layers.clip_share(segment + 7, mask, np.array([7]))
    np.testing.assert_allclose(later[0, :, 0], expected, rtol=1e-6)


# QueryEncoder


def test_mean_of_the_words_ignores_padding():
    query = np.array([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]], "float32")
    mask = np.array([[True, True, False]])
    layer = layers.QueryEncoder("mean")
    np.testing.assert_allclose(layer(query, mask=mask), [[2.0, 4.0]])


def test_padding_does_not_change_a_gru_sentence():
    layer = layers.QueryEncoder("gru", units=3)
    query = normal(1, 4, 5)
    alone = layer(query, mask=np.ones((1, 4), bool))
    padded = np.concatenate([query, normal(1, 3, 5)], axis=1)
    mask = np.array([[True] * 4 + [False] * 3])
    np.testing.assert_allclose(layer(padded, mask=mask), alone, atol=1e-6)


def test_a_sentence_without_words_gives_zeros():
    for encoder in ("gru", "mean"):
        layer = layers.QueryEncoder(encoder, units=3)
        outputs = layer(normal(1, 4, 5), mask=np.zeros((1, 4), bool))
        np.testing.assert_array_equal(outputs, 0)


# Conformance


def test_every_public_layer_is_listed():
    public = {getattr(layers, name) for name in layers.__all__}
    assert {layer for layer, _, _ in CASES} == {
        layer for layer in public if inspect.isclass(layer)
    }


@pytest.fixture(scope="module")
def built():
    """`(layer, inputs, outputs)` of each of `CASES`."""
    made = [(layer(**arguments), inputs) for layer, arguments, inputs in CASES]
    return [(layer, inputs, flat(layer(*inputs))) for layer, inputs in made]


def test_config_rebuilds_every_layer(subtests, built):
    for (kind, arguments, _), (layer, _, _) in zip(CASES, built):
        with subtests.test(layer.name):
            config = layer.get_config()
            assert kind.from_config(config).get_config() == config
            for name, value in arguments.items():
                kept = getattr(layer, name)
                if name == "activation":
                    get = keras.activations.get
                    several = isinstance(value, tuple)
                    value = tuple(map(get, value)) if several else get(value)
                assert kept == value


def test_graph_equals_eager(subtests, built):
    for layer, inputs, outputs in built:
        with subtests.test(layer.name):
            graph = tf.function(layer.__call__, autograph=False)
            for a, b in zip(outputs, flat(graph(*inputs)), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-5)


def test_an_archive_keeps_the_numbers_of_every_layer(subtests, built, tmp_path):
    # One model of all layers, since each archive takes its time.
    symbols = [
        [keras.Input(batch_shape=x.shape) for x in inputs]
        for _, inputs, _ in built
    ]
    outputs = [layer(*own) for (layer, _, _), own in zip(built, symbols)]
    model = keras.Model(symbols, outputs)
    model.save(tmp_path / "layers.keras")
    loaded = keras.saving.load_model(tmp_path / "layers.keras")
    inputs = [list(inputs) for _, inputs, _ in built]
    for (layer, _, _), a, b in zip(built, model(inputs), loaded(inputs)):
        with subtests.test(layer.name):
            for one, other in zip(flat(a), flat(b), strict=True):
                np.testing.assert_array_equal(one, other)


def test_shape_is_told_before_running(subtests, built):
    for layer, inputs, outputs in built:
        with subtests.test(layer.name):
            told = layer.compute_output_spec(
                *[keras.KerasTensor(x.shape) for x in inputs]
            )
            shapes = [tuple(spec.shape) for spec in keras.tree.flatten(told)]
            assert shapes == [output.shape for output in outputs]


def test_half_precision_computes_in_half(subtests):
    for kind, arguments, inputs in CASES:
        with subtests.test(kind.__name__, **arguments):
            layer = kind(**arguments, dtype="mixed_bfloat16")
            for output in tf.nest.flatten(layer(*inputs)):
                dtype = keras.backend.standardize_dtype(output.dtype)
                assert dtype == "bfloat16"
            for weight in layer.weights:
                if "seed" not in weight.path:
                    assert weight.dtype == "float32"
