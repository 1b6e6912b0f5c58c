"""The encodings of an index, in memory or in a folder.

A folder holds `index.json`, which lists the videos, and one `.npy` file of
encodings for each time that videos were added. The list is written last and
by renaming, so that a file which is not in it does not count.
"""

import contextlib
import dataclasses
import hashlib
import json
import os

import keras
import numpy as np

_LIST = "index.json"
_FORMAT = 1
_DTYPES = ("float32", "float16", "bfloat16")


class IndexFileError(ValueError):
    """A folder that is no index, or not the one that is asked for."""


@dataclasses.dataclass(frozen=True)
class IndexedVideo:
    """Where the windows of a video are.

    Attributes:
        video_id: Its name.
        duration: Float, seconds.
        num_windows: Int.
        part: Int, the file of its encodings.
        first: Int, the row of its first window there.
    """

    video_id: str
    duration: float
    num_windows: int
    part: int
    first: int


class IndexFiles:
    """Reads and writes them.

    Args:
        path: Folder, or `None` for memory.
        model: The model of the index: its weights and grid are compared.
        dtype: One of `_DTYPES`, or `None`: what the folder has, or float32.

    Attributes:
        videos: List of `IndexedVideo`.
        dtype: Name.
        path: Folder or `None`.
    """

    def __init__(self, path, model, dtype=None):
        if dtype is not None and dtype not in _DTYPES:
            raise ValueError(
                f"`dtype` must be one of {_DTYPES}. Received: {dtype}"
            )
        self.path = None if path is None else os.fspath(path)
        self.videos = []
        self.dtype = dtype or "float32"
        self._parts = []
        self._about = {
            "format": _FORMAT,
            "model": _fingerprint(model),
            "grid": dataclasses.asdict(model.grid),
        }
        # As it will come back.
        self._about = json.loads(json.dumps(self._about))
        if self.path is not None and os.path.exists(self.path):
            self._open(dtype)

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

    def append(self, encoded, total):
        """Adds videos: all of them, or none.

        Args:
            encoded: Iterable of `EncodedVideo`.
            total: Int, windows of all of them.
        """
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
            kept = np.concatenate(list(rows()))
        else:
            os.makedirs(self.path, exist_ok=True)
            _write_rows(self._part_file(number), rows(), total)
            kept = np.load(
                self._part_file(number), mmap_mode="r", allow_pickle=False
            )
        parts, all_videos = [*self._parts, kept], [*self.videos, *videos]
        if self.path is not None:
            self._write_list(parts, all_videos)
        self._parts, self.videos = parts, all_videos

    def save(self, path):
        """Writes an index that is in memory to a new folder."""
        path = os.fspath(path)
        if self.path is not None:
            raise ValueError(f"The index is kept in {self.path} already.")
        if os.path.exists(path):
            raise FileExistsError(f"{path} is there already.")
        os.makedirs(path)
        self.path = path
        for number, part in enumerate(self._parts):
            _write_rows(self._part_file(number), [part], len(part))
        self._write_list(self._parts, self.videos)
        self._parts = [
            np.load(self._part_file(number), mmap_mode="r", allow_pickle=False)
            for number in range(len(self._parts))
        ]

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

    def _part_file(self, number):
        return os.path.join(self.path, _part_name(number))

    def _write_list(self, parts, videos):
        listed = {
            **self._about,
            "dtype": self.dtype,
            "parts": [list(part.shape) for part in parts],
            "videos": [dataclasses.astuple(video) for video in videos],
        }
        with _renamed(os.path.join(self.path, _LIST)) as file:
            file.write(json.dumps(listed).encode())

    def _open(self, dtype):
        path = os.path.join(self.path, _LIST)
        try:
            with open(path, encoding="utf-8") as file:
                listed = json.load(file)
        except FileNotFoundError:
            if os.listdir(self.path):
                raise IndexFileError(
                    f"{self.path} holds no {_LIST}: choose the folder of an "
                    "index, or one that is not there yet."
                ) from None
            return
        except ValueError as error:
            raise IndexFileError(
                f"{path} is damaged ({error}): build the index again."
            ) from None
        self._compare(path, listed, dtype)
        try:
            shapes = [tuple(shape) for shape in listed["parts"]]
            videos = [IndexedVideo(*video) for video in listed["videos"]]
            for video in videos:
                end = video.first + video.num_windows
                if not 0 <= video.first < end <= shapes[video.part][0]:
                    raise ValueError(f"{video} lies outside its file")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise IndexFileError(
                f"{path} is damaged ({error!r}): build the index again."
            ) from None
        self._parts = [
            self._load_part(number, shape)
            for number, shape in enumerate(shapes)
        ]
        self.videos = videos

    def _compare(self, path, listed, dtype):
        why = {
            "format": "it was written by another version of acnn_tf",
            "model": "the encodings in it come from a model of other weights",
            "grid": "its windows are those of another grid",
        }
        for key, reason in why.items():
            if (
                not isinstance(listed, dict)
                or listed.get(key) != (self._about[key])
            ):
                raise IndexFileError(
                    f"{path} does not fit the model: {reason}. Build the "
                    "index again, in another folder."
                )
        if dtype not in (None, listed.get("dtype")):
            raise IndexFileError(
                f"{path} holds {listed.get('dtype')}, not {dtype}."
            )
        self.dtype = listed.get("dtype")
        if self.dtype not in _DTYPES:
            raise IndexFileError(
                f"{path} is damaged (`dtype` is {self.dtype!r}): build the "
                "index again."
            )

    def _load_part(self, number, shape):
        file = self._part_file(number)
        try:
            part = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise IndexFileError(
                f"{file} is damaged or missing ({error}): build the index "
                "again."
            ) from None
        if part.shape != shape or part.dtype != self._stored_dtype():
            raise IndexFileError(
                f"{file} holds {part.dtype} {part.shape}, but {_LIST} says "
                f"{self._stored_dtype()} {shape}: build the index again."
            )
        return part


@contextlib.contextmanager
def _renamed(path):
    """A file to write, which takes its name when it is complete."""
    partial = path + ".partial"
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def _write_rows(path, blocks, total):
    """An `.npy` file of `total` rows, of which one block is in memory."""
    with _renamed(path) as file:
        for number, block in enumerate(blocks):
            if number == 0:
                header = {
                    "descr": np.lib.format.dtype_to_descr(block.dtype),
                    "fortran_order": False,
                    "shape": (total, block.shape[1]),
                }
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(block).tobytes())


def _part_name(number):
    return f"encodings-{number:05d}.npy"


def _bfloat16():
    # Of TensorFlow's and JAX's own requirements.
    import ml_dtypes

    return ml_dtypes.bfloat16


def _fingerprint(model):
    """A hash of the model's weights."""
    digest = hashlib.sha256()
    for weight in getattr(model, "weights", ()):
        array = keras.ops.convert_to_numpy(weight)
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
