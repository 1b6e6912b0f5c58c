"""Video files -> clip features, by an encoder.

`extract` fills a file of features. Each video that is encoded is a whole file
of its own in the folder `FEATURES.parts` until all are there, so that what was
killed goes on with what is missing. Beside the features, `FEATURES.videos.csv`
says of each video how long it is, what its file was, and what is wrong with it.
"""

from __future__ import annotations

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
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from acnn_tf.data.durations import videos_path
from acnn_tf.data.features import open_features, write_features
from acnn_tf.data.video import Video, VideoError, open_video
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
        patterns: A file, a folder, or a pattern such as `"videos/*.mp4"`, or
            several of them. Of a folder, all files with the ending of a video
            are taken. In a pattern `**` stands for any folders.

    Returns:
        Dictionary from video id to path, in the order of the ids. An id is
        the name of the file without its folder and its ending.

    Raises:
        DataError: If a pattern finds nothing, or two files have the same id.

    Example:

    >>> import tempfile
    >>> import os
    >>> from acnn_tf.data import find_videos
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


def not_looked_into(
    patterns: str | os.PathLike | Iterable[str | os.PathLike],
) -> list[str]:
    """Notes on folders whose own folders have videos, which are not taken.

    Args:
        patterns: What `find_videos` is given.

    Returns:
        A line for each such folder, which says how to take all.

    Example:

    >>> import os
    >>> import tempfile
    >>> from acnn_tf.data.extraction import not_looked_into
    >>> os.chdir(tempfile.mkdtemp())
    >>> os.makedirs("videos/may")
    >>> open("videos/may/cat.mp4", "w").close()
    >>> not_looked_into("videos")
    ["videos: folders in it, such as 'may', have videos, too, and are not..."]
    """
    if isinstance(patterns, str | os.PathLike):
        patterns = [patterns]
    notes = []
    for folder in filter(os.path.isdir, map(os.fspath, patterns)):
        for name in sorted(os.listdir(folder)):
            inner, paths = os.path.join(folder, name), []
            if os.path.isdir(inner) and not name.startswith("."):
                with contextlib.suppress(OSError):  # one that is not ours
                    paths = _paths(inner)
            if paths:
                ending = os.path.splitext(paths[0])[1]
                pattern = os.path.join(folder, "**", f"*{ending}")
                notes.append(
                    f"{folder}: folders in it, such as {name!r}, have videos, "
                    f"too, and are not looked into; '{pattern}' takes all that "
                    "end so"
                )
                break
    return notes


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


# Seconds by which a video may last longer, or shorter, than its file says.
_MAX_OFF = 0.5
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
    open_video: Callable[[str], Video] = open_video,
) -> EncodedVideo:
    """Reads a video and encodes it, as it is read.

    A video of any duration takes the memory of a batch of clips, and of the
    vectors that they become.

    Args:
        path: Video file, see `acnn_tf.data.open_video`.
        encoder: From `acnn_tf.encoders.make`.
        batch_size: Number of clips that go through the network together.
            Default: the encoder's own.
        progress: Function that is called with the share of the video that has
            been read, now and then.
        open_video: Function that opens the file and returns a `Video`, or an
            object with its `frames`, `duration`, `decoded` and `problems`, such
            as one that another process decodes.

    Returns:
        `EncodedVideo`.

    Raises:
        VideoError: If the file is no video, or has nothing to encode.

    Example:

    >>> import acnn_tf
    >>> from acnn_tf.data import encode_video
    >>> pixels = acnn_tf.encoders.make("pixels")  # doctest: +SKIP
    >>> encode_video("holiday.mp4", pixels).clips.shape  # doctest: +SKIP
    (71, 130)
    """
    path = os.fspath(path)
    video = open_video(path)
    frames = video.frames(encoder.frame_rate)
    if progress and video.duration:
        frames = _watched(frames, video, progress)
    clips = encoder.encode(frames, batch_size)
    notes = [problem.message for problem in video.problems]
    if not len(clips) or not np.isfinite(clips).all():
        found = "numbers that are not finite" if len(clips) else "no clips"
        fail(
            path,
            f"{encoder.name} makes {found} of it; copy or download the video "
            "again, or choose another encoder",
            kind=VideoError,
        )
    duration = video.duration
    if not duration or notes or abs(duration - video.decoded) > _MAX_OFF:
        duration = video.decoded
    return EncodedVideo(clips, duration, notes)


def _watched(frames, video, progress):
    for frame in frames:
        yield frame
        progress(min(video.decoded / video.duration, 1.0))


def extract(
    videos: Mapping[str, str],
    encoder: Encoder,
    path: str | os.PathLike,
    batch_size: int | None = None,
    progress: Callable[[float, int], None] | None = None,
) -> list[Problem]:
    """Encodes videos, and writes a file of their features.

    The file holds these videos and no others, and the encoder's description.
    If the work is killed and started again, the file is the same to the last
    byte. If this function wrote the file before, the features of videos whose
    files are the same are kept. While one process does it, another one waits.

    Args:
        videos: Mapping from video id to path, as `find_videos` returns it.
        encoder: From `acnn_tf.encoders.make`.
        path: `.hdf5`, `.h5` or `.tfrecord` file.
        batch_size: Number of clips that go through the network together.
            Default: the encoder's own.
        progress: Function that is called with the share of the work that is
            done, and the number of videos that are done.

    Returns:
        A problem for each video that could not be encoded. For each video that
        is damaged it is a note, which is not `dropped`.

    Raises:
        DataError: If the file, or the unfinished work on it, was made by
            another encoder.
        FileExistsError: If the file exists, and this function did not write it.
        WriteError: If something could not be written, as on a full disk.

    Example:

    >>> import acnn_tf
    >>> from acnn_tf.data import extract, find_videos
    >>> videos = find_videos("videos/*.mp4")  # doctest: +SKIP
    >>> encoder = acnn_tf.encoders.make("pixels")  # doctest: +SKIP
    >>> extract(videos, encoder, "features.hdf5")  # doctest: +SKIP
    []
    """
    with extracting(videos, encoder, path) as work:
        # One byte more, so that empty files count.
        sizes = [(file_state(v) or [0])[0] + 1 for v in work.missing.values()]
        ends = np.cumsum([0, *sizes]) / max(sum(sizes), 1)

        def tell(number, share):
            start, end = ends[number : number + 2]
            count = len(videos) - len(sizes) + number
            if progress:
                progress(start + share * (end - start), count)

        for number, (video_id, video) in enumerate(work.missing.items()):
            tell(number, 0.0)
            encode_part(
                *(work.folder, video_id, video, encoder, batch_size),
                functools.partial(tell, number),
            )
        if progress:
            progress(1.0, len(videos))
    return work.problems


@contextlib.contextmanager
def extracting(
    videos: Mapping[str, str], encoder: Encoder, path: str | os.PathLike
) -> Iterator[Extraction]:
    """`extract` in parts: others may do what is in between.

    Yields an `Extraction`, whose `missing` videos become parts in its `folder`
    by `encode_part`, in any process and any order. If the block ends well, the
    features are written, and its `problems` are those that `extract` returns.
    """
    path = os.fspath(path)
    if os.path.splitext(path)[1] not in (".hdf5", ".h5", ".tfrecord"):
        raise ValueError(
            f"Features go into a .hdf5, .h5 or .tfrecord file. Received: {path}"
        )
    if not videos:
        raise ValueError("There are no videos: name files, folders or patterns")
    work = Extraction(videos, encoder, path)
    with locked(work.folder, wait=True):
        work._prepare()
        try:
            yield work
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "Interrupted. The same command goes on with the videos that "
                "are missing."
            ) from None
        work._finish()


class Extraction:
    """A file of features in the making, see `extracting`.

    Attributes:
        folder: Where the parts lie.
        missing: Dictionary from video id to path: those to encode.
        problems: List of `Problem`, see `extract`; once all is done.
    """

    def __init__(
        self,
        videos: Mapping[str, str],
        encoder: Encoder,
        path: str | os.PathLike,
    ):
        self.folder = f"{path}.parts"
        self.missing, self.problems = {}, []
        self._encoder_path = os.path.join(self.folder, "encoder.json")
        self._videos = dict(sorted(videos.items()))
        self._path = path
        self._description = encoder.description
        self._clip_seconds = encoder.clip_seconds
        # What the file is of, video id -> row; and of that, what stays.
        self._rows, self._kept = None, {}

    def _prepare(self):
        """Finds out what is missing; removes parts of what has changed."""
        was_begun = os.path.exists(self._encoder_path)
        if was_begun:
            with open(self._encoder_path, encoding="utf-8") as file:
                self._check_encoder(json.load(file), self.folder)
        if os.path.exists(self._path):
            self._rows = _read_rows(self._path)
            if self._rows is None and not was_begun:
                raise FileExistsError(
                    f"{self._path} is there already, and no "
                    f"{videos_path(self._path)} says of what videos it is: "
                    "choose another file, or remove it"
                )
            with open_features(self._path) as features:
                self._check_encoder(features.encoder or {}, self._path)
                self._kept = {
                    video: row
                    for video, row in (self._rows or {}).items()
                    if video in features and self._is_same(video, row)
                }
        for video_id, video in self._videos.items():
            part = _part_path(self.folder, video_id)
            if os.path.exists(part):
                about = _about(part)
                if "problem" in about or about["state"] != file_state(video):
                    os.remove(part)
            if video_id not in self._kept and not os.path.exists(part):
                self.missing[video_id] = video
        if self.missing:
            self._begin()

    def done(self) -> set[str]:
        """Set of the videos that are encoded by now."""
        there = set(os.listdir(self.folder))
        return {v for v in self._videos if file_name(v, ".npz") in there}

    def _finish(self):
        """Writes the features, if they differ from those that are there."""
        rows = {}
        for video_id, video in self._videos.items():
            row = self._kept.get(video_id)
            if row is None:
                about = _about(_part_path(self.folder, video_id))
                if "problem" in about:
                    self._note(video, about["problem"], dropped=True)
                    continue
                row = about["row"]
            rows[video_id] = row
            if row["notes"]:
                self._note(video, row["notes"], dropped=False)
        if rows and rows != self._rows:
            self._begin()
            self._keep()
            with contextlib.suppress(FileNotFoundError):
                os.remove(videos_path(self._path))
            write_features(
                self._path,
                _Parts(self.folder, list(rows)),
                self._clip_seconds,
                self._description,
            )
            _write_rows(self._path, rows)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _note(self, video, message, dropped):
        # Of a folder, so that those of its files that are alike are one line.
        folder, name = os.path.split(video)
        message = f"{name!r} {message}"
        self.problems.append(Problem(folder or ".", None, message, dropped))

    def _check_encoder(self, made_by, path):
        between = "now it would be"
        if differs := difference(made_by, self._description, between):
            message = f"{differs}; choose another file, or remove this one"
            fail(path, message, kind=DataError)

    def _is_same(self, video_id, row):
        video = self._videos.get(video_id)
        return (
            video is not None
            and row["bytes"] == str((file_state(video) or [None])[0])
            and row["sha256"] == digest(video)
        )

    def _begin(self):
        """Leaves a sign that what is there is of this function's making."""
        write_text(self._encoder_path, json.dumps(self._description))

    def _keep(self):
        """Makes parts of the videos that are kept."""
        kept = self._kept.keys() - self.done()
        if not kept:
            return
        with open_features(self._path) as features:
            for video in sorted(kept):
                row, state = self._kept[video], file_state(self._videos[video])
                part = _part_path(self.folder, video)
                _write_part(part, features[video], {"row": row, "state": state})


def encode_part(
    folder: str,
    video_id: str,
    video: str,
    encoder: Encoder,
    batch_size: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Encodes a video into a part, unless it is there.

    A video that cannot be encoded makes a part that says why. The arguments are
    those of `Extraction` and of `encode_video`.
    """
    path = _part_path(folder, video_id)
    if os.path.exists(path):
        return
    clips, state = None, file_state(video)
    try:
        clips, duration, notes = encode_video(
            video, encoder, batch_size, progress
        )
        sha256 = digest(video)
        if file_state(video) != state:
            fail(video, "has changed while it was read; do it again")
    except DataError as error:
        about = {"problem": error.problems[0].message}
    except (OSError, ValueError) as error:
        about = {"problem": f"cannot be read: {error}"}
    else:
        row = [
            video_id,
            repr(duration),
            str(state[0]),
            sha256,
            "; ".join(notes),
        ]
        about = {"row": dict(zip(_COLUMNS, row, strict=True))}
    _write_part(path, clips, about | {"state": state})


# Parts: an array of clips, unless there is a problem, and what is known of it.


def _part_path(folder, video_id):
    return os.path.join(folder, file_name(video_id, ".npz"))


def _write_part(path, clips, about):
    arrays = {} if clips is None else {"clips": clips}
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, about=json.dumps(about), **arrays)


def _read_part(path, name):
    try:
        with (
            open(path, "rb") as file,
            np.load(file, allow_pickle=False) as part,
        ):
            return part[name]
    except (
        *(OSError, ValueError, KeyError, EOFError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        message = f"is damaged ({error!s:.80}); remove it, and start again"
        fail(path, message, kind=DataError)


def _about(path):
    return json.loads(str(_read_part(path, "about")))


class _Parts(Mapping):
    """The clips of parts, which are read when they are asked for."""

    def __init__(self, folder, videos):
        self._folder, self._videos = folder, videos

    def __getitem__(self, video_id):
        return _read_part(_part_path(self._folder, video_id), "clips")

    def __iter__(self):
        return iter(self._videos)

    def __len__(self):
        return len(self._videos)


def file_state(path: str | os.PathLike) -> list[int] | None:
    """What tells a file from a later one of its name, or `None`.

    Its size and when it was written: it is not read.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _read_rows(path):
    """What is known of each video in a file of features, or `None`."""
    path = videos_path(path)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if any(list(row) != _COLUMNS or None in row.values() for row in rows):
        fail(
            path,
            f"expected the columns {', '.join(_COLUMNS)}; restore it, or "
            "remove it and its features",
            kind=DataError,
        )
    return {row["id"]: row for row in rows}


def _write_rows(path, rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows.values())
    write_text(videos_path(path), text.getvalue())
