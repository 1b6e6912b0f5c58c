"""`index.json`: which videos an index holds, and the digests of its files.

Its first key is a digest of all that follows, so that a list that lost or
changed a byte is told apart from a list of something else. What it says is
checked value by value nevertheless: nothing in it is a path or is run, and no
number in it makes a reader take more memory than the files have.
"""

import dataclasses
import hashlib
import json
import math
import os
import re

from acnn_tf.search.index_rows import (
    MEND,
    IndexFileError,
    NewFile,
    open_file,
)

NAME = "index.json"
FORMAT = 2
_HEAD = b'{"digest": "%s", '
_KEYS = ("format", "model", "grid", "dtype", "shard", "parts", "videos")


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


def write_list(folder, listed):
    """Writes the list, replacing another.

    Args:
        folder: Of the index.
        listed: Dictionary with the keys `_KEYS`. `"parts"` are
            `(rows, width, sha256)`, `"videos"` fields of `IndexedVideo`.
    """
    listed = {key: listed[key] for key in _KEYS}
    rest = json.dumps(listed).encode()[1:]
    head = _HEAD % hashlib.sha256(rest).hexdigest().encode()
    with NewFile(os.path.join(folder, NAME), len(head) + len(rest)) as file:
        file.write(head)
        file.write(rest)


def read_list(folder, about):
    """Reads the list of an index.

    Args:
        folder: Of the index.
        about: Dictionary of what it must say: `"format"`, `"model"`, `"grid"`.

    Returns:
        Dictionary as `write_list` takes it, all values of the right types;
        `"videos"` are `IndexedVideo`s that fill the parts without gaps.

    Raises:
        FileNotFoundError: If there is none.
        IndexFileError: If it is damaged, or about another model or grid.
    """
    path = os.path.join(folder, NAME)
    try:
        with open_file(path) as file:
            content = file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _damaged(path, f"it cannot be read: {error.strerror}") from None
    rest = content[len(_HEAD) + 62 :]
    head = _HEAD % hashlib.sha256(rest).hexdigest().encode()
    intact = content.startswith(head)
    try:
        listed = json.loads(content.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    _compare(path, listed, about, intact)
    if not intact:
        raise _damaged(path, "its digest is that of another content")
    try:
        del listed["digest"]
        _check(list(listed) == list(_KEYS), f"keys {list(listed)}")
        _check_shard(listed["shard"])
        listed["parts"] = [_part(part) for part in _list(listed["parts"])]
        listed["videos"] = [_video(video) for video in _list(listed["videos"])]
        _check_places(listed["parts"], listed["videos"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(path, str(error)) from None
    return listed


def _compare(path, listed, about, intact):
    """Another version's list is not damaged, nor is another model's."""
    why = {
        "format": "it was written by another version of acnn_tf",
        "model": "the encodings in it come from a model of other weights",
        "grid": "its windows are those of another grid",
    }
    for key, reason in why.items():
        found = listed.get(key) if isinstance(listed, dict) else None
        if found != about[key] and (intact or key == "format"):
            if not isinstance(found, type(about[key])):
                raise _damaged(path, f"`{key}` is {found!r:.40}")
            raise IndexFileError(
                f"{path} does not fit the model: {reason}. Build the index "
                "again, in another folder."
            )


def _no_number(name):
    raise ValueError(f"{name} is no number")


def _damaged(path, reason):
    return IndexFileError(f"{path} is damaged ({reason}). {MEND}")


def _check(condition, found):
    if not condition:
        raise ValueError(f"found {found!s:.80}")


def _list(value):
    _check(type(value) is list, value)
    return value


def _count(value, least=0):
    # More rows than a file can have would be a mistake, or malice.
    _check(type(value) is int and least <= value < 2**48, value)
    return value


def _digest(value):
    _check(type(value) is str and re.fullmatch("[0-9a-f]{64}", value), value)
    return value


def _part(value):
    rows, width, digest = _list(value)
    return _count(rows, 1), _count(width, 1), _digest(digest)


def _video(value):
    name, duration, num_windows, part, first = _list(value)
    _check(type(name) is str, name)
    name.encode()  # a ValueError for half a character
    _check(type(duration) in (int, float), duration)
    _check(0 < duration < 1e12 and math.isfinite(duration), duration)
    return IndexedVideo(
        name, duration, _count(num_windows, 1), _count(part), _count(first)
    )


def _check_shard(value):
    if value is not None:
        _check(type(value) is dict, value)
        _check(list(value) == ["number", "num_shards", "corpus"], list(value))
        num_shards = _count(value["num_shards"], 1)
        _check(_count(value["number"]) < num_shards, value)
        _digest(value["corpus"])


def _check_places(parts, videos):
    """Videos lie one after the other, part by part."""
    _check(len({width for _, width, _ in parts}) < 2, "parts of many widths")
    names = {video.video_id for video in videos}
    _check(len(names) == len(videos), "a video twice")
    part = first = 0
    for video in videos:
        if part < len(parts) and first == parts[part][0]:
            part, first = part + 1, 0
        _check((video.part, video.first) == (part, first), video)
        first += video.num_windows
        _check(part < len(parts) and first <= parts[part][0], video)
    full = not parts if not videos else first == parts[part][0]
    _check(full and part + bool(videos) == len(parts), "rows of no video")
