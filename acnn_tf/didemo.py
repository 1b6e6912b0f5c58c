"""DiDeMo's own protocol: R@1, R@5 and mIoU with several annotators.

Each video is cut into pieces of 5 s, and every stretch of consecutive pieces
is a candidate: 21 in a video of 6 pieces. Several people say which of them a
sentence describes; those who agree least with a ranking do not count:

    R@k    share of queries with mean(three smallest ranks) <= k
    mIoU   mean over queries of mean(three largest IoU of the first result)

where a query has a rank and an IoU for each of its annotators, IoU is in whole
pieces, and what was not ranked has no rank that is small enough.

Reference: Hendricks et al., Localizing Moments in Video with Natural Language,
2017, section 4 and its public evaluation.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import typing
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from acnn_tf import evaluation, search
from acnn_tf import segments as segments_lib

if typing.TYPE_CHECKING:
    import keras

    from acnn_tf.data.annotations import Moment


@dataclasses.dataclass(frozen=True)
class PieceGrid:
    """Every stretch of consecutive pieces of a video as a window.

    A video of n pieces, the last of which is whatever is left, has
    n (n + 1) / 2 of them: 21 for 6 pieces, 15 for 5.

    It stands in for a `WindowGrid` in search and evaluation.

    Args:
        piece_seconds: Seconds of a piece.

    Example:

    >>> from acnn_tf.didemo import PieceGrid
    >>> PieceGrid().windows(13.0).tolist()
    [[0.0, 5.0], [5.0, 10.0], [10.0, 13.0], [0.0, 10.0], [5.0, 13.0], \
[0.0, 13.0]]

    Reference: Hendricks et al., Localizing Moments in Video with Natural
    Language, 2017, section 4.
    """

    piece_seconds: float = 5.0

    def __post_init__(self):
        if not 0 < self.piece_seconds < math.inf:
            raise ValueError(
                "`piece_seconds` must be positive. "
                f"Received: {self.piece_seconds}"
            )

    def windows(self, duration: float) -> np.ndarray:
        """Windows of a video that lasts `duration` seconds.

        Args:
            duration: Duration of the video in seconds.

        Returns:
            `float64 [W, 2]` in seconds, ordered by length and then by start.
        """
        if not 0 < duration < math.inf:
            raise ValueError(
                f"`duration` must be positive. Received: {duration}"
            )
        # A hair off, so that rounding never adds a piece.
        count = max(1, math.ceil(duration / self.piece_seconds - 1e-6))
        pieces = [
            (first, first + length)
            for length in range(1, count + 1)
            for first in range(count - length + 1)
        ]
        windows = np.array(pieces) * float(self.piece_seconds)
        return np.minimum(windows, duration)

    def contexts(self, windows: ArrayLike, size: int) -> np.ndarray:
        """Windows of as many pieces before and after each window.

        Args:
            windows: `[W, 2]`, all windows of a video, as above.
            size: Odd int: number of context windows, the window itself in the
                middle.

        Returns:
            `[W, size, 2]`, seconds; adjacent stretches that do not overlap,
            `[0, 0]` where the video has no such window.

        Example:

        >>> from acnn_tf.didemo import PieceGrid
        >>> grid = PieceGrid()
        >>> grid.contexts(grid.windows(10.0), size=3)[0].tolist()
        [[0.0, 0.0], [0.0, 5.0], [5.0, 10.0]]
        """
        if size < 1 or size % 2 == 0:
            raise ValueError(f"`size` must be odd. Received: {size}")
        windows = np.asarray(windows)
        first, end = self.pieces(windows).T
        hops = (end - first)[:, None] * np.arange(-(size // 2), size // 2 + 1)
        there = np.stack(
            [first[:, None] + hops, end[:, None] + hops], axis=-1
        )  # [W, C, 2]
        inside = (there[..., 0] >= 0) & (there[..., 1] <= end.max())
        seconds = np.minimum(there * self.piece_seconds, windows.max())
        return np.where(inside[..., None], seconds, 0.0)

    def pieces(self, segments: ArrayLike) -> np.ndarray:
        """Segments in pieces: the first, and the one after the last.

        Args:
            segments: `[..., 2]` in seconds. An end within a piece, such as the
                end of a video, counts as the end of that piece.

        Returns:
            `int64 [..., 2]`.

        Example:

        >>> from acnn_tf.didemo import PieceGrid
        >>> PieceGrid().pieces([25.0, 28.5]).tolist()
        [5, 6]
        """
        numbers = np.asarray(segments, np.float64) / self.piece_seconds
        first = np.floor(numbers[..., 0] + 1e-6)
        end = np.ceil(numbers[..., 1] - 1e-6)
        return np.stack([first, end], axis=-1).astype(np.int64)


GRID = PieceGrid(5.0)
NS = (1, 5)
_NAMES = (*(f"R@{n}" for n in NS), "mIoU")
_AGREEING = 3
_PROTOCOL = "DiDeMo's protocol: the best 3 annotators of each query"


def evaluate(
    model: keras.Model,
    moments: Sequence[Moment],
    features: Mapping[str, np.ndarray],
    *,
    sentence_vectors: Mapping[str | int, np.ndarray] | None = None,
    shuffle_seed: int | None = None,
) -> tuple[dict, list[np.ndarray]]:
    """Ranks the candidates of every query's video and measures the ranking.

    Windows are not shifted by their offsets, since the protocol knows only
    whole pieces. Nor do overlapping windows raise each other's scores: among
    all stretches of a video, those of middle length overlap most others,
    whatever the query is.

    Args:
        model: A model of `acnn_tf.models`; `acnn_tf.search` says what is asked
            of it.
        moments: The moments to find, with `num_annotators`.
        features: Mapping from video id to `[T, D]` clip features.
        sentence_vectors: Mapping from query id to `[E]`, for a model without
            a vocabulary.
        shuffle_seed: A seed for the control: every moment is searched for
            with the sentence of another one.

    Returns:
        `(results, predictions)`: what `score_predictions` returns, with the
        `"num_unknown"` of `acnn_tf.evaluation.evaluate`, and for each moment
        `float64 [N, 3]`: start, end and score, best first.
    """
    for moment in moments:  # before any is searched
        _truth(moment)
    queries = evaluation.encode_sentences(
        model, moments, sentence_vectors, shuffle_seed
    )
    is_known = evaluation.known_sentences(model, moments, shuffle_seed)
    rows, durations = evaluation.rows_by_video(moments)
    predictions = [np.zeros((0, 3))] * len(moments)
    for video in search.encode_videos(
        model, features, durations, GRID, is_exact=False
    ):
        asked = rows[video.video_id]
        segments, scores = search.candidates(
            model, queries[asked], video, refined=False
        )
        for row, ends, score in zip(asked, segments, scores, strict=True):
            if is_known[row]:
                predictions[row] = _ranked(np.column_stack([ends, score]))
    results = score_predictions(moments, predictions)
    results["num_unknown"] = int(np.count_nonzero(~is_known))
    return results, predictions


def query_hits(
    moments: Sequence[Moment], predictions: Sequence[ArrayLike]
) -> dict[str, np.ndarray]:
    """Which queries are hit, and how well the first result fits.

    Args:
        moments: The moments to find, with `num_annotators`.
        predictions: For each moment `[N, 3]`: start, end (seconds), score.
            They are ranked by score; equal scores keep their order.

    Returns:
        Dictionary of arrays `[Q]`: bool `"R@1"` and `"R@5"`, and float64
        `"iou"`.

    Raises:
        ValueError: If it is not known how many annotators chose each segment,
            or a prediction is not made of whole pieces. The message names the
            query.

    Example:

    Two of four annotators chose the first piece, which is ranked first; the
    third best chose the second, which is ranked second: (1 + 1 + 2) / 3.

    >>> from acnn_tf.data import Moment
    >>> from acnn_tf.didemo import query_hits
    >>> segments = ((0.0, 5.0), (5.0, 10.0), (20.0, 30.0))
    >>> moment = Moment(
    ...     "1", "a dog", "v", 30.0, segments, num_annotators=(2, 1, 1)
    ... )
    >>> hits = query_hits([moment], [[[0, 5, 0.9], [5, 10, 0.8]]])
    >>> {name: values.tolist() for name, values in hits.items()}
    {'R@1': [False], 'R@5': [True], 'iou': [0.6666666666666666]}
    """
    hits = {f"R@{n}": np.zeros(len(moments), bool) for n in NS}
    overlap = np.zeros(len(moments))
    for row, (moment, found) in enumerate(
        zip(moments, predictions, strict=True)
    ):
        truth = _truth(moment)
        found = _ranked(np.asarray(found, np.float64).reshape(-1, 3))
        _check_pieces(moment, found)
        ranked = GRID.pieces(found[:, :2])  # [N, 2]
        same = (ranked == truth[:, None]).all(axis=-1)  # [M, N]
        ranks = np.where(same.any(axis=1), _first(same) + 1.0, np.inf)  # [M]
        best = np.sort(np.repeat(ranks, moment.num_annotators))[:_AGREEING]
        for n in NS:
            hits[f"R@{n}"][row] = best.sum() <= n * len(best)
        if len(ranked):
            overlap[row] = _agreement(ranked[:1], truth, moment)[0]
    return {**hits, "iou": overlap}


def score_predictions(
    moments: Sequence[Moment], predictions: Sequence[ArrayLike]
) -> dict:
    """Measures predictions, whether or not they are from this package.

    Args:
        moments: The moments to find, with `num_annotators`.
        predictions: For each moment `[N, 3]`: start, end (seconds), score.
            They are ranked by score; equal scores keep their order.

    Returns:
        Dictionary of fractions, `"R@1"`, `"R@5"` and `"mIoU"`; with
        `"protocol"` (words) and `"num_queries"`.

    Raises:
        ValueError: If it is not known how many annotators chose each segment,
            or a prediction is not made of whole pieces. The message names the
            query.

    Example:

    >>> from acnn_tf import didemo
    >>> from acnn_tf.data import Moment
    >>> segments = ((0.0, 5.0), (5.0, 10.0))
    >>> moment = Moment(
    ...     "1", "a dog", "v", 30.0, segments, num_annotators=(3, 1)
    ... )
    >>> results = didemo.score_predictions([moment], [[[0, 5, 0.9]]])
    >>> results["R@1"], results["mIoU"]
    (1.0, 1.0)
    """
    hits = query_hits(moments, predictions)
    overlap = hits.pop("iou")
    means = {name: hit.mean() for name, hit in hits.items()}
    return _results(moments, {**means, "mIoU": overlap.mean()})


def chance(moments: Sequence[Moment]) -> dict:
    """The figures that candidates in random order are expected to reach.

    They are exact.

    Args:
        moments: The moments to find, with `num_annotators`.

    Returns:
        Dictionary of fractions, as `score_predictions` returns it.

    Example:

    >>> from acnn_tf import didemo
    >>> from acnn_tf.data import Moment
    >>> segments = ((0.0, 5.0), (5.0, 10.0))
    >>> moment = Moment(
    ...     "1", "a dog", "v", 30.0, segments, num_annotators=(3, 1)
    ... )
    >>> round(21 * didemo.chance([moment])["R@1"], 6)  # of 21 candidates
    1.0
    """
    totals = dict.fromkeys(_NAMES, 0.0)
    for moment in moments:
        truth = _truth(moment)
        candidates = GRID.pieces(GRID.windows(moment.duration))
        counts = tuple(sorted(moment.num_annotators))
        need = min(_AGREEING, sum(counts))
        for n in NS:
            totals[f"R@{n}"] += _chance(
                1, len(candidates), counts, need, n * need
            )
        totals["mIoU"] += _agreement(candidates, truth, moment).mean()
    return _results(moments, {k: v / len(moments) for k, v in totals.items()})


def oracle(moments: Sequence[Moment]) -> list[np.ndarray]:
    """The best ranking that is possible where annotators disagree.

    The candidate of highest IoU with the three best annotators comes first,
    then the candidates that most annotators chose.

    Args:
        moments: The moments to find, with `num_annotators`.

    Returns:
        For each moment `float64 [N, 3]`: start, end and score.

    Example:

    >>> from acnn_tf import didemo
    >>> from acnn_tf.data import Moment
    >>> segments = ((0.0, 5.0), (5.0, 10.0))
    >>> moment = Moment(
    ...     "1", "a dog", "v", 30.0, segments, num_annotators=(3, 1)
    ... )
    >>> didemo.oracle([moment])[0][0, :2].tolist()
    [0.0, 5.0]
    """
    predictions = []
    for moment in moments:
        truth = _truth(moment)
        windows = GRID.windows(moment.duration)
        candidates = GRID.pieces(windows)
        same = (candidates[:, None] == truth).all(axis=-1)  # [N, M]
        scores = same @ np.array(moment.num_annotators, np.float64)
        best = np.argmax(_agreement(candidates, truth, moment))
        scores[best] = scores.max() + 1.0
        predictions.append(_ranked(np.column_stack([windows, scores])))
    return predictions


def frequency_prior(
    known: Sequence[Moment], moments: Sequence[Moment]
) -> list[np.ndarray]:
    """One ranking for all moments: what annotators chose most often elsewhere.

    It is the same for all videos, so that a video of 5 pieces also gets the
    sixth piece as a prediction.

    Args:
        known: The moments of the training split, with `num_annotators`.
        moments: The moments to predict.

    Returns:
        For each moment `float64 [N, 3]`: start, end and score.

    Example:

    >>> from acnn_tf import didemo
    >>> from acnn_tf.data import Moment
    >>> segments = ((0.0, 5.0), (5.0, 10.0))
    >>> moment = Moment(
    ...     "1", "a dog", "v", 30.0, segments, num_annotators=(3, 1)
    ... )
    >>> didemo.frequency_prior([moment], [moment])[0].tolist()
    [[0.0, 5.0, 3.0], [5.0, 10.0, 1.0]]
    """
    chosen = collections.Counter()
    for moment in known:
        ends = map(tuple, _truth(moment).tolist())
        chosen.update(dict(zip(ends, moment.num_annotators, strict=True)))
    ranking = [
        (*(piece * GRID.piece_seconds for piece in ends), count)
        for ends, count in chosen.most_common()
    ]
    return [np.array(ranking, np.float64).reshape(-1, 3)] * len(moments)


def format_table(results: Mapping, title: str = "") -> str:
    """The figures, with their protocol.

    Args:
        results: From `score_predictions`, `evaluate` or `chance`.
        title: What was evaluated.

    Returns:
        String of several lines.

    Example:

    >>> from acnn_tf import didemo
    >>> from acnn_tf.data import Moment
    >>> segments = ((0.0, 5.0), (5.0, 10.0))
    >>> moment = Moment(
    ...     "1", "a dog", "v", 30.0, segments, num_annotators=(3, 1)
    ... )
    >>> results = didemo.score_predictions([moment], [[[0, 5, 0.9]]])
    >>> print(didemo.format_table(results, title="my ranking"))
    my ranking: 1 queries, ...
          R@1      R@5     mIoU
       1.0000   1.0000   1.0000
    """
    heading = f"{results['num_queries']} queries, {results['protocol']}"
    return "\n".join(
        [
            f"{title}: {heading}" if title else heading,
            "".join(f"{name:>9}" for name in _NAMES),
            "".join(f"{results[name]:9.4f}" for name in _NAMES),
            *evaluation.unknown_line(results),
        ]
    )


def _results(moments, means):
    means = {name: float(mean) for name, mean in means.items()}
    return {**means, "protocol": _PROTOCOL, "num_queries": len(moments)}


def _ranked(found):
    return found[np.argsort(-found[:, 2], kind="stable")]


def _first(same):
    """Where each row is first true; 0 where it nowhere is."""
    return same.argmax(axis=1) if same.shape[1] else np.zeros(len(same))


def _agreement(candidates, truth, moment):
    """Mean of the three largest IoU of each candidate, `[N]`."""
    overlap = segments_lib.iou(candidates[:, None], truth)  # [N, M]
    each = np.repeat(overlap, moment.num_annotators, axis=1)
    return np.sort(each, axis=1)[:, -_AGREEING:].mean(axis=1)


@functools.cache
def _chance(rank, left, counts, need, budget):
    """Chance that the ranks which are still needed sum up to the budget.

    Ranks are given one after the other. `rank` is the next one, and `left`
    candidates have none yet. `counts` tells how many annotators chose each of
    these, where anybody did. `need` ranks must still be found, and their sum
    may be `budget` at most.
    """
    if need == 0:
        return 1.0
    if need * rank > budget or left == 0:
        return 0.0
    total = 0.0
    for index, count in enumerate(counts):
        others = counts[:index] + counts[index + 1 :]
        taken = min(count, need)
        total += _chance(
            rank + 1, left - 1, others, need - taken, budget - taken * rank
        )
    missed = _chance(rank + 1, left - 1, counts, need, budget)
    return (total + (left - len(counts)) * missed) / left


def _truth(moment):
    """Its segments in pieces, `[M, 2]`, if it says how many chose each."""
    counts = moment.num_annotators
    if counts is None or len(counts) != len(moment.segments):
        raise ValueError(
            f"{moment.source or 'moment'}: query {moment.query_id!r} was "
            "expected to say how many annotators chose each of its "
            f"{len(moment.segments)} segments, found {counts}; read it from "
            "DiDeMo's own file, with --dataset=didemo"
        )
    return GRID.pieces(moment.segments)


def _check_pieces(moment, found):
    """Raises unless the segments are whole pieces, or end with the video."""
    seconds = GRID.pieces(found[:, :2]) * GRID.piece_seconds
    whole = np.isclose(seconds, found[:, :2], atol=1e-3)
    whole[:, 1] |= np.isclose(found[:, 1], moment.duration, atol=1e-3)
    whole &= (found[:, :1] >= 0) & (found[:, 1:2] > found[:, :1])
    if not whole.all():
        start, end, _ = found[np.argmin(whole.all(axis=1))].tolist()
        raise ValueError(
            f"{moment.source or 'moment'}: predictions for query "
            f"{moment.query_id!r} were expected to begin and end with pieces "
            f"of {GRID.piece_seconds:g} s, found {start:g} to {end:g} s; rank "
            "the pieces, or use experiments.evaluate, whose R@n, IoU=m takes "
            "any segment"
        )
