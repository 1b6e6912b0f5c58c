"""Encodes the windows of videos, each window once."""

import dataclasses
from collections.abc import Iterator, Mapping

import keras
import numpy as np

from acnn_tf.data.windows import (
    VideoWindows,
    WindowGrid,
    check_clips,
    check_features,
    contexts_of,
    pool_clips,
)

# Clips beyond which a video is encoded in pieces.
_LONG = 1024
# Numbers of windows that are given rather than pooled, encoded at once.
_NUMBERS = 2**23


@dataclasses.dataclass(frozen=True)
class EncodedVideo:
    """The windows of one video, ready to be matched.

    Attributes:
        video_id: Its name.
        duration: Float, seconds.
        windows: `float64 [W, 2]`, seconds.
        encoding: `float32 [W, t]`, from `model.encode_windows`.

    See `encode_videos` for an example.
    """

    video_id: str
    duration: float
    windows: np.ndarray
    encoding: np.ndarray


def encode_videos(
    model: keras.Model,
    features: Mapping[str, np.ndarray],
    durations: Mapping[str, float],
    grid: WindowGrid | None = None,
    max_windows: int = 2048,
    *,
    is_exact: bool = True,
) -> Iterator[EncodedVideo]:
    """Encodes every window of every video, once.

    Videos of similar duration go through the model together, padded; padding
    does not change their numbers.

    Args:
        model: See `acnn_tf.search`.
        features: Mapping from video id to `[T, D]` clip features, such as
            `acnn_tf.data.features.open_features` returns.
        durations: Seconds of each video to encode, by video id.
        grid: `WindowGrid` to use instead of `model.grid`, such as the coarser
            one that the paper tests with.
        max_windows: The most windows in a batch, with padding. It bounds
            memory. A video that has more is a batch of its own.
        is_exact: Whether the durations are those of whole videos. The clips
            must then fit them. `False` is for durations that are counted in
            pieces, as those of DiDeMo are.

    Yields:
        An `EncodedVideo` for each video, the shortest video first.

    Raises:
        DataError: If the features were not made in the way in which those
            were made that the model learned from.
        UnknownIdError: If a video has no features.
        ValueError: If the clips of a video have another width than those that
            the model learned from, or do not fit the duration of the video;
            see `acnn_tf.data.windows.check_clips`.

    Example:

    >>> import acnn_tf
    >>> import numpy as np
    >>> model = acnn_tf.models.ZeroShot((4.0,), window_overlap=0.5)
    >>> (video,) = acnn_tf.search.encode_videos(
    ...     model, {"v1": np.eye(8, 3)}, {"v1": 8.0}
    ... )
    >>> video.windows.tolist(), video.encoding.shape
    ([[0.0, 4.0], [2.0, 6.0], [4.0, 8.0]], (3, 3))
    """
    grid = grid or model.grid
    check_features(model, features, durations)
    batch = {}
    for video_id in sorted(durations, key=durations.get):
        windows = grid.windows(durations[video_id])
        most = max([len(windows), *map(len, batch.values())])
        if batch and most * (len(batch) + 1) > max_windows:
            yield from _encode_batch(
                model, grid, features, durations, batch, is_exact
            )
            batch = {}
        batch[video_id] = windows
    if batch:
        yield from _encode_batch(
            model, grid, features, durations, batch, is_exact
        )


def _encode_batch(model, grid, features, durations, batch, is_exact):
    clips = {
        video_id: _clips(
            model, features, video_id, durations[video_id] if is_exact else None
        )
        for video_id in batch
    }
    first = next(iter(batch))
    if isinstance(clips[first], VideoWindows):
        encodings = [
            _encode_given(model, grid, clips[video], durations[video], windows)
            for video, windows in batch.items()
        ]
    elif len(batch) == 1 and len(clips[first]) > _LONG:
        encodings = [
            _encode_long(
                model, grid, clips[first], durations[first], batch[first]
            )
        ]
    else:
        inputs = encoder_inputs(model, clips, durations, batch, grid)
        encodings = to_numpy(model.encode_windows(inputs))  # [B, W, t]
    for (video_id, windows), encoding in zip(
        batch.items(), encodings, strict=True
    ):
        yield EncodedVideo(
            video_id, durations[video_id], windows, encoding[: len(windows)]
        )


def _encode_given(model, grid, clips, duration, windows):
    """Encodes given windows of one video, in several batches."""
    contexts = contexts_of(model, windows, duration, clips, grid)
    size = _NUMBERS // (model.context_size * clips.shape[1])
    # Of one number all, since some backends compile for each.
    size = min(max(size, 1), -(-len(windows) // 32) * 32)
    encodings = []
    for first in range(0, len(windows), size):
        segment = np.zeros((1, size, *contexts.shape[1:]), np.float32)
        part = contexts[first : first + size]
        segment[0, : len(part)] = part
        inputs = _given(model, clips, segment, duration)
        encodings.append(to_numpy(model.encode_windows(inputs))[0, : len(part)])
    return np.concatenate(encodings)


def _given(model, clips, segment, duration):
    """Makes inputs of `model.encode_windows` for windows `[1, W, C, 2]`."""
    return {
        "window": pool_clips(clips, segment, model.clip_seconds),
        "segment": segment,
        "duration": np.array([duration], np.float32),
    }


def _encode_long(model, grid, clip, duration, windows):
    """Encodes a long video in pieces, each with the clips that it needs.

    Pooling all windows from all clips costs windows times clips; in pieces,
    time and memory are linear in the length of the video.
    """
    contexts = contexts_of(model, windows, duration, clip, grid)
    # What a model asks for that compares a window with the rest of its video.
    whole = getattr(model, "whole_video", lambda clip: {})(clip)
    middle = windows.mean(axis=1) / model.clip_seconds
    piece_of = (middle // (_LONG // 2)).astype(int)
    encodings = None
    for piece in np.unique(piece_of):
        rows = np.flatnonzero(piece_of == piece)
        segment = contexts[rows]
        real = segment[segment[..., 1] > segment[..., 0]]
        first = int(real.min() // model.clip_seconds)
        last = int(np.ceil(real.max() / model.clip_seconds))
        first, last = min(first, len(clip) - 1), min(last, len(clip))
        part = clip[first : max(last, first + 1)]
        inputs = {
            "clip": part[None],
            "clip_mask": np.ones((1, len(part)), bool),
            "first_clip": np.array([first], np.float32),
            "segment": segment[None].astype(np.float32),
            "duration": np.array([duration], np.float32),
            **whole,
        }
        encoding = to_numpy(model.encode_windows(inputs))[0]
        if encodings is None:
            encodings = np.zeros((len(windows), encoding.shape[1]), np.float32)
        encodings[rows] = encoding
    return encodings


def _clips(model, features, video_id, duration=None):
    clips = features[video_id]
    if not isinstance(clips, VideoWindows):
        clips = np.asarray(clips)
    path = getattr(features, "path", None)
    check_clips(model, clips, video_id, duration, path)
    return clips


def encoder_inputs(
    model: keras.Model,
    features: Mapping[str, np.ndarray],
    durations: Mapping[str, float],
    windows: Mapping[str, np.ndarray],
    grid: WindowGrid | None = None,
) -> dict[str, np.ndarray]:
    """Makes inputs of `model.encode_windows` for a batch of videos.

    Args:
        model: See `acnn_tf.search`.
        features: Clip features `[T, D]` of each video, by video id.
        durations: Seconds of each video, by video id.
        windows: Windows `[W, 2]`, in seconds, of each video of the batch, by
            video id.
        grid: `WindowGrid` that made the windows. Default: `model.grid`.

    Returns:
        Dictionary of float32 arrays: `"clip"` `[B, T, D]`, `"clip_mask"`
        bool `[B, T]`, `"segment"` `[B, W, C, 2]`, `"duration"` `[B]`. If the
        batch is one video whose features are `VideoWindows`, it has
        `"window"` `[1, W, C, D]` in place of `"clip"` and `"clip_mask"`.

    Example:

    >>> import acnn_tf
    >>> import numpy as np
    >>> model = acnn_tf.models.ZeroShot((4.0,), window_overlap=0.5)
    >>> inputs = acnn_tf.search.encoder_inputs(
    ...     model,
    ...     {"v1": np.eye(8, 3)},
    ...     {"v1": 8.0},
    ...     {"v1": model.grid.windows(duration=8.0)},
    ... )
    >>> sorted(inputs)
    ['clip', 'clip_mask', 'duration', 'segment']
    """
    check_features(model, features)
    grid = grid or model.grid
    clips = [_clips(model, features, video_id) for video_id in windows]
    if isinstance(clips[0], VideoWindows):
        ((video_id, own),) = windows.items()
        duration = durations[video_id]
        segment = contexts_of(model, own, duration, clips[0], grid)
        segment = segment[None].astype(np.float32)
        return _given(model, clips[0], segment, duration)
    # Few shapes, since some backends compile for each of them.
    num_clips, num_windows = (
        -(-max(map(len, arrays)) // 32) * 32
        for arrays in (clips, windows.values())
    )
    clip = np.zeros((len(clips), num_clips, clips[0].shape[1]), np.float32)
    clip_mask = np.zeros((len(clips), num_clips), bool)
    segment = np.zeros(
        (len(clips), num_windows, model.context_size, 2), np.float32
    )
    for row, (video_id, video_windows) in enumerate(windows.items()):
        clip[row, : len(clips[row])] = clips[row]
        clip_mask[row, : len(clips[row])] = True
        segment[row, : len(video_windows)] = contexts_of(
            model, video_windows, durations[video_id], clips[row], grid
        )
    return {
        "clip": clip,
        "clip_mask": clip_mask,
        "segment": segment,
        "duration": np.array([durations[v] for v in windows], np.float32),
    }


def to_numpy(tensor: keras.KerasTensor) -> np.ndarray:
    """Copies a tensor of any backend and precision to a float32 array.

    Example:

    >>> import acnn_tf, keras
    >>> acnn_tf.search.to_numpy(keras.ops.ones(2, "float16"))
    array([1., 1.], dtype=float32)
    """
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))
