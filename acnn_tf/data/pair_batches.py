"""Training batches of query-window pairs, as tf.data datasets.

A query comes with one window that answers it, as in the paper, and, as an
option, with some windows of the same video that do not.
"""

import itertools

import numpy as np
import tensorflow as tf

from acnn_tf import segments as segments_lib
from acnn_tf.data.batches import make_batches, moment_ids, window_targets
from acnn_tf.data.windows import pair_windows, pool_clips


def training_pairs(
    moments,
    queries,
    features,
    model,
    *,
    batch_size=64,
    min_iou=0.5,
    max_niol=0.15,
    video_negatives=0,
    negative_iou=0.3,
    seed=0,
    first_epoch=0,
):
    """Every sentence with every window that shows its moment, shuffled.

    The windows are pooled before training, each one that occurs once, and
    gathered into batches by index.

    Args:
        moments: List of `Moment`. Where they hold frames and the grid of the
            model has a frame rate, windows are paired in frames.
        queries: What `model.encode_queries` takes, a row for each moment.
        features: Mapping from video id to `[T, D]` clip features.
        model: As for `training_videos`.
        batch_size: Pairs in a batch.
        min_iou: See `pair_windows`.
        max_niol: See `pair_windows`.
        video_negatives: Windows of the same video that each pair carries as
            negatives, drawn anew each epoch from those below `negative_iou`;
            a video that has none repeats the pair's own window, with its IoU.
        negative_iou: Float, upper bound of a negative's IoU.
        seed: Order and negatives follow from `(seed, epoch)` alone.
        first_epoch: Epoch to start with.

    Returns:
        `Batches` as from `training_videos`, with `"window"`
        `[B, 1 + video_negatives, C, D]` in place of `"clip"` and
        `"clip_mask"`; the pair's own window comes first.

    Raises:
        ValueError: If no window shows any moment.

    Reference: paper, section 4.1.
    """
    ids = moment_ids(moments)
    pairs = _Pairs(moments, features, model, min_iou, max_niol)
    if not len(pairs.moment):
        raise ValueError(
            f"None of the windows ({model.grid}) shows any of the "
            f"{len(moments)} moments at IoU > {min_iou} and nIoL < "
            f"{max_niol}. Choose `window_lengths` nearer to the moments', or "
            "looser thresholds."
        )
    rows, table = pairs.pool(features, every_window=video_negatives > 0)

    def candidates(pair, rng):
        own, moment = pairs.window[pair], pairs.moment[pair]
        if not video_negatives:
            return [own]
        first, last = pairs.video_windows[moments[moment].video_id]
        overlap = segments_lib.iou(
            pairs.windows[first:last, None], moments[moment].segments
        ).max(axis=1)
        others = np.flatnonzero(overlap < negative_iou) + first
        if not len(others):
            others = np.array([own])
        return [own, *rng.choice(others, video_negatives)]

    def batches():
        for epoch in itertools.count(first_epoch):
            rng = np.random.default_rng([seed, epoch])
            order = rng.permutation(len(pairs.moment))
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                window = np.array([candidates(p, rng) for p in chosen])
                moment = pairs.moment[chosen]
                overlap, offset = zip(
                    *(
                        window_targets(
                            pairs.windows[row],
                            moments[index].segments,
                            model.offset_unit,
                            model.grid.frame_rate,
                            min_iou,
                        )
                        for row, index in zip(window, moment)
                    )
                )
                inputs = {
                    "window": table[rows[window]],
                    "segment": pairs.contexts[window],
                    "duration": np.array(
                        [moments[index].duration for index in moment],
                        np.float32,
                    ),
                    "query": queries[moment],
                    "positive": np.zeros(len(chosen), np.int32),
                }
                targets = {
                    "score": np.stack(overlap),
                    "offset": np.stack(offset),
                    "batch_score": ids[moment],
                }
                yield inputs, targets

    queries = np.asarray(queries)
    shape = (None, 1 + video_negatives, model.context_size, table.shape[1])
    return make_batches(
        batches,
        {"window": tf.TensorSpec(shape, tf.float32)},
        queries,
        model.context_size,
        len(pairs.moment),
        batch_size,
    )


class _Pairs:
    """Windows of all videos, and which of them shows which moment.

    Attributes:
        windows: `[W, 2]` seconds, video after video.
        contexts: `float32 [W, C, 2]`.
        video_windows: video id -> its `(first, last)` rows of `windows`.
        window: `[P]`, row of `windows` of each pair.
        moment: `[P]`, index of the moment of each pair.
    """

    def __init__(self, moments, features, model, min_iou, max_niol):
        grid = model.grid
        by_video = {}
        for index, moment in enumerate(moments):
            by_video.setdefault(moment.video_id, []).append(index)
        windows, contexts, pairs = [], [], []
        self.video_windows = {}
        total = 0
        for video, indices in by_video.items():
            own = grid.windows(moments[indices[0]].duration)
            self.video_windows[video] = (total, total + len(own))
            windows.append(own)
            contexts.append(grid.contexts(own, model.context_size))
            # One window shows one annotated interval, and answers all of its
            # sentences.
            intervals = {}
            for index in indices:
                for segment, frames in _intervals(moments[index], grid):
                    intervals.setdefault((segment, frames), []).append(index)
            if grid.frame_rate is not None:
                num_frames = round(
                    moments[indices[0]].duration * grid.frame_rate
                )
                ends = [frames for _, frames in intervals]
                shown = pair_windows(
                    grid.frames(num_frames), ends, min_iou, max_niol
                )
            else:
                ends = [segment for segment, _ in intervals]
                shown = pair_windows(own, ends, min_iou, max_niol)
            sentences = list(intervals.values())
            pairs += [
                (total + window, index)
                for window, interval in zip(*shown)
                for index in sentences[interval]
            ]
            total += len(own)
        pairs = np.array(pairs, np.int64).reshape(-1, 2)
        self.windows = np.concatenate(windows)
        self.contexts = np.concatenate(contexts).astype(np.float32)
        self.window, self.moment = pairs.T
        self._clip_seconds = model.clip_seconds

    def pool(self, features, every_window):
        """Pools the context windows of all pairs, each distinct one once.

        Returns:
            `(rows [W, C], table [N, D])`: the context of window w is
            `table[rows[w]]`.
        """
        rows = np.zeros(self.contexts.shape[:2], np.int64)
        wanted = np.zeros(len(self.windows), bool)
        wanted[self.window] = True
        tables, total = [], 0
        for video, (first, last) in self.video_windows.items():
            chosen = np.arange(first, last)
            if not every_window:
                chosen = chosen[wanted[first:last]]
            if not len(chosen):
                continue
            contexts = self.contexts[chosen]
            distinct, inverse = np.unique(
                contexts.reshape(-1, 2), axis=0, return_inverse=True
            )
            rows[chosen] = total + inverse.reshape(contexts.shape[:2])
            tables.append(
                pool_clips(features[video], distinct, self._clip_seconds)
            )
            total += len(distinct)
        return rows, np.concatenate(tables)


def _intervals(moment, grid):
    """The moment's (segment, frames) pairs; frames of a frame grid only."""
    if grid.frame_rate is None:
        return [(segment, None) for segment in moment.segments]
    frames = moment.frames
    if frames is None:
        frames = [
            tuple(second * grid.frame_rate for second in segment)
            for segment in moment.segments
        ]
    return list(zip(moment.segments, map(tuple, frames)))
