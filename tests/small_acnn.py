"""A small ACNN, untrained but with scores worth a search, and its index."""

import keras
import numpy as np

from acnn_tf import search
from acnn_tf.models import ACNN

WORDS = ["a", "person", "opens", "the", "door", "'s", "café", "việt", "s"]
CLIP_DIM = 6
# Settings that differ in what a servable has to do.
MODELS = {
    "words": {},
    "paper": {
        "vocabulary": None,
        "window_lengths": (32, 64, 128),
        "frame_rate": 16.0,
        "offset_unit": "frames",
        "consensus_iou": None,
        "hidden_dim": None,
        "position_features": False,
    },
    # What the others have already, in its quickest form.
    "half": {
        "dtype": "mixed_bfloat16",
        "query_encoder": "mean",
        "window_lengths": (2.0, 4.0),
    },
}


def make_model(clip_dim=CLIP_DIM, seed=0, **arguments):
    """The same model for a seed, whatever has been made before."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(seed)
    settings = {
        "window_lengths": (2.0, 4.0, 7.0),
        "window_overlap": 0.5,
        "kernel_sizes": (1, 3),
        "filters": 5,
        "embedding_dim": 8,
        "hidden_dim": 16,
        "query_units": 4,
        "vocabulary": WORDS,
        "word_dim": 7,
    }
    model = ACNN(**{**settings, **arguments})
    query = (None, None) if model.vocabulary else (None, 9)
    model.build({"clip": (None, None, clip_dim), "query": query})
    model.adapt(rng.normal(1, 2, size=(50, clip_dim)))
    for weight in model.head.weights:  # scores and offsets worth a search
        weight.assign(0.4 * rng.normal(size=weight.shape))
    return model


def make_features(num_videos=40, longest=24):
    """Clips of a second, of videos that are named v00, v01 and so on."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, longest + 1, num_videos)
    return {
        f"v{number:02d}": np.float32(rng.normal(1, 2, (length, CLIP_DIM)))
        for number, length in enumerate(lengths)
    }


def make_index(model, path=None, features=None, **arguments):
    index = search.MomentIndex(model, path, **arguments)
    index.append(make_features() if features is None else features)
    return index


def encode_shards(model, features, shards, path, only=None, dtype=None):
    for number, about in enumerate(search.describe_shards(shards)):
        if only is None or number in only:
            search.encode_shard(
                model, features, shards[number], about, path, dtype
            )


def assert_alike(found, expected, atol=1e-4):
    """Two searches found the same moments, whatever the processor rounds to.

    Products of other shapes differ by their last bits, and by which bits
    depends on the processor: moments may change places where their scores are
    that close. Each has a list of `FoundMoment` for each query.
    """
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        one, two = _table(row), _table(other)
        np.testing.assert_allclose(one[:, 0], two[:, 0], atol=atol)
        apart = np.abs(one[:, None] - two).max(axis=-1)
        apart[_videos(row)[:, None] != _videos(other)] = np.inf
        for nearest in (apart.min(axis=0), apart.min(axis=1)):
            assert nearest.max() <= atol


def _table(row):
    return np.array([(moment.score, *moment[1:3]) for moment in row])


def _videos(row):
    return np.array([moment.video_id for moment in row])
