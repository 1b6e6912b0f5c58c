"""The pictures of an evaluation."""

import os
import sys

import numpy as np
from absl import flags

from acnn_tf import evaluation, plots
from acnn_tf.data import synthetic
from acnn_tf.files.names import file_name

FLAGS = flags.FLAGS

flags.DEFINE_integer("timelines", 3, "Draw so many, and the table, in WORKDIR.")


def draw(workdir, model, split, results, found):
    """Draws the table, and queries from all over the split.

    Args:
        workdir: Folder to draw into.
        model: The model that was evaluated.
        split: `experiments.datasets.Split`.
        results: What `acnn_tf.evaluation.evaluate` returned ...
        found: ... both of it.
    """
    path = os.path.join(workdir, "table.png")
    drawn = [plots.recall_table(path, results, results["protocol"])]
    for index in np.linspace(0, len(found) - 1, FLAGS.timelines).astype(int):
        moment, predicted = split.moments[index], found[index]
        name = file_name(moment.query_id, ".png")
        frames = None
        if FLAGS.dataset == "synthetic":
            frames = synthetic.render(moment.video_id)
        length = predicted[0, 1] - predicted[0, 0]
        path = plots.timeline(
            os.path.join(workdir, "timelines", name),
            query=moment.query,
            duration=moment.duration,
            truth=moment.segments,
            predictions=predicted[:5].tolist(),
            attention=evaluation.attention(
                model, moment, split.features, length
            ),
            frames=frames,
        )
        drawn.append(path)
    for path in drawn:
        print(f"drew {path}", file=sys.stderr)
