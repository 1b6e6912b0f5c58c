"""Windows that may be the best moments of a query, by a straight line.

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
"""

import math
import typing
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from acnn_tf.search.ranking import RankingSettings
from acnn_tf.search.scoring import shared_tensor, video_bounds

# Windows that the line is fitted to.
_SAMPLE = 4096
# Of the line's weights, so that it is defined where windows are alike.
_RIDGE = 1e-3
# Windows that the head scores first, for each result, and least of all.
_PER_RESULT, _LEAST = 32, 512
# Windows, for each result, of which it is looked how early they are found.
_GOOD_PER_RESULT = 10


class Windows(typing.NamedTuple):
    """All windows of some videos, in pieces as they lie in the files."""

    encodings: list  # of [n, t], views
    owners: np.ndarray  # int32 [N], rising: numbers of videos
    starts: np.ndarray  # int64, the first row of each piece, and N

    @classmethod
    def of(cls, chunks: Iterable[tuple[np.ndarray, np.ndarray]]) -> "Windows":
        """Of what `contents.chunks` yields."""
        encodings, owners, count = [], [], 0
        for encoding, starts in chunks:
            owners.append(count + owners_of(encoding, starts))
            encodings.append(encoding)
            count += len(starts)
        sizes = [0, *map(len, encodings)]
        return cls(encodings, np.concatenate(owners), np.cumsum(sizes))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Encodings `float32 [R, t]` of rows, which rise."""
        found = []
        for encoding, first, last in zip(
            self.encodings, self.starts, self.starts[1:]
        ):
            own = slice(*np.searchsorted(rows, [first, last]))
            if own.start < own.stop:
                found.append(encoding[rows[own] - first])
        return np.concatenate(found).astype(np.float32, copy=False)

    def sample(self) -> np.ndarray:
        """Some rows, the same each time."""
        total = len(self.owners)
        if total <= _SAMPLE:
            return np.arange(total)
        rng = np.random.default_rng(0)
        return np.sort(rng.choice(total, _SAMPLE, replace=False))


def owners_of(encoding: np.ndarray, starts: Sequence[int]) -> np.ndarray:
    """The number of each window's video within a chunk, int32 `[N]`.

    `encoding` `[N, t]` and `starts`, the first row of each video, are what
    `contents.chunks` yields.
    """
    counts = np.diff([*starts, len(encoding)])
    return np.repeat(np.arange(len(starts), dtype=np.int32), counts)


def fit_line(windows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The lines nearest to the scores of some windows.

    The best windows count most, since only they are to be found.

    Args:
        windows: `[S, t]`.
        scores: `[S, Q]`.

    Returns:
        float32 `[Q, t + 1]`: `a` and, last, `b`.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.search.shortlist import fit_line
    >>> windows = np.random.default_rng(0).normal(size=(99, 2))
    >>> line = fit_line(windows, windows @ [[2.0], [-1.0]] + 3.0)
    >>> line[0].round(1).tolist()
    [2.0, -1.0, 3.0]
    """
    inputs = np.ones((len(windows), windows.shape[1] + 1), np.float32)
    inputs[:, :-1] = windows
    scores = np.asarray(scores, np.float32)
    spread = np.maximum(scores.std(axis=0), 1e-6)
    weight = np.exp((scores - scores.max(axis=0)) / spread)
    weighted = (weight / weight.sum(axis=0)).T[:, :, None] * inputs
    # By TensorFlow: NumPy's threads wait for each other where others work.
    square = tf.matmul(weighted, inputs[None], transpose_a=True)
    right = tf.matmul(weighted, scores.T[:, :, None], transpose_a=True)
    mean = tf.linalg.trace(square) / square.shape[-1]
    ridge = _RIDGE * mean[:, None, None] * tf.eye(square.shape[-1])
    square = tf.cast(square + ridge, tf.float64)
    lines = tf.linalg.solve(square, tf.cast(right, tf.float64))
    return lines.numpy()[..., 0].astype(np.float32)


def line_scores(line: np.ndarray, windows: Windows) -> np.ndarray:
    """What lines `[Q, t + 1]` say of all `Windows`, float32 `[Q, N]`."""
    found = np.empty((len(line), len(windows.owners)), np.float32)
    for encoding, first, last in zip(
        windows.encodings, windows.starts, windows.starts[1:]
    ):
        if encoding.dtype != np.float32:  # for which NumPy has no product
            encoding = tf.cast(shared_tensor(encoding), tf.float32).numpy()
        # For one query twice as fast as TensorFlow's, and as fast for 16.
        found[:, first:last] = (encoding @ line[:, :-1].T).T
    found += line[:, -1:]
    return found


class Candidates:
    """The windows that the head scores for one query.

    Args:
        rough: `[N]`, what the line says of each window.
        sample: Rows of some windows.
        owners: int `[N]`, rising, the video of each window.
        score: Function: rows, which rise -> what the head says of them.
        top_n: Int, results that are wanted.
        min_recall: Float, the share of the best of them that is asked for.

    Attributes:
        rows: Rows of the windows that the head has scored, rising.
        scores: What it said of them.
        recall: Float, the share of the best results that these videos are
            expected to hold.
    """

    def __init__(
        self,
        rough: np.ndarray,
        sample: np.ndarray,
        owners: np.ndarray,
        score: Callable[[np.ndarray], np.ndarray],
        top_n: int,
        min_recall: float,
    ):
        self.rows, self.scores = np.zeros(0, int), np.zeros(0, np.float32)
        self.recall = 0.0
        self._rough, self._owners, self._score = rough, owners, score
        self._top_n, self._min_recall = top_n, min_recall
        heights = np.sort(rough[sample])[::-1].astype(np.float64)
        self._heights = heights[heights > -np.inf]
        self._height = np.inf
        # Windows for each of the sample.
        self._each = np.sum(rough > -np.inf) / max(len(self._heights), 1)
        first = max(_LEAST, _PER_RESULT * top_n) / max(self._each, 1.0)
        if len(self._heights) < _LEAST / 8:  # too few to say anything
            first = np.inf
        self._score_down_to(first)

    def extend(self, lowest: float | None = None) -> bool:
        """Has the head score as many windows as `min_recall` asks for.

        `lowest` is the score of the last result, if it is known. Returns
        whether there were any to score.
        """
        before = len(self.rows)
        while True:
            if self._height == -np.inf:
                self.recall = 1.0
                return len(self.rows) > before
            level = self._best_videos() if lowest is None else lowest
            expected = self._misses_by_spread(level)
            place = int(np.sum(self._heights >= self._height))
            missed = min(expected[place], self._misses_by_fall(level))
            self.recall = 1.0 - min(missed / self._top_n, 1.0)
            if self.recall >= self._min_recall:
                return len(self.rows) > before
            allowed = (1.0 - self._min_recall) * self._top_n
            wanted = int(np.argmax(expected <= allowed))
            # What so few say of so many may be wrong.
            self._score_down_to(min(max(wanted, place + 8), 2 * (place + 8)))

    def _score_down_to(self, place):
        """Scores all windows above that of the sample at this place."""
        if place >= len(self._heights):
            height = -np.inf
        else:
            height = self._heights[math.ceil(place)]
        is_new = (self._rough >= height) & (self._rough < self._height)
        new = np.flatnonzero(is_new & (self._rough > -np.inf))
        self._height = height
        if len(new):
            rows = np.concatenate([self.rows, new])
            scores = np.concatenate([self.scores, self._score(new)])
            order = np.argsort(rows, kind="stable")
            self.rows, self.scores = rows[order], scores[order]

    def bounds(
        self, settings: RankingSettings
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the videos with scored windows, and their bounds.

        Where windows support each other, what the line says of the rest of
        these videos counts as well.
        """
        videos = np.unique(self._owners[self.rows])
        rows, scores = self.rows, self.scores
        if settings.consensus_iou is not None:
            is_theirs = np.zeros(self._owners[-1] + 1, bool)
            is_theirs[videos] = True
            rows = np.flatnonzero(is_theirs[self._owners])
            scores = self._rough[rows]
            scores[np.searchsorted(rows, self.rows)] = self.scores
        owner = np.searchsorted(videos, self._owners[rows]).astype(np.int32)
        found = video_bounds(settings, scores[:, None], owner)
        return videos, found.numpy()[:, 0]

    def _best_videos(self):
        """The best score of the last of the `top_n` best videos."""
        owners = self._owners[self.rows]
        first = np.flatnonzero(np.diff(owners, prepend=-1))
        best = np.maximum.reduceat(self.scores, first)
        place = max(len(best) - self._top_n, 0)
        return np.partition(best, place)[place]

    def _misses_by_spread(self, level):
        """Results expected below each place of the sample.

        As if the line's errors were normal, and those of the windows that it
        ranks last among the scored ones were those of the rest.
        """
        rough = self._rough[self.rows].astype(np.float64)
        last = rough <= np.median(rough)
        error = self.scores[last] - rough[last]
        spread = max(error.std(), 1e-6) * math.sqrt(2)
        away = (level - self._heights - error.mean()) / spread
        expected = 0.5 * self._each * tf.math.erfc(away).numpy()
        return np.append(np.cumsum(expected[::-1])[::-1], 0.0)

    def _misses_by_fall(self, level):
        """Results expected among the windows that are not scored.

        As if each doubling of the number of scored windows brought as many
        good ones, in relation to the doubling before, as the last one did.
        """
        order = np.argsort(-self._rough[self.rows])
        is_good = self.scores[order] >= self._good(level)
        count = len(order)
        before = np.sum(is_good[count // 4 : count // 2])
        last = np.sum(is_good[count // 2 :])
        fall = min((last + 1) / (before + 1), 0.9)
        share = last * fall / (1 - fall) / np.sum(is_good)
        return share * self._top_n

    def _good(self, level):
        """The score of a good window: many have one, and more than results.

        What is lower is found later, so it tells what is missed at most.
        """
        place = max(len(self.scores) - _GOOD_PER_RESULT * self._top_n, 0)
        return min(level, np.partition(self.scores, place)[place])
