"""Annotation files -> `Moment` records, in seconds.

| dataset | file |
|---|---|
| `tacos` | lines `VIDEO_START_END:sentence#sentence#`, in frames; or `.json` |
| `charades_sta` | lines `VIDEO START END##sentence` |
| `activitynet_captions` | `{video: {duration, timestamps, sentences}}` |
| `didemo` | list of objects; times in pieces of 5 s, one per annotator |
| `jsonl`, `synthetic` | a line each: `{qid, query, vid, duration, |
|   | relevant_windows: [[start, end], ...]}` |
"""

import dataclasses
import json
import os

from acnn_tf.data.known_files import known_files
from acnn_tf.data.records import read_records, video_name
from acnn_tf.files.manifests import check_file, replacing_with_manifest
from acnn_tf.files.problems import DataError, Problem
from acnn_tf.files.text import is_number, read_numbers

__all__ = [
    "DATASETS",
    "DataError",
    "Moment",
    "Problem",
    "known_files",
    "read_moments",
    "write_jsonl",
]

DATASETS = (
    "tacos",
    "charades_sta",
    "activitynet_captions",
    "didemo",
    "jsonl",
    "synthetic",
)

# An end past the video's end is mostly a matter of decoding. But a moment so
# much longer than its video belongs to another video, or another unit.
_LONGER = 1.1


@dataclasses.dataclass(frozen=True)
class Moment:
    """A sentence and where in its video it is true.

    Args:
        query_id: Id of the query, one of its kind in its file.
        query: The sentence.
        video_id: Id of the video.
        duration: Of the video, seconds.
        segments: Tuple of (start, end), seconds: the moment, or several that
            answer the query equally well. Within `[0, duration]`.
        frames: The same in frames, where the annotation counts in frames.
        source: `"path:line"` of the annotation.
        num_annotators: How many annotators chose each of `segments`, where
            several were asked (DiDeMo).
    """

    query_id: str
    query: str
    video_id: str
    duration: float
    segments: tuple[tuple[float, float], ...]
    frames: tuple[tuple[int, int], ...] | None = None
    source: str = ""
    num_annotators: tuple[int, ...] | None = None


def read_moments(
    path,
    dataset,
    *,
    durations=None,
    num_frames=None,
    frame_rate=29.4,
    problems=None,
):
    """Reads the moments of an annotation file.

    A moment that ends after its video is cut at the video's end and kept. One
    that ends before it starts, starts after the video's end, or is longer
    than its video by more than a tenth is dropped, as are records that are
    malformed, repeated, or of a video whose duration is not known. A file that
    is not as its manifest says (see `acnn_tf.files.manifests`) is not read.

    Args:
        path: Annotation file; see the top of this module.
        dataset: One of `DATASETS`.
        durations: Seconds of each video: a mapping, a JSON file of one, or a
            CSV file with the columns `id` and `length`. Needed where the
            annotations do not say. For DiDeMo, the end of the last piece;
            what comes after it was not shown to its annotators.
        num_frames: Likewise, frames of each video, for TACoS.
        frame_rate: Frames per second of TACoS, unless its file says.
        problems: List that takes every `Problem`, in which case none is
            raised.

    Returns:
        List of `Moment`, in the order of the file.

    Raises:
        DataError: Lists every record that would have been dropped.
        FileNotFoundError: If a file is not there.
        ValueError: If durations are needed and not given.

    Example:

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    ...     _ = file.write("3MSZA 24.3 30.4##person turn a light on.")
    ...     file.flush()
    ...     durations = {"3MSZA": 30.0}
    ...     moments = read_moments(
    ...         file.name, "charades_sta", durations=durations
    ...     )
    >>> moments[0].query, moments[0].segments
    ('person turn a light on.', ((24.3, 30.0),))
    """
    path = os.fspath(path)
    if dataset not in DATASETS:
        raise ValueError(
            f"`dataset` must be one of {DATASETS}. Received: {dataset}"
        )
    in_frames = dataset == "tacos"
    given, name = (
        (num_frames, "num_frames") if in_frames else (durations, "durations")
    )
    if given is None and (
        dataset == "charades_sta" or (in_frames and not path.endswith(".json"))
    ):
        raise ValueError(
            f"`{name}` must be given: {path} does not say how long its videos "
            "are. A JSON file that maps each video to a number will do."
        )
    found = []
    lengths, lengths_name = _video_lengths(given, f"`{name}`", found)
    if in_frames:
        lengths = {video_name(video): lengths[video] for video in lengths}
    moments, durations_seen = [], {}
    damage = check_file(path)
    found += damage
    # Without lengths every record would be a problem, and none of them new.
    if not damage and (lengths or not found):
        for record in read_records(path, dataset, found):
            moment = _moment(
                record,
                path,
                lengths,
                lengths_name,
                in_frames,
                frame_rate,
                found,
            )
            if moment is None:
                continue
            first = durations_seen.setdefault(moment.video_id, moment.duration)
            if abs(first - moment.duration) > 0.01:
                message = (
                    f"query {moment.query_id!r}: video {moment.video_id!r} "
                    f"lasts {moment.duration:g} s here, but {first:g} s before"
                )
                found.append(Problem(path, record.line, message))
                continue
            moments.append(moment)
    if problems is not None:
        problems.extend(found)
    elif any(problem.dropped for problem in found):
        raise DataError([problem for problem in found if problem.dropped])
    return moments


def _video_lengths(given, name, problems):
    """`({video: length}, what to call its source)`."""
    if given is None:
        return {}, "the annotations"
    if isinstance(given, (str, os.PathLike)):
        name = os.fspath(given)
        given = read_numbers(given, problems)
    return dict(given), name


def _moment(
    record, path, lengths, lengths_name, in_frames, frame_rate, problems
):
    """The `Moment` of a record, or `None`; what is wrong goes to `problems`."""
    unit = "frames" if in_frames else "s"

    def problem(message, dropped=True):
        message = f"query {record.query_id!r}: {message}"
        problems.append(Problem(path, record.line, message, dropped))

    # DiDeMo only counts pieces; a duration that is given is nearer the truth.
    length = record.duration
    if length is None or (record.slack >= 1 and record.video_id in lengths):
        length = lengths.get(record.video_id)
    if length is None:
        return problem(
            f"video {record.video_id!r} has no duration: it is not in "
            f"{lengths_name}; add it, or remove the record"
        )
    if not is_number(length) or length <= 0:
        return problem(
            f"the duration of video {record.video_id!r} must be a number above "
            f"0, found {length!r:.40}"
        )
    if record.duration is not None:
        length = min(length, record.duration)
    times = []
    for start, end in record.times:
        what = f"moment {start:g} to {end:g} {unit}"
        video = f"video {record.video_id!r} of {length:g} {unit}"
        if start < 0:
            return problem(f"{what} starts before its video does")
        if end <= start:
            return problem(
                f"{what} "
                + ("has no length" if end == start else "ends before it starts")
            )
        if start >= length:
            return problem(f"{what} starts after the end of its {video}")
        if end - start > length * _LONGER + record.slack:
            return problem(f"{what} is longer than its {video}")
        if end > length + record.slack:
            problem(f"{what} was cut: it ends after its {video}", False)
        times.append((start, min(end, length)))
    return _in_seconds(record, path, times, length, in_frames, frame_rate)


def _in_seconds(record, path, times, length, in_frames, frame_rate):
    rate = (record.frame_rate or frame_rate) if in_frames else 1.0
    return Moment(
        record.query_id,
        record.query,
        record.video_id,
        length / rate,
        tuple((start / rate, end / rate) for start, end in times),
        tuple(times) if in_frames else None,
        f"{path}:{record.line}",
        record.num_annotators,
    )


def write_jsonl(moments, path):
    """Writes moments in the `jsonl` format.

    Args:
        moments: Iterable of `Moment`. Their frames and annotators are not
            kept.
        path: File to write; it appears only once it is complete, and a
            manifest beside it.

    Raises:
        WriteError: If it could not be written; the old file stays.
    """
    moments = list(moments)
    with replacing_with_manifest(path, len(moments)) as partial:
        with open(partial, "w", encoding="utf-8") as file:
            for moment in moments:
                file.write(_to_json(moment) + "\n")


def _to_json(moment):
    record = {
        "qid": moment.query_id,
        "query": moment.query,
        "vid": moment.video_id,
        "duration": moment.duration,
        "relevant_windows": [list(pair) for pair in moment.segments],
    }
    return json.dumps(record, ensure_ascii=False)
