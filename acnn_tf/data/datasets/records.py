"""What a dataset's file defines, and what its entries are parsed into.

Parsing only looks at the form of an entry. Whether its times make sense is seen
in `acnn_tf.data.annotations`, once for all datasets.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence

from acnn_tf.files.text import is_number, json_items

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset: how to read its annotations, and what its files are called.

    Args:
        entries: Function from the path of an annotation file to `(line, entry)`
            for each of its entries, where an entry that cannot be read is a
            `ValueError`. Most are in `acnn_tf.files.text`.
        parse: Function from an entry to `(key, records)`: a list of `Record`,
            and what no other entry of the file may have, or `None`. Raises a
            `ValueError` that says what was expected and what was found.
        file_names: Function from a split to the usual names of its annotation
            file: list, of which the first that is there is used.
        frame_rate: Frames per second, if times are counted in frames. The
            lengths of the videos are then read from a file of their numbers
            of frames, otherwise from one of their durations.
        video_id: Function from the name of a video, in such a file, to its id
            in the annotations.
    """

    entries: Callable
    parse: Callable
    file_names: Callable
    frame_rate: float | None = None
    video_id: Callable = str


@dataclasses.dataclass(frozen=True)
class Record:
    """One sentence of an annotation file.

    Args:
        query: The sentence.
        video_id: The video.
        times: List of (start, end), in seconds, or in frames if the dataset
            has a frame rate; empty where they are hidden.
        duration: Of the video, in the same unit, if the file says.
        frame_rate: Frames per second, if the file says.
        piece: Seconds of the pieces in which times and duration are counted,
            if they are. A video's last piece may be shorter, so `duration` is
            then the longest that it can be.
        query_id: As in the file. Default: made of video, times and a counter.
        num_annotators: How many annotators chose each of `times`, if several
            were asked.
        saliency: See `Moment`.
    """

    query: str
    video_id: str
    times: list
    duration: float | None = None
    frame_rate: float | None = None
    piece: float = 0.0
    query_id: str | int | None = None
    num_annotators: tuple | None = None
    saliency: tuple | None = None


def sentences_by_video(path: str) -> Iterator[tuple]:
    """Reads JSON of `{video: {timestamps: [...], sentences: [...], ...}}`.

    Yields `(line, (place, video, times, sentence, value))` for each sentence:
    `value` is the video's whole object, and `place` names the sentence, since
    such files tend to be a single line.
    """
    seen = set()
    for line, item in json_items(path, dict):
        if isinstance(item, ValueError):
            yield line, item
            continue
        video, value = item
        try:
            id_of(video, "name")
            times, sentences = values_of(value, ("timestamps", "sentences"))
            if not (
                isinstance(times, list)
                and isinstance(sentences, list)
                and len(times) == len(sentences)
            ):
                raise ValueError(
                    "expected lists `timestamps` and `sentences` of one "
                    f"length, found {times!r:.30} and {sentences!r:.30}"
                )
            if video in seen:
                raise ValueError("is in the file twice; remove one of the two")
        except ValueError as error:
            yield line, ValueError(f"video {video!r}: {error}")
            continue
        seen.add(video)
        pairs = zip(times, sentences, strict=True)
        for number, pair in enumerate(pairs, start=1):
            yield (
                line,
                (f"video {video!r}, sentence {number}", video, *pair, value),
            )


def values_of(entry: object, keys: Sequence[str]) -> list:
    """The values of an object's keys, all of which it must have: a list."""
    if not isinstance(entry, dict) or not set(keys) <= set(entry):
        found = sorted(entry) if isinstance(entry, dict) else entry
        raise ValueError(
            f"expected an object with {', '.join(keys)}; found {found!r:.80}"
        )
    return [entry[key] for key in keys]


def id_of(value: object, key: str, place: str = "") -> str | int:
    """The id of a query or a video, which is text or a whole number.

    It stays what it is: public evaluators tell `7` and `"7"` apart.
    """
    is_text = isinstance(value, str) and value.strip()
    if is_text and re.search("[\ud800-\udfff]", value):
        is_text = False
    if not is_text and type(value) is not int:
        place = place and f"{place}: "
        raise ValueError(
            f"{place}`{key}` must be text or a whole number, found "
            f"{value!a:.40}"
        )
    return value


def positive(entry: dict, key: str, place: str) -> float:
    """The number above 0 that an object has under a key."""
    number = entry.get(key)
    if not is_number(number) or number <= 0:
        raise ValueError(
            f"{place}: `{key}` must be a number above 0, found {number!r:.40}"
        )
    return number


def check_moment(times: object, sentence: object, place: str = "") -> None:
    """Raises unless `times` are pairs of numbers and `sentence` is text."""
    check_sentence(sentence, place)
    place = place and f"{place}: "
    if (
        not isinstance(times, list)
        or not times
        or not all(
            isinstance(pair, (list, tuple))
            and len(pair) == 2
            and all(map(is_number, pair))
            for pair in times
        )
    ):
        raise ValueError(
            f"{place}expected times [start, end] in finite numbers, found "
            f"{times!r:.60}"
        )


def check_sentence(sentence: object, place: str = "") -> None:
    """Raises unless `sentence` is text."""
    if not isinstance(sentence, str) or not sentence.strip():
        place = place and f"{place}: "
        raise ValueError(f"{place}expected a sentence, found {sentence!r:.40}")
