"""A corpus in shards: folders of an index each, encoded one by one.

Which video goes where follows from the durations alone, so that any number of
processes, on one machine or many, can encode the shards in any order, and a
run that was killed goes on with what is missing. Each `index.json` names its
`shard`: a dictionary of its `number`, of how many (`num_shards`), and a digest
of the `corpus`, all its videos with their durations.

The features themselves are not compared: where they changed, encode into
another folder.
"""

import contextlib
import hashlib
import heapq
import json
import os
import shutil
import uuid

from acnn_tf.search.index_files import IndexFiles
from acnn_tf.search.moment_index import MomentIndex
from acnn_tf.search.shard_names import check_shard, find_shards, shard_name


def assign_videos(durations, num_shards, grid):
    """Divides videos among shards of about as many windows.

    The video with the most windows that is left goes to the shard with the
    fewest, so that shards differ by one video's windows at most.

    Args:
        durations: Dictionary from video id to seconds.
        num_shards: Int, at most as many as there are videos.
        grid: `WindowGrid`.

    Returns:
        List of a dictionary from video id to seconds for each shard; the same
        for the same durations, in whatever order.

    Example:

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


def describe_shards(shards):
    """What each shard's `index.json` says of it.

    Args:
        shards: From `assign_videos`.

    Returns:
        List of dictionaries.
    """
    text = json.dumps([sorted(shard.items()) for shard in shards])
    corpus = hashlib.sha256(text.encode()).hexdigest()
    return [
        {"number": number, "num_shards": len(shards), "corpus": corpus}
        for number in range(len(shards))
    ]


def done_shards(path, model, shards, dtype=None):
    """Which shards a folder holds already.

    Their lists and the sizes of their files are compared; their bytes are as
    the corpus is opened.

    Args:
        path: Folder of the corpus; need not be there.
        model: See `acnn_tf.search`.
        shards: From `assign_videos`.
        dtype: See `MomentIndex`.

    Returns:
        Set of numbers.

    Raises:
        IndexFileError: If one of them is of another model, grid, `dtype`,
            other videos or another division, or damaged.
    """
    _, numbers, _ = find_shards(path, len(shards))
    for number, about in enumerate(describe_shards(shards)):
        if number in numbers:
            folder = os.path.join(path, shard_name(number, len(shards)))
            files = IndexFiles(folder, model, dtype or "float32", verify=False)
            check_shard(folder, files.shard, **about)
    return numbers


def encode_shard(model, features, durations, shard, path, dtype=None):
    """Encodes one shard; its folder takes its name once it is complete.

    Where several processes encode the same shard, the first one's stays. What
    one that was killed leaves, `shard-*.partial`, counts for nothing.

    Args:
        model: See `acnn_tf.search`.
        features: Mapping from video id to `[T, D]` clip features.
        durations: Dictionary from video id to seconds: one of those that
            `assign_videos` returns.
        shard: What `describe_shards` returns for it.
        path: Folder of the corpus, on a disk that all processes share.
        dtype: See `MomentIndex`.

    Returns:
        Int, windows of the shard.
    """
    name = shard_name(shard["number"], shard["num_shards"])
    folder = os.path.join(path, name)
    partial = f"{folder}.{uuid.uuid4().hex}.partial"
    os.makedirs(path, exist_ok=True)
    try:
        index = MomentIndex(model, partial, dtype=dtype, shard=shard)
        index.append(features, durations)
        try:
            os.rename(partial, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(partial)
    return index.num_windows
