"""Sliding windows over a video, and which of them answer which moment."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from acnn_tf import encoders
from acnn_tf import segments as segments_lib
from acnn_tf.files.problems import UnknownIdError

if typing.TYPE_CHECKING:
    import os

    import keras
    import tensorflow as tf

    from acnn_tf.data.annotations import Moment

# Windows of a video: a whole day has half a million of the default lengths.
MAX_WINDOWS = 2**22
# How far clips and duration may differ, whichever is more: so many clips, or
# such a share of the duration.
NEAR_CLIPS, NEAR_SHARE = 2, 0.02
# A step from window to window, at most, as a share of their length.
_STEP = 0.25
# Seconds by which rounding may err.
HAIR = 1e-6


@dataclasses.dataclass(frozen=True)
class WindowGrid:
    """The candidate windows of a video: several lengths, overlapping.

    Without `frame_rate`, `lengths` are seconds: the windows of one length
    spread evenly from the start of the video to its end, in steps of at most
    `(1 - overlap) * length`, so that they always cover the whole video.

    With `frame_rate`, `lengths` are frames and the rule is the paper's:
    windows `[s, s + length)` with `s = 1, 1 + step, ...` while
    `s + length <= num_frames + 1`, `step = floor((1 - overlap) * length)`.
    Frame `f` lies `f / frame_rate` seconds into the video, as in the
    annotations of TACoS.

    A video shorter than every length has one window: all of it.

    Args:
        lengths: Lengths of the windows, in seconds or frames, increasing.
        overlap: Share in `[0, 1)` that neighbouring windows have in common.
        frame_rate: Frames per second, if `lengths` are in frames.
        dilation: Steps from one context window to the next. Default:
            `1 / (1 - overlap)`, rounded: then the context windows are adjacent
            and do not overlap.
        context_length: Length of the context windows, in the unit of
            `lengths`. They are then adjacent stretches before and after the
            window, whatever its own length. The code of the paper has 128
            frames. Default: `None`, windows of the window's own length by
            `dilation`.

    Example:

    >>> from acnn_tf.data import WindowGrid
    >>> WindowGrid(lengths=(4.0,), overlap=0.5).windows(8.0).tolist()
    [[0.0, 4.0], [2.0, 6.0], [4.0, 8.0]]

    Reference: paper, section 4.1.
    """

    lengths: tuple
    overlap: float = 0.8
    frame_rate: float | None = None
    dilation: int | None = None
    context_length: float | None = None

    def __post_init__(self):
        lengths = tuple(float(length) for length in self.lengths)
        if (
            not lengths
            # The digits of "35" are no lengths.
            or any(isinstance(length, str) for length in self.lengths)
            or not all(0 < length < math.inf for length in lengths)
            or list(lengths) != sorted(set(lengths))
        ):
            raise ValueError(
                "`lengths` must be numbers, positive and increasing. "
                f"Received: {self.lengths}"
            )
        if not 0 <= self.overlap < 1:
            raise ValueError(
                f"`overlap` must be in [0, 1). Received: {self.overlap}"
            )
        if self.dilation is not None and not (
            self.dilation >= 1 and self.dilation == int(self.dilation)
        ):
            raise ValueError(
                "`dilation` must be a whole number from 1. "
                f"Received: {self.dilation}"
            )
        if self.context_length is not None and not (
            0 < self.context_length < math.inf
        ):
            raise ValueError(
                "`context_length` must be positive. "
                f"Received: {self.context_length}"
            )
        if self.frame_rate is not None:
            if not 0 < self.frame_rate < math.inf:
                raise ValueError(
                    "`frame_rate` must be positive. "
                    f"Received: {self.frame_rate}"
                )
            if any(length != int(length) for length in lengths):
                raise ValueError(
                    "`lengths` in frames must be whole numbers. "
                    f"Received: {self.lengths}"
                )
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(
            self, "dilation", self.dilation or round(1 / (1 - self.overlap))
        )

    def frames(self, num_frames: int) -> np.ndarray:
        """Windows of a video of `num_frames` frames, in frames from 1.

        Args:
            num_frames: Number of frames of the video.

        Returns:
            `int64 [W, 2]`: the first frame of each window and the frame after
            its last one, ordered by length and then by start.

        Raises:
            ValueError: If the lengths of the grid are in seconds.

        Example:

        >>> from acnn_tf.data import WindowGrid
        >>> grid = WindowGrid(lengths=(64,), overlap=0.5, frame_rate=29.4)
        >>> grid.frames(130).tolist()
        [[1, 65], [33, 97], [65, 129]]
        """
        if self.frame_rate is None:
            raise ValueError(
                "Windows in frames need a grid with a `frame_rate`. "
                f"Received: {self}"
            )
        parts = []
        for length in map(int, self.lengths):
            # Rounded first, since (1 - 0.8) * 320 is 63.999... in floats.
            step = max(1, math.floor(round((1 - self.overlap) * length, 6)))
            start = np.arange(1, num_frames + 2 - length, step)
            parts.append(np.stack([start, start + length], axis=-1))
        windows = np.concatenate(parts).astype(np.int64)
        if not len(windows):
            return np.array([[1, num_frames + 1]], np.int64)
        return windows

    def windows(self, duration: float) -> np.ndarray:
        """Windows of a video that lasts `duration` seconds.

        Args:
            duration: Duration of the video in seconds.

        Returns:
            `float64 [W, 2]` in seconds, ordered by length and then by start.
        """
        if not 0 < duration < math.inf:
            raise ValueError(
                f"`duration` must be positive and finite. Received: {duration}"
            )
        whole = duration * (self.frame_rate or 1)
        num_windows = sum(
            whole / length / (1 - self.overlap)
            for length in self.lengths
            if length <= whole
        )
        if num_windows > MAX_WINDOWS:
            raise ValueError(
                f"A video of {duration:g} s has {num_windows:,.0f} windows of "
                f"{self.lengths[0]:g} and longer; it may have {MAX_WINDOWS:,}. "
                "Is the duration in seconds? Else choose longer windows, or "
                "less overlap."
            )
        if self.frame_rate is not None:
            num_frames = round(duration * self.frame_rate)
            return self.frames(num_frames) / self.frame_rate
        parts = []
        for length in self.lengths:
            if length > duration:
                break
            step = (1 - self.overlap) * length
            # A hair off, so that rounding never adds a window.
            num_steps = math.ceil((duration - length) / step - 1e-6)
            start = np.linspace(0.0, duration - length, num_steps + 1)
            parts.append(np.stack([start, start + length], axis=-1))
        if not parts:
            return np.array([[0.0, duration]])
        return np.concatenate(parts)

    def contexts(
        self,
        windows: ArrayLike,
        size: int,
        is_there: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Windows around each window, by `dilation` or `context_length`.

        Args:
            windows: `[W, 2]`, as `frames` or `windows` returns them. With a
                `context_length` they must be in seconds.
            size: Number of context windows, odd: the window itself is in the
                middle.
            is_there: Function from segments `[W, 2]` to bool `[W]`: whether
                the video has them. It is used with a `context_length`.
                Default: whether they lie between the start of the video and
                the end of its last window.

        Returns:
            `[W, size, 2]` in the unit of `windows`, and `[0, 0]` where the
            video has no such window. With a `context_length` the nearest
            window on the way there that the video has takes its place, or the
            window itself.

        Example:

        >>> from acnn_tf.data import WindowGrid
        >>> grid = WindowGrid(lengths=(4.0,), overlap=0.5)
        >>> grid.contexts(grid.windows(12.0), size=3)[0].tolist()
        [[0.0, 0.0], [0.0, 4.0], [4.0, 8.0]]
        >>> grid = WindowGrid(lengths=(4.0,), overlap=0.5, context_length=3)
        >>> grid.contexts(grid.windows(12.0), size=3)[0].tolist()
        [[0.0, 4.0], [0.0, 4.0], [4.0, 7.0]]
        """
        if size < 1 or size % 2 == 0:
            raise ValueError(f"`size` must be odd. Received: {size}")
        windows = np.asarray(windows)
        if self.context_length is not None:
            return self._adjacent(windows, size // 2, is_there)
        # Windows of one length are one run of rows: a neighbour is a row so
        # many places away, unless it has another length.
        hops = self.dilation * np.arange(-(size // 2), size // 2 + 1)
        index = np.arange(len(windows))[:, None] + hops  # [W, C]
        inside = (index >= 0) & (index < len(windows))
        index = np.clip(index, 0, len(windows) - 1)
        length = windows[:, 1] - windows[:, 0]
        inside &= np.abs(length[index] - length[:, None]) < 1e-6
        return np.where(inside[..., None], windows[index], 0)

    def _adjacent(self, windows, side, is_there):
        """`contexts` of a `context_length`, so many on each side."""
        length = self.context_length / (self.frame_rate or 1)
        end = windows[:, 1].max(initial=0) + HAIR
        if is_there is None:

            def is_there(segments):
                return (segments[:, 0] >= -HAIR) & (segments[:, 1] <= end)

        def at(start, next_to):
            segments = np.stack([start, start + length], axis=-1)
            return np.where(is_there(segments)[:, None], segments, next_to)

        return np.stack(adjacent(windows, length, side, at), axis=1)


def adjacent(
    windows: np.ndarray | tf.Tensor,
    length: float,
    side: int,
    at: Callable[..., np.ndarray | tf.Tensor],
) -> list[np.ndarray | tf.Tensor]:
    """Lists adjacent windows around each window, so many on each side.

    Args:
        windows: Array or tensor `[W, 2]`.
        length: Length of an adjacent window, in the unit of `windows`.
        side: Int.
        at: Function: starts `[W]`, and the windows next to them on the way to
            the middle -> the windows that start there, `[W, 2]`.

    Returns:
        List of `2 * side + 1` arrays or tensors `[W, 2]`, `windows` in the
        middle.
    """
    contexts = [windows]
    for hop in range(side):
        contexts = [
            at(windows[:, 0] - (hop + 1) * length, contexts[0]),
            *contexts,
            at(windows[:, 1] + hop * length, contexts[-1]),
        ]
    return contexts


class VideoWindows:
    """Features of windows of a video, where there are none of its clips.

    It is used in place of `[T, D]` clips, as if there were a clip for each
    frame, of which only the means over some windows are known.

    Args:
        video_id: Id of the video.
        frames: int `[N, 2]`: the first frame of each window, counted from 1,
            and the frame after its last one.
        read: Function from rows of `frames`, int `[M]`, to float32 `[M, D]`.
        dim: D.
        path: Where the features lie, for messages.

    Attributes:
        shape: `(T, D)`, with T the last frame of any window.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.data.windows import VideoWindows, pool_clips
    >>> vectors = np.array([[1.0], [2.0]], np.float32)
    >>> video = VideoWindows("v", [[1, 3], [2, 4]], vectors.__getitem__, 1)
    >>> pool_clips(video, [[2, 4], [0, 0]], clip_seconds=1.0).tolist()
    [[2.0], [0.0]]
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(
        self,
        video_id: str,
        frames: ArrayLike,
        read: Callable[[np.ndarray], np.ndarray],
        dim: int,
        path: str = "these features",
    ):
        self.frames = np.asarray(frames, np.int64)
        self.shape = int(self.frames[:, 1].max()) - 1, dim
        self._video_id, self._read, self._path = video_id, read, path
        codes = _codes(self.frames)
        self._order = np.argsort(codes)
        self._codes = codes[self._order]
        # The last of each length, by length.
        sizes = self.frames[:, 1] - self.frames[:, 0]
        order = np.lexsort((self.frames[:, 0], sizes))
        self._last = dict(zip(sizes[order].tolist(), order.tolist()))

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        return self._read(np.arange(len(self.frames))).astype(
            dtype or self.dtype, copy=False
        )

    def has(self, segments: ArrayLike, clip_seconds: float) -> np.ndarray:
        """Whether there is a window of each segment `[..., 2]`, in seconds."""
        return self._rows(_frames_of(segments, clip_seconds)) >= 0

    def rows(self, segments: ArrayLike, clip_seconds: float) -> np.ndarray:
        """The rows of segments `[..., 2]`, in seconds; -1 without length.

        The authors of TACoS make no window that ends with the last frame of
        its video. Where ours have one, a step behind theirs, their last one of
        its length stands for it.

        Raises:
            UnknownIdError: Names a window that is not there.
        """
        frames = _frames_of(segments, clip_seconds)
        rows = self._rows(frames)
        missing = (rows < 0) & (frames[..., 1] > frames[..., 0])
        for place in np.argwhere(
            missing & (frames[..., 1] > self.shape[0] + 1)
        ):
            start, end = frames[tuple(place)]
            last = self._last.get(int(end - start))
            if last is not None and (
                start - self.frames[last, 0] <= _STEP * (end - start)
            ):
                rows[tuple(place)] = last
        missing &= rows < 0
        if missing.any():
            start, end = frames[missing][0]
            raise UnknownIdError(
                f"{self._path} has no window {self._video_id}_{start}_{end} "
                f"({len(np.unique(_codes(frames[missing]))):,} of the "
                f"{len(np.unique(_codes(frames))):,} that are asked for are "
                "missing); extract their features, or choose the lengths, the "
                "overlap and the frame rate of those that are there"
            )
        return rows

    def pool(self, segments: ArrayLike, clip_seconds: float) -> np.ndarray:
        """What `pool_clips` makes of clips; `rows` says what it raises."""
        rows = self.rows(segments, clip_seconds)
        pooled = np.zeros((*rows.shape, self.shape[1]), np.float32)
        distinct, index = np.unique(rows[rows >= 0], return_inverse=True)
        if len(distinct):
            pooled[rows >= 0] = self._read(distinct)[index]
        return pooled

    def _rows(self, frames):
        """Rows of windows `[..., 2]`, -1 where there is none."""
        codes = _codes(frames)
        place = np.searchsorted(self._codes, codes)
        place = np.minimum(place, len(self._codes) - 1)
        return np.where(self._codes[place] == codes, self._order[place], -1)


def _codes(frames):
    """A number for each window."""
    return (frames[..., 0] << 32) + frames[..., 1]


def _frames_of(segments, clip_seconds):
    return np.rint(np.asarray(segments) / clip_seconds).astype(np.int64)


def contexts_of(
    model: keras.Model,
    windows: ArrayLike,
    duration: float,
    clips: np.ndarray | VideoWindows | None = None,
    grid: WindowGrid | None = None,
) -> np.ndarray:
    """The context windows of a model, as far as a video has them.

    Args:
        model: The model. Its `grid`, `context_size` and `clip_seconds` are
            used.
        windows: `[W, 2]` in seconds, windows of one video.
        duration: Duration of the video in seconds.
        clips: `[T, D]`, or `VideoWindows`, which have only some windows. They
            are not read. They are needed only with a `context_length`.
        grid: The grid of the windows, if it is not `model.grid`.

    Returns:
        `[W, context_size, 2]` seconds, see `WindowGrid.contexts`.
    """

    def is_there(segments):
        if isinstance(clips, VideoWindows):
            return clips.has(segments, model.clip_seconds)
        begins = segments[:, 0] >= -HAIR
        return begins & (segments[:, 1] <= duration + HAIR)

    grid = grid or model.grid
    if getattr(grid, "context_length", None) is None:
        return grid.contexts(windows, model.context_size)
    return grid.contexts(windows, model.context_size, is_there)


def odd_size(context_size: int) -> int:
    """The number of context windows, itself included, if it can be one."""
    if context_size < 1 or context_size % 2 == 0:
        raise ValueError(
            f"`context_size` must be odd and positive. Received: {context_size}"
        )
    return context_size


def pair_windows(
    windows: ArrayLike,
    moments: ArrayLike,
    min_iou: float = 0.5,
    max_niol: float = 0.15,
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs every window with the moment that it shows, if any.

    A window shows a moment if their IoU is above `min_iou` and less than
    `max_niol` of the window lies outside the moment. Of several such moments
    the one of highest IoU is taken, the first among equals.

    Args:
        windows: `[W, 2]`, in any unit.
        moments: `[M, 2]`, in the same unit, each moment once.
        min_iou: IoU above which a window and a moment make a pair. An IoU of
            exactly this makes none.
        max_niol: Share of the window outside the moment, below which they make
            a pair. A share of exactly this makes none.

    Returns:
        `(window_index, moment_index)`, each `int64 [P]`, by window.

    Example:

    >>> from acnn_tf.data import pair_windows
    >>> pair_windows([[0, 4], [2, 6], [4, 8]], [[0, 5]])
    (array([0]), array([0]))

    Reference: paper, Eq. 1 and section 4.1.
    """
    windows = np.asarray(windows).reshape(-1, 2)
    moments = np.asarray(moments).reshape(-1, 2)
    if not len(windows) or not len(moments):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    overlap = segments_lib.iou(windows[:, None], moments)  # [W, M]
    outside = segments_lib.niol(windows[:, None], moments)
    overlap[(overlap <= min_iou) | (outside >= max_niol)] = 0.0
    moment_index = np.argmax(overlap, axis=1)
    window_index = np.flatnonzero(overlap.max(axis=1) > 0)
    return window_index, moment_index[window_index]


def video_pairs(
    moments: Sequence[Moment], grid: WindowGrid, **thresholds: float
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Windows of each video, and the pairs that they make with moments.

    A window shows one annotated interval at most, and makes a pair with every
    moment, that is sentence, of that interval. A grid that counts in frames
    compares in frames: the moments' own, or else those of their seconds.
    `thresholds` are `min_iou` and `max_niol` of `pair_windows`.

    Yields:
        `(video_id, windows, window_index, moment_index)` of one video:
        `float64 [W, 2]` in seconds, and, each `int64 [P]`, rows of `windows`
        and indices in `moments`, by window.

    Reference: paper, section 4.1.
    """
    by_video = {}
    for index, moment in enumerate(moments):
        by_video.setdefault(moment.video_id, []).append(index)
    for video_id, indices in by_video.items():
        duration = moments[indices[0]].duration
        windows = compared = grid.windows(duration)
        if grid.frame_rate is not None:
            compared = grid.frames(round(duration * grid.frame_rate))
        intervals = {}
        for index in indices:
            for interval in dict.fromkeys(_intervals(moments[index], grid)):
                intervals.setdefault(interval, []).append(index)
        window_index, shown = pair_windows(
            compared, list(intervals), **thresholds
        )
        sentences = [np.array(found) for found in intervals.values()]
        counts = np.array([len(found) for found in sentences], np.int64)
        moment_index = [sentences[interval] for interval in shown]
        yield (
            video_id,
            windows,
            np.repeat(window_index, counts[shown]),
            np.concatenate([np.zeros(0, np.int64), *moment_index]),
        )


def _intervals(moment, grid):
    """The moment's segments, as (start, end) in the unit of the grid."""
    if grid.frame_rate is None:
        return [tuple(segment) for segment in moment.segments]
    if moment.frames is not None:
        return [tuple(frames) for frames in moment.frames]
    return [
        tuple(second * grid.frame_rate for second in segment)
        for segment in moment.segments
    ]


def clips_problem(
    video_id: str, num_clips: int, clip_seconds: float, duration: float
) -> tuple[str | None, bool]:
    """Says whether the clips of a video and its duration disagree.

    Decoders round. So a difference of less than a clip is no problem, and a
    difference of up to two clips, or up to 2 % of the duration, is only a note.

    Args:
        video_id: Id of the video, for the message.
        num_clips: Number of clips of the video.
        clip_seconds: Seconds of a clip.
        duration: Duration of the video in seconds.

    Returns:
        `(message, is_note)`; the message is `None` where they agree.

    Example:

    >>> from acnn_tf.data.windows import clips_problem
    >>> clips_problem("v1", 20, 2.0, 20.0)[0]
    "video 'v1': 20 clips of 2 s are 40 s, its duration is 20 s; check ..."
    >>> clips_problem("v1", 20, 1.0, 19.2)
    (None, True)
    """
    seconds = num_clips * clip_seconds
    difference = abs(seconds - duration) - 1e-6
    if difference <= clip_seconds:
        return None, True
    message = (
        f"video {video_id!r}: {num_clips:,} clips of {clip_seconds:g} s are "
        f"{seconds:g} s, its duration is {duration:g} s; check clip_seconds "
        "and the duration"
    )
    near = max(NEAR_CLIPS * clip_seconds, NEAR_SHARE * duration)
    return message, difference <= near


def check_features(
    model: keras.Model,
    features: Mapping[str, np.ndarray],
    video_ids: Iterable[str] = (),
) -> None:
    """Refuses clip features that were made otherwise than those of a model.

    Args:
        model: The model. Its `encoder` and `clip_seconds` are compared, if it
            has them.
        features: Mapping from video id to `[T, D]`. If it has `encoder` and
            `clip_seconds`, as those of `acnn_tf.data.open_features` have, they
            are compared with the model's. Its `path` is named in errors.
        video_ids: Ids of the videos that are needed.

    Raises:
        DataError: If another encoder made the features than those that the
            model learned from; see `acnn_tf.encoders.check`.
        UnknownIdError: If one of the videos has no features.
        ValueError: If the clips last longer or shorter than the model's.
    """
    path = getattr(features, "path", None)
    made_by = getattr(features, "encoder", None)
    encoders.check(made_by, getattr(model, "encoder", None), path)
    clip_seconds = getattr(features, "clip_seconds", None)
    if clip_seconds is not None and not np.isclose(
        clip_seconds, model.clip_seconds
    ):
        raise ValueError(
            f"The clips of {path or 'these features'} last {clip_seconds:g} s, "
            f"those that the model learned from {model.clip_seconds:g} s."
        )
    missing = [video_id for video_id in video_ids if video_id not in features]
    if missing:
        raise UnknownIdError(
            f"The features{f' in {path}' if path else ''} have no video "
            f"{missing[0]!r} ({len(missing)} of {len(video_ids)} are missing); "
            "extract their features, or leave them out"
        )


def check_clips(
    model: keras.Model,
    clips: np.ndarray | VideoWindows,
    video_id: str,
    duration: float | None = None,
    path: str | os.PathLike | None = None,
) -> None:
    """Refuses clip features that are not those of this model and video.

    Args:
        model: The model. Its `clip_dim` and `clip_seconds` are used.
        clips: `[T, D]` clip features of the video.
        video_id: Id of the video.
        duration: Duration of the video in seconds, if it is known.
        path: File of the features, for the message.

    Raises:
        ValueError: If the clips have another rank or width than the model
            takes, or do not last as long as the video; see `clips_problem`.
    """
    shape, place = np.shape(clips), f"{path}, " if path else ""
    dim = getattr(model, "clip_dim", None) or (0, *shape)[-1]
    if len(shape) != 2 or not shape[0] or shape[1] != dim:
        raise ValueError(
            f"{place}video {video_id!r}: has features of shape {shape}, but "
            f"the model learned from clips x {dim}."
        )
    if isinstance(clips, VideoWindows):
        return
    if (kind := np.asarray(clips).dtype).kind in "OSUc":
        raise ValueError(
            f"{place}video {video_id!r}: has features of type {kind}, but the "
            "model learned from numbers."
        )
    if duration is None:
        return
    message, is_note = clips_problem(
        video_id, shape[0], model.clip_seconds, duration
    )
    if message and not is_note:
        raise ValueError(place + message)


def check_queries(
    queries: ArrayLike, vocabulary: Sequence[str] | None
) -> np.ndarray:
    """Checks what is given to a model's `encode_queries`.

    Args:
        queries: `[Q, L]` word ids or `[Q, E]` sentence vectors.
        vocabulary: The model's words, or `None` for sentence vectors.

    Returns:
        `queries` as an array.

    Raises:
        ValueError: If word ids are not whole numbers from 0 to the id of the
            last word, or vectors are not finite.
    """
    queries = np.asarray(queries)
    if vocabulary is None:
        kind = "finite floats [Q, E]"
        fit = np.issubdtype(queries.dtype, np.floating)
        fit = fit and np.isfinite(queries).all()
    else:
        most = len(vocabulary) + 1
        kind = f"word ids [Q, L], whole numbers from 0 to {most}"
        fit = np.issubdtype(queries.dtype, np.integer)
        fit = fit and ((queries >= 0) & (queries <= most)).all()
    if queries.ndim == 2 and fit:
        return queries
    raise ValueError(
        f"`queries` must be {kind}. Received: {queries.dtype} of shape "
        f"{queries.shape}, {queries.ravel()[:4]!s:.60}"
    )


def pool_clips(
    clips: ArrayLike | VideoWindows, segments: ArrayLike, clip_seconds: float
) -> np.ndarray:
    """Mean of the clips under each segment; partial clips count by their share.

    Sums run over the whole video and are kept only at the ends of segments, so
    that the cost does not depend on the lengths of the segments.

    Args:
        clips: `[T, D]` features of the clips `[0, clip_seconds)`,
            `[clip_seconds, 2 * clip_seconds)`, ...; or `VideoWindows`, which
            has them ready.
        segments: `[..., 2]` in seconds; what lies outside the clips does not
            count.
        clip_seconds: Seconds of a clip.

    Returns:
        `float32 [..., D]`; zeros where no clip lies under the segment.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.data.windows import pool_clips
    >>> pool_clips(np.array([[2.0], [4.0]]), [0.0, 1.5], 1.0).round(4)
    array([2.6667], dtype=float32)
    """
    if isinstance(clips, VideoWindows):
        return clips.pool(segments, clip_seconds)
    clips = np.asarray(clips)
    edges = np.clip(np.asarray(segments) / clip_seconds, 0, len(clips))
    distinct, index = np.unique(edges, return_inverse=True)
    index = index.reshape(edges.shape)  # NumPy 2.0 and 1.26 differ
    # In float64: a mean is the small difference of two large sums. NumPy adds
    # up whole rows many times faster than it accumulates down a column.
    sums = np.empty((len(distinct), clips.shape[1]))
    total = np.zeros(clips.shape[1])
    added = 0
    for row, edge in zip(sums, distinct):
        whole = int(edge)
        total += np.add.reduce(clips[added:whole], axis=0, dtype=np.float64)
        row[:] = total
        if edge > whole:
            row += np.multiply(clips[whole], edge - whole, dtype=np.float64)
        added = whole
    covered = (edges[..., 1] - edges[..., 0])[..., None]
    return np.divide(
        sums[index[..., 1]] - sums[index[..., 0]],
        covered,
        out=np.zeros((*edges.shape[:-1], clips.shape[1]), np.float32),
        where=covered > 0,
        casting="same_kind",
    )
