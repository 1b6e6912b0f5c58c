"""Features: video id -> clips `[T, D]`, or windows, from files of anybody."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from acnn_tf.data.datasets import DATASETS
from acnn_tf.data.joined_features import JoinedFeatures
from acnn_tf.data.windows import VideoWindows, WindowGrid, clips_problem
from acnn_tf.encoders import descriptions
from acnn_tf.files.arrays import (
    Arrays,
    NpyFolder,
    open_arrays,
    write_npy,
    write_packed,
)
from acnn_tf.files.atomic import replacing
from acnn_tf.files.hdf5 import HDF5File, write_hdf5
from acnn_tf.files.manifests import (
    manifest_path,
    replacing_with_manifest,
    save_manifest,
)
from acnn_tf.files.names import check_file_name, paths_of
from acnn_tf.files.problems import (
    FeatureError,
    Problem,
    UnknownIdError,
    fail,
)
from acnn_tf.files.tfrecord import TFRecordFiles, write_tfrecord

# Videos whose width is compared before any is trusted.
_LOOKED_AT = 5
# The name of a window, in frames, and how many a second has unless it is said.
_WINDOW = re.compile(r"(.+?)(?:\.avi)?_(\d{1,9})_(\d{1,9})", re.ASCII)
_FRAME_RATE = DATASETS["tacos"].frame_rate


def open_features(
    path: str | os.PathLike,
    *,
    clip_seconds: float | None = None,
    reader: str = "auto",
) -> ClipFeatures | WindowFeatures | JoinedFeatures:
    """Opens the clip features of many videos.

    Features are read when they are asked for. Only TFRecord files are read
    through once when they are opened.

    Args:
        path: One of
            - `.hdf5` or `.h5`: a dataset `[T, D]` per video id, or a group
              with one such dataset; root attributes `clip_seconds` and, if it
              is known what made the features, `encoder`.
            - folder of `VIDEO.npy`, with `clip_seconds.txt`, `encoder.json`.
            - folder of `VIDEO.npz` or `VIDEO.pt`, with the same two files;
              `FOLDER:NAME` if each file holds several arrays. Or one such file
              of all videos. A `.pt` is what `torch.save` has written; no code
              in it is run.
            - `.tfrecord`, or a folder of them: see `TFRecordFiles`.
            - any of these with one `[D]` per window, `VIDEO_START_END`, in
              place of one `[T, D]` per video, or what `pack_windows` has
              made of them: see `WindowFeatures`.
        clip_seconds: Seconds from one clip to the next. It is needed where the
            file does not tell it. For features of windows it is the seconds of
            a frame, by default those of TACoS, 1 / 29.4.
        reader: What reads HDF5: `"h5py"`, or `"tfio"` (tensorflow-io, where
            its operations load). Default: `"auto"`, which is h5py.

    Several paths, with commas between, are joined: `"clip.hdf5,slowfast"`.

    Returns:
        `ClipFeatures`, `WindowFeatures` or `JoinedFeatures`: a mapping from
        video id to features, to be closed, or used in a `with`.

    Raises:
        FeatureError: If the file is damaged or empty, or does not agree with
            `clip_seconds`.
        FileNotFoundError: If the file does not exist.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from acnn_tf.data import open_features, write_features
    >>> path = tempfile.mkdtemp() + "/features.hdf5"
    >>> clips = np.ones((3, 2), np.float32)
    >>> write_features(path, {"3MSZA": clips}, clip_seconds=2.0)
    >>> with open_features(path) as features:
    ...     features["3MSZA"].shape, features.clip_seconds
    ((3, 2), 2.0)
    """
    if clip_seconds is not None and not 0 < clip_seconds < float("inf"):
        raise ValueError(
            f"`clip_seconds` must be above 0. Received: {clip_seconds}"
        )
    paths = paths_of(path)
    if len(paths) > 1:
        settings = {"clip_seconds": clip_seconds, "reader": reader}
        return JoinedFeatures(open_features(one, **settings) for one in paths)
    arrays = open_arrays(path, reader)
    try:
        kind = WindowFeatures if _holds_windows(arrays) else ClipFeatures
        return kind(arrays, clip_seconds)
    except FeatureError:
        arrays.close()
        raise


def _holds_windows(arrays):
    """Whether there is a vector for each window, by the first that is whole."""
    for name in arrays.names[:_LOOKED_AT]:
        if not _WINDOW.fullmatch(name):
            return False
        with contextlib.suppress(FeatureError):
            return arrays.read(name).ndim == 1
    return False


class ClipFeatures(collections.abc.Mapping):
    """Read-only mapping from video id to float32 `[T, D]`.

    Every array is checked as it is read: of rank 2, not empty, as wide as the
    others, all numbers finite. One NaN would make every weight of a model NaN.

    Args:
        arrays: What `open_arrays` returns.
        clip_seconds: Seconds from one clip to the next, where the file does
            not tell it.

    Attributes:
        path: Where the features lie.
        clip_seconds: Seconds from one clip to the next.
        encoder: What made the features, see `acnn_tf.encoders.descriptions`:
            a dictionary, or `None` if the file does not say.
        dim: D.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from acnn_tf.data import open_features
    >>> folder = tempfile.mkdtemp()
    >>> np.save(folder + "/cat.npy", np.ones((3, 2), np.float32))
    >>> features = open_features(folder, clip_seconds=2.0)
    >>> list(features), features.dim
    (['cat'], 2)
    """

    def __init__(self, arrays: Arrays, clip_seconds: float | None = None):
        self._arrays = arrays
        self._known = frozenset(arrays.names)
        self._dim = None
        self.path = arrays.path
        stored = arrays.clip_seconds
        if stored is None and clip_seconds is None:
            fail(
                self.path,
                "does not say how many seconds a clip lasts; give "
                "`clip_seconds`",
            )
        if None not in (stored, clip_seconds) and not np.isclose(
            stored, clip_seconds
        ):
            fail(
                self.path,
                f"says that a clip lasts {stored:g} s, but `clip_seconds` is "
                f"{clip_seconds:g}",
            )
        self.clip_seconds = float(clip_seconds if stored is None else stored)
        self.encoder = None
        for text, place in arrays.encoders.items():
            encoder = descriptions.parse(text, *place)
            if self.encoder is None:
                self.encoder = encoder
            differs = descriptions.difference(
                encoder, self.encoder, "those before it by"
            )
            if differs:
                fail(
                    place[0], f"{differs}; extract all of them alike", place[1]
                )

    @property
    def dim(self) -> int:
        """D, as most of the first few videos have it."""
        if self._dim is None:
            dims = []
            for video_id in self._arrays.names[:_LOOKED_AT]:
                # Of a video that cannot be read, reading it will tell.
                with contextlib.suppress(FeatureError):
                    dims += self._arrays.read(video_id).shape[1:2]
            if not dims:
                self._read(self._arrays.names[0])
            self._dim = collections.Counter(dims).most_common(1)[0][0]
        return self._dim

    def __getitem__(self, video_id: str) -> np.ndarray:
        if video_id not in self._known:
            raise UnknownIdError(
                f"{self.path} has no video {video_id!r} among its {len(self)}; "
                "extract its features, or leave out its queries"
            )
        clips = self._read(video_id)
        self._check_dim(video_id, clips.shape[1])
        return clips

    def __contains__(self, video_id):
        return video_id in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays.names)

    def __len__(self):
        return len(self._arrays.names)

    def _read(self, video_id):
        clips = self._arrays.read(video_id)
        if clips.ndim != 2 or 0 in clips.shape:
            self._arrays.fail(
                video_id,
                f"expected clips x features, found shape {clips.shape}; "
                "extract its features again",
            )
        return clips

    def _check_dim(self, video_id, dim):
        if dim != self.dim:
            self._arrays.fail(
                video_id,
                f"has {dim} features a clip, but the others have {self.dim}; "
                "extract all of them alike",
            )

    def problems(
        self,
        durations: Mapping[str, float] | None = None,
        grid: WindowGrid | None = None,
    ) -> dict[str, Problem]:
        """Reads everything and returns all that is wrong with it.

        Args:
            durations: Seconds of each video, with which its clips are compared
                (`acnn_tf.data.windows.clips_problem`).
            grid: A grid of which `WindowFeatures` should have all windows.

        Returns:
            Dictionary from video id to its problem. A width that most videos do
            not have is a problem; clips that are all alike are a note.
        """
        problems, dims, durations = {}, {}, durations or {}
        for video_id in self:
            try:
                clips = self._read(video_id)
            except FeatureError as error:
                problems[video_id] = error.problems[0]
                continue
            dims[video_id] = clips.shape[1]
            message, is_note = None, True
            if video_id in durations:
                message, is_note = clips_problem(
                    video_id,
                    len(clips),
                    self.clip_seconds,
                    durations[video_id],
                )
            alike = len(clips) > 1 and (clips == clips[0]).all()
            if is_note and (alike or not clips.any()):
                message = (
                    f"video {video_id!r}: its {len(clips):,} clips are all "
                    "alike, so that no moment stands out; is that meant?"
                )
            if message:
                path, record = self._arrays.place(video_id)
                problems[video_id] = Problem(path, record, message, not is_note)
        if dims:
            self._dim = collections.Counter(dims.values()).most_common(1)[0][0]
        for video_id, dim in dims.items():
            try:
                self._check_dim(video_id, dim)
            except FeatureError as error:
                problems[video_id] = error.problems[0]
        return problems

    def save_manifest(self) -> str | None:
        """Writes a manifest of the files as they are, unless there is one.

        Returns:
            Its path, or `None` if there was one.

        Raises:
            WriteError: If it could not be written.
        """
        if os.path.exists(manifest_path(self.path)):
            return None
        return save_manifest(self.path, self._arrays.records())

    def close(self) -> None:
        """Closes the file."""
        self._arrays.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class WindowFeatures(ClipFeatures):
    """Read-only mapping from video id to `VideoWindows`.

    For features that come as one vector per window, `VIDEO_START_END` or
    `VIDEO.avi_START_END`, frames counted from 1, the end not included: TACoS
    as its authors distribute it, a file each. Vectors are read, and checked,
    when they are pooled.

    Args:
        arrays: What `open_arrays` returns.
        clip_seconds: Seconds of a frame. Default: those of TACoS.

    Raises:
        FeatureError: If a name is not that of a window. The message lists such
            names.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from acnn_tf.data import open_features
    >>> folder = tempfile.mkdtemp()
    >>> np.save(folder + "/s13-d21_1_65.npy", np.ones(4, np.float32))
    >>> features = open_features(folder)
    >>> list(features), features["s13-d21"].frames.tolist()
    (['s13-d21'], [[1, 65]])
    """

    def __init__(self, arrays: Arrays, clip_seconds: float | None = None):
        if arrays.clip_seconds is None and clip_seconds is None:
            clip_seconds = 1 / _FRAME_RATE
        super().__init__(arrays, clip_seconds)
        self._videos, problems = {}, []
        for name in arrays.names:
            match = _WINDOW.fullmatch(name)
            start, end = map(int, match.groups()[1:]) if match else (0, 0)
            if not 0 < start < end:
                path, record = arrays.place(name)
                message = (
                    f"{name!r}: expected VIDEO_START_END, frames from 1, as "
                    "the name of a window; rename it, or take it away"
                )
                problems.append(Problem(path, record, message))
                continue
            windows = self._videos.setdefault(match[1], {})
            if (start, end) in windows:
                arrays.fail(
                    name,
                    f"is the window of {windows[start, end]!r}, too; remove "
                    "one of the two",
                )
            windows[start, end] = name
        if problems:
            raise FeatureError(problems)

    @property
    def dim(self) -> int:
        """D, as most of the first few windows have it."""
        if self._dim is None:
            dims = []
            for name in self._arrays.names[:_LOOKED_AT]:
                with contextlib.suppress(FeatureError):
                    dims += self._arrays.read(name).shape
            if not dims:
                self._arrays.read(self._arrays.names[0])
            self._dim = collections.Counter(dims).most_common(1)[0][0]
        return self._dim

    def __getitem__(self, video_id: str) -> VideoWindows:
        if video_id not in self._videos:
            raise UnknownIdError(
                f"{self.path} has no window of video {video_id!r}; extract "
                "its features, or leave out its queries"
            )
        windows = self._videos[video_id]
        names = list(windows.values())

        def read(rows):
            vectors = np.empty((len(rows), self.dim), np.float32)
            for vector, row in zip(vectors, rows):
                vector[:] = self._vector(names[row])
            return vectors

        frames = np.array(list(windows), np.int64)
        return VideoWindows(video_id, frames, read, self.dim, self.path)

    def _vector(self, name):
        vector = self._arrays.read(name)
        if vector.shape != (self.dim,):
            self._arrays.fail(
                name,
                f"expected {self.dim} numbers as in the others, found shape "
                f"{vector.shape}; extract it again",
            )
        return vector

    def __contains__(self, video_id):
        return video_id in self._videos

    def __iter__(self) -> Iterator[str]:
        return iter(self._videos)

    def __len__(self):
        return len(self._videos)

    def windows(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields `(name, vector)` of all windows, as float32 `[D]`.

        Names are `VIDEO_START_END`, by video, and by name within it.
        """
        for video_id, windows in self._videos.items():
            for (start, end), name in windows.items():
                yield f"{video_id}_{start}_{end}", self._vector(name)

    def problems(
        self,
        durations: Mapping[str, float] | None = None,
        grid: WindowGrid | None = None,
    ) -> dict[str, Problem]:
        """Reads everything and returns the first problem of each video.

        The arguments are those of `ClipFeatures.problems`.
        """
        damage = self._arrays.verify()
        if damage:
            raise FeatureError(damage)
        problems, durations = {}, durations or {}
        for video_id, windows in self._videos.items():
            video = self[video_id]
            try:
                for name in windows.values():
                    self._vector(name)
                if grid is not None and video_id in durations:
                    own = grid.windows(durations[video_id])
                    video.rows(own, self.clip_seconds)
                    problems |= self._stood_for(video_id, video, own)
            except FeatureError as error:
                problems[video_id] = error.problems[0]
            except UnknownIdError as error:
                message = str(error).removeprefix(f"{self.path} ")
                problems[video_id] = Problem(self.path, None, message)
        return problems

    def _stood_for(self, video_id, video, windows):
        """Notes windows that have none of their own, by video id."""
        missing = windows[~video.has(windows, self.clip_seconds)]
        if not len(missing):
            return {}
        start, end = np.rint(missing[-1] / self.clip_seconds).astype(int)
        message = (
            f"has no window {video_id}_{start}_{end}, which ends with the last "
            "frame; the one before it stands for it"
        )
        return {video_id: Problem(self.path, None, message, dropped=False)}


def pack_windows(
    features: WindowFeatures,
    path: str | os.PathLike,
    progress: Callable[[float, int], None] | None = None,
) -> None:
    """Writes features of windows in one file, which is opened at once.

    Only the windows that are asked for are then read. TACoS has 161,396.

    Args:
        features: `WindowFeatures`.
        path: Folder that does not exist yet. `open_features` reads it.
        progress: Function that is called with the share and the number of the
            windows that are written.

    Raises:
        FeatureError: If a window cannot be used. The folder is then not made.
        WriteError: If the folder could not be written, as on a full disk.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from acnn_tf.data import open_features, pack_windows
    >>> folder = tempfile.mkdtemp()
    >>> np.save(folder + "/v.avi_1_65.npy", np.ones(4, np.float32))
    >>> pack_windows(open_features(folder), folder + "/packed")
    >>> open_features(folder + "/packed")["v"].frames
    array([[ 1, 65]])
    """
    path = os.fspath(path)
    if os.path.exists(path):
        raise FileExistsError(
            f"{path} is there already: remove it, or choose another folder"
        )
    names = [
        f"{video}_{start}_{end}"
        for video in features
        for start, end in features[video].frames
    ]

    def rows():
        for number, (_, vector) in enumerate(features.windows(), start=1):
            yield vector
            if progress is not None:
                progress(number / len(names), number)

    text = features.encoder and json.dumps(features.encoder)
    size = 4 * len(names) * features.dim
    with replacing(path, size=size) as partial:
        write_packed(
            *(partial, names, rows(), features.dim),
            features.clip_seconds,
            text,
        )


def write_features(
    path: str | os.PathLike,
    features: Mapping[str, np.ndarray],
    clip_seconds: float,
    encoder: dict | None = None,
) -> None:
    """Writes features in a form that `open_features` reads.

    An older file stays until the new one is complete. The new file gets a
    manifest; see `acnn_tf.files.manifests`.

    Args:
        path: `.hdf5`, `.h5` or `.tfrecord` file. Without such a suffix it is a
            folder of `.npy` files, which must not exist yet.
        features: Mapping from video id to floats `[T, D]`. HDF5 and `.npy`
            keep their dtype, TFRecord is float32.
        clip_seconds: Seconds from one clip to the next.
        encoder: What made the features: `Encoder.description`. Models, indexes
            and servables that are made with these features keep it, and refuse
            features that another encoder made.

    Raises:
        FeatureError: If the features are not what `ClipFeatures` takes, or not
            as wide as `encoder` says.
        WriteError: If the file could not be written, as on a full disk.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from acnn_tf.data import open_features, write_features
    >>> path = tempfile.mkdtemp() + "/features.hdf5"
    >>> write_features(path, {"a": np.ones((3, 2), np.float32)}, 1.0)
    >>> open_features(path)["a"].shape
    (3, 2)
    """
    path = os.fspath(path)
    text = None
    if encoder is not None:
        try:
            text = json.dumps(descriptions.checked(encoder))
        except ValueError as error:
            raise ValueError(f"`encoder`: {error}") from None
    suffix = os.path.splitext(path)[1]
    write, read = _FORMS.get(suffix, (write_npy, NpyFolder))
    if write is write_npy and os.path.exists(path):
        raise FileExistsError(
            f"{path} is there already: remove it, or choose another folder"
        )
    if write is not write_tfrecord and any("/" in video for video in features):
        raise ValueError(
            f"Video ids with a '/' go into .tfrecord files only. "
            f"Received: {path}"
        )
    size = _size_of(features, 4 if write is write_tfrecord else None)
    if write is write_npy:
        for video in features:
            check_file_name(video, ".npy")
        replaced = replacing(path, size=size)
    else:
        replaced = replacing_with_manifest(path, len(features), size=size)
    with replaced as partial:
        try:
            write(partial, features, clip_seconds, text)
            # What the readers find no fault with, they will read again.
            with ClipFeatures(Arrays(read(partial)), clip_seconds) as written:
                problems = list(written.problems().values())
                problems = [problem for problem in problems if problem.dropped]
                if problems:
                    raise FeatureError(problems)
                expected = (encoder or {}).get("dim", written.dim)
                if written.dim != expected:
                    fail(
                        partial,
                        f"has {written.dim} features a clip, but `encoder` "
                        f"says {expected}; give the description of what made "
                        "them",
                    )
        except FeatureError as error:
            raise FeatureError(
                dataclasses.replace(p, path=p.path.replace(partial, path, 1))
                for p in error.problems
            ) from None


def _size_of(features, item_size):
    """Bytes of all numbers, where they need not be read to be counted."""
    if not isinstance(features, dict):
        return None
    arrays = list(map(np.asarray, features.values()))
    return sum(a.size * (item_size or a.itemsize) for a in arrays)


_FORMS = {
    ".hdf5": (write_hdf5, HDF5File),
    ".h5": (write_hdf5, HDF5File),
    ".tfrecord": (write_tfrecord, lambda path: TFRecordFiles(path, [path])),
    ".tfrecords": (write_tfrecord, lambda path: TFRecordFiles(path, [path])),
}
