"""Arithmetic of (start, end) segments.

A segment is any half-open interval `[start, end)`, kept in the last axis of an
array, `[..., 2]`; usually seconds, but every function here works in any unit
as long as both sides share it.
"""

import numpy as np
from numpy.typing import ArrayLike

OFFSET_UNITS = ("seconds", "frames", "window_lengths")
SUPPRESSIONS = ("none", "fixed", "per_threshold")


def intersection(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Length shared by the segments `a` and `b`, never negative.

    Args:
        a: Segments, `[..., 2]`.
        b: Segments, `[..., 2]`, broadcast against `a`.

    Returns:
        Array of the broadcast leading shape.

    Example:

    >>> from acnn_tf.segments import intersection
    >>> float(intersection([0.0, 10.0], [5.0, 20.0]))
    5.0
    """
    a, b = np.asarray(a), np.asarray(b)
    start = np.maximum(a[..., 0], b[..., 0])
    end = np.minimum(a[..., 1], b[..., 1])
    return np.maximum(end - start, 0)


def iou(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Temporal intersection over union.

    The union is the true one, `|a| + |b| - |a ∩ b|`, so that disjoint segments
    score exactly 0. Two segments without length score 0 as well.

    Args:
        a: Segments, `[..., 2]`.
        b: Segments, `[..., 2]`, broadcast against `a`.

    Returns:
        Float array in `[0, 1]` of the broadcast leading shape.

    Example:

    >>> from acnn_tf.segments import iou
    >>> float(iou([0.0, 10.0], [5.0, 20.0]))
    0.25
    """
    a, b = np.asarray(a), np.asarray(b)
    shared = intersection(a, b)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - shared
    return np.divide(
        shared,
        union,
        out=np.zeros(np.shape(shared), np.result_type(shared, 1.0)),
        where=union > 0,
    )


def niol(window: ArrayLike, moment: ArrayLike) -> np.ndarray:
    """Share of `window` that lies outside `moment` (nIoL).

    Args:
        window: Segments, `[..., 2]`.
        moment: Segments, `[..., 2]`, broadcast against `window`.

    Returns:
        Float array in `[0, 1]`; 1 for a window without length.

    Example:

    >>> from acnn_tf.segments import niol
    >>> float(niol([0.0, 10.0], [5.0, 20.0]))
    0.5

    Reference: paper, section 4.1 (non Intersection over Length).
    """
    window = np.asarray(window)
    shared = intersection(window, moment)
    length = window[..., 1] - window[..., 0]
    inside = np.divide(
        shared,
        length,
        out=np.zeros(np.shape(shared), np.result_type(shared, 1.0)),
        where=length > 0,
    )
    return 1.0 - inside


def _offset_scale(window, unit, frame_rate):
    """Seconds to one unit of offset. Operators only: any tensor will do."""
    if unit == "seconds":
        return 1.0
    if unit == "frames":
        if not frame_rate:
            raise ValueError(
                "`frame_rate` must be given for offsets in frames. "
                f"Received: {frame_rate}"
            )
        return 1.0 / frame_rate
    if unit == "window_lengths":
        return window[..., 1:] - window[..., :1]
    raise ValueError(f"`unit` must be one of {OFFSET_UNITS}. Received: {unit}")


def encode_offsets(
    moment: np.ndarray,
    window: np.ndarray,
    unit: str = "seconds",
    frame_rate: float | None = None,
) -> np.ndarray:
    """Offsets that take `window` to `moment`, in `unit`.

    Args:
        moment: Array or tensor of segments in seconds, `[..., 2]`.
        window: The same, broadcast against `moment`; longer than zero where
            the unit is `"window_lengths"`.
        unit: `"seconds"`, `"frames"` or `"window_lengths"`.
        frame_rate: Frames per second; needed for `"frames"` only.

    Returns:
        `(moment - window)` at start and end in `unit`, `[..., 2]`.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.segments import encode_offsets
    >>> encode_offsets(np.array([3.0, 9.0]), np.array([2.0, 6.0])).tolist()
    [1.0, 3.0]

    Reference: paper, Eq. 9.
    """
    return (moment - window) / _offset_scale(window, unit, frame_rate)


def decode_offsets(
    offset: np.ndarray,
    window: np.ndarray,
    unit: str = "seconds",
    frame_rate: float | None = None,
) -> np.ndarray:
    """Undoes `encode_offsets`: the segment that `offset` makes of `window`.

    It takes NumPy arrays and tensors.

    Args:
        offset: Offsets at start and end in `unit`, `[..., 2]`.
        window: Segments in seconds, `[..., 2]`, broadcast against `offset`.
        unit: `"seconds"`, `"frames"` or `"window_lengths"`.
        frame_rate: Frames per second; needed for `"frames"` only.

    Returns:
        Segments in seconds, `[..., 2]`.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.segments import decode_offsets
    >>> window = np.array([2.0, 6.0])
    >>> decode_offsets(np.array([0.5, 0.5]), window, "window_lengths").tolist()
    [4.0, 8.0]
    """
    return window + offset * _offset_scale(window, unit, frame_rate)


def suppression_iou(
    suppression: str = "none",
    nms_threshold: float = 0.5,
    iou: float | None = None,
) -> float:
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
        nms_threshold: The most IoU of two results under `"fixed"`.
        iou: The m of IoU=m, for `"per_threshold"`.

    Returns:
        The `max_iou` of `acnn_tf.search.nms`.

    Example:

    >>> from acnn_tf.segments import suppression_iou
    >>> suppression_iou("fixed", nms_threshold=0.4)
    0.4
    >>> suppression_iou("per_threshold", iou=0.7)
    0.65
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
