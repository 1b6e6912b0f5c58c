"""What can be told of a dataset before training on it."""

import collections

from acnn_tf.data.problems import Problem
from acnn_tf.data.windows import pair_windows


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

    A window shows one annotated interval at most, and makes a pair with each
    sentence of that interval. Where moments hold frames and the grid counts in
    frames, so does the comparison.

    Args:
        moments: List of `Moment`.
        grid: `WindowGrid`.
        **thresholds: `min_iou` and `max_niol` of `pair_windows`.

    Returns:
        Dictionary: `"windows"` of all videos together, `"pairs"`, and
        `"paired_windows"`, those windows that are in a pair.

    Reference: paper, section 4.1.
    """
    durations = {}
    intervals = collections.defaultdict(collections.Counter)
    for moment in moments:
        in_frames = grid.frame_rate is not None and moment.frames is not None
        own = moment.frames if in_frames else moment.segments
        intervals[moment.video_id, in_frames].update(set(own))
        durations[moment.video_id] = moment.duration
    counts = {"windows": 0, "pairs": 0, "paired_windows": 0}
    for (video_id, in_frames), sentences in intervals.items():
        windows = grid.windows(durations[video_id])
        if in_frames:
            windows = grid.frames(round(durations[video_id] * grid.frame_rate))
        paired, shown = pair_windows(windows, list(sentences), **thresholds)
        num_sentences = list(sentences.values())
        counts["windows"] += len(windows)
        counts["paired_windows"] += len(paired)
        counts["pairs"] += sum(num_sentences[moment] for moment in shown)
    return counts
