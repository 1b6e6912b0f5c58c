"""Finds the best moments of many videos, and ranks only a few of the videos.

Scores of all windows bound what the moments of a video can score
(`acnn_tf.search.scoring.video_bounds`). Videos are ranked by falling bounds,
until none that is left can reach the top, so that the search is exact:

    search = start_search(bounds, ...)
    while not search.is_done:
        search = rank_videos(search, ...)  # with the encodings it asks for

An index does so step by step, and reads the encodings from its files; a
servable has the loop in its graph, and its encodings in variables.
"""

import functools
import typing
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from acnn_tf.search.encoding import to_numpy
from acnn_tf.search.ranking import RankingSettings, rank
from acnn_tf.search.scoring import any_size, shared_tensor, video_bounds

# Videos of a query that are ranked at a time, after the first `top_n`.
_VIDEOS = 16
# Of the least gap seen between the estimate of a video and its best moment, the
# share that is taken to be the least of all.
_SURE_GAP = 0.7
# Windows that are ranked at a time, if one video has no more: bounds memory.
_WINDOWS = 65_536


class Moments(typing.NamedTuple):
    """The n best moments of Q queries, best first."""

    video: (
        tf.Tensor
    )  # int32 [Q, n], numbers of videos; -1 where there are fewer
    segment: tf.Tensor  # float64 [Q, n, 2], seconds
    score: tf.Tensor  # float64 [Q, n]; -inf where there are fewer


class Search(typing.NamedTuple):
    """The state of a search for Q queries in V videos."""

    bounds: tf.Tensor  # float64 [Q, V], the most that a video's moments score
    order: tf.Tensor  # int32 [Q, V], videos by falling bounds
    num_windows: tf.Tensor  # int32 [V]
    num_ranked: tf.Tensor  # int32 [Q], how many of `order` were ranked
    is_sure: tf.Tensor  # bool, `bounds` are bounds, and no estimates
    error: tf.Tensor  # float64, the largest seen in `bounds`
    gap: tf.Tensor  # float64, of what `bounds` are above moments, the least
    is_finite: tf.Tensor  # bool, all scores and offsets so far
    moments: Moments  # the best so far
    is_done: tf.Tensor  # bool, no video is left that could hold a better one
    row: tf.Tensor  # int32 [q], the queries whose videos are ranked next
    video: tf.Tensor  # int32 [q, v], these videos; -1 where a query has fewer


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None], tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.bool),
    ],
    autograph=False,
)
def start_search(
    bounds: tf.Tensor,
    num_windows: tf.Tensor,
    top_n: tf.Tensor,
    is_sure: tf.Tensor,
) -> Search:
    """Starts a `Search`, and chooses the videos to rank first.

    Bounds `[Q, V]` are those of `video_bounds`, V at least 1; videos are
    numbered by their ids. `num_windows` `[V]` are those of each; `top_n` is n,
    the moments of a query. Unless they are sure, bounds are estimates: a video
    is left out where its moments would have to come much nearer to its bound
    than any that was ranked.
    """
    bounds = tf.cast(bounds, tf.float64)
    num_queries = tf.shape(bounds)[0]
    shape = tf.stack([num_queries, top_n])
    search = Search(
        bounds=bounds,
        order=tf.argsort(bounds, direction="DESCENDING", stable=True),
        num_windows=num_windows,
        num_ranked=tf.zeros([num_queries], tf.int32),
        is_sure=is_sure,
        error=tf.constant(0.0, tf.float64),
        gap=tf.constant(np.inf, tf.float64),
        is_finite=tf.reduce_all(tf.math.is_finite(bounds)),
        moments=Moments(
            video=tf.fill(shape, -1),
            segment=tf.zeros(tf.concat([shape, [2]], 0), tf.float64),
            score=tf.fill(shape, tf.constant(-np.inf, tf.float64)),
        ),
        is_done=None,
        row=None,
        video=None,
    )
    return _with_next_videos(search, top_n)


def _with_next_videos(search, top_n):
    """Chooses the videos to rank next."""
    num_videos = tf.shape(search.bounds)[1]
    # Bounds and scores come from different products.
    away = tf.where(
        search.is_sure, -2.0 * search.error - 1e-6, _SURE_GAP * search.gap
    )
    away = tf.where(search.gap < np.inf, away, 0.0)
    lowest = search.moments.score[:, -1:] + away
    # Most often the best moments are those of the first videos.
    most = tf.where(
        tf.reduce_any(search.num_ranked > 0), tf.maximum(top_n, _VIDEOS), top_n
    )
    place = search.num_ranked[:, None] + tf.range(tf.minimum(most, num_videos))
    video = tf.gather(
        search.order, tf.minimum(place, num_videos - 1), batch_dims=1
    )
    bounds = tf.gather(search.bounds, video, batch_dims=1)
    wanted = (place < num_videos) & (bounds >= lowest)  # [Q, most]
    num_windows = tf.where(wanted, tf.gather(search.num_windows, video), 1)
    largest = tf.reduce_max(num_windows)
    row = tf.cast(tf.where(wanted[:, 0])[:, 0], tf.int32)
    row = row[: tf.maximum(1, _WINDOWS // largest)]
    room = _WINDOWS // (largest * tf.maximum(1, tf.size(row)))
    wanted = tf.gather(wanted, row)
    count = tf.reduce_max(tf.reduce_sum(tf.cast(wanted, tf.int32), axis=1))
    count = tf.minimum(count, tf.maximum(1, room))
    video = tf.where(wanted, tf.gather(video, row), -1)[:, :count]
    return search._replace(is_done=tf.size(row) < 1, row=row, video=video)


def rank_videos(
    settings: RankingSettings,
    search: Search,
    output: dict[str, tf.Tensor],
    windows: tf.Tensor,
    duration: tf.Tensor,
    top_n: tf.Tensor | int,
    max_iou: tf.Tensor | float,
) -> Search:
    """Ranks the videos that were chosen, and chooses the next ones.

    Args:
        settings: `acnn_tf.search.ranking.RankingSettings`.
        search: `Search`.
        output: From `model.locate`, for the queries `search.row` and windows
            `[q, v * W, t]`, those of the videos one after the other; what
            lies behind the last window of a video does not count.
        windows: float64 `[q, v, W, 2]`, seconds.
        duration: float64 `[q, v]`, seconds.
        top_n: Int, moments of a query.
        max_iou: Float, IoU that two moments of a video may have.

    Returns:
        `Search`.
    """
    score, offset = (
        tf.cast(output[name], tf.float32) for name in ("score", "offset")
    )
    return _compiled_ranking(settings)(
        search, score, offset, windows, duration, top_n, max_iou
    )


@functools.cache
def _compiled_ranking(settings):
    """`_rank_videos` in a graph, traced once for all models and indexes."""

    def spec(dtype, rank):
        return tf.TensorSpec([None] * rank, dtype)

    search = Search(
        bounds=spec(tf.float64, 2),
        order=spec(tf.int32, 2),
        num_windows=spec(tf.int32, 1),
        num_ranked=spec(tf.int32, 1),
        is_sure=spec(tf.bool, 0),
        error=spec(tf.float64, 0),
        gap=spec(tf.float64, 0),
        is_finite=spec(tf.bool, 0),
        moments=Moments(
            video=spec(tf.int32, 2),
            segment=spec(tf.float64, 3),
            score=spec(tf.float64, 2),
        ),
        is_done=spec(tf.bool, 0),
        row=spec(tf.int32, 1),
        video=spec(tf.int32, 2),
    )
    return tf.function(
        functools.partial(_rank_videos, settings),
        input_signature=[
            search,
            spec(tf.float32, 2),
            spec(tf.float32, 3),
            spec(tf.float64, 4),
            spec(tf.float64, 2),
            spec(tf.int32, 0),
            spec(tf.float64, 0),
        ],
        autograph=False,
    )


def _rank_videos(
    settings, search, score, offset, windows, duration, top_n, max_iou
):
    rows, videos, width, _ = tf.unstack(tf.shape(windows))
    is_used = search.video >= 0
    video = tf.maximum(search.video, 0)
    is_finite = tf.reduce_all(tf.math.is_finite(score)) & tf.reduce_all(
        tf.math.is_finite(offset)
    )
    count = tf.where(is_used, tf.gather(search.num_windows, video), 0)
    score = tf.reshape(score, (rows, videos, width))
    score = tf.where(tf.sequence_mask(count, width), score, -np.inf)

    owner = tf.repeat(tf.range(rows * videos), width)
    exact = video_bounds(settings, tf.reshape(score, (-1, 1)), owner)
    exact = tf.cast(tf.reshape(exact, (rows, videos)), tf.float64)
    bounds = tf.gather(
        tf.gather(search.bounds, search.row), video, batch_dims=1
    )
    error = tf.reduce_max(tf.where(is_used, tf.abs(exact - bounds), 0.0))

    segment, score = rank(
        settings,
        tf.reshape(windows, (-1, width, 2)),
        tf.reshape(score, (-1, width)),
        tf.reshape(offset, (-1, width, 2)),
        tf.reshape(duration, [-1]),
        top_n,
        max_iou,
    )  # [q * v, M, 2], [q * v, M]
    best = tf.reshape(score[:, 0], (rows, videos))
    gap = tf.reduce_min(tf.where(is_used, bounds - best, np.inf))
    most = tf.shape(score)[1]
    moments = Moments(
        video=tf.repeat(search.video, most, axis=1),
        segment=tf.reshape(segment, (rows, -1, 2)),
        score=tf.reshape(score, (rows, -1)),
    )
    place = search.row[:, None]
    count = tf.reduce_sum(tf.cast(is_used, tf.int32), axis=1)
    moments = tf.nest.map_structure(
        lambda values, rows: tf.tensor_scatter_nd_update(values, place, rows),
        search.moments,
        _best(search, moments, top_n),
    )
    search = search._replace(
        num_ranked=tf.tensor_scatter_nd_add(search.num_ranked, place, count),
        error=tf.maximum(search.error, error),
        gap=tf.minimum(search.gap, gap),
        is_finite=search.is_finite & is_finite,
        moments=moments,
    )
    return _with_next_videos(search, top_n)


def _best(search, moments, top_n):
    """Merges new moments into the best ones so far, for `search.row`."""
    video, segment, score = (
        tf.concat([tf.gather(old, search.row), new], axis=1)
        for old, new in zip(search.moments, moments)
    )
    start, end = tf.unstack(segment, axis=-1)
    order = tf.argsort(end, stable=True)
    # The last key first: each sorting keeps the order of the one before.
    for key in (start, video, -score):
        key = tf.gather(key, order, batch_dims=1)
        order = tf.gather(order, tf.argsort(key, stable=True), batch_dims=1)
    order = order[:, :top_n]
    video, segment, score = (
        tf.gather(values, order, batch_dims=1)
        for values in (video, segment, score)
    )
    return Moments(tf.where(score > -np.inf, video, -1), segment, score)


def rank_function(model: keras.Model) -> Callable[..., Search]:
    """Compiles `model.locate` and `rank_videos`, where the backend allows it.

    Returns a function of what `model.fold` returned, a `Search`, encodings
    `[q, v * W, t]`, and what else `rank_videos` takes; it returns a `Search`.
    """
    graphs = {}

    def locate_and_rank(settings, folded, search, encoding, *arguments):
        output = model.locate(folded, search.row, encoding)
        return rank_videos(settings, search, output, *arguments)

    def rank_next(folded, search, encoding, *arguments):
        settings = RankingSettings.of(model)
        if keras.backend.backend() != "tensorflow":
            output = model.locate(folded, search.row.numpy(), encoding)
            output = {name: to_numpy(value) for name, value in output.items()}
            return rank_videos(settings, search, output, *arguments)
        arguments = folded, search, shared_tensor(encoding), *arguments
        key = settings, encoding.shape[2], *(x.shape[1:] for x in folded)
        if key not in graphs:
            specs = list(tf.nest.map_structure(any_size, arguments))
            specs[0] = [any_size(x, *x.shape[1:]) for x in folded]
            specs[2] = any_size(encoding, encoding.shape[2])
            graph = tf.function(
                functools.partial(locate_and_rank, settings), autograph=False
            )
            # A concrete function takes half as long to call.
            graphs[key] = graph.get_concrete_function(*specs)
        return graphs[key](*arguments)

    return rank_next
