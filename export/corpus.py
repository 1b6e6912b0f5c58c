"""Videos of a feature file into an index, as a main does it."""

import sys

from acnn_tf.data.features import open_features
from acnn_tf.files.problems import DataError
from acnn_tf.files.text import read_numbers


def add_videos(index, path, durations=None, clip_seconds=None, videos=None):
    """Encodes the videos that an index does not have yet; shows progress.

    Args:
        index: `acnn_tf.search.MomentIndex`.
        path: HDF5, TFRecord or folder of `.npy`: features of clips.
        durations: File of seconds by video, see `read_numbers`. A video that
            it leaves out lasts as long as its clips.
        clip_seconds: Seconds of a clip, where the features do not say.
        videos: Ids, to add only these. Default: all.

    Raises:
        DataError: If `durations` is malformed.
    """
    seconds = _read_seconds(durations)
    with open_features(path, clip_seconds=clip_seconds) as features:
        index.add_missing(features, seconds, videos, _print_progress)


def video_seconds(features, durations=None):
    """How long videos last.

    Args:
        features: What `open_features` returns. Those of videos that
            `durations` leaves out are read.
        durations: See `add_videos`.

    Returns:
        Dictionary from video id to seconds.

    Raises:
        DataError: If `durations` is malformed.
    """
    seconds = _read_seconds(durations)
    return {
        video: seconds.get(video)
        or len(features[video]) * features.clip_seconds
        for video in features
    }


def _read_seconds(path):
    problems = []
    seconds = read_numbers(path, problems) if path else {}
    if problems:
        raise DataError(problems)
    return seconds


def _print_progress(done, total):
    print(
        f"\r{done:,} of {total:,} windows encoded",
        end="\n" if done == total else "",
        file=sys.stderr,
    )
