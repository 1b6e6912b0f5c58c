"""How long videos last, from a file or from their clips."""

import os

from acnn_tf.files.names import paths_of
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


def videos_path(path):
    """Where `acnn_tf.data.extraction` says how long videos last.

    It is a file beside that of their features, of several beside the first,
    which `read_durations` reads.
    """
    return f"{paths_of(path)[0]}.videos.csv"


def known_seconds(features, path=None):
    """How long videos last, as far as a file says it.

    Args:
        features: Clip features, perhaps with a `path`.
        path: File, see `read_durations`. Default: the one beside the features,
            if there is one, see `videos_path`.

    Returns:
        Dictionary from video id to seconds.
    """
    beside = videos_path(getattr(features, "path", ""))
    if path is None and os.path.exists(beside):
        path = beside
    return {} if path is None else read_durations(path)


def video_seconds(features, path=None):
    """How long videos last.

    Args:
        features: Mapping from video id to `[T, D]` clip features, with
            `clip_seconds`, as `acnn_tf.data.open_features` returns it.
        path: File, see `known_seconds`. A video that it leaves out lasts as
            long as its clips, which are read for that.

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
    seconds = known_seconds(features, path)
    return {
        video: seconds.get(video)
        or len(features[video]) * features.clip_seconds
        for video in features
    }
