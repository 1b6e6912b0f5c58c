"""A model, or anybody's predictions, over a split: the paper's table."""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from acnn_tf import metrics, replicas, search
from acnn_tf import segments as segments_lib
from acnn_tf.data.annotations import Moment, check_moments, check_not_hidden
from acnn_tf.data.predictions import Predictions
from acnn_tf.data.sentences import Vocabulary, query_inputs

if typing.TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from acnn_tf.data.windows import WindowGrid

NS = (1, 5, 10)
IOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
# Of mAP: as many results count, and it is the mean over these IoU.
MAP_NUM = 10
MAP_IOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
# What is shown of it besides.
SHOWN_MAP_IOUS = (0.5, 0.75)
# Queries that are encoded at once.
_BATCH = 512
# To 1, of what is no count, in whole numbers.
_UNITS = 2**40


def evaluate(
    model: keras.Model,
    moments: Sequence[Moment],
    features: Mapping[str, np.ndarray],
    *,
    sentence_vectors: Mapping[str | int, np.ndarray] | None = None,
    shuffle_seed: int | None = None,
    grid: WindowGrid | None = None,
    suppression: str = "none",
    nms_threshold: float = 0.5,
    ns: Sequence[int] = NS,
    ious: Sequence[float] = IOUS,
    clip_seconds: float | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> tuple[dict, Predictions]:
    """Searches the video of every query and measures the results.

    Each video and each sentence is encoded once.

    Args:
        model: A model of `acnn_tf.models`; `acnn_tf.search` says what is asked
            of it.
        moments: The moments whose queries are searched for.
        features: Mapping from video id to `[T, D]` clip features.
        sentence_vectors: Mapping from query id to `[E]`, for a model with
            neither a vocabulary nor a `sentence_encoder`.
        shuffle_seed: A seed for the control: every moment is searched for
            with the sentence of another one. The figures then show what a
            model knows without the query.
        grid: The grid of candidates to use instead of `model.grid`.
        suppression: One of `acnn_tf.segments.SUPPRESSIONS`.
        nms_threshold: The most IoU of two results under `"fixed"` suppression.
        ns: The n of R@n.
        ious: The m of IoU=m.
        clip_seconds: If given, every stretch of so many seconds gets a score
            as well (`acnn_tf.search.clip_saliency`): the saliency of the
            predictions.
        strategy: `tf.distribute.Strategy` whose replicas share the videos.
            Each of several workers must call this function. Their counts are
            summed, so that each worker returns the figures of all videos.

    Returns:
        `(results, predictions)`: what `score_predictions` returns, and
        `Predictions`: for each moment `float64 [N, 3]`: start, end and score,
        best first, within `[0, duration]`. They are all results that the
        protocol ranks, so that scoring them again gives the same figures. A
        sentence of which the model knows no word is a miss, and has no
        predictions; `"num_unknown"` of the results is the number of such
        sentences.

    Example:

    >>> import acnn_tf
    >>> import numpy as np
    >>> model = acnn_tf.models.ZeroShot(window_lengths=(2.0, 4.0))
    >>> moment = acnn_tf.data.Moment(
    ...     "1", "it is bright", "v", 8.0, ((2.0, 6.0),)
    ... )
    >>> clips = np.eye(2, dtype="float32")[[0, 0, 1, 1, 1, 1, 0, 0]]
    >>> results, predictions = acnn_tf.evaluation.evaluate(
    ...     model, [moment], {"v": clips}, sentence_vectors={"1": clips[2]}
    ... )
    >>> results["R@1,IoU=0.7"], predictions[0][0, :2].tolist()
    (1.0, [2.0, 6.0])
    """
    protocol = {"suppression": suppression, "nms_threshold": nms_threshold}
    check_moments(moments)
    found, saliency, is_known = _find(
        *(model, moments, features, sentence_vectors, shuffle_seed, grid),
        limits={
            segments_lib.suppression_iou(iou=m, **protocol)
            for m in (*ious, *MAP_IOUS)
        },
        top_n=max(*ns, MAP_NUM),
        clip_seconds=clip_seconds,
        strategy=strategy,
    )
    asked = [moments[row] for row in found]
    counts = count_hits(
        asked, list(found.values()), ns=ns, ious=ious, **protocol
    )
    everywhere = replicas.gather_arrays(strategy, [list(counts.values())])
    counts = add_counts(dict(zip(counts, map(int, c))) for c in everywhere)
    results = fractions(counts, **protocol)
    results["num_unknown"] = int(np.count_nonzero(~is_known))
    return results, _gather_predictions(
        strategy, found, saliency, len(moments), clip_seconds
    )


def predict(
    model: keras.Model,
    moments: Sequence[Moment],
    features: Mapping[str, np.ndarray],
    *,
    sentence_vectors: Mapping[str | int, np.ndarray] | None = None,
    suppression: str = "none",
    nms_threshold: float = 0.5,
    top_n: int = MAP_NUM,
    clip_seconds: float | None = None,
) -> Predictions:
    """Searches the video of every query, without measuring the results.

    Each video and each sentence is encoded once.

    Args:
        model: A model of `acnn_tf.models`; `acnn_tf.search` says what is asked
            of it.
        moments: The moments whose queries are searched for. Their segments are
            not used, and may be hidden.
        features: Mapping from video id to `[T, D]` clip features.
        sentence_vectors: Mapping from query id to `[E]`, for a model with
            neither a vocabulary nor a `sentence_encoder`.
        suppression: `"none"` or `"fixed"`.
        nms_threshold: The most IoU of two results under `"fixed"` suppression.
        top_n: The most results of a query.
        clip_seconds: If given, every stretch of so many seconds gets a score
            as well (`acnn_tf.search.clip_saliency`): the saliency of the
            predictions.

    Returns:
        `Predictions`: for each moment `float64 [N, 3]`: start, end and score,
        best first. A sentence of which the model knows no word has no
        predictions, and 0 as the saliency of all clips.

    Example:

    >>> import acnn_tf
    >>> import numpy as np
    >>> model = acnn_tf.models.ZeroShot(window_lengths=(2.0, 4.0))
    >>> moment = acnn_tf.data.Moment(
    ...     "1", "it is bright", "v", 8.0, ((2.0, 6.0),)
    ... )
    >>> clips = np.eye(2, dtype="float32")[[0, 0, 1, 1, 1, 1, 0, 0]]
    >>> predictions = acnn_tf.evaluation.predict(
    ...     model, [moment], {"v": clips}, sentence_vectors={"1": clips[2]}
    ... )
    >>> predictions[0][0, :2].tolist()
    [2.0, 6.0]
    """
    found, saliency, _ = _find(
        *(model, moments, features, sentence_vectors, None, None),
        limits={segments_lib.suppression_iou(suppression, nms_threshold)},
        top_n=top_n,
        clip_seconds=clip_seconds,
    )
    return _gather_predictions(
        None, found, saliency, len(moments), clip_seconds
    )


def _find(
    model,
    moments,
    features,
    sentence_vectors,
    shuffle_seed,
    grid,
    *,
    limits,
    top_n,
    clip_seconds,
    strategy=None,
):
    """What this worker finds: `(found, saliency, is_known)`.

    The first two are dictionaries from the rows of moments to arrays, `[N, 3]`
    and `[C]`; the last is bool `[Q]`, of all moments. Results are what is left
    by suppression at any of the `limits`.
    """
    queries = encode_sentences(model, moments, sentence_vectors, shuffle_seed)
    is_known = known_sentences(model, moments, shuffle_seed)
    rows, durations = rows_by_video(moments)
    # The annotators of DiDeMo saw pieces of videos.
    is_exact = all(moment.num_annotators is None for moment in moments)
    videos = sorted(durations, key=durations.get)
    count = strategy.num_replicas_in_sync if strategy else 1
    shares = [videos[i::count] for i in range(count)]  # of similar length

    def search_share(share):
        found, saliency = {}, {}
        share = {video: durations[video] for video in share}
        for video in search.encode_videos(
            model, features, share, grid, is_exact=is_exact
        ):
            asked = rows[video.video_id]
            results = _search(model, queries[asked], video, limits, top_n)
            found |= zip(asked, results)
            if clip_seconds is not None:
                # As the model scores them: the ranking's scores add up no more.
                _, scores = search.candidates(
                    model, queries[asked], video, refined=False
                )
                saliency |= zip(
                    asked,
                    search.clip_saliency(
                        video.windows, scores, video.duration, clip_seconds
                    ),
                )
        for row in found:
            if not is_known[row]:
                found[row] = np.zeros((0, 3))
                if row in saliency:
                    saliency[row] = np.zeros_like(saliency[row])
        return found, saliency

    found, saliency = {}, {}
    for _, part in replicas.map_shares(strategy, search_share, shares):
        found |= part[0]
        saliency |= part[1]
    return found, saliency, is_known


def rows_by_video(
    moments: Sequence[Moment],
) -> tuple[dict[str, list[int]], dict[str, float]]:
    """`(rows, durations)`: each video's moments, `[M]`, and its seconds."""
    rows, durations = {}, {}
    for row, moment in enumerate(moments):
        rows.setdefault(moment.video_id, []).append(row)
        durations[moment.video_id] = moment.duration
    return rows, durations


def _search(model, queries, video, limits, top_n):
    """Results of each query, all that some protocol ranks, best first."""
    segments, scores = search.candidates(model, queries, video)
    count = len(limits)
    places = search.nms(
        np.tile(segments, (count, 1, 1)),
        np.tile(scores, (count, 1)),
        np.repeat(list(limits), len(queries)),
        top_n,
    ).numpy()  # [count * Q, M]
    row, rank = np.nonzero(places >= 0)
    kept = np.zeros(scores.shape, bool)
    kept[row % len(queries), places[row, rank]] = True
    for row, row_kept in enumerate(kept):
        found = np.column_stack([segments[row], scores[row]])[row_kept]
        yield found[np.argsort(-found[:, 2], kind="stable")]


def _gather_predictions(strategy, found, saliency, num_moments, clip_seconds):
    """Those of all workers, in the order of the moments: `Predictions`."""
    windows = _gather(strategy, found, num_moments, (0, 3))
    if clip_seconds is None:
        return Predictions(windows)
    return Predictions(windows, _gather(strategy, saliency, num_moments, (0,)))


def _gather(strategy, found, num_moments, shape):
    """Arrays by the rows of all workers, as one list; each of any length."""
    rows = replicas.gather_arrays(strategy, np.array([*found], np.int64))
    sizes = replicas.gather_arrays(
        strategy, np.array([*map(len, found.values())], np.int64)
    )
    arrays = replicas.gather_arrays(
        strategy, np.concatenate([np.zeros(shape), *found.values()])
    )
    gathered = [None] * num_moments
    for row, part in zip(rows, np.split(arrays, np.cumsum(sizes)[:-1])):
        gathered[row] = part
    return gathered


def encode_sentences(
    model: keras.Model,
    moments: Sequence[Moment],
    sentence_vectors: Mapping[str | int, np.ndarray] | None = None,
    shuffle_seed: int | None = None,
) -> np.ndarray:
    """Encodes the query of every moment, float32 `[Q, t]`; see `evaluate`."""
    if sentence_vectors is None and getattr(model, "sentence_encoder", None):
        sentences = [moment.query for moment in moments]
        queries = model.read_sentences(sentences).queries
    else:
        queries = query_inputs(moments, model.vocabulary, sentence_vectors)
    queries = np.concatenate(
        [
            search.to_numpy(model.encode_queries(queries[i : i + _BATCH]))
            for i in range(0, len(queries), _BATCH)
        ]
    )
    if shuffle_seed is None:
        return queries
    return queries[derangement(len(moments), shuffle_seed)]


def known_sentences(
    model: keras.Model,
    moments: Sequence[Moment],
    shuffle_seed: int | None = None,
) -> np.ndarray:
    """Whether the model knows any word of each query, bool `[Q]`."""
    is_known = np.ones(len(moments), bool)
    if model.vocabulary is not None:
        sentences = [moment.query for moment in moments]
        is_known[:] = Vocabulary(model.vocabulary).read(sentences).is_known
    if shuffle_seed is None:
        return is_known
    return is_known[derangement(len(moments), shuffle_seed)]


def derangement(count: int, seed: int) -> np.ndarray:
    """A random permutation in which nothing stays in place.

    Args:
        count: How many places there are, at least 2.
        seed: Seed of the permutation.

    Returns:
        `int64 [count]`.

    Example:

    >>> from acnn_tf.evaluation import derangement
    >>> derangement(2, seed=0).tolist()
    [1, 0]
    """
    if count < 2:
        raise ValueError("One sentence cannot be shuffled.")
    order = np.random.default_rng(seed).permutation(count)
    shuffled = np.empty_like(order)
    shuffled[order] = np.roll(order, 1)
    return shuffled


def score_predictions(
    moments: Sequence[Moment],
    predictions: Sequence[ArrayLike],
    *,
    suppression: str = "none",
    nms_threshold: float = 0.5,
    ns: Sequence[int] = NS,
    ious: Sequence[float] = IOUS,
) -> dict:
    """Measures predictions, whether or not they are from this package.

    Args:
        moments: The moments that the predictions should find.
        predictions: For each moment `[N, 3]`: start, end (seconds), score.
            They are ranked by score; equal scores keep their order.
        suppression: One of `acnn_tf.segments.SUPPRESSIONS`. It is applied to
            the predicted segments.
        nms_threshold: The most IoU of two results under `"fixed"` suppression.
        ns: The n of R@n.
        ious: The m of IoU=m.

    Returns:
        Dictionary of fractions: `"R@1,IoU=0.5"` for every n and m, `"mIoU"`,
        `"mAP,IoU=0.5"`, `"mAP,IoU=0.75"` and `"mAP"`, the mean over
        `MAP_IOUS`, see `average_precisions`; with `"protocol"` (words) and
        `"num_queries"`.

    Raises:
        ValueError: If a prediction is NaN, or a moment is hidden. The message
            names the query.

    Example:

    >>> import acnn_tf
    >>> moment = acnn_tf.data.Moment(
    ...     "1", "a man runs", "v", 20.0, ((0.0, 10.0),)
    ... )
    >>> results = acnn_tf.evaluation.score_predictions(
    ...     [moment], [[[0, 8, 0.9], [10, 20, 0.4]]]
    ... )
    >>> results["R@1,IoU=0.7"], results["mIoU"]
    (1.0, 0.8...)
    """
    protocol = {"suppression": suppression, "nms_threshold": nms_threshold}
    counts = count_hits(moments, predictions, ns=ns, ious=ious, **protocol)
    return fractions(counts, **protocol)


def query_hits(
    moments: Sequence[Moment],
    predictions: Sequence[ArrayLike],
    *,
    ns: Sequence[int],
    ious: Sequence[float],
    **protocol: str | float,
) -> dict[str, np.ndarray]:
    """Which queries are hit, and how well the first result fits.

    Their means over the queries are the figures of `score_predictions`. Query
    by query they tell whether two models differ; see
    `experiments.sweeps.significance`.

    Args:
        moments: The moments that the predictions should find. There may be
            none.
        predictions: For each moment `[N, 3]`: start, end (seconds), score.
        ns: The n of R@n.
        ious: The m of IoU=m.
        **protocol: `suppression` and `nms_threshold`, as of
            `score_predictions`.

    Returns:
        Dictionary of arrays `[Q]`: bool `"R@1,IoU=0.5"` for every m and n,
        and float64 `"iou"`, the IoU of the first result.

    Raises:
        ValueError: If a prediction is NaN. The message names the query.

    Example:

    >>> from acnn_tf.data import Moment
    >>> from acnn_tf.evaluation import query_hits
    >>> moment = Moment("1", "a man runs", "v", 20.0, ((0.0, 10.0),))
    >>> hits = query_hits([moment], [[[0, 8, 0.9]]], ns=(1,), ious=(0.5, 0.9))
    >>> {name: values.tolist() for name, values in hits.items()}
    {'R@1,IoU=0.5': [True], 'R@1,IoU=0.9': [False], 'iou': [0.8]}
    """
    truth, segments, scores = _as_arrays(moments, predictions)
    overlap = metrics.best_iou(truth, segments)  # [Q, N]

    hits, ranked = {}, {}
    for m in ious:
        max_iou = segments_lib.suppression_iou(iou=m, **protocol)
        if max_iou not in ranked:
            index = search.nms(segments, scores, max_iou, max(ns)).numpy()
            ranked[max_iou] = np.where(
                index >= 0, np.take_along_axis(overlap, index, axis=1), 0.0
            )
        for n in ns:
            hit = metrics.recall_hits(ranked[max_iou], n, m)
            hits[f"R@{n},IoU={m:g}"] = hit
    # No protocol changes the first result.
    return {**hits, "iou": metrics.top_iou(ranked[max_iou])}


def average_precisions(
    moments: Sequence[Moment],
    predictions: Sequence[ArrayLike],
    **protocol: str | float,
) -> np.ndarray:
    """Average precision of each query, whose mean over queries is mAP.

    The first `MAP_NUM` predictions of a query count, as they are listed. With
    suppression, the first that the suppression leaves count. Among these the
    order is by score. A query without predictions has 0.

    Args:
        moments: The moments that the predictions should find. There may be
            none.
        predictions: For each moment `[N, 3]`: start, end (seconds), score.
        **protocol: `suppression` and `nms_threshold`, as of
            `score_predictions`.

    Returns:
        `float64 [Q, M]`, a column for each of `MAP_IOUS`; see
        `acnn_tf.metrics.average_precision`.

    Raises:
        ValueError: If a prediction is NaN, or a moment is hidden. The message
            names the query.

    Example:

    >>> from acnn_tf.data import Moment
    >>> from acnn_tf.evaluation import average_precisions
    >>> moment = Moment("1", "a man runs", "v", 20.0, ((0.0, 10.0),))
    >>> average_precisions([moment], [[[0, 8, 0.9]]]).round(1).tolist()
    [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]]
    """
    truth, segments, scores = _as_arrays(moments, predictions)
    found = np.zeros((len(moments), len(MAP_IOUS)))
    limits = [segments_lib.suppression_iou(iou=m, **protocol) for m in MAP_IOUS]
    for limit in set(limits):
        columns = np.flatnonzero(np.equal(limits, limit))
        if protocol.get("suppression", "none") == "none":
            order = np.argsort(-scores[:, :MAP_NUM], axis=1, kind="stable")
        else:
            order = search.nms(segments, scores, limit, MAP_NUM).numpy()
        ranked = np.take_along_axis(segments, order[..., None], axis=1)
        ranked = np.where(order[..., None] >= 0, ranked, np.nan)
        found[:, columns] = metrics.average_precision(
            truth, ranked, np.take(MAP_IOUS, columns)
        )
    return found


def _as_arrays(moments, predictions):
    """`(truth [Q, M, 2], segments [Q, N, 2], scores [Q, N])`, padded.

    Segments are padded by NaN, scores by `-inf`.
    """
    check_not_hidden(moments)
    num_true = max((len(moment.segments) for moment in moments), default=1)
    num_found = max([1, *map(len, predictions)])
    truth = np.full((len(moments), num_true, 2), np.nan)
    segments = np.full((len(moments), num_found, 2), np.nan)
    scores = np.full((len(moments), num_found), -np.inf)
    for row, (moment, found) in enumerate(
        zip(moments, predictions, strict=True)
    ):
        truth[row, : len(moment.segments)] = moment.segments
        found = np.asarray(found, np.float64).reshape(-1, 3)
        if np.isnan(found).any():
            raise ValueError(
                f"Predictions for query {moment.query_id!r} must be numbers. "
                f"Received: {found[np.isnan(found).any(axis=1)][0]}"
            )
        segments[row, : len(found)] = found[:, :2]
        scores[row, : len(found)] = found[:, 2]
    return truth, segments, scores


def count_hits(
    moments: Sequence[Moment],
    predictions: Sequence[ArrayLike],
    *,
    ns: Sequence[int] = NS,
    ious: Sequence[float] = IOUS,
    **protocol: str | float,
) -> dict[str, int]:
    """The figures of `score_predictions` as whole numbers.

    The counts of the parts of a split add up to the counts of the split; see
    `add_counts`.

    Args:
        moments: The moments that the predictions should find. There may be
            none.
        predictions: For each moment `[N, 3]`: start, end (seconds), score.
        ns: The n of R@n.
        ious: The m of IoU=m.
        **protocol: `suppression` and `nms_threshold`, as of
            `score_predictions`.

    Returns:
        Dictionary of ints, always in the same order: `"R@1,IoU=0.5"` for every
        n and m, the number of queries hit; `"iou"`, the sum of the IoU of
        first results; `"AP"`, the sum of average precisions, and
        `"AP,IoU=0.5"`; and `"num_queries"`. Sums are in units of 2^-40, to
        which each summand is rounded: so a sum is exact, whatever the order
        and the parts, and fits an int64 for 8 million queries.

    Example:

    >>> from acnn_tf.data import Moment
    >>> from acnn_tf.evaluation import count_hits
    >>> moment = Moment("1", "a man runs", "v", 20.0, ((0.0, 10.0),))
    >>> counts = count_hits([moment], [[[0, 8, 0.9]]], ns=(1,), ious=(0.5,))
    >>> counts["R@1,IoU=0.5"], counts["num_queries"], counts["iou"] / 2**40
    (1, 1, 0.8...)
    """
    counts = {f"R@{n},IoU={m:g}": 0 for m in ious for n in ns}
    precisions = average_precisions(moments, predictions, **protocol)
    columns = {
        f"AP,IoU={m:g}": precisions[:, MAP_IOUS.index(m)]
        for m in SHOWN_MAP_IOUS
    }
    columns["AP"] = precisions.mean(axis=1)
    counts |= dict.fromkeys(("iou", *columns), 0)
    counts["num_queries"] = len(moments)
    found = query_hits(moments, predictions, ns=ns, ious=ious, **protocol)
    first = found.pop("iou")
    counts |= {name: int(np.count_nonzero(hit)) for name, hit in found.items()}
    for name, values in {"iou": first, **columns}.items():
        counts[name] = sum(map(round, (values * _UNITS).tolist()))
    return counts


def add_counts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of a whole from those of its parts.

    Args:
        parts: What `count_hits` returned for each part of the queries, all of
            them under the same protocol.

    Returns:
        Dictionary of ints, the same for any division into parts.

    Example:

    >>> from acnn_tf.evaluation import add_counts
    >>> add_counts([{"iou": 3, "num_queries": 2}, {"iou": 1, "num_queries": 1}])
    {'iou': 4, 'num_queries': 3}
    """
    total, *others = parts
    for counts in others:
        if differing := sorted(set(counts) ^ set(total)):
            raise ValueError(
                "`parts` must count the same, for one `ns` and `ious`. "
                f"Received some with and some without: {differing}"
            )
        total = {key: total[key] + counts[key] for key in total}
    return total


def fractions(counts: Mapping[str, int], **protocol: str | float) -> dict:
    """Counts as the shares of all queries that tables show.

    Args:
        counts: From `count_hits` or `add_counts`.
        **protocol: `suppression` and `nms_threshold` of the counts.

    Returns:
        Dictionary of fractions, as `score_predictions` returns it.

    Example:

    >>> from acnn_tf.data import Moment
    >>> from acnn_tf.evaluation import add_counts, count_hits, fractions
    >>> moment = Moment("1", "a man runs", "v", 20.0, ((0.0, 10.0),))
    >>> hit = count_hits([moment], [[[0, 8, 0.9]]])
    >>> miss = count_hits([moment], [[[15, 20, 0.9]]])
    >>> fractions(add_counts([hit, miss]))["R@1,IoU=0.5"]
    0.5
    """
    num_queries = int(counts["num_queries"])
    if not num_queries:
        raise ValueError("There are no queries to evaluate.")
    results = {}
    for key, count in counts.items():
        if key.startswith("R@"):
            results[key] = int(count) / num_queries
        elif key != "num_queries":
            name = "mIoU" if key == "iou" else f"m{key}"
            results[name] = int(count) / (_UNITS * num_queries)
    results["protocol"] = describe_protocol(**protocol)
    results["num_queries"] = num_queries
    return results


def describe_protocol(
    suppression: str = "none", nms_threshold: float = 0.5
) -> str:
    """The protocol in words, to stand beside every table.

    Args:
        suppression: One of `acnn_tf.segments.SUPPRESSIONS`.
        nms_threshold: The most IoU of two results under `"fixed"` suppression.

    Returns:
        A few words.

    Example:

    >>> from acnn_tf.evaluation import describe_protocol
    >>> describe_protocol("fixed", nms_threshold=0.5)
    'fixed: NMS keeps results of IoU <= 0.5'
    """
    # Raises where one of them is wrong.
    segments_lib.suppression_iou(suppression, nms_threshold, iou=0.5)
    return {
        "none": "none: no suppression",
        "fixed": f"fixed: NMS keeps results of IoU <= {nms_threshold:g}",
        "per_threshold": "per_threshold: for IoU=m, NMS keeps results of "
        "IoU <= m - 0.05",
    }[suppression]


def chance(
    moments: Sequence[Moment],
    grid: WindowGrid,
    ns: Sequence[int] = NS,
    ious: Sequence[float] = IOUS,
) -> dict:
    """The figures that windows in random order are expected to reach.

    They are exact for a ranking without suppression. With suppression, chance
    is the same for R@1 and mIoU, and somewhat higher for R@5 and R@10.

    Args:
        moments: The moments to find.
        grid: The grid that makes the candidates.
        ns: The n of R@n.
        ious: The m of IoU=m.

    Returns:
        Dictionary with the keys of `score_predictions`.

    Example:

    >>> from acnn_tf.data import Moment, WindowGrid
    >>> from acnn_tf.evaluation import chance
    >>> moment = Moment("1", "a man runs", "v", 20.0, ((0.0, 10.0),))
    >>> grid = WindowGrid((10.0,), overlap=0.5)  # 0-10, 5-15 and 10-20 s
    >>> results = chance([moment], grid, ns=(1, 2), ious=(0.5,))
    >>> print(f"{results['R@1,IoU=0.5']:.3f} {results['R@2,IoU=0.5']:.3f}")
    0.333 0.667
    """
    results = {f"R@{n},IoU={m:g}": 0.0 for m in ious for n in ns}
    results["mIoU"] = 0.0
    windows_of = functools.cache(grid.windows)
    for moment in moments:
        windows = windows_of(moment.duration)[:, None]
        overlap = segments_lib.iou(windows, moment.segments).max(axis=1)  # [W]
        results["mIoU"] += float(overlap.mean()) / len(moments)
        drawn = np.arange(min(max(ns), len(overlap)))
        for m in ious:
            misses = np.count_nonzero(overlap < m)
            # Chance that each draw misses, if all before it have.
            miss = np.maximum(misses - drawn, 0) / (len(overlap) - drawn)
            hit = 1.0 - np.cumprod(miss)
            for n in ns:
                results[f"R@{n},IoU={m:g}"] += hit[:n][-1] / len(moments)
    results["protocol"] = "windows at random, no suppression"
    results["num_queries"] = len(moments)
    return results


def format_table(
    results: Mapping,
    ns: Sequence[int] = NS,
    ious: Sequence[float] = IOUS,
    title: str = "",
) -> str:
    """The paper's table, R@1 first, with its protocol.

    Args:
        results: From `score_predictions`, `evaluate` or `chance`.
        ns: The n of R@n.
        ious: The m of IoU=m.
        title: What was evaluated.

    Returns:
        String of several lines.

    Example:

    >>> from acnn_tf.data import Moment
    >>> from acnn_tf.evaluation import format_table, score_predictions
    >>> moment = Moment("1", "a man runs", "v", 20.0, ((0.0, 10.0),))
    >>> results = score_predictions([moment], [[[0, 8, 0.9]]])
    >>> print(format_table(results, title="my model"))
    my model: 1 queries, none: no suppression
            IoU=0.1  IoU=0.2  IoU=0.3  IoU=0.4  IoU=0.5  IoU=0.7
    R@1       1.000    1.000    1.000    1.000    1.000    1.000
    ...
    """
    heading = f"{results['num_queries']} queries, {results['protocol']}"
    lines = [f"{title}: {heading}" if title else heading]
    lines.append("      " + "".join(f"{f'IoU={m:g}':>9}" for m in ious))
    for n in sorted(ns):
        row = (results[f"R@{n},IoU={m:g}"] for m in ious)
        lines.append(f"{f'R@{n}':<6}" + "".join(f"{v:9.3f}" for v in row))
    lines.append(f"{'mIoU':<6}{results['mIoU']:9.3f}")
    if "mAP" in results:
        columns = (
            f"   IoU={m:g}: {results[f'mAP,IoU={m:g}']:.3f}"
            for m in SHOWN_MAP_IOUS
        )
        lines.append(f"{'mAP':<6}{results['mAP']:9.3f}{''.join(columns)}")
    return "\n".join([*lines, *unknown_line(results)])


def unknown_line(results: Mapping) -> list[str]:
    """What a table says of queries without a known word: a line, or none."""
    if not results.get("num_unknown"):
        return []
    return [
        f"{results['num_unknown']} queries, of which the model knows no word, "
        "count as misses."
    ]


def attention(
    model: keras.Model,
    moment: Moment,
    features: Mapping[str, np.ndarray],
    length: float,
) -> dict | None:
    """How much each width of the context counts, along a moment's video.

    Args:
        model: A model of `acnn_tf.models`.
        moment: The moment whose video is encoded.
        features: Mapping from video id to `[T, D]` clip features.
        length: Seconds. Only windows of one length are used: the length of the
            grid that is nearest to this.

    Returns:
        What `acnn_tf.plots.timeline` takes as `attention`: `"centre"` `[W]` in
        seconds, `"kernel_sizes"` `[K]` and `"weights"` `[W, K]`. `None` if the
        model has no such weights.

    Example:

    >>> import acnn_tf
    >>> import numpy as np
    >>> model = acnn_tf.models.ZeroShot(window_lengths=(2.0, 4.0))
    >>> moment = acnn_tf.data.Moment(
    ...     "1", "it is bright", "v", 8.0, ((2.0, 6.0),)
    ... )
    >>> clips = np.eye(2, dtype="float32")[[0, 0, 1, 1, 1, 1, 0, 0]]
    >>> acnn_tf.evaluation.attention(model, moment, {"v": clips}, length=4.0)
    """
    windows = model.grid.windows(moment.duration)
    lengths = windows[:, 1] - windows[:, 0]
    nearest = lengths[np.argmin(np.abs(lengths - length))]
    chosen = np.abs(lengths - nearest) < 1e-6
    inputs = search.encoder_inputs(
        model,
        features,
        {moment.video_id: moment.duration},
        {moment.video_id: windows},
    )
    if (weights := model.attention_weights(inputs)) is None:
        return None
    weights = search.to_numpy(weights)[0]
    return {
        "centre": windows[chosen].mean(axis=1),
        "kernel_sizes": model.kernel_sizes,
        "weights": weights[: len(windows)][chosen],
    }


def score_curve(
    model: keras.Model,
    moment: Moment,
    features: Mapping[str, np.ndarray],
    sentence_vectors: Mapping[str | int, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """How well the moments about each time of a video answer its query.

    Args:
        model: A model of `acnn_tf.models`.
        moment: The moment whose video is searched for its sentence.
        features: Mapping from video id to `[T, D]` clip features.
        sentence_vectors: Mapping from query id to `[E]`, for a model with
            neither a vocabulary nor a `sentence_encoder`.

    Returns:
        `(times, scores)`, arrays `[N]`, which `acnn_tf.plots.timeline` takes
        as `curve`: the middle of each clip in seconds, and the score of the
        best moment that holds this time, on the scale of `evaluate`.

    Example:

    >>> import acnn_tf
    >>> import numpy as np
    >>> model = acnn_tf.models.ZeroShot(window_lengths=(2.0, 4.0))
    >>> moment = acnn_tf.data.Moment(
    ...     "1", "it is bright", "v", 8.0, ((2.0, 6.0),)
    ... )
    >>> clips = np.eye(2, dtype="float32")[[0, 0, 1, 1, 1, 1, 0, 0]]
    >>> times, scores = acnn_tf.evaluation.score_curve(
    ...     model, moment, {"v": clips}, sentence_vectors={"1": clips[2]}
    ... )
    >>> times[scores == scores.max()].tolist()
    [2.5, 3.5, 4.5, 5.5]
    """
    queries = encode_sentences(model, [moment], sentence_vectors)
    (video,) = search.encode_videos(
        model,
        features,
        {moment.video_id: moment.duration},
        is_exact=moment.num_annotators is None,
    )
    (segments,), (scores,) = search.candidates(model, queries, video)
    return search.score_curve(
        segments, scores, moment.duration, model.clip_seconds
    )
