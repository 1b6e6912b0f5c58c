"""A dataset of your own: one JSON object a line, times in seconds.

    {"qid": 7, "query": "a man runs", "vid": "v1", "duration": 30.0,
     "relevant_windows": [[3.2, 9.0]]}

Libraries for moment retrieval share this format and its keys, so these stay
as they are, where everything else here says `query_id` and `video_id`.
"""

import json

from acnn_tf.data.datasets.records import (
    Dataset,
    Record,
    check_moment,
    id_of,
    positive,
    values_of,
)
from acnn_tf.files.text import parse_json, text_lines


def to_line(moment):
    """A `Moment` as a line of such a file, without its end."""
    entry = {
        "qid": moment.query_id,
        "query": moment.query,
        "vid": moment.video_id,
        "duration": moment.duration,
        "relevant_windows": [list(pair) for pair in moment.segments],
    }
    return json.dumps(entry, ensure_ascii=False)


def _line(text):
    entry = parse_json(text)
    keys = ("qid", "vid", "query", "relevant_windows")
    query_id, video, sentence, times = values_of(entry, keys)
    query_id = id_of(query_id, "qid")
    place = f"query {query_id}"
    check_moment(times, sentence, place)
    duration = None
    if "duration" in entry:
        duration = positive(entry, "duration", place)
    record = Record(
        sentence.strip(),
        str(id_of(video, "vid", place)),
        [tuple(window) for window in times],
        duration,
        query_id=query_id,
    )
    # Names of files and of vectors are its text: 1 and "1" would be one.
    return str(query_id), [record]


DATASET = Dataset(text_lines, _line, lambda split: [f"{split}.jsonl"])
