"""Training batches of whole videos, as tf.data datasets.

A query comes with all windows of its own video: they are its candidates, and
each other's negatives. `acnn_tf.data.pair_batches` makes the other kind, with
the same keys, so that one model and one set of losses take both.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from acnn_tf import segments as segments_lib
from acnn_tf.data.annotations import Moment, check_moments
from acnn_tf.data.windows import (
    VideoWindows,
    check_clips,
    check_features,
    check_queries,
    contexts_of,
)

# Batches over which examples are sorted by their number of windows.
_GROUP = 8
# What the shares of clips in windows, `[B, W, C, T]`, may take.
_MOST_BYTES = 8 * 2**30


@dataclasses.dataclass(frozen=True)
class Batches:
    """Training batches without end, and how many make an epoch.

    Example:

    >>> model.fit(batches.dataset, steps_per_epoch=batches.steps_per_epoch)
    ... # doctest: +SKIP

    Attributes:
        dataset: tf.data.Dataset of `(inputs, targets)`.
        num_examples: Examples in an epoch.
        steps_per_epoch: Batches in an epoch.
    """

    dataset: tf.data.Dataset
    num_examples: int
    steps_per_epoch: int

    def skip(self, steps: int) -> Batches:
        """The same batches without the first few: `Batches`."""
        return dataclasses.replace(self, dataset=self.dataset.skip(steps))

    def distribute(self, strategy: tf.distribute.Strategy) -> Batches:
        """The same batches for several replicas, each with rows of its own.

        Every worker makes whole batches and takes the rows of its replicas. So
        the batches are the same for any number of replicas: each of N replicas
        gets `B // N` rows or one more, one replica after another.

        Args:
            strategy: The strategy of the replicas.

        Returns:
            Batches for `fit` under this strategy.
        """
        count = strategy.num_replicas_in_sync
        if count == 1:
            return self

        def of_worker(context):
            own = count // context.num_input_pipelines
            first = own * context.input_pipeline_id

            def parts(*batch):
                replicas = tf.data.Dataset.range(first, first + own)
                return replicas.map(lambda r: _rows(batch, r, count))

            return self.dataset.flat_map(parts).prefetch(2 * own)

        return dataclasses.replace(
            self, dataset=strategy.distribute_datasets_from_function(of_worker)
        )


def _rows(batch, part, count):
    """One of `count` parts of a batch, all of which differ by a row at most."""
    size = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
    first, last = part * size // count, (part + 1) * size // count
    return tf.nest.map_structure(lambda tensor: tensor[first:last], batch)


def moment_ids(moments: Sequence[Moment]) -> np.ndarray:
    """One id for each distinct (video, segments), `int32 [N]`.

    Sentences about the same moment have the same id, in whatever order their
    annotations list its segments.
    """
    ids = {}
    keys = [(m.video_id, tuple(sorted(m.segments))) for m in moments]
    return np.array([ids.setdefault(key, len(ids)) for key in keys], np.int32)


def pad(arrays: Sequence[np.ndarray], value: float = 0) -> np.ndarray:
    """Stacks arrays of one rank, each padded to the largest of them."""
    shape = np.max([array.shape for array in arrays], axis=0)
    stacked = np.full((len(arrays), *shape), value, arrays[0].dtype)
    for row, array in zip(stacked, arrays):
        row[tuple(map(slice, array.shape))] = array
    return stacked


def window_targets(
    windows: np.ndarray,
    moment_segments: ArrayLike,
    offset_unit: str,
    frame_rate: float | None,
    min_iou: float,
) -> tuple[np.ndarray, np.ndarray]:
    """What each window should answer for one query.

    Args:
        windows: `[..., W, 2]` seconds: windows of one query, or of many.
        moment_segments: `[..., M, 2]` seconds: the query's moment, or several;
            a segment without length is padding.
        offset_unit: Unit of the offsets, see
            `acnn_tf.segments.encode_offsets`.
        frame_rate: Frames per second, where the unit is `"frames"`.
        min_iou: Windows above this IoU carry offsets to learn.

    Returns:
        `(iou [..., W], offset [..., W, 3])`, float32; the last column of
        `offset` is 1 where the window has offsets to learn. The best window of
        a query always has.
    """
    moment_segments = np.asarray(moment_segments)
    overlap = segments_lib.iou(
        windows[..., :, None, :], moment_segments[..., None, :, :]
    )  # [..., W, M]
    nearest = np.take_along_axis(
        moment_segments, overlap.argmax(axis=-1)[..., None], axis=-2
    )  # [..., W, 2]
    overlap = overlap.max(axis=-1)
    weight = overlap > min_iou
    best = overlap.argmax(axis=-1)[..., None]
    np.put_along_axis(weight, best, True, axis=-1)
    offset = segments_lib.encode_offsets(
        nearest, windows, offset_unit, frame_rate
    )
    offset = np.concatenate([offset, weight[..., None]], axis=-1)
    return overlap.astype(np.float32), offset.astype(np.float32)


def check_examples(
    moments: Sequence[Moment],
    queries: ArrayLike,
    features: Mapping[str, np.ndarray],
    model: keras.Model,
    batch_size: int,
) -> np.ndarray:
    """Refuses examples on which a model cannot be trained.

    It is called before the training starts. `training_videos` explains the
    arguments.

    Args:
        moments: The moments.
        queries: What `model.encode_queries` takes, a row for each moment.
        features: Mapping from video id to `[T, D]` clip features. Features in
            memory, in a dictionary, are checked here; a reader of files checks
            them when it reads them.
        model: The model to train.
        batch_size: Queries in a batch.

    Returns:
        `queries` as an array.

    Raises:
        DataError: If another encoder made the features than those that the
            model learned from.
        UnknownIdError: If a video has no features.
        ValueError: If a number, width, length or type does not fit. The
            message says what was received.
    """
    check_moments(moments)
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(
            "`batch_size` must be a whole number from 1. "
            f"Received: {batch_size}"
        )
    durations = {m.video_id: known_duration(m) for m in moments}
    check_features(model, features, durations)
    queries = check_queries(queries, model.vocabulary)
    if len(queries) != len(moments):
        raise ValueError(
            f"`queries` must have a row for each of the {len(moments)} "
            f"moments. Received: {len(queries)} rows"
        )
    if isinstance(features, dict):
        for video_id, duration in durations.items():
            clips = features[video_id]
            check_clips(model, clips, video_id, duration)
            # Those of windows are still to be read, and are then checked.
            if (
                not isinstance(clips, VideoWindows)
                and not np.isfinite(clips).all()
            ):
                raise ValueError(
                    f"video {video_id!r}: has features that are not finite; "
                    "extract them again, or leave out its moments"
                )
    return queries


def known_duration(moment: Moment) -> float | None:
    """Seconds of the video of a `Moment`; `None` if they are of pieces."""
    return moment.duration if moment.num_annotators is None else None


def _check_memory(moments, model, batch_size):
    """Refuses videos of hours, all windows of which are pooled at once."""
    longest = max(moment.duration for moment in moments)
    shares = (
        len(model.grid.windows(longest))
        * model.context_size
        * math.ceil(longest / model.clip_seconds)
        * min(batch_size, len(moments))
    )
    if 4 * shares > _MOST_BYTES:
        raise ValueError(
            f"A batch of {batch_size} videos of {longest:,.0f} s, the longest, "
            f"would take {4 * shares / 2**30:,.0f} GiB to pool all their "
            "windows. Train on pairs of windows and queries, which are pooled "
            "one video at a time (`training_pairs`, or --batches=pairs), or in "
            "smaller batches."
        )


def training_videos(
    moments: Sequence[Moment],
    queries: ArrayLike,
    features: Mapping[str, np.ndarray],
    model: keras.Model,
    *,
    batch_size: int = 32,
    crop: float = 0.5,
    min_iou: float = 0.5,
    seed: int = 0,
    first_epoch: int = 0,
) -> Batches:
    """Every query with all windows of its video, shuffled, without end.

    Args:
        moments: The moments to learn.
        queries: What `model.encode_queries` takes, a row for each moment.
        features: Mapping from video id to `[T, D]` clip features.
        model: The model to train. Its `grid`, `context_size`, `clip_seconds`
            and `offset_unit` decide the windows and the targets.
        batch_size: Queries in a batch. One batch of an epoch may be smaller.
            Videos with similar numbers of windows are batched together, which
            saves padding.
        crop: Share of the examples in which the video is cut at random, at
            clip boundaries, somewhere before and somewhere after the moment.
        min_iou: Windows above this IoU learn offsets.
        seed: Order and crops follow from `(seed, epoch)` alone.
        first_epoch: Epoch to start with.

    Returns:
        `Batches`. Inputs: `"clip"`
        `[B, T, D]`, `"clip_mask"` `[B, T]`, `"segment"` `[B, W, C, 2]`,
        `"duration"` `[B]`, `"query"` (a row of `queries` each) and
        `"positive"` `[B]`, the window of highest IoU. Targets: `"score"`
        `[B, W]` (IoU, -1 for padding), `"offset"` `[B, W, 3]` and
        `"batch_score"` `[B]` (moment ids).

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
    >>> batches = acnn_tf.data.training_videos(
    ...     scenes.moments, queries, scenes.features, model, batch_size=2
    ... )
    >>> inputs, targets = next(iter(batches.dataset))
    >>> inputs["clip"].shape[0], inputs["query"].shape[0]
    (2, 2)
    """
    if not 0 <= crop <= 1:
        raise ValueError(f"`crop` must be in [0, 1]. Received: {crop}")
    queries = check_examples(moments, queries, features, model, batch_size)
    if isinstance(features[moments[0].video_id], VideoWindows):
        raise ValueError(
            "Features of windows are trained on as pairs of a window and a "
            "query (`training_pairs`, or --batches=pairs): their videos have "
            "no clips."
        )
    _check_memory(moments, model, batch_size)
    ids = moment_ids(moments)
    clip_seconds = model.clip_seconds
    frame_rate = model.grid.frame_rate

    def example(index, rng):
        moment = moments[index]
        clip = features[moment.video_id]
        check_clips(model, clip, moment.video_id, known_duration(moment))
        truth = np.array(moment.segments)
        duration = moment.duration
        if rng.random() < crop:
            first = int(rng.integers(truth.min() // clip_seconds + 1))
            first = min(first, len(clip) - 1)
            last = min(int(np.ceil(truth.max() / clip_seconds)), len(clip))
            last = max(first + 1, int(rng.integers(last, len(clip) + 1)))
            clip = clip[first:last]
            if last < len(features[moment.video_id]):
                duration = min(duration, last * clip_seconds)
            truth = truth - first * clip_seconds
            duration -= first * clip_seconds
        windows = model.grid.windows(duration)
        overlap, offset = window_targets(
            windows, truth, model.offset_unit, frame_rate, min_iou
        )
        contexts = contexts_of(model, windows, duration)
        return clip, contexts.astype(np.float32), duration, overlap, offset

    def batches():
        for epoch in itertools.count(first_epoch):
            rng = np.random.default_rng([seed, epoch])
            order = rng.permutation(len(moments))
            group_size = _GROUP * batch_size
            for start in range(0, len(order), group_size):
                group = [
                    (index, *example(index, rng))
                    for index in order[start : start + group_size]
                ]
                group.sort(key=lambda row: len(row[2]))
                firsts = range(0, len(group), batch_size)
                for first in rng.permutation(firsts):
                    yield collate(*zip(*group[first : first + batch_size]))

    def collate(index, clip, segment, duration, overlap, offset):
        index = list(index)
        score = pad(overlap, value=-1)
        inputs = {
            "clip": pad(clip),
            "clip_mask": pad([np.ones(len(row), bool) for row in clip]),
            "segment": pad(segment),
            "duration": np.array(duration, np.float32),
            "query": queries[index],
            "positive": score.argmax(axis=1).astype(np.int32),
        }
        targets = {
            "score": score,
            "offset": pad(offset),
            "batch_score": ids[index],
        }
        return inputs, targets

    def spec(*shape, dtype=tf.float32):
        return tf.TensorSpec((None, *shape), dtype)

    dim = next(iter(features.values())).shape[1]
    inputs = {
        "clip": spec(None, dim),
        "clip_mask": spec(None, dtype=tf.bool),
        "segment": spec(None, model.context_size, 2),
        "duration": spec(),
        "query": spec(*queries.shape[1:], dtype=queries.dtype),
        "positive": spec(dtype=tf.int32),
    }
    targets = {
        "score": spec(None),
        "offset": spec(None, 3),
        "batch_score": spec(dtype=tf.int32),
    }
    dataset = tf.data.Dataset.from_generator(
        batches, output_signature=(inputs, targets)
    )
    return Batches(
        dataset.prefetch(2), len(moments), -(-len(moments) // batch_size)
    )
