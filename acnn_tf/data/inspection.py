"""What can be told of a dataset before training on it."""

import numpy as np

from acnn_tf.data.problems import Problem
from acnn_tf.data.windows import video_pairs


def with_sound_features(moments, features):
    """Leaves out the moments whose videos cannot be used.

    Reads every video once.

    Args:
        moments: List of `Moment`.
        features: `acnn_tf.data.features.ClipFeatures`.

    Returns:
        `(moments, problems)`: those whose videos have sound features, and a
        list of `Problem`: one for each bad video of the features, and one for
        each query whose video is missing.
    """
    bad = features.problems()
    problems = list(bad.values())
    sound = []
    for moment in moments:
        if moment.video_id not in features:
            path, _, line = moment.source.rpartition(":")
            message = (
                f"query {moment.query_id!r}: video {moment.video_id!r} is not "
                f"in {features.path}; extract its features"
            )
            problems.append(Problem(path, int(line) if line else None, message))
        elif moment.video_id not in bad:
            sound.append(moment)
    return sound, problems


def count_pairs(moments, grid, **thresholds):
    """Counts windows, and the pairs that they make with sentences.

    See `acnn_tf.data.windows.video_pairs` for what makes a pair.

    Args:
        moments: List of `Moment`.
        grid: `WindowGrid`.
        **thresholds: `min_iou` and `max_niol` of `pair_windows`.

    Returns:
        Dictionary: `"windows"` of all videos together, `"pairs"`, and
        `"paired_windows"`, those windows that are in a pair.

    Reference: paper, section 4.1.
    """
    counts = {"windows": 0, "pairs": 0, "paired_windows": 0}
    for _, windows, window_index, _ in video_pairs(moments, grid, **thresholds):
        counts["windows"] += len(windows)
        counts["pairs"] += len(window_index)
        counts["paired_windows"] += len(np.unique(window_index))
    return counts
