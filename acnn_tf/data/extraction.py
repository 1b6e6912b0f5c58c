"""Video files -> clip features, by an encoder.

`extract` fills a file of features. Each video that is encoded is a whole file
of its own in the folder `FEATURES.parts` until all are there, so that what was
killed goes on with what is missing. Beside the features, `FEATURES.videos.csv`
says of each video how long it is, what its file was, and what is wrong with it.
"""

import contextlib
import csv
import functools
import glob
import io
import json
import os
import re
import shutil
import typing
from collections.abc import Callable, Iterable

import numpy as np

from acnn_tf.data.durations import videos_path
from acnn_tf.data.features import open_features, write_features
from acnn_tf.data.video import VideoError, open_video
from acnn_tf.encoders import Encoder, difference
from acnn_tf.files.atomic import replacing, write_text
from acnn_tf.files.locks import locked
from acnn_tf.files.manifests import digest
from acnn_tf.files.names import file_name
from acnn_tf.files.problems import DataError, Problem, fail

# What is taken for a video in a folder. A file that is named may end otherwise.
ENDINGS = frozenset(
    ".3g2 .3gp .asf .avi .divx .f4v .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg "
    ".mpg .mts .mxf .ogm .ogv .ts .vob .webm .wmv".split()
)


def find_videos(
    patterns: str | os.PathLike | Iterable[str | os.PathLike],
) -> dict[str, str]:
    """Finds video files, and names them.

    Args:
        patterns: One or several of: a file; a folder, of which the files that
            end as videos do are taken; a pattern such as `"videos/*.mp4"`, in
            which `**` stands for any folders.

    Returns:
        Dictionary from video id to path, in the order of the ids. An id is
        the name of the file without its folder and its ending.

    Raises:
        DataError: If a pattern finds nothing, or two files have the same id.

    Example:

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for name in ("cat.mp4", "dog.MOV", "notes.txt"):
    ...     open(os.path.join(folder, name), "w").close()
    >>> list(find_videos(folder))
    ['cat', 'dog']
    """
    if isinstance(patterns, str | os.PathLike):
        patterns = [patterns]
    videos, problems = {}, []
    for pattern in map(os.fspath, patterns):
        paths = _paths(pattern)
        if not paths:
            problems.append(Problem(pattern, None, _nothing(pattern)))
        for path in paths:
            video_id = os.path.splitext(os.path.basename(path))[0]
            other = videos.setdefault(video_id, path)
            if os.path.abspath(other) != os.path.abspath(path):
                message = (
                    f"has the name of {other}, and would be the same video "
                    f"{video_id!r}; rename one of them"
                )
                problems.append(Problem(path, None, message))
            if re.search("[\0-\x1f\ud800-\udfff]", video_id):
                message = "has a name that is not a line of UTF-8; rename it"
                problems.append(Problem(path, None, message))
    if problems:
        raise DataError(problems)
    return dict(sorted(videos.items()))


def _paths(pattern):
    if os.path.isdir(pattern):
        paths = (os.path.join(pattern, name) for name in os.listdir(pattern))
        return sorted(
            path
            for path in paths
            if os.path.splitext(path)[1].lower() in ENDINGS
            and not os.path.basename(path).startswith(".")
            and not os.path.isdir(path)
        )
    # Before it is read as a pattern: a name may hold brackets.
    if os.path.lexists(pattern):
        return [pattern]
    paths = glob.glob(pattern, recursive=True)
    return sorted(path for path in paths if not os.path.isdir(path))


def _nothing(pattern):
    if os.path.isdir(pattern):
        endings = ", ".join(sorted(ENDINGS))
        return f"is a folder without videos (files that end in {endings})"
    if glob.has_magic(pattern):
        return "matches no file; give a file, a folder or another pattern"
    return "is not there; give a file, a folder or a pattern"


# Of the file beside the features. `--durations` reads the first two.
_COLUMNS = ["id", "length", "bytes", "sha256", "notes"]


class EncodedVideo(typing.NamedTuple):
    """A video as its encoder sees it.

    Attributes:
        clips: `float32 [T, D]`.
        duration: Float: seconds, as the file says or, where something is wrong
            with it, as far as it could be read.
        notes: List of strings: what is wrong with the file.
    """

    clips: np.ndarray
    duration: float
    notes: list[str]


def encode_video(
    path: str | os.PathLike,
    encoder: Encoder,
    batch_size: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> EncodedVideo:
    """Reads a video and encodes it, as it is read.

    A video of any duration takes the memory of a batch of clips, and of the
    vectors that they become.

    Args:
        path: Video file, see `acnn_tf.data.open_video`.
        encoder: From `acnn_tf.encoders.make`.
        batch_size: Int: clips that go through the network together. Default:
            the encoder's own.
        progress: Function that is called with the share of the video that has
            been read, now and then.

    Returns:
        `EncodedVideo`.

    Raises:
        VideoError: If it is no video, or holds nothing that can be encoded.

    Example:

    >>> pixels = acnn_tf.encoders.make("pixels")  # doctest: +SKIP
    >>> encode_video("holiday.mp4", pixels).clips.shape  # doctest: +SKIP
    (71, 130)
    """
    video = open_video(path)
    frames = video.frames(encoder.frame_rate)
    if progress and video.duration:
        frames = _watched(frames, video, progress)
    clips = encoder.encode(frames, batch_size)
    notes = [problem.message for problem in video.problems]
    if not len(clips) or not np.isfinite(clips).all():
        found = "numbers that are not finite" if len(clips) else "no clips"
        fail(
            video.path,
            f"{encoder.name} makes {found} of it; copy or download the video "
            "again, or choose another encoder",
            kind=VideoError,
        )
    is_whole = video.duration and not notes
    duration = video.duration if is_whole else video.decoded
    return EncodedVideo(clips, duration, notes)


def _watched(frames, video, progress):
    for frame in frames:
        yield frame
        progress(min(video.decoded / video.duration, 1.0))
