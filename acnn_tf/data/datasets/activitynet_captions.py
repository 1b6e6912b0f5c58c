"""ActivityNet Captions, in seconds.

Its JSON is `{video: {duration, timestamps: [[start, end]], sentences: [...]}}`.
"""

from acnn_tf.data.datasets.records import (
    Dataset,
    Record,
    check_moment,
    positive,
    sentences_by_video,
)


def _sentence(entry):
    place, video, times, sentence, value = entry
    check_moment([times], sentence, place)
    duration = positive(value, "duration", place)
    sentence = sentence.strip()
    return (video, *times, sentence), [
        Record(sentence, video, [tuple(times)], duration)
    ]


def _file_names(split):
    # Its two validation files serve as validation and test.
    numbered = {"val": ["val_1.json"], "test": ["val_2.json"]}
    return [*numbered.get(split, []), f"{split}.json"]


DATASET = Dataset(sentences_by_video, _sentence, _file_names)
