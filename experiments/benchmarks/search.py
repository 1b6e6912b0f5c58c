"""Searching very many windows, against the literal form.

Encodings are random: a search takes as long for any. They are 128 wide (t),
the hidden layer 256 (H), videos 30 s with 134 windows each, and the ten best
moments are ranked with suppression at IoU 0.5 and with offsets. The literal
form makes the outer product of 2,048 pairs at a time and computes nothing but
their scores; its time is that of a few such blocks, scaled.
"""

import functools
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

from acnn_tf import layers
from acnn_tf.models import ACNN
from acnn_tf.search import MomentIndex
from experiments.benchmarks import measure

T, H = 128, 256
PAIRS = 2048
BLOCKS = 4


class RandomEncodings(ACNN):
    """ACNN, but for windows, whose encodings are random numbers."""

    def encode_windows(self, inputs, training=None):
        shape = (*inputs["segment"].shape[:2], self.embedding_dim)
        rng = np.random.default_rng(int(inputs["clip"][0, 0, 0]))
        return rng.standard_normal(shape, np.float32)


def rows(smoke=False, rounds=5):
    """`MomentIndex.search_encoded` against the literal form.

    `gemm_share` counts 2 N Q t H FLOPs, the product of windows and folded
    queries; time is that of the whole search, ranking included. Peak memory
    counts the encodings, of which `encodings_mb` is the size: they are mapped
    from a file, and the system may drop them at any time.

    Args:
        smoke: Tiny cases.
        rounds: Timed rounds.

    Returns:
        List of rows.
    """
    large, small = (1_340, 268) if smoke else (102_400, 10_000)
    # Windows, queries, shortlist, consensus.
    cases = [
        (large, 16, None, False),
        (large, 16, "bfloat16", False),
        (large, 16, None, True),
        (small, 1, None, False),
    ]
    if not smoke:
        cases += [(small, 16, None, False), (1_000_000, 16, None, False)]
    memory = measure.peaks(memory_candidates, cases)
    found = []
    for case, peak in zip(cases, memory):
        found.append(_compare(*case, peak["search"], smoke, rounds))
    found[1]["same_top_10"] = _same_results(large, 32 if smoke else 1000)
    return found


def _compare(num_windows, num_queries, shortlist, consensus, peak, smoke, n):
    """One row."""
    case = f"N={num_windows},Q={num_queries}"
    case += f", {shortlist} shortlist" if shortlist else ""
    case += ", consensus" if consensus else ""
    pairs = 16 if smoke else PAIRS
    measure.progress(f"search: {case}")
    with tempfile.TemporaryDirectory() as folder:
        index = make_index(num_windows, consensus, folder)
        num_windows = index.num_windows
        queries = make_queries(num_queries)
        functions = {
            "search": functools.partial(
                index.search_encoded, queries, top_n=10, shortlist=shortlist
            ),
            "literal_tensorflow": literal(index.model, queries, pairs),
        }
        expected, windows = functions["literal_tensorflow"]()
        error = measure.max_relative_error(
            [index.model.match(queries, windows)["score"]], [expected]
        )
        measured, rate = measure.in_turn_with_products(functions, n, smoke)
        folded = measure.in_turn(
            {"fold": lambda: index.model.fold(queries)[0].numpy()}, n
        )
    ours, other = measured["search"], measured["literal_tensorflow"]
    blocks = num_windows * num_queries / pairs
    flops = 2 * num_windows * num_queries * T * H
    return measure.row(
        "search",
        case,
        "literal_tensorflow",
        ours._replace(memory_mb=peak),
        other._replace(seconds=other.seconds * blocks / BLOCKS),
        max_relative_error=error,
        gemm_share=flops * 1e-9 / ours.seconds / rate,
        gemm_gflops_per_second=rate,
        fold_seconds=folded["fold"].seconds,
        product_seconds_at_gemm_rate=flops * 1e-9 / rate,
        encodings_mb=num_windows * T * 4e-6,
    )


def memory_candidates(num_windows, num_queries, shortlist, consensus):
    """A search that opens its index itself, so that its pages are counted."""
    folder = tempfile.TemporaryDirectory()
    model = make_index(num_windows, consensus, folder.name).model
    queries = make_queries(num_queries)

    def search():
        # The reference keeps the folder until the function is gone.
        index = MomentIndex(model, folder.name)
        return index.search_encoded(queries, top_n=10, shortlist=shortlist)

    return {"search": search}


def make_index(num_windows, consensus, folder):
    """An index of random encodings in a folder."""
    keras.utils.set_random_seed(0)
    model = RandomEncodings(
        kernel_sizes=(1,),
        embedding_dim=T,
        hidden_dim=H,
        query_encoder="mean",
        consensus_iou=0.5 if consensus else None,
    )
    model.build({"clip": (None, None, 1), "query": (None, T)})
    rng = np.random.default_rng(0)
    for weight in model.head.weights:
        # Scores about as far apart as those of a trained model.
        scale = np.prod(weight.shape[:1]) ** -0.5
        weight.assign(2 * scale * rng.normal(size=weight.shape))
    count = round(num_windows / len(model.grid.windows(30.0)))
    features = {f"v{i:06d}": np.full((30, 1), i) for i in range(count)}
    index = MomentIndex(model, folder)
    index.append(features)
    return index


def make_queries(count):
    """Random encodings of queries."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((count, T), np.float32)


def literal(model, queries, pairs):
    """A function that scores `BLOCKS` blocks of `pairs`, literally."""
    head = model.head
    cross = np.transpose(head.cross_kernel.numpy(), (0, 2, 1))
    kernel = np.concatenate(
        [
            head.window_kernel.numpy(),
            head.query_kernel.numpy(),
            cross.reshape(-1, H),
        ]
    )
    kernel = tf.constant(np.vstack([kernel, head.bias.numpy()]))
    output = head.output_kernel[:, :1]
    bias = head.output_bias[0]
    feature = layers.CrossFeature()
    per_block = pairs // len(queries)
    rng = np.random.default_rng(2)
    windows = rng.standard_normal((BLOCKS * per_block, T), np.float32)

    @tf.function
    def score(queries, windows):
        features = tf.reshape(
            feature(queries, windows), (-1, kernel.shape[0])
        )  # [Q * W, F]
        hidden = tf.nn.relu(tf.matmul(features, kernel))
        return tf.reshape(tf.matmul(hidden, output) + bias, (len(queries), -1))

    def blocks():
        parts = [
            score(queries, windows[first : first + per_block]).numpy()
            for first in range(0, len(windows), per_block)
        ]
        return np.concatenate(parts, axis=1), windows

    return blocks


def _same_results(num_windows, num_queries):
    """Share of queries whose ten best are the same with a shortlist."""
    measure.progress(
        f"search: {num_queries} queries with and without shortlist"
    )
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        index = make_index(num_windows, False, folder)
        queries = make_queries(num_queries)
        exact, rough = (
            index.search_encoded(queries, top_n=10, shortlist=shortlist)
            for shortlist in (None, "bfloat16")
        )
    same = [
        [moment[:3] for moment in one] == [moment[:3] for moment in other]
        for one, other in zip(exact, rough)
    ]
    measure.progress(f"search: {time.monotonic() - start:.0f} s")
    return sum(same) / len(same)
