"""The plots of an evaluation: its table, and queries with what was found."""

import os
import sys

import numpy as np
from absl import flags

import acnn_tf
from acnn_tf.files.names import file_name
from export import flag_help

flags.DEFINE_integer(
    "timelines",
    None,
    "Number of queries to draw into WORKDIR/timelines, and the table with "
    "them. Default: 3.",
)
flag_help.subject("Output", "timelines")


def draw_evaluation(
    workdir, model, split, results, predictions, timelines=3, render=None
):
    """Draws the table, and queries from all over the split, into a folder.

    `results` and `predictions` are what `acnn_tf.evaluation.evaluate` returned.
    Of so many `timelines`, 0 draws nothing at all. `render` makes frames of a
    video id, to draw some of them.
    """
    if not timelines:
        return
    plots = acnn_tf.plots
    path = os.path.join(workdir, "table.png")
    drawn = [plots.recall_table(path, results, results["protocol"])]
    # Nothing is found for sentences of which the model knows no word.
    answered = np.flatnonzero([len(predicted) for predicted in predictions])
    places = np.linspace(
        0, len(answered) - 1, timelines if len(answered) else 0
    )
    for index in answered[places.astype(int)]:
        moment, predicted = split.moments[index], predictions[index]
        path = plots.timeline(
            os.path.join(
                workdir, "timelines", file_name(str(moment.query_id), ".png")
            ),
            query=moment.query,
            duration=moment.duration,
            truth=moment.segments,
            predictions=predicted[:5].tolist(),
            attention=acnn_tf.evaluation.attention(
                model,
                moment,
                split.features,
                predicted[0, 1] - predicted[0, 0],
            ),
            frames=render(moment.video_id) if render else None,
        )
        drawn.append(path)
    for path in drawn:
        print(f"drew {path}", file=sys.stderr)
