"""Searches the windows of all videos of a corpus, in a graph."""

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
from acnn_tf.search.shortlist import (
    fit_line,
    is_worthwhile,
    sample_rows,
    search_shortlist,
)


class Corpus(tf.Module):
    """The encoded windows of a `MomentIndex`, kept within the servable.

    Args:
        model: Of the index.
        index: `MomentIndex` with one video at least.
        top_n: Int, results of a query.
        max_iou: Float, IoU that two results of one video may have.
        min_recall: Float below 1: the share of the best moments that a linear
            shortlist is to find, see `acnn_tf.search.shortlist`. Default: all,
            without one.

    Call arguments:
        query: float32 `[Q, t]`, from `model.encode_queries`.

    Returns:
        `(video_id, segment, score, recall)`: string `[Q, n]`, float64
        `[Q, n, 2]` and `[Q, n]`, best first; `""`, zeros and `-inf` where fewer
        are found; and float64 `[Q]`, the share of the best moments that are
        expected to be among them.
    """

    def __init__(
        self,
        model: keras.Model,
        index: MomentIndex,
        top_n: int,
        max_iou: float,
        min_recall: float | None = None,
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
        self._min_recall = min_recall if is_worthwhile(sum(counts)) else None

    def __call__(self, query):
        arrays = {n: tf.convert_to_tensor(v) for n, v in self._arrays.items()}
        search = self._search
        if self._min_recall is not None:
            sample = sample_rows(arrays["encoding"].shape[0])
            arrays["sample"] = tf.constant(sample)
            arrays["sampled"] = tf.gather(arrays["encoding"], sample)
            search = self._search_by_line
        moments, recall = tf.map_fn(
            functools.partial(search, arrays),
            query,
            fn_output_signature=(
                Moments(
                    video=tf.TensorSpec([self._top_n], tf.int32),
                    segment=tf.TensorSpec([self._top_n, 2], tf.float64),
                    score=tf.TensorSpec([self._top_n], tf.float64),
                ),
                tf.TensorSpec([], tf.float64),
            ),
            parallel_iterations=1,
        )
        names = tf.constant(["", *self._names])
        video_id = tf.gather(names, moments.video + 1)
        return video_id, moments.segment, moments.score, recall

    def _search(self, arrays, query):
        """Searches exactly for one query `[t]`; the recall is 1."""
        folded = self._model().fold(query[None])
        scores = self._scores(folded, arrays["encoding"])
        settings = RankingSettings.of(self._model())
        bounds = video_bounds(settings, scores[:, None], arrays["owner"])
        moments = self._rank(arrays, folded, bounds[:, 0], is_sure=True)
        return _first(moments), tf.constant(1.0, tf.float64)

    def _search_by_line(self, arrays, query):
        """Searches with a linear shortlist; returns the recall, too."""
        folded = self._model().fold(query[None])
        sampled = arrays["sampled"]
        line = fit_line(sampled, self._scores(folded, sampled)[:, None])[0]
        encoding = arrays["encoding"]
        moments, recall = search_shortlist(
            tf.linalg.matvec(encoding, line[:-1]) + line[-1],
            arrays["sample"],
            arrays["owner"],
            len(self._names),
            RankingSettings.of(self._model()),
            lambda rows: self._scores(folded, tf.gather(encoding, rows)),
            lambda bounds: self._rank(arrays, folded, bounds, is_sure=False),
            self._top_n,
            self._min_recall,
        )
        return _first(moments), recall

    def _scores(self, folded, encoding):
        """Computes scores `[N]` of windows `[N, t]` for one query."""
        score = functools.partial(self._model().score, folded)
        return score_tiles(score, encoding, TILE)[:, 0]

    def _rank(self, arrays, folded, bounds, is_sure):
        """Ranks videos with bounds `[V]`; returns `Moments` `[1, n]`."""
        model = self._model()
        settings = RankingSettings.of(model)

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
            bounds[None], arrays["count"], self._top_n, is_sure
        )
        sizes = tf.nest.map_structure(lambda x: any_size(x).shape, search)
        (search,) = tf.while_loop(
            lambda search: ~search.is_done,
            lambda search: (rank_next(search),),
            (search,),
            shape_invariants=(sizes,),
            parallel_iterations=1,
        )
        video, segment, score = search.moments
        size = [1, self._top_n]
        return Moments(
            tf.ensure_shape(video, size),
            tf.ensure_shape(segment, [*size, 2]),
            tf.ensure_shape(score, size),
        )


def _first(moments):
    return tf.nest.map_structure(lambda array: array[0], moments)


def _windows_of(arrays, video):
    """Gathers encodings, windows and durations of `[q, v]` videos."""
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
