"""Chooses windows that may be the best moments, by a straight line.

For one query the score of a window is a function of its t numbers, and nearly
a straight line: `a . m + b`, fitted to the exact scores of a sample of windows.
The line costs one product of length t for a window, where the head costs H of
them. So the line is drawn over all windows, and the head scores those that are
high on it: as many as it takes until few enough of the best are expected among
the others.

This is no bound. How many are missed is estimated in two ways, both of which
have been seen to expect too many and not too few: from how far the line is off
and how many windows lie below a height, which says most where its errors are
normal; and from how fewer and fewer of the best come as windows are added.
Of errors with a few that are far larger than the others both expect too few.

All of it is TensorFlow, so that an index, which reads encodings from its files,
and a servable, which has them in variables, search alike. Only an index also
rounds the windows to int8 for the line: servers need not have the compiler
that makes it fast.
"""

import contextlib
import dataclasses
import functools
import mmap
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from acnn_tf.search.best_moments import Moments
from acnn_tf.search.ranking import RankingSettings
from acnn_tf.search.scoring import shared_tensor, video_bounds

# Windows that the line is fitted to.
_SAMPLE = 4096
# Windows for each of them, from which on a line saves more than it costs.
_WORTHWHILE = 16
# Of a million windows of 128 numbers, TensorFlow 2.20 multiplies int8 in 6 ms
# and float32 in 18; 2.17 takes 70 ms for int8.
_INT8_IS_FAST = tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 20)
# How much more the best windows of the sample count, in steps from the most.
_STEEPNESS = 2.0, 1.5, 1.0, 0.5, 0.0
# Windows that must count, for each number of the line.
_PER_NUMBER = 4
# Of the line's weights, so that it is defined where windows are alike.
_RIDGE = 1e-3
# Windows that the head scores first, for each result, and least of all.
_PER_RESULT, _LEAST = 32, 512
# Of the sample: the fewest that say something, and how many times as many are
# asked next at most, since what few say of many may be wrong.
_FIRST, _TIMES = 32, 3
# Windows, for each result, of which it is looked how early they are found.
_GOOD_PER_RESULT = 10
# Bound of a video of which no window is chosen.
_NOT_CHOSEN = -1e30


@dataclasses.dataclass
class Windows:
    """All windows of some videos, in the pieces of their files.

    Attributes:
        encodings: List of `[n, t]`, views.
        owners: int32 `[N]`, rising: numbers of videos.
        starts: int64, the first row of each piece, and N.
        rounded: What `round` made: int8 `[N, t]`, and float32 `[N]`, by which
            each is to be multiplied. Or `None`.
    """

    encodings: list
    owners: np.ndarray
    starts: np.ndarray
    rounded: tuple[tf.Tensor, tf.Tensor] | None = None

    @classmethod
    def of(cls, chunks: Iterable[tuple[np.ndarray, np.ndarray]]) -> "Windows":
        """Collects what `contents.chunks` yields."""
        encodings, owners, count = [], [], 0
        for encoding, starts in chunks:
            owners.append(count + owners_of(encoding, starts))
            # Rows of a plain array are taken faster than of a mapped one.
            encodings.append(encoding.view(np.ndarray))
            count += len(starts)
        sizes = [0, *map(len, encodings)]
        return cls(encodings, np.concatenate(owners), np.cumsum(sizes))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Reads the encodings of sorted rows, `float32 [R, t]`."""
        found = []
        places = np.searchsorted(rows, self.starts)
        for encoding, start, first, last in zip(
            self.encodings, self.starts, places, places[1:]
        ):
            if first < last:
                with _few_rows(encoding):
                    found.append(encoding[rows[first:last] - start])
        return np.concatenate(found).astype(np.float32, copy=False)

    def round(self) -> None:
        """Rounds the windows to int8, unless floats are as fast here."""
        if self.rounded is not None or not _INT8_IS_FAST:
            return
        shape = len(self.owners), self.encodings[0].shape[1]
        # Where TensorFlow needs no copy of them.
        numbers = np.empty(np.prod(shape) + 64, np.int8)
        numbers = numbers[-numbers.ctypes.data % 64 :][: np.prod(shape)]
        numbers, scales = numbers.reshape(shape), np.empty(shape[:1], "float32")
        for encoding, first in zip(self.encodings, self.starts):
            for row in range(0, len(encoding), _SAMPLE):  # in little memory
                found = _round(shared_tensor(encoding[row : row + _SAMPLE]))
                own = slice(first + row, first + row + len(found[0]))
                numbers[own], scales[own] = found
        self.rounded = shared_tensor(numbers), tf.constant(scales)


@contextlib.contextmanager
def _few_rows(array):
    """Has the system read no more of a file than the rows that are taken."""
    while isinstance(array, np.ndarray):
        array = array.base
    is_mapped = isinstance(array, mmap.mmap) and hasattr(mmap, "MADV_RANDOM")
    if is_mapped:
        array.madvise(mmap.MADV_RANDOM)
    try:
        yield
    finally:
        if is_mapped:
            array.madvise(mmap.MADV_NORMAL)


def _round(encoding):
    encoding = tf.cast(encoding, tf.float32)
    scale = tf.reduce_max(tf.abs(encoding), axis=1, keepdims=True) / 127
    numbers = tf.round(encoding / tf.maximum(scale, 1e-30))
    return tf.cast(numbers, tf.int8), scale[:, 0]


class Shortlist(typing.NamedTuple):
    """The windows that are scored for one query, and those to score next."""

    rough: tf.Tensor  # float32 [N], what the line says; -inf: never chosen
    heights: tf.Tensor  # float32 [S], what it says of a sample, falling
    each: tf.Tensor  # float64, windows for each of the sample
    height: tf.Tensor  # float32, windows on which the line is as high or higher
    rows: tf.Tensor  # int64 [R], of these, those that the head has scored
    scores: tf.Tensor  # float32 [R], what it said of them
    more: tf.Tensor  # int64 [r], rising: those that it has not; none if enough
    recall: tf.Tensor  # float64, share of the best that is expected in `rows`


def sample_rows(num_windows: int) -> np.ndarray:
    """Draws a sample of rows, int64, sorted, the same in each call."""
    if num_windows <= _SAMPLE:
        return np.arange(num_windows)
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(num_windows, _SAMPLE, replace=False))


def check_recall(min_recall: float) -> None:
    """Raises a `ValueError` unless it is between 0 and 1."""
    if not 0 < min_recall < 1:
        raise ValueError(
            f"`min_recall` must be above 0 and below 1. Received: {min_recall}"
        )


def is_worthwhile(num_windows: int) -> bool:
    """Tells whether a line makes a search in so many windows faster."""
    return num_windows >= _WORTHWHILE * _SAMPLE


def owners_of(encoding: np.ndarray, starts: Sequence[int]) -> np.ndarray:
    """Returns the number of each window's video in a chunk, int32 `[N]`.

    `encoding` `[N, t]` and `starts`, the first row of each video, are what
    `contents.chunks` yields.
    """
    counts = np.diff([*starts, len(encoding)])
    return np.repeat(np.arange(len(starts), dtype=np.int32), counts)


def fit_line(windows: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """Fits a line to the scores of some windows, for each query.

    The best windows count most, since only they are to be found: so much more
    as is possible while still several windows count for each number of the
    line.

    Args:
        windows: float32 `[S, t]`.
        scores: float32 `[S, Q]`.

    Returns:
        float32 `[Q, t + 1]`: `a` and, last, `b`.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.search.shortlist import fit_line
    >>> windows = np.random.default_rng(0).normal(size=(99, 2))
    >>> windows = windows.astype("float32")
    >>> line = fit_line(windows, windows @ [[2.0], [-1.0]] + 3.0)
    >>> line[0].numpy().round(1).tolist()
    [2.0, -1.0, 3.0]
    """
    return _fit(tf.convert_to_tensor(windows), tf.cast(scores, tf.float32))


@tf.function(autograph=False, reduce_retracing=True)
def _fit(windows, scores):
    scores = tf.transpose(scores)  # [Q, S]
    inputs = tf.pad(windows, [[0, 0], [0, 1]], constant_values=1.0)
    weight = _weights(scores, _PER_NUMBER * tf.shape(inputs)[1])
    weighted = weight[:, :, None] * inputs
    square = tf.matmul(weighted, inputs[None], transpose_a=True)
    right = tf.matmul(weighted, scores[:, :, None], transpose_a=True)
    width = tf.shape(square)[-1]
    mean = tf.linalg.trace(square) / tf.cast(width, tf.float32)
    ridge = _RIDGE * mean[:, None, None] * tf.eye(width)
    square = tf.cast(square + ridge, tf.float64)
    lines = tf.linalg.solve(square, tf.cast(right, tf.float64))
    return tf.cast(lines[..., 0], tf.float32)


def _weights(scores, least):
    """Computes the weight of each window in the fit, `[Q, S]`.

    Exponentials of the scores, the steepest of which at least `least` windows
    count, by `(sum w)^2 / sum w^2`.
    """
    spread = tf.math.reduce_std(scores, axis=1, keepdims=True)
    away = scores - tf.reduce_max(scores, axis=1, keepdims=True)
    away /= tf.maximum(spread, 1e-6)
    weights = tf.exp(tf.reshape(_STEEPNESS, (-1, 1, 1)) * away)  # [C, Q, S]
    total = tf.reduce_sum(weights, axis=2)
    count = total**2 / tf.reduce_sum(weights**2, axis=2)
    is_enough = count >= tf.cast(least, tf.float32)
    first = tf.argmax(is_enough, axis=0)  # 0, if not even equal weights are
    first = tf.where(
        tf.reduce_any(is_enough, axis=0), first, len(_STEEPNESS) - 1
    )
    weights = tf.transpose(weights / total[:, :, None], (1, 0, 2))
    return tf.gather(weights, first, batch_dims=1)


def line_scores(lines: np.ndarray, windows: Windows) -> Iterator[tf.Tensor]:
    """Evaluates lines `[Q, t + 1]` at all `Windows`; yields float32 `[N]`.

    Of `rounded` windows, if there are: a query then reads a quarter of the
    memory, and nothing of the files.
    """
    if windows.rounded is not None:
        yield from (_multiply(*windows.rounded, line) for line in lines)
        return
    found = np.empty((len(lines), len(windows.owners)), np.float32)
    for encoding, first, last in zip(
        windows.encodings, windows.starts, windows.starts[1:]
    ):
        if encoding.dtype != np.float32:  # for which NumPy has no product
            encoding = tf.cast(shared_tensor(encoding), tf.float32).numpy()
        # For one query twice as fast as TensorFlow's, and as fast for 16.
        found[:, first:last] = (encoding @ lines[:, :-1].T).T
    found += lines[:, -1:]
    yield from map(tf.constant, found)


# Compiled, since only then the numbers become floats on their way.
@tf.function(jit_compile=True, autograph=False)
def _multiply(numbers, scales, line):
    product = tf.linalg.matvec(tf.cast(numbers, tf.float32), line[:-1])
    return scales * product + line[-1]


def search_shortlist(
    rough: tf.Tensor,
    sample: tf.Tensor,
    owners: tf.Tensor,
    num_videos: tf.Tensor | int,
    settings: RankingSettings,
    score: Callable[[tf.Tensor], tf.Tensor],
    rank: Callable[[tf.Tensor], Moments],
    top_n: tf.Tensor | int,
    min_recall: float,
) -> tuple[Moments, tf.Tensor]:
    """Finds the best moments of one query in the windows that a line chooses.

    Args:
        rough: float32 `[N]`, what the line says of each window; `-inf` for
            those that are not searched. One at least is finite.
        sample: int64 `[S]`, rows of some windows, see `sample_rows`.
        owners: int32 `[N]`, rising, the video of each window.
        num_videos: Int, V.
        settings: `acnn_tf.search.ranking.RankingSettings`.
        score: Function: rows, int64 `[r]`, which rise -> what the head says of
            them, float32 `[r]`.
        rank: Function: bounds `[V]` -> the best `Moments`, `[1, n]`, of videos
            with such bounds, which are estimates.
        top_n: Int, n.
        min_recall: Float, the share of the best that is asked for.

    Returns:
        `(moments, recall)`: `Moments`, and the share of the best moments that
        are expected to be among them, float64.
    """
    owners = tf.convert_to_tensor(owners)
    num_videos, top_n = map(tf.convert_to_tensor, (num_videos, top_n))
    min_recall = tf.constant(min_recall, tf.float64)

    def extend(shortlist, scores, lowest):
        return _concrete(_extend)(
            shortlist, scores, lowest, owners, num_videos, top_n, min_recall
        )

    def score_more(shortlist, lowest):
        return extend(shortlist, score(shortlist.more), lowest), lowest

    def search(shortlist, moments):
        lowest = moments.score[0, -1]
        shortlist, _ = _while_more(score_more, shortlist, lowest)
        moments = rank(_bounds(settings, shortlist, owners, num_videos))
        # Its last result may be lower than was thought.
        return extend(shortlist, tf.zeros([0]), moments.score[0, -1]), moments

    none = Moments(
        video=tf.fill((1, top_n), -1),
        segment=tf.zeros((1, top_n, 2), tf.float64),
        score=tf.fill((1, top_n), tf.constant(np.nan, tf.float64)),
    )
    shortlist = _concrete(_start)(rough, sample, top_n)
    shortlist, moments = _while_more(search, shortlist, none)
    return moments, shortlist.recall


def _while_more(body, shortlist, other):
    """Repeats `body` while the shortlist has windows to score."""
    if tf.executing_eagerly():  # where `tf.while_loop` is slower than this
        while tf.size(shortlist.more) > 0:
            shortlist, other = body(shortlist, other)
        return shortlist, other
    return tf.while_loop(
        lambda shortlist, _: tf.size(shortlist.more) > 0,
        body,
        (shortlist, other),
        shape_invariants=(
            tf.nest.map_structure(lambda spec: spec.shape, _SHORTLIST),
            tf.nest.map_structure(lambda tensor: tensor.shape, other),
        ),
        parallel_iterations=1,
    )


@functools.cache
def _concrete(function):
    """Returns a concrete function, which takes half as long to call."""
    return function.get_concrete_function()


_SHORTLIST = Shortlist(
    rough=tf.TensorSpec([None], tf.float32),
    heights=tf.TensorSpec([None], tf.float32),
    each=tf.TensorSpec([], tf.float64),
    height=tf.TensorSpec([], tf.float32),
    rows=tf.TensorSpec([None], tf.int64),
    scores=tf.TensorSpec([None], tf.float32),
    more=tf.TensorSpec([None], tf.int64),
    recall=tf.TensorSpec([], tf.float64),
)


@tf.function(
    input_signature=[
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([], tf.int32),
    ],
    autograph=False,
)
def _start(rough, sample, top_n):
    """Starts a `Shortlist`, whose first windows are still to be scored."""
    heights = tf.sort(tf.gather(rough, sample), direction="DESCENDING")
    each = tf.size(rough) / tf.size(heights)
    first = tf.cast(tf.maximum(_LEAST, _PER_RESULT * top_n), tf.float64)
    first = tf.maximum(tf.math.ceil(first / tf.maximum(each, 1.0)), _FIRST)
    too_few = _count(heights > -np.inf) < 4 * _FIRST  # to say anything
    place = tf.where(too_few, tf.size(heights), tf.cast(first, tf.int32))
    shortlist = Shortlist(
        rough=rough,
        heights=heights,
        each=each,
        height=tf.constant(np.inf),
        rows=tf.zeros([0], tf.int64),
        scores=tf.zeros([0], tf.float32),
        more=tf.zeros([0], tf.int64),
        recall=tf.constant(0.0, tf.float64),
    )
    return _down_to(shortlist, _height(heights, place))


def _down_to(shortlist, height):
    """Chooses all windows at which the line has this height or more."""

    def rows():
        least = tf.maximum(height, tf.float32.min)
        rows = tf.where(shortlist.rough >= least)[:, 0]
        is_new = tf.gather(shortlist.rough, rows) < shortlist.height
        return tf.boolean_mask(rows, is_new)

    is_lower = height < shortlist.height
    more = tf.cond(is_lower, rows, lambda: tf.zeros([0], tf.int64))
    return shortlist._replace(height=height, more=more)


def _height(heights, place):
    """Returns the height of a place in the sample, -inf behind its end."""
    heights = tf.concat([heights, [-np.inf]], 0)
    return heights[tf.minimum(place, tf.size(heights) - 1)]


@tf.function(
    input_signature=[
        _SHORTLIST,
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([], tf.float64),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.float64),
    ],
    autograph=False,
)
def _extend(shortlist, scores, lowest, owners, num_videos, top_n, min_recall):
    """Adds scores, and chooses more windows if too many may be missed.

    `lowest` is the score of the last result, NaN if it is not known.
    """
    shortlist = shortlist._replace(
        rows=tf.concat([shortlist.rows, shortlist.more], 0),
        scores=tf.concat([shortlist.scores, scores], 0),
    )
    best = _best_of_videos(shortlist, owners, num_videos)
    best = tf.math.top_k(best, tf.minimum(top_n, num_videos)).values
    last = tf.reduce_min(tf.where(best > _NOT_CHOSEN, best, np.inf))
    level = tf.where(tf.math.is_nan(lowest), tf.cast(last, tf.float64), lowest)

    place = tf.reduce_sum(
        tf.cast(shortlist.heights >= shortlist.height, tf.int32)
    )
    # Nearly, since these are places of the sample.
    quarter, half = (shortlist.heights[place // part] for part in (4, 2))
    said = tf.gather(shortlist.rough, shortlist.rows)
    below = _misses_below(shortlist, level, said, said <= half)
    fall = _misses_by_fall(shortlist, level, top_n, said, quarter, half)
    results = tf.cast(top_n, tf.float64)
    missed = tf.minimum(below[place], fall)
    recall = tf.maximum(1.0 - missed / results, 0.0)
    recall = tf.where(shortlist.height > -np.inf, recall, 1.0)

    allowed = (1.0 - min_recall) * results
    wanted = tf.argmax(below <= allowed, output_type=tf.int32)
    wanted = tf.clip_by_value(wanted, place + _FIRST, _TIMES * place + _FIRST)
    height = _height(shortlist.heights, wanted)
    height = tf.where(recall < min_recall, height, shortlist.height)
    return _down_to(shortlist._replace(recall=recall), height)


def _misses_below(shortlist, level, said, is_last):
    """Estimates the results below each place of the sample, `[S + 1]`.

    As if the line's errors were normal, and those of the windows that it
    ranks last among the scored ones were those of the rest.
    """
    share = tf.cast(is_last, tf.float64) / _count(is_last)
    error = tf.cast(shortlist.scores - said, tf.float64)
    mean = tf.reduce_sum(share * error)
    variance = tf.reduce_sum(share * (error - mean) ** 2)
    spread = tf.maximum(tf.sqrt(variance), 1e-6) * 2.0**0.5
    heights = tf.cast(shortlist.heights, tf.float64)
    away = (level - heights - mean) / spread
    expected = 0.5 * shortlist.each * tf.math.erfc(away)
    expected = tf.where(heights > -np.inf, expected, 0.0)
    return tf.concat([tf.cumsum(expected, reverse=True), [0.0]], 0)


def _misses_by_fall(shortlist, level, top_n, said, quarter, half):
    """Estimates the results among the windows that are not scored.

    As if each doubling of the number of scored windows brought as many good
    ones, in relation to the doubling before, as the last one did. Many windows
    are good, more than there are results: what is lower is found later, so it
    tells what is missed at most.
    """
    scores = tf.cast(shortlist.scores, tf.float64)
    count = tf.minimum(_GOOD_PER_RESULT * top_n, tf.size(scores))
    good = tf.minimum(level, tf.math.top_k(scores, count).values[-1])
    is_good = scores >= good
    before = _count(is_good & (said <= quarter) & (said > half))
    last = _count(is_good & (said <= half))
    fall = tf.minimum((last + 1.0) / (before + 1.0), 0.9)
    share = last * fall / (1.0 - fall) / _count(is_good)
    return share * tf.cast(top_n, tf.float64)


def _bounds(settings, shortlist, owners, num_videos):
    """Estimates what the moments of each video may score, float32 `[V]`.

    Where windows support each other, what the line says of the rest of a
    video's windows counts as well.
    """
    bounds = _best_of_videos(shortlist, owners, num_videos)
    is_chosen = bounds > _NOT_CHOSEN
    if settings.consensus_iou is not None:
        rows = tf.where(tf.gather(is_chosen, owners))
        scores = tf.tensor_scatter_nd_update(
            shortlist.rough, shortlist.rows[:, None], shortlist.scores
        )
        number = tf.cumsum(tf.cast(is_chosen, tf.int32)) - 1
        owner = tf.gather(number, tf.gather(owners, rows[:, 0]))
        found = video_bounds(
            settings, tf.gather_nd(scores, rows)[:, None], owner
        )
        bounds = tf.tensor_scatter_nd_update(
            bounds, tf.where(is_chosen), found[:, 0]
        )
    return tf.maximum(bounds, _NOT_CHOSEN)


def _best_of_videos(shortlist, owners, num_videos):
    """Returns the best score of each video, float32 `[V]`."""
    owner = tf.gather(owners, shortlist.rows)
    return tf.math.unsorted_segment_max(shortlist.scores, owner, num_videos)


def _count(condition):
    return tf.reduce_sum(tf.cast(condition, tf.float64))
