"""A corpus in shards: folders of an index each, encoded one by one.

Which video goes where follows from the durations alone, so that any number of
processes, on one machine or many, can encode the shards in any order, and a
run that was killed goes on with what is missing. Each index says which `shard`
it is: a dictionary of its `number`, of how many (`num_shards`), and a digest
of the `corpus`, all its videos with their durations.

The features themselves are not compared: where they changed, encode into
another folder.
"""

import hashlib
import heapq
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from acnn_tf.data.windows import WindowGrid
from acnn_tf.files.atomic import replacing
from acnn_tf.search.index_files import IndexFileError, IndexFiles

_NAME = re.compile(r"shard-(\d{5,})-of-(\d{5,})(\..+\.partial)?")


def assign_videos(
    durations: Mapping[str, float], num_shards: int, grid: WindowGrid
) -> list[dict[str, float]]:
    """Divides videos among shards of about as many windows.

    The video with the most windows that is left goes to the shard with the
    fewest, so that shards differ by one video's windows at most.

    Args:
        durations: Seconds of each video, by video id.
        num_shards: How many shards, at most as many as there are videos.
        grid: `WindowGrid` of the model, which says how many windows a video
            has.

    Returns:
        List of a dictionary from video id to seconds for each shard; the same
        for the same durations, in whatever order.

    Example:

    >>> from acnn_tf.search.shards import assign_videos
    >>> from acnn_tf.data.windows import WindowGrid
    >>> durations = {"a": 9.0, "b": 30.0, "c": 20.0}
    >>> assign_videos(durations, 2, WindowGrid((2.0,), overlap=0.5))
    [{'b': 30.0}, {'a': 9.0, 'c': 20.0}]
    """
    if not 1 <= num_shards <= len(durations):
        raise ValueError(
            "`num_shards` must be from 1 to the number of videos, "
            f"{len(durations)}. Received: {num_shards}"
        )
    counts = {v: len(grid.windows(seconds)) for v, seconds in durations.items()}
    shards = [[] for _ in range(num_shards)]
    loads = [(0, number) for number in range(num_shards)]
    for video in sorted(durations, key=lambda v: (-counts[v], v)):
        load, number = heapq.heappop(loads)
        shards[number].append(video)
        heapq.heappush(loads, (load + counts[video], number))
    return [
        {video: durations[video] for video in sorted(shard)} for shard in shards
    ]


def describe_shards(shards: Sequence[Mapping[str, float]]) -> list[dict]:
    """Describes the shards, for the index of each one.

    Args:
        shards: From `assign_videos`.

    Returns:
        For each shard a dictionary: its number, how many shards there are, and
        a digest of all videos and durations, which tells the shards of one
        corpus from those of another.

    Example:

    >>> import acnn_tf
    >>> shards = [{"v2": 30.0}, {"v1": 9.0, "v3": 20.0}]
    >>> first, second = acnn_tf.search.describe_shards(shards)
    >>> second["number"], second["num_shards"]
    (1, 2)
    """
    text = json.dumps([sorted(shard.items()) for shard in shards])
    corpus = hashlib.sha256(text.encode()).hexdigest()
    return number_shards(len(shards), corpus)


def number_shards(num_shards: int, corpus: str) -> list[dict]:
    """Describes shards by number, given a digest of their content."""
    return [
        {"number": number, "num_shards": num_shards, "corpus": corpus}
        for number in range(num_shards)
    ]


def shard_name(number: int, num_shards: int) -> str:
    """Name of one of the folders: `shard-00003-of-00016`."""
    return f"shard-{number:05d}-of-{num_shards:05d}"


def find_shards(
    path: str | os.PathLike, num_shards: int | None = None
) -> tuple[int | None, set[int]]:
    """Finds the complete shards of a corpus by the names of their folders.

    Args:
        path: Folder of the corpus.
        num_shards: How many shards the corpus should have. Default: any.

    Returns:
        `(num_shards, numbers)`: how many shards the corpus has, `None` if the
        folder has no shard; and the numbers of those that are complete.

    Raises:
        IndexFileError: If there are shards of another number than
            `num_shards`, or of several divisions.
    """
    numbers = set()
    for name in sorted(os.listdir(path)) if os.path.isdir(path) else ():
        match = _NAME.fullmatch(name)
        if not match:
            continue
        found = int(match[2])
        if num_shards not in (None, found):
            raise IndexFileError(
                f"{path} holds {name}, but expected were shards of "
                f"{num_shards} in all: remove what does not belong there, "
                f"choose another folder, or ask for --num_shards={found}."
            )
        num_shards = found
        if not match[3]:  # which was never completed
            numbers.add(int(match[1]))
    return num_shards, numbers


def _check_shard(folder, found, expected):
    """Checks that a folder is the shard that its name promises."""
    if found != expected:
        raise IndexFileError(
            f"{folder} says it is {_in_words(found)}, but it should be "
            f"{_in_words(expected)}: remove that folder and run "
            "experiments.encode_corpus once more, or, for another corpus "
            "(other videos, or other durations of them), choose another "
            "folder."
        )


def _in_words(shard):
    if not isinstance(shard, dict):
        return "no shard at all"
    number, num_shards, corpus = (
        f"{shard.get(key)!s:.12}" for key in ("number", "num_shards", "corpus")
    )
    return f"shard {number} of {num_shards} of the corpus {corpus}..."


def open_index(
    path: str | os.PathLike, model: keras.Model, dtype: str | None = None
) -> IndexFiles:
    """The `IndexFiles` of an index, or of all shards of a corpus, read-only."""
    num_shards, numbers = (None, ()) if path is None else find_shards(path)
    if num_shards is None:
        return IndexFiles(path, model, dtype)
    if len(numbers) < num_shards:
        # Of a name such as shard-00001-of-99999999999 nobody wants the others.
        missing = (n for n in range(num_shards) if n not in numbers)
        names = [
            shard_name(n, num_shards) for n in itertools.islice(missing, 6)
        ]
        names[5:] = ["..."] * (len(names) > 5)
        raise IndexFileError(
            f"{path} is not complete: {num_shards - len(numbers)} of "
            f"{num_shards} shards are missing ({', '.join(names)}). "
            "The command that made the others makes them: python -m "
            f"experiments.encode_corpus --out={path} --num_shards={num_shards}"
            ", with the same --workdir and --features."
        )
    files, corpus = IndexFiles(None, model, dtype), None
    for number in range(num_shards):
        folder = os.path.join(path, shard_name(number, num_shards))
        shard = files.add_folder(folder)
        if corpus is None and isinstance(shard, dict):
            corpus = shard.get("corpus")
        expected = {"number": number, "num_shards": num_shards}
        _check_shard(folder, shard, expected | {"corpus": corpus})
    names = files.contents.video_ids
    if len(set(names)) < len(names):
        raise IndexFileError(
            f"{path} holds a video in two shards: encode it again, in another "
            "folder."
        )
    files.path = os.fspath(path)
    files.read_only = (
        f"{path} is a corpus of {num_shards} shards, to which nothing is "
        "added: encode a new one, or keep another index."
    )
    return files


def done_shards(
    path: str | os.PathLike,
    model: keras.Model,
    shards: Sequence[Mapping[str, float]],
    dtype: str | None = None,
    encoder: Mapping | None = None,
) -> set[int]:
    """Lists the shards that a folder holds already.

    Their lists and the sizes of their files are compared; their bytes are as
    the corpus is opened.

    Args:
        path: Folder of the corpus. It need not exist yet.
        model: See `acnn_tf.search`.
        shards: From `assign_videos`.
        dtype: See `MomentIndex`.
        encoder: What made the features of those that are still to come, a
            dictionary, see `acnn_tf.encoders.descriptions`.

    Returns:
        Set of numbers.

    Raises:
        IndexFileError: If one of them is of another model, grid or `dtype`, of
            other videos or another division, or damaged.

    See `encode_shard` for an example.
    """
    _, numbers = find_shards(path, len(shards))
    files = IndexFiles(None, model, dtype or "float32")
    files.encoder = files.encoder or encoder
    for number, about in enumerate(describe_shards(shards)):
        if number in numbers:
            folder = os.path.join(path, shard_name(number, len(shards)))
            found = files.add_folder(folder, verify=False)
            _check_shard(folder, found, about)
    return numbers


def encode_shard(
    model: keras.Model,
    features: Mapping[str, np.ndarray],
    durations: Mapping[str, float],
    shard: Mapping,
    path: str | os.PathLike,
    dtype: str | None = None,
) -> None:
    """Encodes one shard; its folder takes its name once it is complete.

    A shard that exists is not encoded again. If several processes encode the
    same shard, the one that is complete first stays.

    Args:
        model: See `acnn_tf.search`.
        features: Mapping from video id to `[T, D]` clip features.
        durations: Dictionary from video id to seconds: one of those that
            `assign_videos` returns.
        shard: What `describe_shards` returns for it.
        path: Folder of the corpus, on a disk that all processes share.
        dtype: See `MomentIndex`.

    Example:

    >>> import acnn_tf, tempfile
    >>> import numpy as np
    >>> from acnn_tf.search import describe_shards, done_shards, encode_shard
    >>> model = acnn_tf.models.ZeroShot((4.0,), window_overlap=0.5)
    >>> shards = [{"v1": 8.0}, {"v2": 9.0}]
    >>> descriptions = describe_shards(shards)
    >>> features = {"v1": np.eye(8, 3), "v2": np.eye(9, 3)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     encode_shard(model, features, shards[1], descriptions[1], folder)
    ...     done_shards(folder, model, shards)
    {1}
    """
    os.makedirs(path, exist_ok=True)
    name = shard_name(shard["number"], shard["num_shards"])
    folder = os.path.join(path, name)
    if os.path.isdir(folder):
        return
    try:
        with replacing(folder) as partial:
            IndexFiles(partial, model, dtype, shard).encode(features, durations)
    except OSError:
        if not os.path.isdir(folder):
            raise
