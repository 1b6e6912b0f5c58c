"""Charades-STA, in seconds, with the durations of the videos in another file.

Its lines are `VIDEO START END##sentence`.
"""

from acnn_tf.data.datasets.records import Dataset, Record, check_moment
from acnn_tf.files.text import parse_number, text_lines


def _line(text):
    head, _, sentence = text.partition("##")
    try:
        video, start, end = head.split()
        times = [(parse_number(start), parse_number(end))]
        check_moment(times, sentence)
    except ValueError as error:
        raise ValueError(
            "expected `VIDEO START END##sentence`, times in seconds; found "
            f"{text[:60]!r} ({error})"
        ) from None
    sentence = sentence.strip()
    return (video, *times, sentence), [Record(sentence, video, times)]


DATASET = Dataset(
    text_lines, _line, lambda split: [f"charades_sta_{split}.txt"]
)
