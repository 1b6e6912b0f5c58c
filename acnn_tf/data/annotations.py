"""Annotation files -> `Moment`s, in seconds.

How the files of each dataset look is said in `acnn_tf.data.datasets`, a file
for each.
"""

import collections
import dataclasses
import math
import os

from acnn_tf.data.datasets import DATASETS, jsonl
from acnn_tf.data.datasets.records import SPLITS
from acnn_tf.data.durations import videos_path
from acnn_tf.files.manifests import check_file, replacing_with_manifest
from acnn_tf.files.problems import DataError, Problem
from acnn_tf.files.text import is_number, normalize, read_numbers

# Usual names of files that any dataset may have.
_FEATURES = (
    "clip_vitb32_1fps_{split}.hdf5",
    "features_{split}.hdf5",
    "features_{split}.h5",
    "features_{split}.tfrecord",
    "features_{split}",
    "features.hdf5",
    "features.h5",
    "features.tfrecord",
    "features",
)
_DURATIONS = (
    "durations_{split}.json",
    "durations.json",
    "Charades_v1_{split}.csv",
)
_NUM_FRAMES = ("num_frames.json", "video_allframes_info.pkl")

# Seconds, or frames: what is shorter is a slip of the pen.
_SHORTEST = 1e-3
# An end past the video's end is mostly a matter of decoding. But a moment so
# much longer than its video belongs to another video, or another unit.
_LONGER = 1.1


@dataclasses.dataclass(frozen=True)
class Moment:
    """A sentence and where in its video it is true: an annotation.

    Args:
        query_id: Id of the query, one of its kind in its file: text, or a
            whole number where the file has numbers.
        query: The sentence.
        video_id: Id of the video.
        duration: Of the video, seconds.
        segments: Tuple of (start, end), seconds: the moment, or several that
            answer the query equally well. Within `[0, duration]`. Empty where
            they are hidden, as in the test split of QVHighlights.
        frames: The same in frames, where the annotation counts in frames.
        source: `"path:line"` of the annotation.
        num_annotators: How many annotators chose each of `segments`, where
            several were asked (DiDeMo).
        saliency: How well each two seconds of the video show what the query
            asks for, from 0 to 4 by each of three annotators (QVHighlights):
            a tuple of their scores for each.
    """

    query_id: str | int
    query: str
    video_id: str
    duration: float
    segments: tuple[tuple[float, float], ...]
    frames: tuple[tuple[int, int], ...] | None = None
    source: str = ""
    num_annotators: tuple[int, ...] | None = None
    saliency: tuple[tuple[int, ...], ...] | None = None


def find_files(
    dataset,
    data_dir,
    split,
    *,
    annotations=None,
    durations=None,
    num_frames=None,
    features=None,
):
    """Finds the files of one split, by their usual names unless given.

    Args:
        dataset: Name of the dataset, one of `DATASETS`.
        data_dir: Folder, or `None` if all files are given.
        split: `"train"`, `"val"` or `"test"`.
        annotations: Path of the annotations, if it is known.
        durations: Path of the seconds of each video, if it is known.
        num_frames: Path of the frames of each video, if it is known.
        features: Path of the clip features, if it is known.

    Returns:
        Dictionary with the path of `"annotations"`, and of those of
        `"durations"` or `"num_frames"` and `"features"` that are there. The
        durations may be those beside the features, as
        `experiments.extract_features` leaves them.

    Raises:
        FileNotFoundError: If there are no annotations; says what was looked
            for.

    Example:

    >>> find_files("jsonl", None, "val", annotations="mine.jsonl")
    {'annotations': 'mine.jsonl'}
    """
    form = _dataset(dataset)
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {SPLITS}. Received: {split}")
    files = {
        "annotations": annotations,
        "durations": durations,
        "num_frames": num_frames,
        "features": features,
    }
    files = {kind: path for kind, path in files.items() if path}
    if data_dir is None:
        if annotations:
            return _with_durations(files, form)
        raise ValueError(
            f"There are no annotations of the {split} split: name their file "
            "(`annotations`), or a folder that holds them (`data_dir`)."
        )
    usual = {
        "annotations": form.file_names(split),
        "features": _FEATURES,
    }
    if form.frame_rate is None:
        usual["durations"] = _DURATIONS
    else:
        usual["num_frames"] = _NUM_FRAMES
    for kind, names in usual.items():
        for name in names:
            path = os.path.join(data_dir, name.format(split=split))
            if kind not in files and os.path.exists(path):
                files[kind] = path
    if "annotations" not in files:
        raise FileNotFoundError(
            f"{os.fspath(data_dir)} holds no {split} annotations of {dataset}: "
            f"looked for {' or '.join(usual['annotations'])}. Name the file of "
            "annotations, or choose another folder or split."
        )
    return _with_durations(files, form)


def _with_durations(files, form):
    """Adds the durations that stand beside the features, if they do."""
    beside = videos_path(files.get("features", ""))
    if form.frame_rate is None and os.path.exists(beside):
        files.setdefault("durations", beside)
    return files


def read_moments(
    path,
    dataset,
    *,
    durations=None,
    num_frames=None,
    frame_rate=None,
    problems=None,
):
    """Reads the moments of an annotation file.

    A moment that ends after its video is cut at the video's end and kept. One
    that ends before it starts, starts after the video's end, or is longer
    than its video by more than a tenth is dropped, as are records that are
    malformed, repeated, or of a video whose duration is not known. A file that
    is not as its manifest says (see `acnn_tf.files.manifests`) is not read.

    Args:
        path: Annotation file.
        dataset: Name of its format, one of `DATASETS`.
        durations: Seconds of each video: a mapping, a JSON file of one, or a
            CSV file with the columns `id` and `length`. Needed where the
            annotations do not say. For DiDeMo, the end of the last piece;
            what comes after it was not shown to its annotators.
        num_frames: Number of frames of each video, in the same forms, for
            TACoS.
        frame_rate: Frames per second of TACoS, unless its file says. Default:
            29.4.
        problems: List that takes every `Problem`, in which case none is
            raised.

    Returns:
        List of `Moment`, in the order of the file.

    Raises:
        DataError: Lists every record that would have been dropped.
        FileNotFoundError: If a file is not there.
        ValueError: If neither the file nor an argument says how long any
            video is.

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
    dataset = _dataset(dataset)
    unit, name, given = "s", "durations", durations
    if dataset.frame_rate is not None:
        unit, name, given = "frames", "num_frames", num_frames
    found = []
    lengths, source = _video_lengths(given, name, dataset.video_id, found)
    damage = check_file(path)
    found += damage
    records = []
    # Without lengths every record would be a problem, and none of them new.
    if not damage and (lengths or not found):
        records = _records(path, dataset, found)
    if (
        given is None
        and records
        and all(record.duration is None for _, record in records)
    ):
        raise ValueError(
            f"`{name}` must be given: {path} does not say how long its videos "
            "are. A JSON file that maps each video to a number will do."
        )
    moments, durations_seen = [], {}
    for line, record in records:
        try:
            length = _length(record, lengths, source)
            times, cuts = _within_video(record, length, unit)
            rate = 1.0
            if unit == "frames":
                rate = record.frame_rate or frame_rate or dataset.frame_rate
            _check_duration(record.video_id, length / rate, durations_seen)
        except ValueError as error:
            message = f"query {record.query_id!r}: {error}"
            found.append(Problem(path, line, message))
            continue
        for cut in cuts:
            message = f"query {record.query_id!r}: {cut}"
            found.append(Problem(path, line, message, dropped=False))
        moments.append(
            Moment(
                record.query_id,
                record.query,
                record.video_id,
                length / rate,
                tuple((start / rate, end / rate) for start, end in times),
                tuple(times) if unit == "frames" else None,
                f"{path}:{line}",
                record.num_annotators,
                record.saliency,
            )
        )
    if problems is not None:
        problems.extend(found)
    elif any(problem.dropped for problem in found):
        raise DataError([problem for problem in found if problem.dropped])
    return moments


def check_moments(moments):
    """Refuses a list of moments that is empty, or has one outside its video.

    Those of files are checked as they are read; these may be made by hand.

    Args:
        moments: List of `Moment`.

    Raises:
        ValueError: Says which.
    """
    if not len(moments):
        raise ValueError("`moments` must not be empty. Received: []")
    check_not_hidden(moments)
    for moment in moments:
        if not all(
            0 <= start < min(end, moment.duration) and end < math.inf
            for start, end in moment.segments
        ):
            raise ValueError(
                "`moments` must have segments (start, end) within their "
                f"videos. Received: {moment}"
            )


def check_not_hidden(moments):
    """Refuses moments of which it is not known where they are.

    Args:
        moments: List of `Moment`.

    Raises:
        ValueError: Names the first such query.
    """
    for moment in moments:
        if not len(moment.segments):
            raise ValueError(
                f"`moments` must have segments (start, end), but query "
                f"{moment.query_id!r} has none: where they are hidden, queries "
                "can be answered (experiments.predict --out), but not trained "
                "on or scored"
            )


def write_jsonl(moments, path):
    """Writes moments in the `jsonl` format.

    With saliency, or without segments, that of QVHighlights.

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
                file.write(jsonl.to_line(moment) + "\n")


def _dataset(name):
    if name not in DATASETS:
        raise ValueError(
            f"`dataset` must be one of {tuple(DATASETS)}. Received: {name}"
        )
    return DATASETS[name]


def _video_lengths(given, name, video_id, problems):
    """`({video: length}, what to call its source)`."""
    if given is None:
        return {}, "the annotations"
    name = f"`{name}`"
    if isinstance(given, (str, os.PathLike)):
        name = os.fspath(given)
        given = read_numbers(given, problems)
    return {video_id(video): given[video] for video in given}, name


def _records(path, dataset, problems):
    """`(line, record)` of each record of the right form, with query and id."""
    records, lines, counts = [], {}, collections.Counter()
    line = None
    for line, entry in dataset.entries(path):
        try:
            if isinstance(entry, ValueError):
                raise entry
            key, parsed = dataset.parse(entry)
            if key in lines:
                raise ValueError(
                    f"duplicate of line {lines[key]}: {str(key)[:80]}; remove "
                    "one of the two"
                )
            queries = [_query(record.query) for record in parsed]
        except ValueError as error:
            problems.append(Problem(path, line, str(error)))
            continue
        if key is not None:
            lines[key] = line
        for record, query in zip(parsed, queries, strict=True):
            query_id = record.query_id
            if query_id is None:
                name = "_".join(map(str, (record.video_id, *record.times[0])))
                query_id = f"{name}_{counts[name]}"
                counts[name] += 1
            record = dataclasses.replace(record, query=query, query_id=query_id)
            records.append((line, record))
    if line is None:
        problems.append(Problem(path, 1, "the file holds no records"))
    return records


def _query(sentence):
    query = normalize(sentence).strip()
    if not query:
        raise ValueError(f"expected a sentence, found {sentence!a:.40}")
    return query


def _length(record, lengths, source):
    """The length of a record's video, in seconds or frames."""
    is_rough = record.piece and record.video_id in lengths
    if record.duration is not None and not is_rough:
        return record.duration
    length = lengths.get(record.video_id)
    if length is None:
        raise ValueError(
            f"video {record.video_id!r} has no duration: it is not in "
            f"{source}; add it, or remove the record"
        )
    if not is_number(length) or length <= 0:
        raise ValueError(
            f"the duration of video {record.video_id!r} must be a number above "
            f"0, found {length!r:.40}"
        )
    if record.piece:
        # What comes after the last piece was not shown to the annotators.
        length = min(length, record.duration)
    return length


def _within_video(record, length, unit):
    """`(times, cuts)`: ends cut at the video's, and a message for each."""
    slack = max(record.piece, 1e-6)
    video = f"video {record.video_id!r} of {length:g} {unit}"
    cuts = []
    for start, end in record.times:
        moment = f"moment {start:g} to {end:g} {unit}"
        if start < 0:
            raise ValueError(f"{moment} starts before its video does")
        if 0 <= end - start < _SHORTEST:
            raise ValueError(f"{moment} has no length")
        if end < start:
            raise ValueError(f"{moment} ends before it starts")
        if start >= length:
            raise ValueError(f"{moment} starts after the end of its {video}")
        if end - start > length * _LONGER + slack:
            raise ValueError(f"{moment} is longer than its {video}")
        if end > length + slack:
            cuts.append(f"{moment} was cut: it ends after its {video}")
    return [(start, min(end, length)) for start, end in record.times], cuts


def _check_duration(video_id, duration, seen):
    """Notes how long a video lasts; raises if it lasted otherwise before."""
    first = seen.setdefault(video_id, duration)
    if abs(first - duration) > 0.01:
        raise ValueError(
            f"video {video_id!r} lasts {duration:g} s here, but {first:g} s "
            "before"
        )
