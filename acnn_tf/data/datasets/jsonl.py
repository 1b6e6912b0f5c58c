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
    check_sentence,
    id_of,
    positive,
    values_of,
)
from acnn_tf.files.text import parse_json, text_lines


def to_line(moment):
    """A `Moment` as a line of such a file, without its end.

    One with saliency has the keys of QVHighlights besides, one without any
    segment has no `relevant_windows`.
    """
    entry = {
        "qid": moment.query_id,
        "query": moment.query,
        "vid": moment.video_id,
        "duration": moment.duration,
    }
    if moment.segments:
        entry["relevant_windows"] = [list(pair) for pair in moment.segments]
    if moment.saliency is not None:
        scored = {
            clip: list(scores)
            for clip, scores in enumerate(moment.saliency)
            if any(scores)
        }
        entry["relevant_clip_ids"] = list(scored)
        entry["saliency_scores"] = list(scored.values())
    return json.dumps(entry, ensure_ascii=False)


def parse(entry: dict, with_windows: bool = True) -> tuple[str, list[Record]]:
    """The record of an object.

    Args:
        entry: What `parse_json` returned.
        with_windows: Whether the object must have `relevant_windows`.

    Returns:
        `(key, [record])`, see `Dataset`.

    Raises:
        ValueError: If the object has another form.
    """
    query_id, video, sentence = values_of(entry, ("qid", "vid", "query"))
    query_id = id_of(query_id, "qid")
    place = f"query {query_id}"
    times = []
    if with_windows or "relevant_windows" in entry:
        (times,) = values_of(entry, ("relevant_windows",))
        check_moment(times, sentence, place)
    check_sentence(sentence, place)
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


DATASET = Dataset(
    text_lines,
    lambda text: parse(parse_json(text)),
    lambda split: [f"{split}.jsonl"],
)
