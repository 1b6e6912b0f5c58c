"""The encodings of an index, in memory or in a folder.

A folder holds `index.json`, which lists the videos, and one `.npy` file of
encodings for each time that videos were added. The list is written last and
by renaming, so that a file which is not in it does not count. It has the
SHA-256 of each file and of itself, and a folder is opened only if all agree.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil

import keras
import numpy as np

from acnn_tf.search import index_list
from acnn_tf.search.index_list import IndexedVideo
from acnn_tf.search.index_rows import (
    MEND,
    IndexFileError,
    open_rows,
    write_rows,
)
from acnn_tf.search.shard_names import check_shard, shard_folders

_DTYPES = ("float32", "float16", "bfloat16")


class IndexFiles:
    """Reads and writes them.

    Args:
        path: Folder, of an index or of shards, or `None` for memory.
        model: The model of the index: its weights and grid are compared.
        dtype: One of `_DTYPES`, or `None`: what the folder has, or float32.
        shard: Dictionary: which part of a corpus a new folder will be, see
            `acnn_tf.search.shards`.
        verify: Bool: compare the SHA-256 of the encodings, which reads them.

    Attributes:
        videos: List of `IndexedVideo`.
        dtype: Name.
        path: Folder or `None`.
        shard: As above, or what the folder says.
    """

    def __init__(self, path, model, dtype=None, shard=None, verify=True):
        if dtype is not None and dtype not in _DTYPES:
            raise ValueError(
                f"`dtype` must be one of {_DTYPES}. Received: {dtype}"
            )
        self.path = None if path is None else os.fspath(path)
        self.videos = []
        self.dtype = dtype or "float32"
        self.shard = shard
        # Arrays, and `(rows, width, sha256)` of each, as listed.
        self._parts, self._listed = [], []
        # Videos of one length share their windows; a search asks for few.
        self._windows = functools.lru_cache(1024)(model.grid.windows)
        self._longest = max(model.grid.lengths) / (model.grid.frame_rate or 1)
        self._about = {
            "format": index_list.FORMAT,
            "model": fingerprint(model),
            "grid": dataclasses.asdict(model.grid),
        }
        # As it will come back.
        self._about = json.loads(json.dumps(self._about))
        self._read_only = None
        if self.path is not None and os.path.exists(self.path):
            self._open(dtype, verify)

    @property
    def num_windows(self):
        """Windows of all videos."""
        return sum(len(part) for part in self._parts)

    def chunks(self, size):
        """Whole videos, at least `size` windows at a time but for the last.

        Args:
            size: Int; a file ends a chunk too.

        Yields:
            `(encoding [N, t], starts [v])`: encodings of v videos, and the
            row of the first window of each.
        """
        chunk = []
        for place, video in enumerate(self.videos):
            chunk.append(video.first)
            last = place + 1 == len(self.videos)
            end = video.first + video.num_windows
            if (
                last
                or end - chunk[0] >= size
                or self.videos[place + 1].part != video.part
            ):
                starts = np.array(chunk) - chunk[0]
                yield self._rows(video.part, chunk[0], end), starts
                chunk = []

    def encoding(self, video):
        """float32 `[W, t]` of one `IndexedVideo`."""
        end = video.first + video.num_windows
        return np.asarray(self._rows(video.part, video.first, end), np.float32)

    def windows(self, video):
        """`float64 [W, 2]` of one `IndexedVideo`, in seconds."""
        # Windows cover their video, but for less than one of them: without
        # this, a wrong duration could ask for any number of windows.
        if video.duration <= (video.num_windows + 2) * self._longest:
            windows = self._windows(video.duration)
            if len(windows) == video.num_windows:
                return windows
        raise IndexFileError(
            f"{self.path} is damaged: {video.video_id!r:.40} of "
            f"{video.duration:g} s cannot have {video.num_windows:,} windows. "
            f"{MEND}"
        )

    def append(self, encoded, total):
        """Adds videos: all of them, or none.

        Args:
            encoded: Iterable of `EncodedVideo`.
            total: Int, windows of all of them.

        Raises:
            OSError: If the disk is full; the message says of what.
        """
        if self._read_only:
            raise ValueError(self._read_only)
        number, first, videos = len(self._parts), 0, []

        def rows():
            nonlocal first
            for video in encoded:
                count = len(video.windows)
                videos.append(
                    IndexedVideo(
                        video.video_id, video.duration, count, number, first
                    )
                )
                first += count
                yield self._stored(video.encoding)

        if self.path is None:
            self._parts.append(np.concatenate(list(rows())))
            self.videos += videos
            return
        is_new = not os.path.exists(self.path)
        os.makedirs(self.path, exist_ok=True)
        path = self._part_file(number)
        try:
            shape, digest = write_rows(path, rows(), total)
            listed = [*self._listed, (*shape, digest)]
            kept = open_rows(path, self._stored_dtype(), shape)
            self._write_list(listed, [*self.videos, *videos])
        except BaseException:
            # It is in no list.
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
            if is_new:
                os.rmdir(self.path)
            raise
        self._parts.append(kept)
        self._listed, self.videos = listed, self.videos + videos

    def save(self, path):
        """Writes an index that is in memory to a new folder, or nothing."""
        path = os.fspath(path)
        if self.path is not None:
            raise ValueError(f"The index is kept in {self.path} already.")
        if os.path.exists(path):
            raise FileExistsError(f"{path} is there already.")
        partial = f"{path}.partial"
        if os.path.exists(partial):
            raise FileExistsError(
                f"{partial} is there already, of a saving that was killed or "
                "goes on: remove it, or choose another folder."
            )
        try:
            os.makedirs(partial)
            self.path = partial
            listed = []
            for number, part in enumerate(self._parts):
                file = self._part_file(number)
                shape, digest = write_rows(file, [part], len(part))
                listed.append((*shape, digest))
            self._write_list(listed, self.videos)
            os.rename(partial, path)
        except BaseException:
            if self.path is not None:
                shutil.rmtree(partial)
            self.path = None
            raise
        self.path, self._listed = path, listed
        self._parts = self._opened(path, listed, verify=False)

    def _rows(self, part, first, end):
        rows = self._parts[part][first:end]
        return rows.view(_bfloat16()) if self.dtype == "bfloat16" else rows

    def _stored(self, encoding):
        """As it lies in the file: NumPy has no name for bfloat16."""
        if self.dtype == "bfloat16":
            return encoding.astype(_bfloat16()).view(np.uint16)
        with np.errstate(over="ignore"):
            stored = encoding.astype(self.dtype)
        if not np.isfinite(stored).all():
            raise ValueError(
                "An encoding is too large for float16. Keep the index in "
                "bfloat16 or float32."
            )
        return stored

    def _stored_dtype(self):
        return np.dtype("uint16" if self.dtype == "bfloat16" else self.dtype)

    def _part_file(self, number, folder=None):
        return os.path.join(folder or self.path, f"encodings-{number:05d}.npy")

    def _write_list(self, parts, videos):
        listed = {
            **self._about,
            "dtype": self.dtype,
            "shard": self.shard,
            "parts": parts,
            "videos": [dataclasses.astuple(video) for video in videos],
        }
        index_list.write_list(self.path, listed)

    def _open(self, dtype, verify):
        folders = shard_folders(self.path)
        if folders:
            self._open_shards(folders, dtype, verify)
            return
        try:
            listed = index_list.read_list(self.path, self._about)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.isdir(self.path) and not os.listdir(self.path):
                return
            raise IndexFileError(
                f"{self.path} holds no {index_list.NAME}: choose the "
                "folder of an index, or one that is not there yet."
            ) from None
        self._add(self.path, listed, dtype, verify)
        if self.shard is not None:
            self._read_only = (
                f"{self.path} is a shard of a corpus, to which nothing "
                "is added: encode a new corpus, or keep another index."
            )

    def _open_shards(self, folders, dtype, verify):
        self._read_only = (
            f"{self.path} is a corpus of {len(folders)} shards, to which "
            "nothing is added: encode a new one, or keep another index."
        )
        corpus, owners = None, {}
        for number, folder in enumerate(folders):
            try:
                listed = index_list.read_list(folder, self._about)
            except FileNotFoundError:
                raise IndexFileError(
                    f"{folder} holds no {index_list.NAME}: remove that "
                    "folder, and run experiments.encode_corpus once more."
                ) from None
            found = listed["shard"]
            corpus = corpus or (found or {}).get("corpus")
            check_shard(folder, found, number, len(folders), corpus)
            for video in listed["videos"]:
                owner = owners.setdefault(video.video_id, folder)
                if owner != folder:
                    raise IndexFileError(
                        f"{folder} holds video {video.video_id!r:.40}, which "
                        f"{owner} holds too: remove both, and run "
                        "experiments.encode_corpus once more."
                    )
            self._add(folder, listed, dtype or self._first_dtype(), verify)
        self.shard = None

    def _first_dtype(self):
        return self.dtype if self._parts else None

    def _add(self, folder, listed, dtype, verify):
        """Adds what the list of a folder says, if it is true."""
        path = os.path.join(folder, index_list.NAME)
        if listed["dtype"] not in _DTYPES:
            raise IndexFileError(
                f"{path} is damaged (`dtype` is {listed['dtype']!r:.40}). "
                f"{MEND}"
            )
        if dtype not in (None, listed["dtype"]):
            raise IndexFileError(
                f"{path} holds {listed['dtype']}, not {dtype}: ask for "
                "what it holds, or build another index in another folder."
            )
        self.dtype, self.shard = listed["dtype"], listed["shard"]
        before = len(self._parts)
        self._parts += self._opened(folder, listed["parts"], verify)
        self._listed += listed["parts"]
        if before:
            self.videos += [
                dataclasses.replace(video, part=before + video.part)
                for video in listed["videos"]
            ]
        else:
            self.videos = listed["videos"]

    def _opened(self, folder, parts, verify):
        return [
            open_rows(
                self._part_file(number, folder),
                self._stored_dtype(),
                (rows, width),
                digest if verify else None,
            )
            for number, (rows, width, digest) in enumerate(parts)
        ]


def _bfloat16():
    # Of TensorFlow's and JAX's own requirements.
    import ml_dtypes

    return ml_dtypes.bfloat16


def fingerprint(model):
    """A hash of the model's weights."""
    digest = hashlib.sha256()
    for weight in getattr(model, "weights", ()):
        array = keras.ops.convert_to_numpy(weight)
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
