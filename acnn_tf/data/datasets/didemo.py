"""DiDeMo, in pieces of five seconds, of which several annotators chose some.

    [{annotation_id, video, description, num_segments, times: [[first, last]]}]

`times` holds the first and the last piece that each annotator chose.
"""

import collections

from acnn_tf.data.datasets.records import (
    Dataset,
    Record,
    check_moment,
    id_of,
    positive,
    values_of,
)
from acnn_tf.files.text import json_items

PIECE_SECONDS = 5


def _query(entry):
    keys = ("annotation_id", "video", "description", "times")
    query_id, video, sentence, times = values_of(entry, keys)
    query_id = id_of(query_id, "annotation_id")
    place = f"annotation {query_id}"
    check_moment(times, sentence, place)
    num_pieces = positive(entry, "num_segments", place)
    if any(piece != int(piece) for pair in times for piece in pair):
        raise ValueError(f"{place}: expected whole `times`, found {times}")
    # What most of the annotators chose comes first.
    chosen = collections.Counter(map(tuple, times)).most_common()
    record = Record(
        sentence.strip(),
        str(id_of(video, "video", place)),
        [
            # An end before the start stays one.
            (first * PIECE_SECONDS, (last + (last >= first)) * PIECE_SECONDS)
            for (first, last), _ in chosen
        ],
        num_pieces * PIECE_SECONDS,
        piece=PIECE_SECONDS,
        query_id=query_id,
        num_annotators=tuple(count for _, count in chosen),
    )
    return str(query_id), [record]


DATASET = Dataset(
    lambda path: json_items(path, list),
    _query,
    lambda split: [f"{split}_data.json"],
)
