"""TACoS, in frames: its original samples, or its cleaned JSON.

Samples are lines `VIDEO_START_END:sentence#sentence#`, and the JSON is
`{video: {num_frames, fps, timestamps: [[start, end]], sentences: [...]}}`.
"""

import re
from collections.abc import Iterator

from acnn_tf.data.datasets.records import (
    Dataset,
    Record,
    check_moment,
    positive,
    sentences_by_video,
)
from acnn_tf.files.text import text_lines


def entries(path: str) -> Iterator[tuple]:
    """The entries of a file of either format."""
    return (sentences_by_video if path.endswith(".json") else _lines)(path)


def parse(entry: str | tuple) -> tuple[tuple | None, list[Record]]:
    """The records of an entry of either format."""
    return (_sample if isinstance(entry, str) else _sentence)(entry)


def video_id(name: str) -> str:
    """TACoS writes the names of its videos with ".avi" and without."""
    return name.removesuffix(".avi")


def _lines(path):
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


def _sample(text):
    match = re.fullmatch(r"(.+?)_(-?\d{1,9})_(-?\d{1,9}):(.*)", text)
    sentences = [s.strip() for s in match[4].split("#")] if match else []
    if not any(sentences):
        raise ValueError(
            "expected `VIDEO_START_END:sentence#...`, times in frames; found "
            f"{text[:60]!r}"
        )
    video, times = video_id(match[1]), [(int(match[2]), int(match[3]))]
    return (video, *times), [Record(s, video, times) for s in sentences if s]


def _sentence(entry):
    place, video, times, sentence, value = entry
    check_moment([times], sentence, place)
    if any(time != int(time) for time in times):
        raise ValueError(f"{place}: expected times in frames, found {times}")
    record = Record(
        sentence.strip(),
        video_id(video),
        [tuple(map(int, times))],
        int(positive(value, "num_frames", place)),
        positive(value, "fps", place),
    )
    # No key: several people may have said the same of one interval.
    return None, [record]


DATASET = Dataset(
    entries,
    parse,
    lambda split: [f"TACoS_{split}_samples.txt", f"{split}.json"],
    frame_rate=29.4,
    video_id=video_id,
)
