"""From scores and offsets to ranked moments: shift, rescore, suppress.

All in operations of TensorFlow's core, so that the index, evaluation and the
graph of a servable rank by the same functions. A row of `[P, W]` holds the
windows of one video; where a video has fewer than W, the rest of its row is
padding, whose score is `-inf`.
"""

import functools
import typing
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from acnn_tf import segments as segments_lib
from acnn_tf.search.encoding import EncodedVideo, to_numpy

# Pairs of windows that are compared at a time, which bounds memory.
_PAIRS = 1 << 18
# Windows whose neighbours are compared together, if so many fit.
_BLOCK = 128


def _on_processor(function):
    """Keeps a function's many small steps off any accelerator."""

    @functools.wraps(function)
    def on_processor(*arguments):
        with tf.device("CPU:0"):
            return function(*arguments)

    return on_processor


class RankingSettings(typing.NamedTuple):
    """The settings of a model that the ranking needs, see `WindowModel`."""

    offset_unit: str
    frame_rate: float | None
    consensus_iou: float | tuple | None
    decay_sigma: float | None

    @classmethod
    def of(cls, model: keras.Model) -> "RankingSettings":
        """Reads the current settings of a model."""
        return cls(
            model.offset_unit,
            model.grid.frame_rate,
            model.consensus_iou,
            model.decay_sigma,
        )


def candidates(
    model: keras.Model,
    queries: np.ndarray | keras.KerasTensor,
    video: EncodedVideo,
    refined: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores every window of a video for every query, without a ranking.

    Args:
        model: See `acnn_tf.search`.
        queries: `[Q, t]`, from `model.encode_queries`.
        video: The windows of the video, from `encode_videos`.
        refined: Whether the windows are moved by their offsets, and support
            each other. Otherwise each stays, with its own score.

    Returns:
        `(segments, scores)`: arrays, `float64 [Q, W, 2]` seconds, within
        `[0, duration]`, and `float64 [Q, W]`.

    Raises:
        ValueError: If the model's output is not finite; names the video.

    Example:

    >>> import acnn_tf
    >>> import numpy as np
    >>> model = acnn_tf.models.ZeroShot((4.0,), window_overlap=0.5)
    >>> (video,) = acnn_tf.search.encode_videos(
    ...     model, {"v1": np.eye(8, 3)}, {"v1": 8.0}
    ... )
    >>> query = model.encode_queries(np.eye(1, 3))
    >>> segments, scores = acnn_tf.search.candidates(model, query, video)
    >>> scores.round(2).tolist()
    [[0.71, -0.71, -0.71]]
    """
    output = model.match(queries, video.encoding)
    scores, offsets = to_numpy(output["score"]), to_numpy(output["offset"])
    if not (np.isfinite(scores).all() and np.isfinite(offsets).all()):
        raise ValueError(
            f"The model's output for video {video.video_id!r} is not finite. "
            "Check the features (experiments.inspect_data) and the weights."
        )
    settings = RankingSettings.of(model)
    if not refined:
        offsets = np.zeros_like(offsets)
        settings = settings._replace(consensus_iou=None, decay_sigma=None)
    segments, scores = _compiled_refine(settings)(
        video.windows, scores, offsets, video.duration
    )
    return segments.numpy(), scores.numpy()


@functools.cache
def _compiled_refine(settings):
    """Compiles `_refine` for one video with any number of windows."""
    return tf.function(
        functools.partial(_refine, settings),
        input_signature=[
            tf.TensorSpec([None, 2], tf.float64),
            tf.TensorSpec([None, None], tf.float32),
            tf.TensorSpec([None, None, 2], tf.float32),
            tf.TensorSpec([], tf.float64),
        ],
        autograph=False,
    )


def rank(
    settings: RankingSettings,
    windows: tf.Tensor,
    scores: tf.Tensor,
    offsets: tf.Tensor,
    duration: tf.Tensor,
    top_n: tf.Tensor | int,
    max_iou: tf.Tensor | float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Ranks the windows of each row: shift, rescore, suppress.

    Args:
        settings: `RankingSettings`.
        windows: float64 `[P, W, 2]`, seconds.
        scores: float32 `[P, W]`; `-inf` marks padding.
        offsets: float32 `[P, W, 2]`, in the unit of the settings.
        duration: float64 `[P]`, seconds.
        top_n: Int n.
        max_iou: See `nms`.

    Returns:
        `(segments, scores)`: float64 `[P, M, 2]` and `[P, M]`, best first,
        M at most n; zeros and `-inf` where fewer are left.
    """
    return _compiled_rank(settings)(
        windows, scores, offsets, duration, top_n, max_iou
    )


@functools.cache
def _compiled_rank(settings):
    """`_rank` in a graph, traced once for all models and servables."""
    return tf.function(
        functools.partial(_rank, settings),
        input_signature=[
            tf.TensorSpec([None, None, 2], tf.float64),
            tf.TensorSpec([None, None], tf.float32),
            tf.TensorSpec([None, None, 2], tf.float32),
            tf.TensorSpec([None], tf.float64),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.float64),
        ],
        autograph=False,
    )


def _rank(settings, windows, scores, offsets, duration, top_n, max_iou):
    segments, scores = _refine(settings, windows, scores, offsets, duration)
    kept = nms(segments, scores, max_iou, top_n)
    real, kept = kept >= 0, tf.maximum(kept, 0)
    segments = tf.gather(segments, kept, batch_dims=1)
    scores = tf.gather(scores, kept, batch_dims=1)
    return (
        tf.where(real[..., None], segments, 0.0),
        tf.where(real, scores, -np.inf),
    )


@_on_processor
def _refine(settings, windows, scores, offsets, duration):
    """Moves windows by their offsets, and scores them anew among each other.

    The one place where offsets are undone. A shifted window is cut at the
    ends of the video; where that leaves nothing of it, or where its end comes
    before its start, the window stays as it was.

    The arguments are those of `rank`, or `[W, 2]` windows and one duration for
    all rows.
    """
    shifted = segments_lib.decode_offsets(
        tf.cast(offsets, tf.float64),
        windows,
        settings.offset_unit,
        settings.frame_rate,
    )
    duration = duration[..., None, None]
    shifted = tf.clip_by_value(shifted, 0.0, duration)
    windows = tf.clip_by_value(windows, 0.0, duration)
    is_left = shifted[..., :1] < shifted[..., 1:]
    segments = tf.where(is_left, shifted, windows)
    scores = tf.cast(scores, tf.float64)
    if settings.consensus_iou is not None:
        scores = consensus(segments, scores, settings.consensus_iou)
    if settings.decay_sigma is not None:
        scores = decay(segments, scores, settings.decay_sigma)
    return segments, scores


def consensus(
    segments: ArrayLike | tf.Tensor,
    scores: ArrayLike | tf.Tensor,
    min_iou: float | Sequence[float],
) -> tf.Tensor:
    """Lets the windows of a video support those that they agree with.

        s'_w = log sum_v exp(s_v) gain(iou(w, v))
        gain(o) = mean over m of max(0, (o - m) / (1 - m))

    The softmax of the scores says where the moment may be; `s'` ranks windows
    by how much of it, on average over these places, they would catch. One
    window that stands alone gives way to several that nearly coincide.

    Args:
        segments: `[P, W, 2]`: the windows of a video in each row.
        scores: `[P, W]`; `-inf` marks padding and stays.
        min_iou: m, floats in `[0, 1)`, or one of them: IoU up to which two do
            not agree. A high one asks for sharp ends, a low one forgives.

    Returns:
        float64 `[P, W]`, on the scale of `scores`: that of a window which
        overlaps no other stays as it is.

    Example:

    >>> from acnn_tf.search.ranking import consensus
    >>> segments = [[[0.0, 4.0], [10.0, 14.0], [10.0, 14.0]]]
    >>> scores = consensus(segments, [[1.0, 0.9, 0.9]], min_iou=0.5)
    >>> scores.numpy().round(2).tolist()
    [[1.0, 1.59, 1.59]]
    """
    segments = tf.cast(segments, tf.float64)
    scores = tf.cast(scores, tf.float64)
    min_iou = np.atleast_1d(min_iou).tolist()
    highest = tf.reduce_max(scores, axis=-1, keepdims=True)
    weight = tf.exp(scores - highest)  # [P, W], 0 for padding

    def support(overlap, weight):
        gains = [tf.nn.relu((overlap - m) / (1.0 - m)) for m in min_iou]
        return tf.linalg.matvec(tf.add_n(gains) / len(gains), weight.near)

    total = _among_neighbours(support, segments, scores, weight)
    total = tf.maximum(total, np.finfo(np.float64).tiny)
    return tf.where(scores > -np.inf, tf.math.log(total) + highest, scores)


def decay(
    segments: ArrayLike | tf.Tensor, scores: ArrayLike | tf.Tensor, sigma: float
) -> tf.Tensor:
    """Lowers the scores of windows that lie under better ones.

        s'_w = s_w - max(0, max over v of iou(w, v)^2 - c_v^2) / sigma
        c_v = max over u of iou(v, u)

    with v better than w, and u better than v. Matrix NMS with a Gaussian
    (Wang et al., 2020: SOLOv2), the scores taken as logarithms: soft
    suppression of all windows at once. A window that is covered itself, c,
    lowers others by less. The best keeps its score; what suppression leaves
    of the rest then looks elsewhere earlier.

    Args:
        segments: `[P, W, 2]`: the windows of a video in each row.
        scores: `[P, W]`; `-inf` marks padding and stays. Of equal ones, the
            first is better.
        sigma: Positive number. The smaller it is, the more scores fall.

    Returns:
        float64 `[P, W]`, at most `scores`.

    Example:

    >>> from acnn_tf.search.ranking import decay
    >>> segments = [[[0.0, 4.0], [0.0, 5.0], [10.0, 14.0]]]
    >>> scores = decay(segments, [[1.0, 0.9, 0.5]], sigma=0.4)
    >>> scores.numpy().round(2).tolist()
    [[1.0, -0.7, 0.5]]
    """
    segments = tf.cast(segments, tf.float64)
    scores = tf.cast(scores, tf.float64)
    best_first = tf.argsort(scores, direction="DESCENDING", stable=True)
    rank = tf.argsort(best_first)

    def of_better(overlap, rank):
        better = rank.near[:, None] < rank.rows[:, :, None]
        return tf.where(better, overlap, 0.0)

    def cover(overlap, rank):
        return tf.reduce_max(of_better(overlap, rank), axis=-1)

    covered = _among_neighbours(cover, segments, scores, rank)

    def loss(overlap, rank, covered):
        over = of_better(overlap, rank) ** 2 - covered.near[:, None] ** 2
        return tf.maximum(tf.reduce_max(over, axis=-1), 0.0)

    return scores - (
        _among_neighbours(loss, segments, scores, rank, covered) / sigma
    )


class _Block(typing.NamedTuple):
    """Values of a block of windows, and of all that these can overlap."""

    rows: tf.Tensor  # [P, R]
    near: tf.Tensor  # [P, N]


def _among_neighbours(function, segments, scores, *values):
    """Calls a function for all windows and those that they overlap, in blocks.

    All pairs of windows would be too many for long videos. By their starts,
    those that a window can overlap are near it, so that time and memory are
    linear in the number of windows where these are of limited lengths.

    The function takes the IoU `[P, R, N]` of a block of windows with those
    near them, and the `_Block` of each of the values, `[P, W]`; it returns
    `[P, R]`, of which that of padding does not count.
    """
    num_rows, num_windows = tf.unstack(tf.shape(scores))
    real = scores > -np.inf
    # Padding comes last.
    end = tf.reduce_max(segments, axis=(1, 2), keepdims=True)
    segments = tf.where(real[..., None], segments, end)
    order = tf.argsort(segments[..., 0], stable=True)
    segments, real, *values = (
        tf.gather(value, order, batch_dims=1)
        for value in (segments, real, *values)
    )
    start, end = tf.unstack(segments, axis=-1)
    longest = tf.reduce_max(end - start, axis=1, keepdims=True)
    place = tf.range(num_windows)
    before = place - tf.searchsorted(start, start - longest)
    after = tf.searchsorted(start, end) - place
    # How many places away a window may be that overlaps another.
    reach = tf.reduce_max(tf.where(real, tf.maximum(before, after), 0))
    size = tf.maximum(reach, _BLOCK)
    pairs_of_window = num_rows * tf.minimum(3 * size, num_windows)
    size = tf.clip_by_value(_PAIRS // pairs_of_window, 1, size)

    def of_block(first, last):
        rows = slice(first, last)
        near = slice(tf.maximum(first - reach, 0), last + reach)
        overlap = iou(segments[:, rows, None], segments[:, None, near])
        blocks = (_Block(value[:, rows], value[:, near]) for value in values)
        return tf.transpose(function(overlap, *blocks))

    found = tf.transpose(in_blocks(of_block, num_windows, size, tf.float64))
    return tf.gather(found, tf.argsort(order), batch_dims=1)


def in_blocks(
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    count: tf.Tensor | int,
    size: int,
    dtype: tf.DType,
) -> tf.Tensor:
    """Calls a function for blocks of rows, one after the other: `[count, K]`.

    It is given the first row of a block of `size`, and the first behind it,
    which may be more than the `count` there are, and returns `[rows, K]` of the
    `dtype`.
    """
    num_blocks = -(-count // size)
    blocks = tf.TensorArray(dtype, num_blocks, infer_shape=False)

    def body(number, blocks):
        block = function(number * size, (number + 1) * size)
        return number + 1, blocks.write(number, block)

    _, blocks = tf.while_loop(
        lambda number, _: number < num_blocks,
        body,
        (0, blocks),
        parallel_iterations=1,
    )
    return tf.ensure_shape(blocks.concat(), (None, None))


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None, 2], tf.float64),
        tf.TensorSpec([None, None], tf.float64),
        tf.TensorSpec(None, tf.float64),
        tf.TensorSpec([], tf.int32),
    ],
    autograph=False,
)
@_on_processor
def nms(
    segments: ArrayLike | tf.Tensor,
    scores: ArrayLike | tf.Tensor,
    max_iou: ArrayLike | tf.Tensor,
    top_n: int,
) -> tf.Tensor:
    """Greedy non-maximum suppression, row by row.

    The best segment is kept and those that overlap it by more than `max_iou`
    are dropped; then the best of the rest, and so on.

    Args:
        segments: float64 `[P, W, 2]`.
        scores: float64 `[P, W]`, higher is better; equal scores keep their
            order and `-inf` marks padding.
        max_iou: Largest IoU that two kept segments may have, in `[0, 1]`; one
            number, or one for each row, `[P]`.
        top_n: How many segments are kept at most.

    Returns:
        int32 `[P, M]`, M at least 1: places of the kept segments in their
        rows, best first; -1 in the rows that keep fewer than the fullest.

    Example:

    >>> from acnn_tf.search.ranking import nms
    >>> segments = [[[0.0, 4.0], [0.0, 5.0], [6.0, 9.0]]]
    >>> nms(segments, [[0.9, 0.8, 0.1]], max_iou=0.5, top_n=5).numpy().tolist()
    [[0, 2]]
    """
    max_iou = tf.reshape(max_iou, (-1, 1))
    place = tf.range(tf.shape(scores)[1])

    def is_unfinished(kept, scores):
        wanted = (kept.size() < top_n) & tf.reduce_any(scores > -np.inf)
        return wanted | (kept.size() == 0)

    def keep(kept, scores):
        best = tf.argmax(scores, axis=1, output_type=tf.int32)  # [P]
        found = tf.gather(scores, best, batch_dims=1) > -np.inf
        chosen = tf.gather(segments, best, batch_dims=1)  # [P, 2]
        dropped = iou(chosen[:, None], segments) > max_iou
        # By place too: a segment without length does not overlap itself.
        dropped |= place == best[:, None]
        kept = kept.write(kept.size(), tf.where(found, best, -1))
        return kept, tf.where(~dropped, scores, -np.inf)

    kept = tf.TensorArray(tf.int32, 0, dynamic_size=True)
    kept, _ = tf.while_loop(
        is_unfinished, keep, (kept, scores), parallel_iterations=1
    )
    return tf.transpose(kept.stack())


def iou(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Computes `acnn_tf.segments.iou` of tensors.

    Example:

    >>> import tensorflow as tf
    >>> from acnn_tf.search.ranking import iou
    >>> float(iou(tf.constant([0.0, 10.0]), tf.constant([5.0, 20.0])))
    0.25
    """
    start = tf.maximum(a[..., 0], b[..., 0])
    end = tf.minimum(a[..., 1], b[..., 1])
    shared = tf.nn.relu(end - start)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - shared
    return tf.math.divide_no_nan(shared, union)
