"""Exact search over the windows of all videos of a corpus, in a graph."""

import numpy as np
import tensorflow as tf

from acnn_tf.search.scoring import TILE, tile_by_tile
from acnn_tf.servable import ranking

# Videos that are ranked at a time.
_VIDEOS = 16


class Corpus(tf.Module):
    """The encoded windows of a `MomentIndex`, kept within the servable.

    As in `MomentIndex`, only scores are computed for all windows. They bound
    what a video can hold; videos are ranked by falling bounds, until no other
    can reach the top.

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

    def __init__(self, model, index, top_n, max_iou):
        super().__init__()
        # By name: equal scores are ranked by the number of the video.
        videos = sorted(index.videos(), key=lambda video: video.video_id)
        if not videos:
            raise ValueError("The index has no videos: append some first.")
        counts = np.array([len(video.windows) for video in videos])
        constants = {
            "encoding": np.concatenate([video.encoding for video in videos]),
            "windows": np.concatenate([video.windows for video in videos]),
            "owner": np.repeat(np.arange(len(videos), dtype=np.int32), counts),
            "first": np.cumsum(counts, dtype=np.int64) - counts,
            "count": counts.astype(np.int64),
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

        def search(one):
            return self._search(one[None], arrays)

        video, segment, score = tf.map_fn(
            search,
            query,
            fn_output_signature=(tf.int32, tf.float64, tf.float64),
            parallel_iterations=1,
        )
        # Also the shapes of no queries at all.
        video = tf.reshape(video, (-1, self._top_n))
        segment = tf.reshape(segment, (-1, self._top_n, 2))
        score = tf.reshape(score, (-1, self._top_n))
        names = tf.constant([*self._names, ""])
        return tf.gather(names, video), segment, score

    def _search(self, query, arrays):
        """The best of all videos for one query `[1, t]`."""
        model, top_n = self._model(), self._top_n
        num_videos = len(self._names)
        folded = model.fold(query)
        score = tile_by_tile(
            lambda tile: tf.cast(model.score(folded, tile), tf.float32),
            arrays["encoding"],
            TILE,
        )[:, 0]
        bound = tf.math.segment_max(score, arrays["owner"])  # [V]
        if model.consensus_iou is not None:
            above = tf.exp(score - tf.gather(bound, arrays["owner"]))
            bound += tf.math.log(tf.math.segment_sum(above, arrays["owner"]))
        order = tf.argsort(bound, direction="DESCENDING", stable=True)
        order = tf.cast(order, tf.int32)
        bound = tf.cast(tf.gather(bound, order), tf.float64)

        def could_rise(done, video, segment, score):
            lowest = score[-1]
            # Bounds and scores come from different products.
            margin = 1e-4 * (1.0 + tf.abs(lowest))
            next_bound = bound[tf.minimum(done, num_videos - 1)]
            return (done < num_videos) & (next_bound >= lowest - margin)

        def visit(done, video, segment, score):
            some = order[done : done + _VIDEOS]
            found, scores = self._rank(folded, some, arrays)  # [P, n, 2]
            video = tf.concat([video, tf.repeat(some, top_n)], 0)
            segment = tf.concat([segment, tf.reshape(found, (-1, 2))], 0)
            score = tf.concat([score, tf.reshape(scores, [-1])], 0)
            best = tf.range(tf.size(score))
            # The last key first: each sorting keeps the order of the last.
            for key in (segment[:, 1], segment[:, 0], video, -score):
                best = tf.gather(
                    best, tf.argsort(tf.gather(key, best), stable=True)
                )
            best = best[:top_n]
            return (
                done + _VIDEOS,
                tf.gather(video, best),
                tf.gather(segment, best),
                tf.gather(score, best),
            )

        _, video, segment, score = tf.while_loop(
            could_rise,
            visit,
            (
                0,
                tf.fill([top_n], num_videos),
                tf.zeros((top_n, 2), tf.float64),
                tf.fill([top_n], tf.constant(-np.inf, tf.float64)),
            ),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([None]),
                tf.TensorShape([None, 2]),
                tf.TensorShape([None]),
            ),
            parallel_iterations=1,
        )
        video = tf.where(score > -np.inf, video, num_videos)
        return video, segment, score

    def _rank(self, folded, videos, arrays):
        """The best of each of some videos."""
        count = tf.gather(arrays["count"], videos)
        place = tf.range(tf.reduce_max(count))
        real = place < count[:, None]  # [P, W]
        rows = tf.gather(arrays["first"], videos)[:, None] + place
        rows = tf.where(real, rows, 0)
        output = self._model().locate(
            folded, tf.zeros_like(videos), tf.gather(arrays["encoding"], rows)
        )
        score = tf.cast(output["score"], tf.float32)
        return ranking.rank(
            self._model(),
            tf.gather(arrays["windows"], rows),
            tf.where(real, score, -np.inf),
            output["offset"],
            tf.gather(arrays["duration"], videos),
            self._top_n,
            self._max_iou,
        )
