"""Semi-synthetic data: features made from real annotations, not from video.

Where the videos of a dataset are not to be had, what is said of them is. Every
word gets a random vector; clips of a moment show the words of its sentences,
mixed with the other moments of that time, blurred and under noise; a sentence
is the words that it is made of. What a model learns of them it could not learn
from video, and its figures compare with none that were published. But the work
is that of the real thing: as many videos, clips, sentences and numbers, in the
same files.
"""

import collections
import collections.abc
import dataclasses
import functools
import hashlib
import math

import numpy as np

# What says nothing of what is seen, or is true of every video.
STOP_WORDS = frozenset(
    "a an and are as at back be before after by each for from has have he her "
    "him his in into is it its man now of off on onto one out over person she "
    "so some that the their them then there these they this to up was while "
    "who will with woman 's".split()
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How features are made; the numbers of a word's vector have variance 1.

    Clips and sentences are two fixed random projections of words, so that words
    which were never trained on have a place in both.
    """

    clip_seconds: float = 16 / 29.4  # 16 frames of TACoS
    clip_dim: int = 4096  # as of C3D
    sentence_dim: int = 4800  # as of Skip-thoughts
    word_dim: int = 128
    # Standard deviations: of the Gaussian over neighbouring clips, in clips,
    # which ends after three; of a background that changes slowly, and the
    # clips after which it has changed; of what differs from clip to clip, and
    # from sentence to sentence.
    blur: float = 2.0
    drift: float = 0.25
    drift_clips: float = 20.0
    noise: float = 0.5
    sentence_noise: float = 0.1
    seed: int = 0  # of everything

    def __post_init__(self):
        at_least_0 = ("blur", "drift", "noise", "sentence_noise", "seed")
        for name, value in dataclasses.asdict(self).items():
            least = "at least 0" if name in at_least_0 else "above 0"
            if not 0 <= value < math.inf or (least == "above 0" and not value):
                raise ValueError(f"`{name}` must be {least}. Received: {value}")


def content_words(sentences):
    """The words of each sentence without `STOP_WORDS`.

    >>> content_words(["The person cuts a fig.", "He is there."])
    [['cuts', 'fig'], []]
    """
    from acnn_tf.data.sentences import tokenize  # brings TensorFlow

    return [
        [word.decode() for word in words if word.decode() not in STOP_WORDS]
        for words in tokenize(list(sentences)).to_list()
    ]


class Clips(collections.abc.Mapping):
    """Clip features of every video, each made when it is asked for.

    With c the share of a clip that a moment covers and v the mean of the
    vectors of all words of its sentences, a clip is

        blur(sum of c v over the moments) P + drift + noise

    The last clip of a video may be shorter than the others.

    >>> from acnn_tf.data.annotations import Moment
    >>> moment = Moment("1", "He cuts a fig.", "v", 9.0, ((0.0, 5.0),))
    >>> clips = Clips([moment], Recipe(clip_seconds=2.0, clip_dim=3))
    >>> clips["v"].shape, clips["v"].dtype
    ((5, 3), dtype('float16'))
    """

    def __init__(self, moments, recipe):
        self.recipe = recipe
        self._said = _said(moments, lambda moment: moment.video_id)

    def __getitem__(self, video_id):
        recipe, said = self.recipe, self._said[video_id]
        num_clips = _num_clips(said[0][0].duration, recipe.clip_seconds)
        shown = np.zeros((num_clips, recipe.word_dim), np.float32)
        words_of = collections.defaultdict(list)
        for moment, words in said:
            words_of[moment.segments] += words
        for segments, words in words_of.items():
            share = _share_covered(segments, num_clips, recipe.clip_seconds)
            shown += share[:, None] * _mean(words, recipe)
        clips = blur(shown, recipe.blur) @ _projection("clip", recipe)  # [T, D]
        rng = _generator(recipe.seed, "video", video_id)
        step = math.exp(-1 / recipe.drift_clips)
        drift = _normal(rng, recipe.clip_dim)
        for clip in clips:
            clip += recipe.drift * drift
            clip += recipe.noise * _normal(rng, recipe.clip_dim)
            drift *= step
            drift += math.sqrt(1 - step**2) * _normal(rng, recipe.clip_dim)
        return clips.astype(np.float16)

    def __iter__(self):
        return iter(self._said)

    def __len__(self):
        return len(self._said)


class Sentences(collections.abc.Mapping):
    """Sentence vectors, each made when it is asked for.

    A sentence is the mean of the vectors of its words, projected, and noise.
    Their names are `VIDEO_START_END`, with a row for each sentence, as
    `acnn_tf.data.sentences.SentenceVectors` reads them; the query ids of the
    moments are `VIDEO_START_END_K`, K = 0, 1, ... in this order.

    >>> from acnn_tf.data.annotations import Moment
    >>> moment = Moment("v_0_5_0", "He cuts a fig.", "v", 9.0, ((0.0, 5.0),))
    >>> Sentences([moment], Recipe())["v_0_5"].shape
    (1, 4800)
    """

    def __init__(self, moments, recipe):
        self.recipe = recipe
        self._said = _said(
            moments, lambda moment: moment.query_id.rpartition("_")[0]
        )
        for name, said in self._said.items():
            for row, (moment, _) in enumerate(said):
                if moment.query_id != f"{name}_{row}" or not name:
                    raise ValueError(
                        f"{moment.source}: query {moment.query_id!r} was "
                        f"expected to be '{name or 'VIDEO_START_END'}_{row}', "
                        "as the sentences of TACoS are counted; leave out the "
                        "ids of the file, or name each sentence of a moment in "
                        "this way"
                    )

    def __getitem__(self, name):
        recipe = self.recipe
        means = [_mean(words, recipe) for _, words in self._said[name]]
        # `@` has several threads wait for one another, for a few rows: 12 ms
        # in place of 2, and far more where other processes are at work.
        projection = _projection("sentence", recipe)
        vectors = np.einsum("nk,ke->ne", np.stack(means), projection)  # [N, E]
        rng = _generator(recipe.seed, "sentences", name)
        vectors += recipe.sentence_noise * _normal(rng, vectors.shape)
        return vectors.astype(np.float16)

    def __iter__(self):
        return iter(self._said)

    def __len__(self):
        return len(self._said)


def blur(rows, deviation):
    """Gaussian mean of each row of `[T, D]` and its neighbours: `[T, D]`.

    Before the first and after the last there are zeros. Neighbours that are
    more than three deviations away, in rows, do not count.

    >>> blur(np.array([[0.0], [4.0], [0.0]]), 0.0).ravel().tolist()
    [0.0, 4.0, 0.0]
    """
    reach = math.floor(3 * deviation)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / (deviation or 1.0)) ** 2)
    weights = (weights / weights.sum()).astype(rows.dtype)
    padded = np.pad(rows, ((reach, reach), (0, 0)))
    return sum(
        weight * padded[first : first + len(rows)]
        for first, weight in enumerate(weights)
    )


def _said(moments, key):
    """Moments and their content words, in groups by a key."""
    moments = list(moments)
    if not moments:
        raise ValueError("`moments` must not be empty. Received: []")
    groups = collections.defaultdict(list)
    # All at once: to take a sentence apart in TensorFlow costs a millisecond.
    words = content_words(moment.query for moment in moments)
    for pair in zip(moments, words, strict=True):
        groups[key(pair[0])].append(pair)
    return dict(groups)


def _num_clips(duration, clip_seconds):
    # A video of 32 frames has two clips of 16, not three by rounding.
    return max(1, math.ceil(duration / clip_seconds - 1e-6))


def _share_covered(segments, num_clips, clip_seconds):
    """Share of each clip under any of some segments, `[T]`."""
    first = np.arange(num_clips)
    share = np.zeros(num_clips, np.float32)
    for start, end in segments:
        covered = np.minimum(first + 1, end / clip_seconds) - np.maximum(
            first, start / clip_seconds
        )
        share = np.maximum(share, covered.clip(0, 1))
    return share.astype(np.float32)


def _mean(words, recipe):
    """Mean of the vectors of words, `[K]`; zeros where there are none."""
    if not words:
        return np.zeros(recipe.word_dim, np.float32)
    vectors = [_word(word, recipe.word_dim, recipe.seed) for word in words]
    return np.mean(vectors, axis=0)


@functools.lru_cache(maxsize=100_000)
def _word(word, dim, seed):
    return _normal(_generator(seed, "word", word), dim)


@functools.lru_cache(maxsize=2)
def _projection(space, recipe):
    """`[K, D]`; what is projected keeps its variance."""
    shape = recipe.word_dim, getattr(recipe, f"{space}_dim")
    matrix = _normal(_generator(recipe.seed, space), shape)
    return matrix / np.float32(math.sqrt(recipe.word_dim))


def _normal(rng, shape):
    return rng.standard_normal(shape, np.float32)


def _generator(seed, *names):
    """Random numbers that follow from a seed and names, on any machine."""
    name = "\0".join(names).encode()
    digest = hashlib.sha256(name).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, "<u4").tolist()])
