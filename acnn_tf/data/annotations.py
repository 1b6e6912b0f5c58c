"""Annotation files -> `Moment`s, in seconds.

How the files of each dataset look is said in `acnn_tf.data.datasets`, a file
for each.
"""

import collections
import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence

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
        query_id: Id of the query: text, or a whole number where the file has
            numbers. No other query of the file has the same id.
        query: The sentence.
        video_id: Id of the video.
        duration: Duration of the video in seconds.
        segments: Tuple of (start, end) in seconds: one moment, or several
            moments that answer the query equally well. All lie within
            `[0, duration]`. The tuple is empty where the moments are hidden,
            as in the test split of QVHighlights.
        frames: The same segments in frames, where the annotation counts
            frames.
        source: Where the annotation stands: `"path:line"`.
        num_annotators: How many annotators chose each of `segments`, where
            several annotators were asked (DiDeMo).
        saliency: How well each two seconds of the video show what the query
            asks for (QVHighlights): for each two seconds a tuple of the three
            annotators' scores, from 0 to 4.

    Example:

    >>> from acnn_tf.data import Moment
    >>> moment = Moment("1", "a dog runs", "v", 30.0, ((3.0, 9.0),))
    >>> moment.query, moment.segments
    ('a dog runs', ((3.0, 9.0),))
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
    dataset: str,
    data_dir: str | os.PathLike | None,
    split: str,
    *,
    annotations: str | os.PathLike | None = None,
    durations: str | os.PathLike | None = None,
    num_frames: str | os.PathLike | None = None,
    features: str | os.PathLike | None = None,
) -> dict[str, str | os.PathLike]:
    """Finds the files of one split, by their usual names unless given.

    Args:
        dataset: Name of the dataset, one of `DATASETS`.
        data_dir: Folder of the files, or `None` if all files are given.
        split: `"train"`, `"val"` or `"test"`.
        annotations: File of annotations, if it has an unusual name.
        durations: File of the seconds of each video, if it has an unusual
            name.
        num_frames: File of the number of frames of each video, if it has an
            unusual name.
        features: File of clip features, if it has an unusual name.

    Returns:
        Dictionary with the path of `"annotations"`, and with the paths of
        `"durations"` or `"num_frames"` and of `"features"`, as far as these
        files exist. The durations may be the file beside the features that
        `experiments.extract_features` writes.

    Raises:
        FileNotFoundError: If there are no annotations. The message says which
            files were looked for.

    Example:

    >>> from acnn_tf.data import find_files
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
    path: str | os.PathLike,
    dataset: str,
    *,
    durations: Mapping[str, float] | str | os.PathLike | None = None,
    num_frames: Mapping[str, int] | str | os.PathLike | None = None,
    frame_rate: float | None = None,
    problems: list[Problem] | None = None,
) -> list[Moment]:
    """Reads the moments of an annotation file.

    A moment that ends after its video is cut at the video's end and kept. One
    that ends before it starts, starts after the video's end, or is longer
    than its video by more than a tenth is dropped, as are records that are
    malformed, repeated, or of a video whose duration is not known. A file that
    is not as its manifest says (see `acnn_tf.files.manifests`) is not read.

    Args:
        path: Annotation file.
        dataset: Name of its format, one of `DATASETS`.
        durations: Seconds of each video: a mapping from video id, a JSON file
            of such a mapping, or a CSV file with the columns `id` and
            `length`. It is needed where the annotations do not tell the
            durations. For DiDeMo it is the end of the last piece, because the
            annotators did not see what comes after it.
        num_frames: Number of frames of each video, in the same forms, for
            TACoS.
        frame_rate: Frames per second of TACoS, where its file does not tell
            them. Default: 29.4.
        problems: A list to which every `Problem` is added. With it, no
            problem raises an error.

    Returns:
        The moments, in the order of the file.

    Raises:
        DataError: If records would be dropped and there is no list
            `problems`. The message lists these records.
        FileNotFoundError: If a file does not exist.
        ValueError: If neither the file nor an argument says how long any
            video is.

    Example:

    >>> import tempfile
    >>> from acnn_tf.data import read_moments
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


def check_moments(moments: Sequence[Moment]) -> None:
    """Refuses an empty list, and a moment that lies outside its video.

    Moments of a file are checked when they are read; these may be made by
    hand.

    Args:
        moments: The moments.

    Raises:
        ValueError: If the list is empty, or a moment is not in its video. The
            message names the moment.
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


def check_not_hidden(moments: Sequence[Moment]) -> None:
    """Refuses moments whose segments are hidden.

    Args:
        moments: The moments.

    Raises:
        ValueError: If a moment has no segments. The message names the first
            such query.
    """
    for moment in moments:
        if not len(moment.segments):
            raise ValueError(
                f"`moments` must have segments (start, end), but query "
                f"{moment.query_id!r} has none: where they are hidden, queries "
                "can be answered (experiments.predict --out), but not trained "
                "on or scored"
            )


def write_jsonl(moments: Iterable[Moment], path: str | os.PathLike) -> None:
    """Writes moments in the `jsonl` format.

    Moments that have saliency, or whose segments are hidden, are written in
    the format of QVHighlights.

    Args:
        moments: The moments. Their frames and the numbers of their annotators
            are not written.
        path: The file to write. It appears only when it is complete, together
            with a manifest beside it.

    Raises:
        WriteError: If the file could not be written. An older file of this
            name then stays as it was.

    Example:

    >>> import tempfile
    >>> from acnn_tf.data import Moment, read_moments, write_jsonl
    >>> path = tempfile.mkdtemp() + "/test.jsonl"
    >>> moment = Moment("1", "a dog runs", "v", 30.0, ((3.0, 9.0),))
    >>> write_jsonl([moment], path)
    >>> read_moments(path, "jsonl")[0].segments
    ((3.0, 9.0),)
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
