"""How long videos last, from a file or from their clips."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping

from acnn_tf.files.names import paths_of
from acnn_tf.files.problems import DataError
from acnn_tf.files.text import read_numbers

if typing.TYPE_CHECKING:
    import numpy as np


def read_durations(path: str | os.PathLike) -> dict[str, float]:
    """Reads a file of the durations of videos.

    Args:
        path: JSON file `{video: seconds}`, or CSV file with the columns `id`
            and `length`.

    Returns:
        Dictionary from video id to seconds.

    Raises:
        DataError: If the file is malformed. The message lists what is wrong.

    Example:

    >>> import tempfile
    >>> from acnn_tf.data.durations import read_durations
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    ...     _ = file.write('{"cat": 12.5}')
    ...     file.flush()
    ...     read_durations(file.name)
    {'cat': 12.5}
    """
    problems = []
    seconds = read_numbers(path, problems)
    if problems:
        raise DataError(problems)
    return seconds


def videos_path(path: str | os.PathLike) -> str:
    """The file in which `acnn_tf.data.extraction` writes durations.

    It lies beside the file of features, or beside the first of several, and
    `read_durations` reads it.
    """
    return f"{paths_of(path)[0]}.videos.csv"


def known_seconds(
    features: Mapping[str, np.ndarray], path: str | os.PathLike | None = None
) -> dict[str, float]:
    """The durations of videos, as far as a file tells them.

    Args:
        features: Clip features. Their `path`, if they have one, says where the
            file may be.
        path: File that `read_durations` reads. Default: the file beside the
            features, if it exists; see `videos_path`.

    Returns:
        Dictionary from video id to seconds.
    """
    beside = videos_path(getattr(features, "path", ""))
    if path is None and os.path.exists(beside):
        path = beside
    return {} if path is None else read_durations(path)


def video_seconds(
    features: Mapping[str, np.ndarray], path: str | os.PathLike | None = None
) -> dict[str, float]:
    """The durations of all videos that have features.

    Args:
        features: Mapping from video id to `[T, D]` clip features, with
            `clip_seconds`, as `acnn_tf.data.open_features` returns it.
        path: JSON file `{video: seconds}`, or CSV file with the columns `id`
            and `length`. Default: the file beside the features, if it exists.
            A video that is not in the file lasts as long as its clips, which
            are read to count them.

    Returns:
        Dictionary from video id to seconds.

    Raises:
        DataError: If the file is malformed. The message lists what is wrong.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.data import video_seconds
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
