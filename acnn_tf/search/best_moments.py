"""The best moments of many videos, most of which are never ranked.

Scores of all windows bound what the moments of a video can score
(`acnn_tf.search.scoring.video_bounds`). Videos are ranked by falling bounds,
until none that is left can reach the top: the search is exact. An index runs
the loop of `best_moments` step by step and reads encodings from its files; a
servable has it in its graph, and its encodings in variables.
"""

import functools
import typing

import keras
import numpy as np
import tensorflow as tf

from acnn_tf.search.encoding import to_numpy
from acnn_tf.search.ranking import RankingSettings, rank
from acnn_tf.search.scoring import any_size, video_bounds

# Videos of a query that are ranked at a time, if fewer results are wanted.
_VIDEOS = 16
# Windows that are ranked at a time, if one video has no more: bounds memory.
_WINDOWS = 65_536


class Moments(typing.NamedTuple):
    """R moments that answer queries, by query and then best first."""

    query: tf.Tensor  # int32 [R], number of the query
    video: tf.Tensor  # int32 [R], number of the video
    segment: tf.Tensor  # float64 [R, 2], seconds
    score: tf.Tensor  # float64 [R]


class Search(typing.NamedTuple):
    """A search for Q queries in V videos, as far as it got.

    Attributes:
        bounds: float64 `[Q, V]`, the most that a video's moments can score.
        order: int32 `[Q, V]`, videos by falling bounds.
        num_windows: int32 `[V]`.
        num_ranked: int32 `[Q]`, how many of `order` were ranked.
        error: float64, the largest error seen in `bounds`.
        is_finite: bool, all scores and offsets so far.
        moments: `Moments`, the best so far.
        row: int32 `[q]`, the queries whose videos are ranked next.
        video: int32 `[q, v]`, these videos; -1 where a query has fewer.
    """

    bounds: tf.Tensor
    order: tf.Tensor
    num_windows: tf.Tensor
    num_ranked: tf.Tensor
    error: tf.Tensor
    is_finite: tf.Tensor
    moments: Moments
    row: tf.Tensor
    video: tf.Tensor


# Of a search at any time.
_SHAPES = Search(
    *map(tf.TensorShape, ([None] * 2, [None] * 2, [None], [None], [], [])),
    moments=Moments(*map(tf.TensorShape, ([None], [None], [None, 2], [None]))),
    row=tf.TensorShape([None]),
    video=tf.TensorShape([None, None]),
)


def best_moments(bounds, num_windows, top_n, rank_next):
    """Ranks videos until no other can be among the best.

    Args:
        bounds: float32 `[Q, V]`, from `video_bounds`. Videos are numbered by
            their ids, V at least 1.
        num_windows: int32 `[V]`, windows of each video.
        top_n: Int, moments of a query.
        rank_next: Function of a `Search` that ranks the videos which it asks
            for, and returns it with their moments: `rank_videos`.

    Returns:
        `Search` with the best moments of each query, fewer than `top_n` where
        there are no more; equal scores by video, start and end.
    """
    (search,) = tf.while_loop(
        lambda search: tf.size(search.row) > 0,
        lambda search: (rank_next(search),),
        (_start(bounds, num_windows, top_n),),
        shape_invariants=(_SHAPES,),
        parallel_iterations=1,
    )
    return search


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None], tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([], tf.int32),
    ],
    autograph=False,
)
def _start(bounds, num_windows, top_n):
    """A search that asks for the first videos."""
    bounds = tf.cast(bounds, tf.float64)
    none = tf.zeros([0], tf.int32)
    search = Search(
        bounds=bounds,
        order=tf.argsort(bounds, direction="DESCENDING", stable=True),
        num_windows=num_windows,
        num_ranked=tf.zeros(tf.shape(bounds)[:1], tf.int32),
        error=tf.constant(0.0, tf.float64),
        is_finite=tf.reduce_all(tf.math.is_finite(bounds)),
        moments=Moments(
            query=none,
            video=none,
            segment=tf.zeros([0, 2], tf.float64),
            score=tf.zeros([0], tf.float64),
        ),
        row=none,
        video=none[:, None],
    )
    return _with_next_videos(search, top_n)


def _with_next_videos(search, top_n):
    """Asks for the videos that are to be ranked next."""
    query, score = search.moments.query, search.moments.score
    num_queries, num_videos = tf.unstack(tf.shape(search.bounds))
    count = tf.math.unsorted_segment_sum(
        tf.ones_like(query), query, num_queries
    )
    lowest = tf.math.unsorted_segment_min(score, query, num_queries)
    lowest = tf.where(count >= top_n, lowest, -np.inf)
    # Bounds and scores come from different products.
    lowest -= 2.0 * search.error + 1e-6
    most = tf.minimum(tf.maximum(top_n, _VIDEOS), num_videos)
    place = search.num_ranked[:, None] + tf.range(most)  # [Q, most]
    video = tf.gather(
        search.order, tf.minimum(place, num_videos - 1), batch_dims=1
    )
    bounds = tf.gather(search.bounds, video, batch_dims=1)
    wanted = (place < num_videos) & (bounds >= lowest[:, None])
    num_windows = tf.gather(search.num_windows, video)
    largest = tf.reduce_max(tf.where(wanted, num_windows, 1))
    row = tf.cast(tf.where(wanted[:, 0])[:, 0], tf.int32)
    row = row[: tf.maximum(1, _WINDOWS // largest)]
    most = tf.maximum(1, _WINDOWS // (largest * tf.maximum(1, tf.size(row))))
    video = tf.gather(tf.where(wanted, video, -1), row)[:, :most]
    is_used = tf.reduce_any(video >= 0, axis=0)
    return search._replace(row=row, video=tf.boolean_mask(video, is_used, 1))


def rank_videos(settings, search, output, windows, duration, top_n, max_iou):
    """Ranks the videos that a search asks for, and asks for the next.

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
    rows, videos, width, _ = tf.unstack(tf.shape(windows))
    # From here on a row is a video, and none is empty.
    video = tf.reshape(search.video, [-1])
    there = tf.where(video >= 0)[:, 0]  # [P]

    def of_videos(tensor, *shape):
        return tf.gather(tf.reshape(tensor, (rows * videos, *shape)), there)

    video = tf.gather(video, there)
    query = tf.gather(tf.repeat(search.row, videos), there)
    score = of_videos(tf.cast(output["score"], tf.float32), width)
    offset = of_videos(tf.cast(output["offset"], tf.float32), width, 2)
    is_finite = tf.reduce_all(tf.math.is_finite(score)) & tf.reduce_all(
        tf.math.is_finite(offset)
    )
    real = tf.sequence_mask(tf.gather(search.num_windows, video), width)
    score = tf.where(real, score, -np.inf)

    owner = tf.repeat(tf.range(tf.size(video)), width)
    exact = video_bounds(settings, tf.reshape(score, (-1, 1)), owner)[:, 0]
    bounds = tf.gather_nd(search.bounds, tf.stack([query, video], axis=1))
    error = tf.reduce_max(tf.abs(tf.cast(exact, tf.float64) - bounds))

    segment, score = rank(
        settings,
        of_videos(windows, width, 2),
        score,
        offset,
        of_videos(duration),
        top_n,
        max_iou,
    )  # [P, M, 2], [P, M]
    found = tf.where(score > -np.inf)
    place = found[:, 0]
    moments = Moments(
        tf.gather(query, place),
        tf.gather(video, place),
        tf.gather_nd(segment, found),
        tf.gather_nd(score, found),
    )
    search = search._replace(
        num_ranked=tf.tensor_scatter_nd_add(
            search.num_ranked, query[:, None], tf.ones_like(query)
        ),
        error=tf.maximum(search.error, error),
        is_finite=search.is_finite & is_finite,
        moments=_merge(search.moments, moments, top_n),
    )
    return _with_next_videos(search, top_n)


def _merge(some, others, top_n):
    """The best moments of each query, of two lists."""
    moments = Moments(*(tf.concat(pair, 0) for pair in zip(some, others)))
    start, end = tf.unstack(moments.segment, axis=1)
    order = tf.range(tf.size(moments.query))
    # The last key first: each sorting keeps the order of the one before.
    for key in (end, start, moments.video, -moments.score, moments.query):
        order = tf.gather(order, tf.argsort(tf.gather(key, order), stable=True))
    query = tf.gather(moments.query, order)
    place = tf.range(tf.size(query)) - tf.searchsorted(query, query)
    order = tf.boolean_mask(order, place < top_n)
    return Moments(*(tf.gather(values, order) for values in moments))


def rank_function(model):
    """`model.locate` and `rank_videos`, compiled as far as they can be.

    Args:
        model: See `acnn_tf.search`.

    Returns:
        Function of what `model.fold` returned, a `Search`, encodings
        `[q, v * W, t]`, and what else `rank_videos` takes; returns a `Search`.
    """
    graphs = {}

    def locate_and_rank(settings, folded, search, encoding, *arguments):
        output = model.locate(folded, search.row, encoding)
        return rank_videos(settings, search, output, *arguments)

    def rank_next(folded, search, encoding, *arguments):
        settings = RankingSettings.of(model)
        on_tensorflow = keras.backend.backend() == "tensorflow"
        if on_tensorflow:
            function = locate_and_rank
            arguments = folded, search, encoding, *arguments
        else:
            function = rank_videos
            output = model.locate(folded, search.row.numpy(), encoding)
            output = {name: to_numpy(value) for name, value in output.items()}
            arguments = search, output, *arguments
        key = settings, encoding.shape[2], *(x.shape[1:] for x in folded)
        if key not in graphs:
            specs = list(tf.nest.map_structure(any_size, arguments))
            if on_tensorflow:
                specs[0] = [any_size(x, *x.shape[1:]) for x in folded]
                specs[2] = any_size(encoding, encoding.shape[2])
            graphs[key] = tf.function(
                functools.partial(function, settings),
                input_signature=specs,
                autograph=False,
            )
        return graphs[key](*arguments)

    return rank_next
