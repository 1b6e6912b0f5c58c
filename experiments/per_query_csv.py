"""CSV files of how well each query was answered, a line for each.

Columns are `query_id`, `video_id`, `iou` (of the first result with the moment)
and `R@n,IoU=m`, which is 1 where one of the first n results has this IoU.
"""

import csv

import numpy as np

from acnn_tf.files.problems import DataError, fail
from experiments.sweeps import tables

_IDS = ("query_id", "video_id")
_OLD_IDS = ("qid", "vid")  # what they were called at first


def write_per_query(path, moments, hits):
    """Writes what `acnn_tf.evaluation.query_hits` found for some moments."""
    measures = ["iou", *(name for name in hits if name != "iou")]
    columns = {name: hits[name].tolist() for name in measures}
    columns |= {n: map(int, c) for n, c in columns.items() if n != "iou"}
    values = zip(*columns.values(), strict=True)
    tables.write_csv(
        path,
        [
            {"query_id": moment.query_id, "video_id": moment.video_id}
            | dict(zip(measures, row, strict=True))
            for moment, row in zip(moments, values, strict=True)
        ],
    )


def read_per_query(path):
    """Reads what `write_per_query` wrote: `(query_ids, video_ids, hits)`.

    The first two are lists, and `hits` has float64 `[Q]` by name. A `DataError`
    names a line with too few values, or one that is no number.
    """
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    heading = lines[0] if lines else []
    is_known = tuple(heading[:2]) in (_IDS, _OLD_IDS)
    if not is_known or len(heading) < 3 or len(lines) < 2:
        _fail(path, 1, f"expected the columns {', '.join(_IDS)}, iou, ...")
    values = np.empty((len(lines) - 1, len(heading) - 2))
    for row, line in enumerate(lines[1:]):
        try:
            values[row] = [float(value) for value in line[2:]]
        except ValueError as error:
            _fail(path, row + 2, f"{len(heading)} columns expected: {error}")
    query_ids, video_ids, *_ = zip(*lines[1:])
    return list(query_ids), list(video_ids), dict(zip(heading[2:], values.T))


def _fail(path, line, message):
    message += "; write it again with experiments.evaluate"
    fail(path, message, line, DataError)
