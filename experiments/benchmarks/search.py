"""Searching very many windows, against the literal form.

Encodings are 128 wide (t), the hidden layer 256 (H), videos 30 s of noise with
134 windows each, and the ten best moments are ranked with suppression at IoU
0.5 and with offsets. The literal form makes the outer product of 2,048 pairs
at a time; its time is that of a few such blocks, scaled.
"""

import tempfile

import keras
import numpy as np
import tensorflow as tf

from acnn_tf.data.sentences import Vocabulary
from acnn_tf.models import ACNN
from acnn_tf.search import MomentIndex, encode_videos
from experiments.benchmarks import measure
from experiments.benchmarks.cross import LiteralHead

T, H = 128, 256
PAIRS = 2048
BLOCKS = 4
CLIP_DIM = 16
WORDS = ["a", "person", "opens", "closes", "the", "door", "window", "and"]


def rows(smoke, rounds):
    """`MomentIndex.search_encoded` against the literal form.

    `gemm_share` counts 2 N Q t H FLOPs, the product of windows and folded
    queries; time is that of the whole search, ranking included. Peak memory
    counts the encodings, of which `encodings_mb` is the size: they are mapped
    from a file, and the system may drop them at any time. `recall_at_10` is
    the share of the exact search's ten best that a linear shortlist finds.
    """
    large, small = (1_340, 268) if smoke else (100_000, 10_000)
    # Windows, queries, shortlist, consensus.
    cases = [
        (large, 16, None, False),
        (large, 16, "bfloat16", False),
        (large, 16, None, True),
        (small, 1, None, False),
        (small, 1, "linear", False),
    ]
    if not smoke:
        rest = [(small, 16), (large, 1), (1_000_000, 1), (1_000_000, 16)]
        for case in rest:
            cases += [(*case, None, False), (*case, "linear", False)]
        cases.append((large, 16, "linear", False))
    pairs = 16 if smoke else PAIRS
    found = [_compare(*case, pairs, rounds) for case in cases]
    found[1]["same_top_10"] = _same_results(large, 32 if smoke else 1000)
    return found


def _compare(num_windows, num_queries, shortlist, consensus, pairs, rounds):
    """One row."""
    case = f"N={num_windows},Q={num_queries}"
    case += f", {shortlist} shortlist" if shortlist else ""
    case += ", consensus" if consensus else ""
    memory = measure.peaks(
        searches, num_windows, num_queries, shortlist, consensus
    )
    with tempfile.TemporaryDirectory() as folder:
        index = make_index(num_windows, consensus, folder)
        model, queries = index.model, make_queries(num_queries)
        score = literal(model, queries, pairs)
        expected, windows = score()
        error = measure.max_relative_error(
            [model.match(queries, windows)["score"]], [expected]
        )
        fold = {"fold": lambda: model.fold(queries)[0].numpy()}
        (row,) = measure.compare(
            "search",
            case,
            {
                "search": lambda: index.search_encoded(
                    queries, top_n=10, shortlist=shortlist
                ),
                "literal_tensorflow": score,
            },
            rounds,
            flops=2 * index.num_windows * num_queries * T * H,
            memory=memory,
            error={"literal_tensorflow": error},
            fold_seconds=measure.in_turn(fold, rounds)["fold"],
            encodings_mb=index.num_windows * T * 4e-6,
        )
        if shortlist == "linear":
            row["recall_at_10"] = _recall(index, make_queries(64))
    for key in ("ratio", "other_seconds"):
        row[key] *= index.num_windows * num_queries / pairs / BLOCKS
    return row


def searches(num_windows, num_queries, shortlist, consensus):
    """Searches that open their index themselves, so its pages are counted.

    Two of them, as the second one rounds the windows for a linear shortlist.
    """
    folder = tempfile.TemporaryDirectory()
    model = make_index(num_windows, consensus, folder.name).model
    queries = make_queries(num_queries)

    def search():
        # The reference keeps the folder until the function is gone.
        index = MomentIndex(model, folder.name)
        for _ in range(2):
            index.search_encoded(queries, top_n=10, shortlist=shortlist)

    return {"search": search}


def make_index(num_windows, consensus=True, folder=None):
    """An index of noise, whose scores lie as far apart as a trained model's."""
    keras.utils.set_random_seed(0)
    model = ACNN(
        kernel_sizes=(1, 3),
        filters=64,
        embedding_dim=T,
        hidden_dim=H,
        vocabulary=WORDS,
        query_encoder="gru",
        position_features=False,
        consensus_iou=0.5 if consensus else None,
    )
    model.build({"clip": (None, None, CLIP_DIM), "query": (None, None)})
    rng = np.random.default_rng(0)
    for weight in model.head.weights:
        scale = np.prod(weight.shape[:1]) ** -0.5
        weight.assign(2 * scale * rng.normal(size=weight.shape))
    count = round(num_windows / len(model.grid.windows(30.0)))
    features = {
        f"v{number:06d}": rng.normal(size=(30, CLIP_DIM))
        for number in range(count)
    }
    (video,) = encode_videos(model, features, {"v000000": 30.0})
    words = Vocabulary(WORDS).encode(WORDS)
    for layer, outputs in (
        (model.window_projection, video.encoding),
        (model.query_projection, np.asarray(model.encode_queries(words))),
    ):
        scale = 1 / outputs.std(axis=0)
        layer.kernel.assign(layer.kernel * scale)
        layer.bias.assign(-outputs.mean(axis=0) * scale)
    index = MomentIndex(model, folder)
    index.append(features)
    return index


def make_queries(count):
    """Random encodings of queries."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((count, T), np.float32)


def literal(model, queries, pairs):
    """A function that scores `BLOCKS` blocks of `pairs`, literally."""
    weights = {weight.name: weight.numpy() for weight in model.head.weights}
    head = LiteralHead(weights)
    per_block = pairs // len(queries)
    rng = np.random.default_rng(2)
    windows = rng.standard_normal((BLOCKS * per_block, T), np.float32)

    @tf.function
    def score(queries, windows):
        return head(queries, windows)[..., 0]

    def blocks():
        parts = [
            score(queries, windows[first : first + per_block]).numpy()
            for first in range(0, len(windows), per_block)
        ]
        return np.concatenate(parts, axis=1), windows

    return blocks


def _recall(index, queries):
    """Share of the ten best moments that a linear shortlist finds."""
    exact, found = (
        index.search_encoded(queries, top_n=10, shortlist=shortlist)
        for shortlist in (None, "linear")
    )
    both = [
        {moment[:3] for moment in one} & {moment[:3] for moment in other}
        for one, other in zip(exact, found, strict=True)
    ]
    return sum(map(len, both)) / sum(map(len, exact))


def _same_results(num_windows, num_queries):
    """Share of queries whose ten best are the same with a shortlist."""
    measure.progress(
        f"search: {num_queries} queries with and without shortlist"
    )
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
    return sum(same) / len(same)
