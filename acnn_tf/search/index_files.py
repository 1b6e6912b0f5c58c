"""Stores the encodings of an index, in memory or in a folder.

Each time that videos are added, a folder gets two files: `encodings-00000.npy`
and `videos-00000.json`, the list of those videos. `manifest.json` (see
`acnn_tf.files.manifests`) names all files and is replaced last. What it does
not name does not count, and what it names never changes, so that a folder can
be read while another process adds to it. Where videos are removed, what is left
of their files is written to new ones, of which the same manifest tells.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import operator
import os
import re
import threading
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping

import keras
import ml_dtypes  # which TensorFlow, JAX and Keras require
import numpy as np

from acnn_tf import encoders
from acnn_tf.data.windows import check_features
from acnn_tf.encoders import descriptions
from acnn_tf.files import locks
from acnn_tf.files.atomic import replacing, write_text
from acnn_tf.files.manifests import (
    Manifest,
    manifest_path,
    open_file,
    read_manifest,
    save_manifest,
)
from acnn_tf.search.encoding import EncodedVideo, encode_videos

_FORMAT = 3
# Files of fewer windows than this are joined, once there are as many of them.
_SMALL, _MANY = 32_768, 16
_DTYPES = ("float32", "float16", "bfloat16")
_KEYS = ("video_id", "duration", "num_windows")
_NAME = re.compile(r"(?:encodings-(\d{5,9})\.npy|videos-(\d{5,9})\.json)")
_MALFORMED = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
# Bytes before the numbers of an `.npy` file.
_HEADER_SIZE = 128
# What to do about a damaged file.
_REMEDY = (
    "restore it from a copy, or build the index again; of a corpus in shards "
    "only this shard: remove its folder, and run experiments.encode_corpus "
    "once more"
)


class IndexFileError(ValueError):
    """A folder does not hold an index, or holds another one than asked for.

    Example:

    >>> import acnn_tf, pathlib, tempfile
    >>> model = acnn_tf.models.ZeroShot()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "manifest.json").write_text("{}")
    ...     acnn_tf.search.MomentIndex(model, folder)
    Traceback (most recent call last):
    ...
    acnn_tf.search.index_files.IndexFileError: ...
    """


@dataclasses.dataclass(frozen=True)
class IndexedVideo:
    """Where the windows of a video are."""

    video_id: str
    duration: float  # seconds
    num_windows: int
    part: int  # the array of its encodings
    first: int  # the row of its first window there
    source: str | None = None  # what its file was, see `MomentIndex.update`


@dataclasses.dataclass(frozen=True)
class Contents:
    """What an index holds at one moment; it never changes.

    A search takes one and stays with it, so that videos can be added and
    removed meanwhile.

    Attributes:
        videos: Tuple of `IndexedVideo`.
        parts: Tuple of arrays, the encodings.
        dtype: Name: how encodings are kept.
        num_windows: Int: windows of all videos.
    """

    videos: tuple[IndexedVideo, ...]
    parts: tuple[np.ndarray, ...]
    dtype: str
    path: str | None
    longest: float  # seconds, of a window
    windows_of: typing.Callable  # windows of a duration

    @property
    def num_windows(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def video_ids(self) -> list[str]:
        return [video.video_id for video in self.videos]

    def chunks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields `(encoding [N, t], starts [v])` of v whole videos at a time.

        They have at least `size` windows, but for the last of a file; `starts`
        are the rows of the first window of each.
        """
        parts = itertools.groupby(self.videos, operator.attrgetter("part"))
        for part, videos in parts:
            starts = []
            for video in videos:
                starts.append(video.first)
                end = video.first + video.num_windows
                if end - starts[0] >= size or end == len(self.parts[part]):
                    rows = self._rows(part, starts[0], end)
                    yield rows, np.array(starts) - starts[0]
                    starts = []

    def encoding(self, video: IndexedVideo) -> np.ndarray:
        """float32 `[W, t]` of one `IndexedVideo`."""
        end = video.first + video.num_windows
        return np.asarray(self._rows(video.part, video.first, end), np.float32)

    def windows(self, video: IndexedVideo) -> np.ndarray:
        """`float64 [W, 2]` of one `IndexedVideo`, in seconds."""
        # Windows cover their video, but for less than one of them: without
        # this, a wrong duration could ask for any number of windows.
        if video.duration <= (video.num_windows + 2) * self.longest:
            windows = self.windows_of(video.duration)
            if len(windows) == video.num_windows:
                return windows
        raise _damaged(
            self.path,
            f"{video.video_id!r:.40} of {video.duration:g} s cannot have "
            f"{video.num_windows:,} windows",
        )

    def encoded(self, video: IndexedVideo) -> EncodedVideo:
        """The `EncodedVideo` of one `IndexedVideo`."""
        return EncodedVideo(
            video.video_id,
            video.duration,
            self.windows(video),
            self.encoding(video),
        )

    def _rows(self, part, first, end):
        rows = self.parts[part][first:end]
        is_bfloat16 = self.dtype == "bfloat16"
        return rows.view(ml_dtypes.bfloat16) if is_bfloat16 else rows


class IndexFiles:
    """Reads and writes the files of an index.

    Any number of threads may read `contents` while another thread adds or
    removes videos. They find the videos of before or of afterwards.

    Args:
        path: Folder, or `None` for memory.
        model: The model of the index: its weights and grid are compared.
        dtype: `"float32"`, `"float16"`, `"bfloat16"`, or `None`: what the
            folder has, or float32.
        shard: Dictionary: which part of a corpus a new folder will be, see
            `acnn_tf.search.shards`.

    Attributes:
        contents: `Contents`, which is replaced by each change.
        dtype: Name.
        encoder: What made the features that were encoded, a dictionary, as the
            folder, the features or the model say; or `None`.
        path: Folder or `None`.
        shard: As above, or what the folder says.
        read_only: String that says why nothing can be added, or `None`.
    """

    def __init__(
        self,
        path: str | os.PathLike | None,
        model: keras.Model,
        dtype: str | None = None,
        shard: Mapping | None = None,
    ):
        if dtype not in (None, *_DTYPES):
            raise ValueError(
                f"`dtype` must be one of {_DTYPES}. Received: {dtype}"
            )
        self.path = None if path is None else os.fspath(path)
        self.dtype = dtype or "float32"
        self.shard = shard
        self.read_only = None
        self._model = model
        self._asked_dtype = dtype
        self._writing = threading.Lock()  # of the threads of this process
        self._forget()
        # Videos of one length share their windows; a search asks for few.
        self._windows = functools.lru_cache(1024)(model.grid.windows)
        self._longest = max(model.grid.lengths) / (model.grid.frame_rate or 1)
        grid = dataclasses.asdict(model.grid)
        if grid["context_length"] is None:  # as in folders of before
            del grid["context_length"]
        grid = json.dumps(grid)
        self._about = {
            "format": _FORMAT,
            "model": fingerprint(model),
            "grid": json.loads(grid),  # as it will come back
        }
        self._show()
        if self.path is not None:
            self._read()
            if self.contents.videos and self.shard is not None:
                self.read_only = (
                    f"{self.path} is a shard of a corpus, to which nothing is "
                    "added: encode a new corpus, or keep another index."
                )

    @contextlib.contextmanager
    def updating(self) -> Iterator[None]:
        """Waits for the folder's lock, and reads what others have added."""
        if self.read_only:
            raise ValueError(self.read_only)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._writing)
            if self.path is not None:
                stack.enter_context(locks.locked(self.path, wait=True))
                self._read()
                self._sweep()  # what a killed process left
            yield

    def encode(
        self,
        features: Mapping[str, np.ndarray],
        durations: Mapping[str, float],
        progress: Callable[[int, int], object] | None = None,
        **placed,
    ) -> None:
        """Encodes videos and appends them, see `MomentIndex.append`."""
        self.check(features)
        total = sum(len(self._windows(s)) for s in durations.values())

        def encoded():
            done = 0
            for video in encode_videos(self._model, features, durations):
                if not np.isfinite(video.encoding).all():
                    raise ValueError(
                        f"The encoding of video {video.video_id!r} is not "
                        "finite. Check the features "
                        "(experiments.inspect_data) and the weights."
                    )
                yield video
                done += len(video.windows)
                if progress is not None:
                    progress(done, total)

        made_by = getattr(features, "encoder", None) or self.encoder
        self.append(encoded(), total, made_by, **placed)

    def check(self, features: Mapping[str, np.ndarray]) -> None:
        """Refuses features that were made otherwise than those encoded."""
        check_features(self._model, features)
        made_by = getattr(features, "encoder", None)
        encoders.check(made_by, self.encoder, getattr(features, "path", None))

    def append(
        self,
        encoded: Iterable[EncodedVideo],
        total: int,
        encoder: Mapping | None = None,
        *,
        without: Iterable[str] = (),
        sources: Mapping[str, str] | None = None,
    ) -> None:
        """Adds `EncodedVideo`s with `total` windows: all of them, or none.

        They are of features that the `encoder`, a description, made. The videos
        `without` are removed with the same stroke: those beside them in a file
        move to the new one. `sources` are those of the added.
        """
        parts = {v.part for v in self._videos if v.video_id in without}
        # Videos that come one by one would leave a file each.
        small = [
            n for n, part in enumerate(self._parts) if 0 < len(part) < _SMALL
        ]
        if len(small) >= _MANY:
            parts.update(small)
        kept = [
            video
            for video in self._videos
            if video.part in parts and video.video_id not in without
        ]
        total += sum(video.num_windows for video in kept)
        sources, videos = sources or {}, []

        def blocks():
            first, part = 0, len(self._parts)
            for video in kept:
                videos.append(
                    dataclasses.replace(video, part=part, first=first)
                )
                rows = slice(video.first, video.first + video.num_windows)
                yield self._parts[video.part][rows]
                first += video.num_windows
            for video in encoded:
                count = len(video.windows)
                about = (video.video_id, video.duration, count, part, first)
                source = sources.get(video.video_id)
                videos.append(IndexedVideo(*about, source))
                first += count
                yield self._stored(video.encoding)

        if self.path is None:
            new = list(blocks())
            self._drop(parts)
            if new:
                self._add(np.concatenate(new), videos)
            self.encoder = encoder
            self._show()
            return
        os.makedirs(self.path, exist_ok=True)
        try:
            if not os.path.exists(manifest_path(self.path)):
                # From now on, encodings without a manifest are damage.
                save_manifest(self.path, {})
            records, others = {}, dict(self._stated)
            if total:
                known = (n for n in self._numbers if n is not None)
                number = max(known, default=-1) + 1
                records = self._write(number, blocks(), videos, total, encoder)
            for part in parts:
                for path in _paths("", self._numbers[part]):
                    del others[path]
            if records or parts:
                save_manifest(self.path, records, others)
        except BaseException:
            manifest = self._sweep()
            if manifest and not manifest.files:
                os.remove(manifest.path)
            raise
        self._sweep()
        self._read(verify=False)

    def save(self, path: str | os.PathLike) -> None:
        """Writes an index that is in memory to a new folder, or nothing."""
        path = os.fspath(path)
        if self.path is not None:
            raise ValueError(f"The index is kept in {self.path} already.")
        if os.path.exists(path):
            raise FileExistsError(f"{path} is there already.")
        with replacing(path) as partial:
            files = IndexFiles(partial, self._model, self.dtype)
            shown = self.contents
            encoded = map(shown.encoded, shown.videos)
            files.append(encoded, shown.num_windows, self.encoder)
        self.path = path
        self._forget()
        self._read(verify=False)

    def add_folder(
        self, folder: str | os.PathLike, verify: bool = True
    ) -> dict | None:
        """Adds what another folder of an index holds; returns its `shard`.

        Unless it is to `verify`, the encodings are not read, and of their file
        the size alone is compared.
        """
        self.shard, self._known = None, set()
        manifest = _manifest(folder)
        for number in _numbers(manifest):
            self._open(folder, manifest, number, verify)
        self._show()
        return self.shard

    def _show(self):
        """Publishes added and removed videos in `contents`, in one step."""
        self.contents = Contents(
            tuple(self._videos),
            tuple(self._parts),
            self.dtype,
            self.path,
            self._longest,
            self._windows,
        )

    def _stored(self, encoding):
        """Returns the type in the file: NumPy has no name for bfloat16."""
        if self.dtype == "bfloat16":
            return encoding.astype(ml_dtypes.bfloat16).view(np.uint16)
        with np.errstate(over="ignore"):
            stored = encoding.astype(self.dtype)
        if not np.isfinite(stored).all():
            raise ValueError(
                "An encoding is too large for float16. Keep the index in "
                "bfloat16 or float32."
            )
        return stored

    def _forget(self):
        # What `contents` will be shown to be.
        self._videos, self._known = [], set()
        # Arrays, the numbers of their files, and what the manifest says of
        # these.
        self._parts, self._numbers, self._stated = [], [], {}
        self.encoder = getattr(self._model, "encoder", None)

    def _add(self, part, videos):
        self._parts.append(part)
        self._videos += videos
        self._known.update(video.video_id for video in videos)

    def _drop(self, parts):
        """Removes arrays, and keeps the positions of the others."""
        self._videos = [v for v in self._videos if v.part not in parts]
        self._known = {video.video_id for video in self._videos}
        for part in parts:
            # No view, which would keep the file.
            old = self._parts[part]
            self._parts[part] = np.empty((0, old.shape[1]), old.dtype)
            if self._numbers:
                self._numbers[part] = None

    def _write(self, number, blocks, videos, total, encoder):
        """Writes encodings, then their list; returns records by path.

        `blocks` are `[N, t]`, of which one is in memory at a time; the list
        `videos` is complete after the last.
        """
        path, list_path = _paths(self.path, number)
        first = next(blocks)
        header = _header(first.dtype, (total, first.shape[1]))
        size = len(header) + total * first[:1].nbytes
        with replacing(path, size=size) as partial, open(partial, "wb") as file:
            file.write(header)
            for block in itertools.chain([first], blocks):
                file.write(np.ascontiguousarray(block))
        about = {**self._about, "dtype": self.dtype, "shard": self.shard}
        about["encoder"] = encoder
        about["videos"] = [
            {key: getattr(video, key) for key in _KEYS}
            | ({"source": video.source} if video.source else {})
            for video in videos
        ]
        write_text(list_path, json.dumps(about))
        return {path: total, list_path: len(videos)}

    def _sweep(self):
        """Removes files that the manifest does not name; returns it."""
        manifest = read_manifest(self.path, [])
        if manifest is not None:
            for name in os.listdir(self.path):
                if _NAME.fullmatch(name) and name not in manifest.files:
                    with contextlib.suppress(OSError):
                        os.remove(os.path.join(self.path, name))
        return manifest

    def _read(self, verify=True):
        """Reads the files that others have added to the folder."""
        while True:
            manifest = _manifest(self.path)
            gone = {
                number
                for name, record in self._stated.items()
                if manifest.files.get(name) != record
                for number in _numbers_of([name])
            }
            if gone and gone >= {n for n in self._numbers if n is not None}:
                self._forget()  # another index may have taken its place
            elif gone:
                self._drop(set(map(self._numbers.index, gone)))
            try:
                for number in _numbers(manifest):
                    if number not in self._numbers:
                        self._open(self.path, manifest, number, verify)
                        self._numbers.append(number)
                self._stated = manifest.files
                self._show()
                return
            except IndexFileError:
                if _manifest(self.path).files == manifest.files:
                    raise
                # Another process has removed videos meanwhile.
                self._forget()

    def _open(self, folder, manifest, number, verify):
        """Opens one file of encodings and its list, and checks both."""
        path, list_path = _paths(folder, number)
        try:
            with open_file(list_path) as file:
                data = file.read()
            _refuse(manifest.check(list_path, data))
            videos = self._parse(list_path, data)
            _refuse(manifest.check(list_path, data, len(videos), verify=False))
            rows = videos[-1].first + videos[-1].num_windows
            _refuse(manifest.check(path, None, rows, verify=verify))
            stored = "uint16" if self.dtype == "bfloat16" else self.dtype
            part = _map_rows(path, np.dtype(stored), rows)
        except OSError as error:
            path = error.filename or path
            raise _damaged(path, f"cannot be read: {error.strerror}") from None
        if self._parts and part.shape[1] != self._parts[0].shape[1]:
            raise _damaged(path, f"has {part.shape[1]} numbers in a row")
        self._add(part, videos)

    def _parse(self, path, data):
        """Parses a list of videos, and collects its problems."""
        try:
            listed = json.loads(data.decode(), parse_constant=_no_number)
            for key, other in (
                ("format", "another version of acnn_tf"),
                ("model", "a model of other weights"),
                ("grid", "another grid of windows"),
            ):
                if listed[key] != self._about[key]:
                    raise IndexFileError(
                        f"{path} is of {other}: build the index again, in "
                        "another folder."
                    )
            # Which lists of earlier versions do not say.
            encoder = listed.get("encoder")
            if encoder is not None:
                encoder = descriptions.checked(encoder)
            dtype, self.shard = listed["dtype"], listed["shard"]
            if dtype not in _DTYPES:
                raise ValueError(f"`dtype` is {dtype!r:.40}")
            videos = list(_parse_videos(listed["videos"], len(self._parts)))
            names = {video.video_id for video in videos}
            if len(names) < len(videos) or not names.isdisjoint(self._known):
                raise ValueError("it holds a video twice, or one of another")
        except IndexFileError:
            raise
        except _MALFORMED as error:
            raise _damaged(path, str(error)) from None
        asked = self._asked_dtype or (self._parts and self.dtype)
        if asked and asked != dtype:
            raise IndexFileError(
                f"{path} holds {dtype}, not {asked}: ask for what it holds, or "
                "build another index in another folder."
            )
        if encoder and self.encoder:
            between = "the model or the rest of the index by"
            differs = encoders.difference(encoder, self.encoder, between)
            if differs:
                raise IndexFileError(
                    f"{path}: {differs}: build the index again, in another "
                    "folder."
                )
        self.dtype, self.encoder = dtype, self.encoder or encoder
        return videos


def _manifest(folder):
    """Returns the manifest of an index, an empty one for a new index."""
    problems = []
    try:
        # Before the manifest is looked for, which is the first file to come.
        names = os.listdir(folder)
    except FileNotFoundError:
        return Manifest(None, {})
    except NotADirectoryError:
        raise IndexFileError(
            f"{folder} is a file: choose the folder of an index, or one that "
            "is not there yet."
        ) from None
    manifest = read_manifest(folder, problems, _REMEDY)
    _refuse(problems)
    if manifest is None:
        if all(name == locks.NAME or ".partial" in name for name in names):
            return Manifest(None, {})
        if "index.json" in names:
            raise IndexFileError(
                f"{folder} was written by an earlier version of acnn_tf: build "
                "the index again, in another folder."
            )
        raise IndexFileError(
            f"{folder} holds no manifest.json: restore it, or choose the "
            "folder of an index, or one that is not there yet."
        )
    paths = itertools.chain(*(_paths("", n) for n in _numbers(manifest)))
    others = set(manifest.files).symmetric_difference(paths)
    if others:
        raise _damaged(manifest.path, f"names, or leaves out, {min(others)!a}")
    return manifest


def _numbers(manifest):
    """Returns the numbers of the files that a manifest names, sorted."""
    return _numbers_of(manifest.files)


def _numbers_of(names):
    names = map(_NAME.fullmatch, names)
    return sorted({int(name[1] or name[2]) for name in names if name})


def _paths(folder, number):
    return (
        os.path.join(folder, f"encodings-{number:05d}.npy"),
        os.path.join(folder, f"videos-{number:05d}.json"),
    )


def _refuse(problems):
    for problem in problems:
        raise IndexFileError(str(problem))


def _damaged(path, reason):
    return IndexFileError(f"{path} is damaged: {reason:.80}; {_REMEDY}")


def _no_number(name):
    raise ValueError(f"{name} is no number")


def _parse_videos(entries, part):
    first = 0
    for entry in entries:
        video_id, duration, num_windows = (entry[key] for key in _KEYS)
        video_id.encode()  # a ValueError for half a character
        # More rows than a file can have would be a mistake, or malice.
        if (
            type(duration) not in (int, float)
            or not 0 < duration < 1e12
            or type(num_windows) is not int
            or not 0 < num_windows < 2**48
        ):
            raise ValueError(f"{duration!r:.20} s, {num_windows!r:.20} windows")
        source = entry.get("source")
        if not isinstance(source, str | None):
            raise ValueError(f"a source is {source!r:.20}")
        yield IndexedVideo(video_id, duration, num_windows, part, first, source)
        first += num_windows
    if not first:
        raise ValueError("it holds no videos")


def _map_rows(path, dtype, rows):
    """Maps a file of encodings into memory, after a check of its header.

    Nothing in the file is interpreted: its size and header must be those of
    such an array.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size - _HEADER_SIZE
        width, rest = divmod(size, rows * dtype.itemsize)
        header = _header(dtype, (rows, width))
        if width < 1 or rest or file.read(len(header)) != header:
            raise _damaged(path, f"is no array of {rows:,} rows of {dtype}")
        return np.memmap(file, dtype, "r", len(header), (rows, width))


def _header(dtype, shape):
    """Returns the header of NumPy's format 1.0, which all versions read."""
    text = (
        f"{{'descr': {np.dtype(dtype).str!r}, 'fortran_order': False, "
        f"'shape': ({shape[0]}, {shape[1]}), }}"
    ).encode()
    text = text.ljust(_HEADER_SIZE - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def fingerprint(model: keras.Model) -> str:
    """A hash of the model's weights."""
    digest = hashlib.sha256()
    for weight in getattr(model, "weights", ()):
        array = keras.ops.convert_to_numpy(weight)
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
