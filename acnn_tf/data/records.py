"""The formats of annotation files: a file -> its records, as they stand.

Here a record only has to be of the right form; whether its times make sense is
seen in `annotations`. A record of the wrong form becomes a `Problem`, and the
rest of the file is read all the same.
"""

import collections
import dataclasses
import json
import os
import re

from acnn_tf.files.problems import Problem
from acnn_tf.files.text import is_number, json_items, normalize, text_lines

_DIDEMO_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class Record:
    """One sentence of an annotation file.

    Args:
        query: The sentence.
        video_id: The video.
        times: List of (start, end), in seconds, or in frames where the format
            counts in frames.
        duration: Of the video, in the same unit, if the file says.
        frame_rate: Frames per second, if the file says.
        slack: How far an end may lie past the video's end and be right.
        query_id: As in the file; else video, times and a counter.
        num_annotators: How many chose each of `times`, where known.
        line: Line of the file on which the record starts.
    """

    query: str
    video_id: str
    times: list
    duration: float | None = None
    frame_rate: float | None = None
    slack: float = 1e-6
    query_id: str | None = None
    num_annotators: tuple | None = None
    line: int = 0


def read_records(path, dataset, problems):
    """Reads the records of an annotation file.

    Args:
        path: File.
        dataset: One of `acnn_tf.data.annotations.DATASETS`.
        problems: List that takes a `Problem` for each malformed or repeated
            record.

    Returns:
        List of `Record`, in the order of the file.
    """
    path = os.fspath(path)
    if dataset == "tacos" and path.endswith(".json"):
        dataset = "tacos_json"
    items, parse = {
        "tacos": (_tacos_lines, _tacos_sample),
        "tacos_json": (_sentences, _tacos_sentence),
        "charades_sta": (text_lines, _charades_sta),
        "activitynet_captions": (_sentences, _activitynet_sentence),
        "didemo": (_didemo_items, _didemo),
        "jsonl": (text_lines, _jsonl),
        "synthetic": (text_lines, _jsonl),
    }[dataset]
    records, seen, counts = [], {}, collections.Counter()
    line = None
    for line, item in items(path):
        try:
            if isinstance(item, ValueError):
                raise item
            key, found = parse(item)
            if key in seen:
                raise ValueError(
                    f"duplicate of line {seen[key]}: {str(key)[:80]}; remove "
                    "one of the two"
                )
            queries = [_query(record.query) for record in found]
        except ValueError as error:
            problems.append(Problem(path, line, str(error)))
            continue
        if key is not None:
            seen[key] = line
        for record, query in zip(found, queries, strict=True):
            query_id = record.query_id
            if query_id is None:
                name = "_".join(map(str, (record.video_id, *record.times[0])))
                query_id = f"{name}_{counts[name]}"
                counts[name] += 1
            records.append(
                dataclasses.replace(
                    record, query=query, query_id=query_id, line=line
                )
            )
    if line is None:
        problems.append(Problem(path, 1, "the file holds no records"))
    return records


def _query(sentence):
    query = normalize(sentence).strip()
    if not query:
        raise ValueError(f"expected a sentence, found {sentence!a:.40}")
    return query


def video_name(video):
    """TACoS writes its video ids both with ".avi" and without."""
    return video.removesuffix(".avi")


def _tacos_lines(path):
    """The lines; all end in "#", so that one cut short can be told."""
    closed = None
    for line, text in text_lines(path):
        if isinstance(text, str):
            if closed and not text.endswith("#"):
                text = ValueError(
                    f"does not end in '#' as the lines before it do, but in "
                    f"{text[-30:]!r}; is the file cut short?"
                )
            else:
                closed = text.endswith("#")
        yield line, text


def _tacos_sample(text):
    """`VIDEO_START_END:sentence#sentence#...`, times in frames."""
    match = re.fullmatch(r"(.+?)_(-?\d{1,9})_(-?\d{1,9}):(.*)", text)
    sentences = [s.strip() for s in match[4].split("#")] if match else []
    if not any(sentences):
        raise ValueError(
            "expected `VIDEO_START_END:sentence#...`, times in frames; found "
            f"{text[:60]!r}"
        )
    video, times = video_name(match[1]), [(int(match[2]), int(match[3]))]
    return (video, *times), [Record(s, video, times) for s in sentences if s]


def _charades_sta(text):
    """`VIDEO START END##sentence`, times in seconds."""
    head, _, sentence = text.partition("##")
    try:
        video, start, end = head.split()
        times = [(float(start), float(end))]
        _check(times, sentence)
    except ValueError as error:
        raise ValueError(
            "expected `VIDEO START END##sentence`, times in seconds; found "
            f"{text[:60]!r} ({error})"
        ) from None
    sentence = sentence.strip()
    return (video, *times, sentence), [Record(sentence, video, times)]


def _sentences(path):
    """Sentence by sentence: `{video: {timestamps: [...], sentences: [...]}}`.

    An item is `(place, video, times, sentence, value)`; `place` is for
    messages, since such files tend to be a single line.
    """
    seen = set()
    for line, item in json_items(path, dict):
        if isinstance(item, ValueError):
            yield line, item
            continue
        video, value = item
        found = sorted(value) if isinstance(value, dict) else value
        times = sentences = None
        if isinstance(value, dict):
            times, sentences = value.get("timestamps"), value.get("sentences")
        if not (
            isinstance(times, list)
            and isinstance(sentences, list)
            and len(times) == len(sentences)
        ):
            error = (
                "expected lists `timestamps` and `sentences` of one length, "
                f"found {found!r:.60}"
            )
        elif video in seen:
            error = "is in the file twice; remove one of the two"
        else:
            seen.add(video)
            pairs = zip(times, sentences, strict=True)
            for number, pair in enumerate(pairs, start=1):
                place = f"video {video!r}, sentence {number}"
                yield line, (place, video, *pair, value)
            continue
        yield line, ValueError(f"video {video!r}: {error}")


def _activitynet_sentence(item):
    place, video, times, sentence, value = item
    _check([times], sentence, place)
    duration = _positive(value, "duration", place)
    sentence = sentence.strip()
    return (video, *times, sentence), [
        Record(sentence, video, [tuple(times)], duration)
    ]


def _tacos_sentence(item):
    place, video, times, sentence, value = item
    _check([times], sentence, place)
    if any(time != int(time) for time in times):
        raise ValueError(f"{place}: expected times in frames, found {times}")
    record = Record(
        sentence.strip(),
        video_name(video),
        [tuple(map(int, times))],
        int(_positive(value, "num_frames", place)),
        _positive(value, "fps", place),
    )
    # No key: several people may have said the same of one interval.
    return None, [record]


def _didemo_items(path):
    return json_items(path, list)


def _didemo(value):
    """One query; its times are first and last of the video's 5-s pieces."""
    keys = ("annotation_id", "video", "description", "times")
    query_id, video, sentence, times = _values(value, keys)
    place = f"annotation {query_id}"
    _check(times, sentence, place)
    num_segments = _positive(value, "num_segments", place)
    if any(piece != int(piece) for pair in times for piece in pair):
        raise ValueError(f"{place}: expected whole `times`, found {times}")
    # What most of the annotators chose comes first.
    chosen = collections.Counter(map(tuple, times)).most_common()
    times = [
        # An end before the start stays one.
        (first * _DIDEMO_SECONDS, (last + (last >= first)) * _DIDEMO_SECONDS)
        for (first, last), _ in chosen
    ]
    record = Record(
        sentence.strip(),
        str(video),
        times,
        num_segments * _DIDEMO_SECONDS,
        # The last piece is whatever the video has left.
        slack=_DIDEMO_SECONDS,
        query_id=str(query_id),
        num_annotators=tuple(count for _, count in chosen),
    )
    return record.query_id, [record]


def _jsonl(text):
    """One object a line, as moment-retrieval libraries share them."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}; found {text[:60]!r}") from None
    keys = ("qid", "vid", "query", "relevant_windows")
    query_id, video, sentence, times = _values(value, keys)
    place = f"query {query_id}"
    _check(times, sentence, place)
    duration = None
    if "duration" in value:
        duration = _positive(value, "duration", place)
    record = Record(
        sentence.strip(),
        str(video),
        [tuple(window) for window in times],
        duration,
        query_id=str(query_id),
    )
    return record.query_id, [record]


def _values(value, keys):
    if not isinstance(value, dict) or not set(keys) <= set(value):
        found = sorted(value) if isinstance(value, dict) else value
        raise ValueError(
            f"expected an object with {', '.join(keys)}; found {found!r:.80}"
        )
    return [value[key] for key in keys]


def _positive(value, key, place):
    number = value.get(key)
    if not is_number(number) or number <= 0:
        raise ValueError(
            f"{place}: `{key}` must be a number above 0, found {number!r:.40}"
        )
    return number


def _check(times, sentence, place=""):
    """Raises unless `times` are pairs of numbers and `sentence` is one."""
    place = place and f"{place}: "
    if not isinstance(sentence, str) or not sentence.strip():
        raise ValueError(f"{place}expected a sentence, found {sentence!r:.40}")
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
