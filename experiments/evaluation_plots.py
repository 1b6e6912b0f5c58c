"""The plots of an evaluation: its table, and queries with what was found."""

import hashlib
import os
import re
import sys

import numpy as np
from absl import flags

import acnn_tf
from acnn_tf.files.atomic import write_text
from acnn_tf.files.names import file_name
from export import flag_help

flags.DEFINE_integer(
    "timelines",
    None,
    "Number of queries to draw into WORKDIR/pictures, and the table with "
    "them. Default: 3, or none with --report, which shows queries itself.",
)
flag_help.subject("Output", "timelines")

# In a folder of pictures: which queries they are of.
_QUERIES = "queries.sha256"


def draw_evaluation(
    workdir,
    model,
    split,
    results,
    predictions,
    timelines=3,
    frames_of=lambda moment: None,
    title="",
):
    """Draws the table, and queries from all over the split, into a folder.

    Each set of queries has a folder of its own, see `picture_folder`.

    Args:
        workdir: Folder of the run.
        model: What was evaluated.
        split: `Split`.
        results: What `acnn_tf.evaluation.evaluate` returned.
        predictions: Likewise.
        timelines: Int, the queries to draw; with 0 nothing at all is drawn.
        frames_of: Function from a `Moment` to frames of its video, or `None`.
        title: Dataset and split in words.

    Returns:
        List of the paths of the pictures.
    """
    if not timelines:
        return []
    plots, evaluation = acnn_tf.plots, acnn_tf.evaluation
    folder = picture_folder(workdir, title, split.moments)
    heading = f"{title}, {len(split.moments)} queries"
    drawn = [
        plots.recall_table(
            os.path.join(folder, "table.png"),
            results,
            f"{heading}; {results['protocol']}",
        )
    ]
    # Nothing is found for sentences of which the model knows no word.
    answered = np.flatnonzero([len(predicted) for predicted in predictions])
    places = np.linspace(
        0, len(answered) - 1, timelines if len(answered) else 0
    )
    for index in answered[np.unique(places.astype(int))]:
        moment, predicted = split.moments[index], predictions[index]
        (iou,) = evaluation.query_hits(
            [moment], [predicted], ns=(1,), ious=(0.5,)
        )["iou"]
        path = plots.timeline(
            os.path.join(
                folder, "timelines", file_name(str(moment.query_id), ".png")
            ),
            query=moment.query,
            duration=moment.duration,
            truth=moment.segments,
            predictions=predicted[:5].tolist(),
            attention=evaluation.attention(
                model,
                moment,
                split.features,
                predicted[0, 1] - predicted[0, 0],
            ),
            frames=frames_of(moment),
            curve=evaluation.score_curve(
                model, moment, split.features, split.sentence_vectors
            ),
            source=f"{title}, video {moment.video_id}",
            iou=iou,
        )
        drawn.append(path)
    print(
        f"drew the table and {len(drawn) - 1} of the queries into {folder}",
        file=sys.stderr,
    )
    return drawn


def picture_folder(workdir, title, moments):
    """The folder of a run for the pictures of some queries.

    Args:
        workdir: Folder of the run.
        title: Dataset and split in words, of which its name is made.
        moments: List of `Moment`.

    Returns:
        Path of the folder, `WORKDIR/pictures/TITLE`, which is there now. If
        other queries of the same title have it, one with a number.
    """
    asked = [(one.query_id, one.query, one.video_id) for one in moments]
    queries = hashlib.sha256(repr(asked).encode()).hexdigest()
    name = re.sub(r"[^\w.]+", "-", title).strip("-.") or "queries"
    number = 1
    while True:
        suffix = f"-{number}" if number > 1 else ""
        folder = os.path.join(workdir, "pictures", file_name(name, suffix))
        path = os.path.join(folder, _QUERIES)
        try:
            with open(path, encoding="utf-8") as file:
                if file.read() == queries:
                    return folder
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            write_text(path, queries)
            return folder
        number += 1
