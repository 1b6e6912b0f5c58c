"""Charades-STA, in seconds, with the durations of the videos in another file.

VIDEO START END##sentence
"""

from acnn_tf.data.datasets.records import (
    Dataset,
    Record,
    check_moment,
    parse_each,
)
from acnn_tf.files.text import text_lines


def read(path):
    """Reads a file of lines, see `Dataset`."""
    return parse_each(text_lines(path), _line)


def _line(text):
    head, _, sentence = text.partition("##")
    try:
        video, start, end = head.split()
        times = [(float(start), float(end))]
        check_moment(times, sentence)
    except ValueError as error:
        raise ValueError(
            "expected `VIDEO START END##sentence`, times in seconds; found "
            f"{text[:60]!r} ({error})"
        ) from None
    sentence = sentence.strip()
    return (video, *times, sentence), [Record(sentence, video, times)]


DATASET = Dataset(read, lambda split: [f"charades_sta_{split}.txt"])
