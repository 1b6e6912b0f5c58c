"""How long videos last, from a file or from their clips."""

from acnn_tf.files.problems import DataError
from acnn_tf.files.text import read_numbers


def read_durations(path):
    """Reads how long videos last: dictionary from video id to seconds.

    Of JSON `{video: seconds}`, or CSV with the columns `id` and `length`; a
    `DataError` lists what is wrong in it.
    """
    problems = []
    seconds = read_numbers(path, problems)
    if problems:
        raise DataError(problems)
    return seconds


def video_seconds(features, path=None):
    """How long videos last.

    Args:
        features: Mapping from video id to `[T, D]` clip features, with
            `clip_seconds`, as `acnn_tf.data.open_features` returns it.
        path: File of the seconds of each video, see `read_durations`. A video
            that it leaves out lasts as long as its clips, which are read for
            that.

    Returns:
        Dictionary from video id to seconds.

    Raises:
        DataError: If the file is malformed; lists what is wrong in it.

    Example:

    >>> import numpy as np
    >>> class Features(dict):
    ...     clip_seconds = 0.5
    >>> video_seconds(Features(v=np.zeros((20, 512))))
    {'v': 10.0}
    """
    seconds = read_durations(path) if path else {}
    return {
        video: seconds.get(video)
        or len(features[video]) * features.clip_seconds
        for video in features
    }
