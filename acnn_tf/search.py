"""From encoded queries to moments: score, shift by offsets, suppress, rank.

Every function takes the model as an argument and asks little of it:
`encode_windows`, `match`, and the attributes `grid`, `kernel_sizes`,
`clip_seconds`, `offset_unit` and `consensus_iou`.
"""

import dataclasses
import typing

import keras
import numpy as np

from acnn_tf import segments as segments_lib

SUPPRESSIONS = ("none", "fixed", "per_threshold")


def max_overlap(suppression, nms_threshold=0.5, iou=None):
    """Largest IoU that two results of one query may have with each other.

    The three protocols in use, none of which changes the first result:

    - `"none"`: 1, so that all results stay.
    - `"fixed"`: `nms_threshold`.
    - `"per_threshold"`: m - 0.05 where R@n, IoU=m is measured, so that every
      m has a ranking of its own. The paper's tables and the public code of
      this family of models use it.

    Overlap is that of the results themselves: windows shifted by their
    offsets, not the windows that they come from.

    Args:
        suppression: One of `SUPPRESSIONS`.
        nms_threshold: Float, of `"fixed"`.
        iou: Float, m, of `"per_threshold"`.

    Returns:
        Float, the `max_iou` of `acnn_tf.segments.nms`.
    """
    if suppression == "none":
        return 1.0
    if suppression == "fixed":
        if not 0 <= nms_threshold <= 1:
            raise ValueError(
                f"`nms_threshold` must be in [0, 1]. Received: {nms_threshold}"
            )
        return nms_threshold
    if suppression == "per_threshold":
        if iou is None:
            raise ValueError(
                "Suppression per threshold needs the `iou` to measure at."
            )
        return max(0.0, round(iou - 0.05, 9))  # 0.7 - 0.05 is 0.6499999...
    raise ValueError(
        f"`suppression` must be one of {SUPPRESSIONS}. Received: {suppression}"
    )


@dataclasses.dataclass(frozen=True)
class EncodedVideo:
    """The windows of one video, ready to be matched.

    Attributes:
        video_id: Its name.
        duration: Float, seconds.
        windows: `float64 [W, 2]`, seconds.
        encoding: `[W, t]`, from `model.encode_windows`.
    """

    video_id: str
    duration: float
    windows: np.ndarray
    encoding: np.ndarray


def encode_videos(model, features, durations, grid=None, max_windows=2048):
    """Encodes every window of every video, once.

    Videos of similar duration go through the model together, padded; padding
    does not change their numbers.

    Args:
        model: See the top of this module.
        features: Mapping from video id to `[T, D]` clip features, such as
            `acnn_tf.data.features.open_features` returns.
        durations: Dictionary from video id to seconds: the videos to encode.
        grid: `WindowGrid` to use instead of `model.grid`, such as the coarser
            one that the paper tests with.
        max_windows: Windows of a batch, padding included, unless one video
            has more. Bounds memory.

    Yields:
        `EncodedVideo`, by rising duration.
    """
    grid = grid or model.grid
    clip_seconds = getattr(features, "clip_seconds", model.clip_seconds)
    if not np.isclose(clip_seconds, model.clip_seconds):
        raise ValueError(
            f"The clips of {getattr(features, 'path', 'these features')} last "
            f"{clip_seconds:g} s, those that the model learned from "
            f"{model.clip_seconds:g} s."
        )
    batch = {}
    for video_id in sorted(durations, key=durations.get):
        windows = grid.windows(durations[video_id])
        most = max([len(windows), *map(len, batch.values())])
        if batch and most * (len(batch) + 1) > max_windows:
            yield from _encode_batch(model, grid, features, durations, batch)
            batch = {}
        batch[video_id] = windows
    if batch:
        yield from _encode_batch(model, grid, features, durations, batch)


def _encode_batch(model, grid, features, durations, batch):
    inputs = encoder_inputs(model, features, durations, batch, grid)
    encodings = to_numpy(model.encode_windows(inputs))  # [B, W, t]
    for (video_id, windows), encoding in zip(
        batch.items(), encodings, strict=True
    ):
        yield EncodedVideo(
            video_id, durations[video_id], windows, encoding[: len(windows)]
        )


def encoder_inputs(model, features, durations, windows, grid=None):
    """What `model.encode_windows` takes, for a batch of videos.

    Args:
        model: Likewise for all: see `encode_videos`.
        features: Mapping from video id to `[T, D]`.
        durations: Dictionary from video id to seconds.
        windows: Dictionary from the video ids of the batch to `[W, 2]`.
        grid: `WindowGrid` that made the windows, if not `model.grid`.

    Returns:
        Dictionary of float32 arrays: `"clip"` `[B, T, D]`, `"clip_mask"`
        bool `[B, T]`, `"segment"` `[B, W, C, 2]`, `"duration"` `[B]`.
    """
    grid = grid or model.grid
    context_size = max(model.kernel_sizes)
    clips = [np.asarray(features[video_id]) for video_id in windows]
    expected = getattr(model, "clip_dim", None)
    for video_id, clip in zip(windows, clips, strict=True):
        if expected is not None and clip.shape[1] != expected:
            raise ValueError(
                f"{getattr(features, 'path', 'these features')}, video "
                f"{video_id!r}: has {clip.shape[1]} features a clip, but the "
                f"model learned from {expected}."
            )
    num_clips = _round_up(max(map(len, clips)))
    num_windows = _round_up(max(map(len, windows.values())))
    clip = np.zeros((len(clips), num_clips, clips[0].shape[1]), np.float32)
    clip_mask = np.zeros((len(clips), num_clips), bool)
    segment = np.zeros((len(clips), num_windows, context_size, 2), np.float32)
    for row, video_windows in enumerate(windows.values()):
        clip[row, : len(clips[row])] = clips[row]
        clip_mask[row, : len(clips[row])] = True
        segment[row, : len(video_windows)] = grid.contexts(
            video_windows, context_size
        )
    return {
        "clip": clip,
        "clip_mask": clip_mask,
        "segment": segment,
        "duration": np.array([durations[v] for v in windows], np.float32),
    }


def _round_up(count, step=32):
    """Few shapes, since some backends compile for each of them."""
    return -(-count // step) * step


def to_numpy(tensor):
    """A tensor of any backend and precision as a float32 array."""
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def candidates(model, queries, video):
    """Every window of a video as an answer to every query, unranked.

    The one place where offsets are undone. A shifted window is cut at the
    ends of the video; where that leaves nothing of it, or where its end comes
    before its start, the window stays as it was.

    Args:
        model: See the top of this module.
        queries: `[Q, t]`, from `model.encode_queries`.
        video: `EncodedVideo`.

    Returns:
        `(segments, scores)`: `float64 [Q, W, 2]` seconds, within
        `[0, duration]`, and `float32 [Q, W]`.
    """
    output = model.match(queries, video.encoding)
    scores, offsets = to_numpy(output["score"]), to_numpy(output["offset"])
    if not (np.isfinite(scores).all() and np.isfinite(offsets).all()):
        raise ValueError(
            f"The model's output for video {video.video_id!r} is not finite. "
            "Check the features (experiments.inspect_data) and the weights."
        )
    shifted = segments_lib.decode_offsets(
        offsets.astype(np.float64),
        video.windows,
        model.offset_unit,
        model.grid.frame_rate,
    )
    shifted = np.clip(shifted, 0.0, video.duration)
    windows = np.clip(video.windows, 0.0, video.duration)
    kept = shifted[..., :1] < shifted[..., 1:]
    segments = np.where(kept, shifted, windows)
    if model.consensus_iou is not None:
        scores = consensus(segments, scores, model.consensus_iou)
    return segments, scores


def consensus(segments, scores, min_iou):
    """Lets the windows of a video support those that they agree with.

        s'_w = log sum_v exp(s_v) max(0, (iou(w, v) - min_iou) / (1 - min_iou))

    The softmax of the scores says where the moment may be; `s'` ranks windows
    by how much of it, on average over these places, they would catch. One
    window that stands alone gives way to several that nearly coincide.

    Args:
        segments: `[..., W, 2]`: the windows of one video.
        scores: `[..., W]`.
        min_iou: Float in `[0, 1)`: IoU up to which two do not agree.

    Returns:
        `[..., W]`, on the scale of `scores`: that of a window which overlaps
        no other stays as it is.

    Example:

    >>> segments = np.array([[0.0, 4.0], [10.0, 14.0], [10.0, 14.0]])
    >>> consensus(segments, np.array([1.0, 0.9, 0.9]), 0.5).round(2).tolist()
    [1.0, 1.59, 1.59]
    """
    segments, scores = np.asarray(segments), np.asarray(scores, np.float64)
    if scores.ndim > 1:
        # One by one: W x W numbers are enough to hold at a time.
        rows = zip(segments, scores, strict=True)
        return np.stack([consensus(*row, min_iou) for row in rows])
    overlap = segments_lib.iou(segments[:, None], segments)
    gain = np.maximum(0.0, (overlap - min_iou) / (1.0 - min_iou))
    highest = scores.max()
    total = gain @ np.exp(scores - highest)
    return np.log(np.maximum(total, np.finfo(total.dtype).tiny)) + highest


class Found(typing.NamedTuple):
    """A moment that a search found; times in seconds."""

    video_id: str
    start: float
    end: float
    score: float


def search_videos(
    model,
    features,
    queries,
    durations=None,
    *,
    top_n=5,
    suppression="fixed",
    nms_threshold=0.5,
):
    """The best moments over all videos, for each query.

    Args:
        model: See the top of this module; `encode_queries` as well.
        features: Mapping from video id to `[T, D]` clip features.
        queries: What `model.encode_queries` takes: `[Q, L]` word ids or
            `[Q, E]` sentence vectors.
        durations: Dictionary from video id to seconds: the videos to search.
            Default: all, as long as their clips.
        top_n: Int, results of a query.
        suppression: `"none"` or `"fixed"`, among results of the same video.
        nms_threshold: Float, see `max_overlap`.

    Returns:
        For each query a list of `Found`, best first.
    """
    max_iou = max_overlap(suppression, nms_threshold)
    if durations is None:
        durations = {
            video_id: len(features[video_id]) * model.clip_seconds
            for video_id in features
        }
    queries = model.encode_queries(queries)
    found = [[] for _ in range(queries.shape[0])]
    for video in encode_videos(model, features, durations):
        segments, scores = candidates(model, queries, video)
        kept = segments_lib.nms(segments, scores, max_iou, top_n)
        for row, indices in enumerate(kept):
            found[row] += [
                Found(
                    video.video_id,
                    *segments[row, index].tolist(),
                    float(scores[row, index]),
                )
                for index in indices[indices >= 0]
            ]
            # Equal scores by video and start, whatever the order of videos.
            found[row].sort(key=lambda f: (-f.score, f.video_id, f.start))
            del found[row][top_n:]
    return found
