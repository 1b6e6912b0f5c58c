"""Training batches of query-window pairs, as tf.data datasets.

A query comes with one window that answers it, as in the paper, and, as an
option, with some windows of the same video that do not.
"""

import atexit
import functools
import threading
import time
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from acnn_tf import segments as segments_lib
from acnn_tf.data.annotations import Moment
from acnn_tf.data.batches import (
    Batches,
    check_examples,
    known_duration,
    moment_ids,
    pad,
    window_targets,
)
from acnn_tf.data.windows import (
    check_clips,
    contexts_of,
    pool_clips,
    video_pairs,
)


def training_pairs(
    moments: Sequence[Moment],
    queries: ArrayLike,
    features: Mapping[str, np.ndarray],
    model: keras.Model,
    *,
    batch_size: int = 64,
    min_iou: float = 0.5,
    max_niol: float = 0.15,
    video_negatives: int = 0,
    negative_iou: float = 0.3,
    videos_in_memory: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    first_epoch: int = 0,
) -> Batches:
    """Every sentence with every window that shows its moment, without end.

    Each window that occurs is pooled once, into a table, and batches gather
    rows of the table by index. There is one table for all videos, or one after
    another for some of them, made while the batches of the last one are used.

    Args:
        moments: The moments to learn. Where they hold frames and the grid of
            the model has a frame rate, windows are paired in frames.
        queries: What `model.encode_queries` takes, a row for each moment.
        features: Mapping from video id to `[T, D]` clip features.
        model: The model to train. Its `grid`, `context_size`, `clip_seconds`
            and `offset_unit` decide the windows and the targets.
        batch_size: Pairs in a batch. The last batch of an epoch may be smaller.
        min_iou: A window shows a moment only if their IoU is above this; see
            `acnn_tf.data.pair_windows`.
        max_niol: A window shows a moment only if less than this share of the
            window lies outside the moment.
        video_negatives: Number of windows of the same video that each pair has
            as negatives. They are drawn in each epoch from the windows below
            `negative_iou`. If a video has none, the pair's own window is
            repeated, with its IoU.
        negative_iou: Upper bound of the IoU of a negative.
        videos_in_memory: If given, videos are read again in each epoch, in
            random order, and pairs are shuffled among so many videos at a
            time. The pooled windows of twice as many are in memory. Default:
            all videos are read once and kept in memory.
        shuffle: Whether pairs are shuffled. Otherwise they come video after
            video, by window.
        seed: Order and negatives follow from `(seed, epoch)` alone.
        first_epoch: Epoch to start with.

    Returns:
        `Batches` as from `training_videos`, with `"window"`
        `[B, 1 + video_negatives, C, D]` in place of `"clip"` and
        `"clip_mask"`; the pair's own window comes first.

    Raises:
        ValueError: If no window shows any moment.

    Example:

    >>> import acnn_tf
    >>> scenes = acnn_tf.data.make_scenes(num_videos=1)
    >>> words = acnn_tf.data.Vocabulary.from_sentences(
    ...     moment.query for moment in scenes.moments
    ... ).words
    >>> model = acnn_tf.models.ACNN(
    ...     vocabulary=words, clip_seconds=scenes.clip_seconds
    ... )
    >>> queries = acnn_tf.data.query_inputs(scenes.moments, words)
    >>> batches = acnn_tf.data.training_pairs(
    ...     scenes.moments, queries, scenes.features, model, batch_size=2
    ... )
    >>> inputs, targets = next(iter(batches.dataset))
    >>> inputs["window"].shape[0], inputs["window"].shape[-1]
    (2, 130)

    Reference: paper, section 4.1.
    """
    if videos_in_memory is not None and videos_in_memory < 1:
        raise ValueError(
            "`videos_in_memory` must be at least 1, or None. "
            f"Received: {videos_in_memory}"
        )
    queries = check_examples(moments, queries, features, model, batch_size)
    pairs = _Pairs(
        moments,
        features,
        model,
        every_window=video_negatives > 0,
        min_iou=min_iou,
        max_niol=max_niol,
    )
    negatives = _Negatives(pairs, video_negatives, negative_iou)
    num_videos, num_pairs = len(pairs.videos), len(pairs.moment)
    group_size = videos_in_memory or num_videos
    num_groups = -(-num_videos // group_size)
    dim = features[pairs.videos[0]].shape[1]
    held = table = None
    if videos_in_memory is None:
        table, first_row = pairs.pool(features, np.arange(num_videos))
        # The table stays where it is gathered from; none goes with the pairs.
        held = np.zeros((0, dim), np.float32), first_row
    # Batches are put together by the processor: what they are gathered from
    # should lie beside it, not on an accelerator.
    with tf.device("CPU:0"):
        all_windows = None if table is None else tf.constant(table)
        contexts = tf.constant(pairs.contexts)
        queries = tf.constant(queries)
        durations = tf.constant([m.duration for m in moments], tf.float32)
        ids = tf.constant(pairs.ids)
    del table

    @_until_exit
    def pairs_of_group(number):
        """Follows from its number alone, so that iterators share nothing."""
        epoch, group = divmod(int(number), num_groups)
        videos = np.arange(num_videos)
        if shuffle:
            np.random.default_rng([seed, epoch]).shuffle(videos)
        videos = videos[group * group_size :][:group_size]
        table, first_row = held or pairs.pool(features, videos)
        rng = np.random.default_rng([seed, epoch, group])
        pair = pairs.of_videos(videos)
        if shuffle:
            rng.shuffle(pair)
        window = np.column_stack(
            [pairs.window[pair], negatives.draw(pair, rng)]
        )  # [P, V]
        row = pairs.row[window] + first_row[pairs.video[pair], None, None]
        moment = pairs.moment[pair]
        score, offset = window_targets(
            pairs.windows[window],
            pairs.truth[moment],
            model.offset_unit,
            model.grid.frame_rate,
            min_iou,
        )
        return moment, window, row, score, offset, table

    num_windows = 1 + video_negatives
    signature = {
        "moment": tf.TensorSpec((None,), tf.int64),
        "window": tf.TensorSpec((None, num_windows), tf.int64),
        "row": tf.TensorSpec((None, num_windows, model.context_size), tf.int64),
        "score": tf.TensorSpec((None, num_windows), tf.float32),
        "offset": tf.TensorSpec((None, num_windows, 3), tf.float32),
        "table": tf.TensorSpec((None, dim), tf.float32),
    }

    def read(number):
        # Not `from_generator`: in TensorFlow 2.21 it has malloc, in all of the
        # process, return larger blocks to the system at once, and to get them
        # again takes longer than to read.
        arrays = tf.numpy_function(
            pairs_of_group, [number], [s.dtype for s in signature.values()]
        )
        group = {
            name: tf.ensure_shape(array, spec.shape)
            for array, (name, spec) in zip(arrays, signature.items())
        }
        return group, (number + 1) % num_groups == 0

    def batches(group):
        table = group.pop("table")
        if all_windows is not None:
            table = all_windows

        def batch(first):
            part = {k: v[first : first + batch_size] for k, v in group.items()}
            moment = part["moment"]
            inputs = {
                "window": tf.gather(table, part["row"]),  # [B, V, C, D]
                "segment": tf.gather(contexts, part["window"]),
                "duration": tf.gather(durations, moment),
                "query": tf.gather(queries, moment),
                "positive": tf.zeros_like(moment, tf.int32),
            }
            targets = {
                "score": part["score"],
                "offset": part["offset"],
                "batch_score": tf.gather(ids, moment),
            }
            return inputs, targets

        count = tf.shape(group["moment"], tf.int64)[0]
        return tf.data.Dataset.range(0, count, batch_size).map(
            batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    nothing = {
        name: tf.zeros([size or 0 for size in spec.shape], spec.dtype)
        for name, spec in signature.items()
    }
    # The next group is read while batches of this one are delivered.
    dataset = (
        tf.data.Dataset.counter(first_epoch * num_groups)
        .map(read)
        .scan(nothing, functools.partial(_whole_batches, batch_size))
        .prefetch(1)
        .flat_map(batches)
        .prefetch(2)
    )
    return Batches(dataset, num_pairs, -(-num_pairs // batch_size))


class _Pairs:
    """Windows of all videos, and which of them shows which moment.

    Videos without a pair are left out.

    Attributes:
        videos: List of video ids.
        windows: `[W, 2]` seconds, video after video.
        contexts: `float32 [W, C, 2]`.
        row: `[W, C]`, for each of `contexts` a row of its video's pooled
            windows; only of windows that are in use.
        window: `[P]`, row of `windows` of each pair, video after video.
        moment: `[P]`, index of the moment of each pair.
        video: `[P]`, index of the video of each pair.
        first_window: `[V + 1]`, first row in `windows` of each video.
        truth: `[M, S, 2]`, segments of each moment, zeros for padding.
        ids: `[M]`, see `moment_ids`.
    """

    def __init__(self, moments, features, model, every_window, **thresholds):
        self.videos, self._distinct = [], []
        self._model = model
        self._durations = {m.video_id: known_duration(m) for m in moments}
        windows, contexts, rows, window, moment = [], [], [], [], []
        durations = {m.video_id: m.duration for m in moments}
        total = 0
        for video_id, own, window_index, moment_index in video_pairs(
            moments, model.grid, **thresholds
        ):
            if not len(window_index):
                continue
            clips = None
            if getattr(model.grid, "context_length", None) is not None:
                clips = features[video_id]
            context = contexts_of(
                model, own, durations[video_id], clips
            ).astype(np.float32)
            used = np.unique(window_index)
            if every_window:
                used = np.arange(len(own))
            distinct, inverse = np.unique(
                context[used].reshape(-1, 2), axis=0, return_inverse=True
            )
            row = np.zeros(context.shape[:2], np.int64)
            row[used] = inverse.reshape(-1, model.context_size)
            self.videos.append(video_id)
            self._distinct.append(distinct)
            windows.append(own)
            contexts.append(context)
            rows.append(row)
            window.append(total + window_index)
            moment.append(moment_index)
            total += len(own)
        if not windows:
            raise ValueError(
                f"None of the windows ({model.grid}) shows any of the "
                f"{len(moments)} moments at IoU > {thresholds['min_iou']} and "
                f"nIoL < {thresholds['max_niol']}. Choose `window_lengths` "
                "nearer to the moments', or looser thresholds."
            )
        self.windows = np.concatenate(windows)
        self.contexts = np.concatenate(contexts)
        self.row = np.concatenate(rows)
        self.window = np.concatenate(window)
        self.moment = np.concatenate(moment)
        self.video = np.repeat(np.arange(len(window)), list(map(len, window)))
        self.first_window = np.cumsum([0, *map(len, windows)])
        self.truth = pad([np.array(m.segments, float) for m in moments])
        self.ids = moment_ids(moments)

    def of_videos(self, videos):
        """The pairs of some videos, `[P]`."""
        ends = np.searchsorted(self.video, np.arange(len(self.videos) + 1))
        return np.concatenate([np.arange(*ends[v : v + 2]) for v in videos])

    def pool(self, features, videos):
        """Pools the windows in use of videos `[G]`, each distinct one once.

        Returns `(table [N, D], first_row [V])`: row r of video v is
        `table[first_row[v] + r]`.
        """
        table = []
        for video in videos:
            video_id = self.videos[video]
            clips = features[video_id]
            check_clips(self._model, clips, video_id, self._durations[video_id])
            table.append(
                pool_clips(
                    clips, self._distinct[video], self._model.clip_seconds
                )
            )
        first_row = np.zeros(len(self.videos), np.int64)
        first_row[videos[1:]] = np.cumsum([len(rows) for rows in table[:-1]])
        return np.concatenate(table), first_row


class _Negatives:
    """Windows of the same video that overlap little with a pair's moment."""

    def __init__(self, pairs, count, max_iou):
        self._pairs = pairs
        self._count = count
        num_moments = pairs.ids.max() + 1
        # Rows of windows, moment after moment.
        self._first = np.zeros(num_moments, np.int64)
        self._num_windows = np.zeros(num_moments, np.int64)
        windows, total = [], 0
        moments, examples = np.unique(
            pairs.ids[pairs.moment], return_index=True
        )
        for moment, pair in zip(moments, examples) if count else ():
            video = pairs.video[pair]
            first, last = pairs.first_window[video : video + 2]
            overlap = segments_lib.iou(
                pairs.windows[first:last, None],
                pairs.truth[pairs.moment[pair]],
            ).max(axis=1)
            windows.append(first + np.flatnonzero(overlap < max_iou))
            self._first[moment] = total
            self._num_windows[moment] = len(windows[-1])
            total += len(windows[-1])
        # One more, to point at where there are none.
        self._windows = np.concatenate([*windows, np.zeros(1, np.int64)])

    def draw(self, pair, rng):
        """Rows of windows `[P, count]` for the pairs `[P]`, with replacement.

        They are the pair's own window where there are no others.
        """
        moment = self._pairs.ids[self._pairs.moment[pair]]
        num_windows = self._num_windows[moment][:, None]
        drawn = rng.integers(
            np.maximum(num_windows, 1), size=(len(pair), self._count)
        )
        drawn = self._windows[self._first[moment][:, None] + drawn]
        return np.where(num_windows > 0, drawn, self._pairs.window[pair, None])


def _whole_batches(batch_size, left, group_and_last):
    """Keeps back what makes no whole batch, and puts it before the next group.

    Nothing is kept back of the last group of an epoch. Takes what is `left` of
    the group before, and returns what is left now, with the group.
    """
    group, last = group_and_last
    num_rows = tf.shape(left["table"], tf.int64)[0]
    group = {**group, "row": group["row"] + num_rows}
    group = {k: tf.concat([left[k], v], axis=0) for k, v in group.items()}
    table = group.pop("table")
    end = tf.shape(group["moment"])[0]
    end -= tf.where(last, 0, end % batch_size)
    left = {k: v[end:] for k, v in group.items()}
    group = {k: v[:end] for k, v in group.items()}
    rows = tf.reshape(left["row"], (-1,))
    left["row"] = tf.reshape(
        tf.range(tf.size(rows, tf.int64)), tf.shape(left["row"])
    )
    left["table"] = tf.gather(table, rows)
    return left, {**group, "table": table}


def _until_exit(function):
    """The function, which threads of tf.data may call until Python exits.

    A thread that asks for the interpreter after that is stopped where it is,
    and TensorFlow, which takes its iterators apart, waits for it for ever. So
    a call is waited for at exit, and what is called later fails at once.
    """

    @functools.wraps(function)
    def guarded(*arguments):
        lock, over = _exit()
        with lock:
            if over.is_set():
                raise RuntimeError("Python exits.")
            return function(*arguments)

    return guarded


@functools.cache
def _exit():
    """A lock that exit waits for, and an event that tells of exit."""
    lock, over = threading.Lock(), threading.Event()

    def finish():
        over.set()
        with lock:
            pass
        # For the calls that fail, until the buffers are full of them.
        time.sleep(0.1)

    atexit.register(finish)
    return lock, over
