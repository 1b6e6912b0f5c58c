"""Checks and counts of a dataset before training, and its files' manifests."""

from __future__ import annotations

import functools
import os
import typing
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from acnn_tf import segments
from acnn_tf.data.windows import WindowGrid, video_pairs
from acnn_tf.files.manifests import manifest_path, save_manifest
from acnn_tf.files.names import paths_of
from acnn_tf.files.problems import Problem
from acnn_tf.files.text import read_numbers

if typing.TYPE_CHECKING:
    from acnn_tf.data.annotations import Moment
    from acnn_tf.data.features import ClipFeatures

# That lengths of windows are suggested by: those are as good as all.
_MOST_QUERIES = 2000


def with_usable_features(
    moments: Sequence[Moment],
    features: Mapping[str, np.ndarray],
    grid: WindowGrid | None = None,
) -> tuple[list[Moment], list[Problem]]:
    """Keeps the moments whose videos have features that can be used.

    Every video is read once.

    Args:
        moments: The moments.
        features: Mapping from video id to `[T, D]` clip features, as
            `acnn_tf.data.open_features` returns it.
        grid: If given, features of windows must have all windows of this grid.

    Returns:
        `(moments, problems)`: the moments that are kept; and a `Problem` for
        each video whose features are bad or do not fit its duration, and for
        each moment whose video has no features.
    """
    durations = {
        moment.video_id: moment.duration
        for moment in moments
        if moment.num_annotators is None  # else they are of pieces
    }
    found = features.problems(durations, grid)
    problems, usable = list(found.values()), []
    bad = {video for video, problem in found.items() if problem.dropped}
    for moment in moments:
        if moment.video_id not in features:
            path, _, line = moment.source.rpartition(":")
            message = (
                f"video {moment.video_id!r} of query {moment.query_id!r} is "
                f"not in {features.path}; extract its features"
            )
            problems.append(Problem(path, int(line) if line else None, message))
        elif moment.video_id not in bad:
            usable.append(moment)
    return usable, problems


def count_pairs(
    moments: Sequence[Moment], grid: WindowGrid, **thresholds: float
) -> dict[str, int]:
    """Counts windows, and the pairs that they make with sentences.

    A window makes a pair with each sentence whose moment it shows; see
    `acnn_tf.data.pair_windows`.

    Args:
        moments: The moments, with their sentences.
        grid: The grid that makes the windows.
        **thresholds: `min_iou` and `max_niol` of `acnn_tf.data.pair_windows`.

    Returns:
        Dictionary of ints: `"windows"` of all videos together, `"pairs"`, and
        `"paired_windows"`, the windows that are in any pair.

    Example:

    >>> from acnn_tf.data import Moment, WindowGrid
    >>> from acnn_tf.data.inspection import count_pairs
    >>> moment = Moment("1", "a man runs", "v", 20.0, ((0.0, 10.0),))
    >>> count_pairs([moment], WindowGrid((10.0,), overlap=0.5))
    {'windows': 3, 'pairs': 1, 'paired_windows': 1}

    Reference: paper, section 4.1.
    """
    counts = {"windows": 0, "pairs": 0, "paired_windows": 0}
    for _, windows, window_index, _ in video_pairs(moments, grid, **thresholds):
        counts["windows"] += len(windows)
        counts["pairs"] += len(window_index)
        counts["paired_windows"] += len(np.unique(window_index))
    return counts


def best_ious(moments: Sequence[Moment], grid: WindowGrid) -> np.ndarray:
    """IoU of each query's moment with the window that fits it best.

    The share of them above 0.7 is the highest R@1, IoU=0.7 that a ranking of
    these windows can reach, before offsets move the ends of windows.

    Args:
        moments: The moments.
        grid: The grid that makes the windows.

    Returns:
        `float64 [Q]`.

    Example:

    >>> from acnn_tf.data import WindowGrid
    >>> from acnn_tf.data.inspection import best_ious
    >>> from acnn_tf.data import Moment
    >>> moment = Moment("1", "a man runs", "v", 20.0, ((2.0, 6.0),))
    >>> best_ious([moment], WindowGrid((2, 5), overlap=0.5)).tolist()
    [0.636...]
    """
    windows_of = functools.cache(grid.windows)
    return np.array(
        [
            segments.iou(windows_of(m.duration)[:, None], m.segments).max()
            for m in moments
        ]
    )


def suggest_lengths(
    moments: Sequence[Moment], overlap: float = WindowGrid.overlap
) -> tuple[float, ...]:
    """Lengths of windows that fit the moments of a training split.

    The candidates are lengths from the shortest to the longest moment, each a
    quarter longer than the last. The first one taken is the length whose
    windows have the highest mean IoU with the moments that they fit best. Then
    the length that adds most to this mean is taken, until none adds 0.01. The
    shortest and the longest 5 % of the moments are left out.

    Args:
        moments: The moments, none of them hidden.
        overlap: Share that a window has in common with the next one.

    Returns:
        The lengths in seconds, increasing.

    Example:

    >>> from acnn_tf.data.inspection import suggest_lengths
    >>> from acnn_tf.data import Moment
    >>> ends = (2, 2, 9, 9)
    >>> moments = [Moment("q", "", "v", 20.0, ((0.0, end),)) for end in ends]
    >>> suggest_lengths(moments)
    (2.0, 7.6)
    """
    moments = moments[:: max(len(moments) // _MOST_QUERIES, 1)]
    spans = np.concatenate([np.diff(m.segments)[:, 0] for m in moments])
    shortest, longest = np.quantile(spans, (0.05, 0.95))
    count = int(np.log(longest / shortest) / np.log(1.25)) + 1
    tried = [float(f"{shortest * 1.25**n:.2g}") for n in range(count)]
    grids = [WindowGrid((length,), overlap) for length in tried]
    ious = np.array([best_ious(moments, grid) for grid in grids])  # [L, Q]
    chosen, best = [], np.zeros(len(moments))
    while True:
        means = np.maximum(best, ious).mean(axis=1)  # [L]
        if chosen and means.max() < best.mean() + 0.01:
            return tuple(sorted(chosen))
        chosen.append(tried[means.argmax()])
        best = np.maximum(best, ious[means.argmax()])


def save_manifests(
    moments: Sequence[Moment],
    problems: Sequence[Problem],
    paths: Iterable[str | os.PathLike | None],
    features: ClipFeatures | None = None,
    skip_bad: bool = False,
) -> list[str]:
    """Writes a manifest beside each file in which nothing is wrong.

    A manifest holds the file's digest, by which damage to it is told later.
    One that is there already stays: if the file does not agree with it, the
    file is damaged, or was changed and its manifest has to be removed.

    Args:
        moments: The moments that can be used.
        problems: All problems that were found in the files.
        paths: Files of annotations, durations and numbers of frames; `None`
            where there is no such file.
        features: The clip features, if there are any.
        skip_bad: Whether text files of which some records are bad get a
            manifest, too.

    Returns:
        The paths of the manifests that were written.
    """
    if not moments:
        return []
    bad = {problem.path for problem in problems if problem.dropped}
    records = {path: len(read_numbers(path, [])) for path in paths[1:] if path}
    records[paths[0]] = len(moments)
    written = [
        save_manifest(path, {path: number})
        for path, number in records.items()
        if (skip_bad or path not in bad)
        and not os.path.exists(manifest_path(path))
    ]
    if features is not None:
        within = tuple(os.path.join(p, "") for p in paths_of(features.path))
        if not any((path + os.sep).startswith(within) for path in bad):
            written += filter(None, [features.save_manifest()])
    return written
