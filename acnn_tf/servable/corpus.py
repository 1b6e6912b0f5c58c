"""Exact search over the windows of all videos of a corpus, in a graph."""

import functools

import keras
import numpy as np
import tensorflow as tf

from acnn_tf.search.best_moments import (
    Moments,
    rank_videos,
    start_search,
)
from acnn_tf.search.moment_index import MomentIndex
from acnn_tf.search.ranking import RankingSettings
from acnn_tf.search.scoring import (
    TILE,
    any_size,
    score_tiles,
    video_bounds,
)


class Corpus(tf.Module):
    """The encoded windows of a `MomentIndex`, kept within the servable.

    Args:
        model: Of the index.
        index: `MomentIndex` with one video at least.
        top_n: Int, results of a query.
        max_iou: Float, IoU that two results of one video may have.

    Call arguments:
        query: float32 `[Q, t]`, from `model.encode_queries`.

    Returns:
        `(video_id, segment, score)`: string `[Q, n]`, float64 `[Q, n, 2]` and
        `[Q, n]`, best first; `""`, zeros and `-inf` where fewer are found.
    """

    def __init__(
        self, model: keras.Model, index: MomentIndex, top_n: int, max_iou: float
    ):
        super().__init__()
        # By their ids, which rank moments of equal scores.
        videos = sorted(index.videos(), key=lambda video: video.video_id)
        if not videos:
            raise ValueError("The index has no videos: append some first.")
        counts = np.array([len(video.windows) for video in videos], np.int32)
        constants = {
            "encoding": np.concatenate([video.encoding for video in videos]),
            "windows": np.concatenate([video.windows for video in videos]),
            "owner": np.repeat(np.arange(len(videos), dtype=np.int32), counts),
            "first": np.cumsum(counts, dtype=np.int64) - counts,
            "count": counts,
            "duration": np.array([video.duration for video in videos]),
        }
        # Variables are files of their own, and may be larger than a graph.
        self._arrays = {
            name: tf.Variable(value, trainable=False, name=f"corpus_{name}")
            for name, value in constants.items()
        }
        self._names = [video.video_id for video in videos]
        self._model = lambda: model  # which tf.Module must not look through
        self._top_n, self._max_iou = top_n, max_iou

    def __call__(self, query):
        arrays = {n: tf.convert_to_tensor(v) for n, v in self._arrays.items()}
        moments = tf.map_fn(
            functools.partial(self._search, arrays),
            query,
            fn_output_signature=Moments(
                video=tf.TensorSpec([self._top_n], tf.int32),
                segment=tf.TensorSpec([self._top_n, 2], tf.float64),
                score=tf.TensorSpec([self._top_n], tf.float64),
            ),
            parallel_iterations=1,
        )
        names = tf.constant(["", *self._names])
        video_id = tf.gather(names, moments.video + 1)
        return video_id, moments.segment, moments.score

    def _search(self, arrays, query):
        """The best moments of all videos for one query `[t]`."""
        model = self._model()
        settings = RankingSettings.of(model)
        folded = model.fold(query[None])
        scores = score_tiles(
            functools.partial(model.score, folded), arrays["encoding"], TILE
        )
        bounds = video_bounds(settings, scores, arrays["owner"])  # [V, 1]

        def rank_next(search):
            encoding, windows, duration = _windows_of(arrays, search.video)
            return rank_videos(
                settings,
                search,
                model.locate(folded, search.row, encoding),
                windows,
                duration,
                self._top_n,
                self._max_iou,
            )

        search = start_search(
            tf.transpose(bounds), arrays["count"], self._top_n, True
        )
        sizes = tf.nest.map_structure(lambda x: any_size(x).shape, search)
        (search,) = tf.while_loop(
            lambda search: ~search.is_done,
            lambda search: (rank_next(search),),
            (search,),
            shape_invariants=(sizes,),
            parallel_iterations=1,
        )
        return tf.nest.map_structure(lambda array: array[0], search.moments)


def _windows_of(arrays, video):
    """Encodings, windows and durations of `[q, v]` videos, -1 for none."""
    video = tf.maximum(video, 0)
    count = tf.gather(arrays["count"], video)
    place = tf.range(tf.reduce_max(count))  # [W]
    row = tf.gather(arrays["first"], video)[..., None] + tf.cast(
        tf.minimum(place, count[..., None] - 1), tf.int64
    )  # [q, v, W]
    encoding = tf.gather(
        arrays["encoding"], tf.reshape(row, (tf.shape(row)[0], -1))
    )
    windows = tf.gather(arrays["windows"], row)
    return encoding, windows, tf.gather(arrays["duration"], video)
