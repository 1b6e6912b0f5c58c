r"""Evaluates a trained model on a split, or scores a file of predictions.

  python -m experiments.evaluate --workdir=runs/charades --split=val \
      --suppression=per_threshold --predictions_out=predictions.jsonl
  python -m experiments.evaluate --predictions=predictions.jsonl \
      --dataset=jsonl --annotations=val.jsonl

The model's dataset is that of its training unless you name another. The file
may be anybody's: a line for each query, {"qid": ..., "query": ..., "vid": ...,
"pred_relevant_windows": [[start, end, score], ...]}, in seconds.

Prints R@n, IoU=m (share of queries with one of the top n results at IoU >= m)
and mIoU (mean IoU of the first result), and the protocol of suppression, which
changes all but R@1 and mIoU. With --strategy several devices or machines share
the videos. If an input is bad, says which file and line.
"""

import dataclasses
import functools
import json
import math
import os
import sys

from absl import flags

from acnn_tf import evaluation, segments
from acnn_tf.data import predictions
from acnn_tf.models import load_model
from experiments import datasets, pictures, query_files, strategies
from export import command

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(datasets)
flags.adopt_module_key_flags(pictures)
flags.adopt_module_key_flags(strategies)

flags.DEFINE_string("workdir", None, "Folder of a run: evaluates its model.")
flags.DEFINE_string("predictions", None, "Scores this file; needs no model.")
flags.DEFINE_enum("split", "val", ["train", "val", "test"], "Of the dataset.")
flags.DEFINE_enum(
    "suppression",
    "none",
    segments.SUPPRESSIONS,
    "Among the results of a query: none; NMS at a fixed IoU; or, as in the "
    "paper's tables, for IoU=m NMS at m - 0.05. IoU is between the results "
    "themselves, windows shifted by their offsets.",
)
flags.DEFINE_float("nms_threshold", 0.5, "IoU of --suppression=fixed.")
flags.DEFINE_list("window_lengths", None, "Others than those of training.")
flags.DEFINE_bool("shuffled", False, "Also with shuffled sentences: a control.")
flags.DEFINE_integer("seed", 0, "Of --shuffled.")
flags.DEFINE_bool("allow_missing", False, "Queries not predicted are misses.")
flags.DEFINE_bool("json", False, "Print one JSON object, with fractions.")
flags.DEFINE_string("predictions_out", None, "Writes the predictions here.")
flags.DEFINE_string("per_query_out", None, "Writes hits and IoU here, as CSV.")


def use_dataset_of_run(workdir):
    """Lets the data's flags default to those that the model was chosen by."""
    with open(os.path.join(workdir, "flags.txt"), encoding="utf-8") as lines:
        used = dict(line.strip("-\n").partition("=")[::2] for line in lines)
    names = "dataset data_dir num_scenes clip_seconds sentence_vectors".split()
    for name in names:
        if name in used:
            FLAGS.set_default(name, used[name])
    FLAGS.set_default("skip_bad", "skip_bad" in used)
    # Files that were named one by one: those of the split that is asked for.
    prefix = {"train": "", "val": "val_"}.get(FLAGS.split)
    for name in ("annotations", "durations", "num_frames", "features"):
        if prefix is not None and prefix + name in used:
            FLAGS.set_default(name, used[prefix + name])


def evaluate_model(split, strategy, **protocol):
    """Returns tables by their titles, and the predictions."""
    path = os.path.join(FLAGS.workdir, "model.keras")
    with strategy.scope():
        model = load_model(path)
    if FLAGS.window_lengths:
        lengths = tuple(map(float, FLAGS.window_lengths))
        model.grid = dataclasses.replace(model.grid, lengths=lengths)
    evaluate = functools.partial(
        evaluation.evaluate,
        model,
        split.moments,
        split.features,
        sentence_vectors=split.sentence_vectors,
        strategy=strategy,
        **protocol,
    )
    results, found = evaluate()
    results["num_parameters"] = sum(
        math.prod(variable.shape) for variable in model.trainable_variables
    )
    tables = {"model": results}
    if FLAGS.shuffled:
        tables["shuffled"], _ = evaluate(shuffle_seed=FLAGS.seed)
    tables["chance"] = evaluation.chance(split.moments, model.grid)
    if FLAGS.timelines and strategy.extended.should_checkpoint:
        try:
            pictures.draw(FLAGS.workdir, model, split, results, found)
        except ImportError as error:  # no Matplotlib: the figures are there
            print(error, file=sys.stderr)
    return tables, found


def run():
    strategy = strategies.make_strategy()
    if FLAGS.workdir and not FLAGS.dataset:
        use_dataset_of_run(FLAGS.workdir)
    split = datasets.load_split(
        FLAGS.split, with_features=not FLAGS.predictions
    )
    protocol = {
        "suppression": FLAGS.suppression,
        "nms_threshold": FLAGS.nms_threshold,
    }
    moments = split.moments
    if FLAGS.predictions:
        found = predictions.read_predictions(
            FLAGS.predictions, moments, FLAGS.allow_missing
        )
        results = evaluation.score_predictions(moments, found, **protocol)
        tables = {"predictions": results}
    elif FLAGS.workdir and split.features:
        tables, found = evaluate_model(split, strategy, **protocol)
    else:
        raise ValueError("Give --predictions, or --workdir and --features.")
    if not strategy.extended.should_checkpoint:
        return  # The first of the workers says it.
    if FLAGS.predictions_out:
        predictions.write_predictions(FLAGS.predictions_out, moments, found)
    if FLAGS.per_query_out:
        queries = evaluation.query_hits(
            moments, found, ns=evaluation.NS, ious=evaluation.IOUS, **protocol
        )
        query_files.write_queries(FLAGS.per_query_out, moments, queries)
    if FLAGS.json:
        results = tables.pop(next(iter(tables)))
        print(json.dumps(results | tables))
        return
    for title, results in tables.items():
        title = title if FLAGS.predictions else f"{title} on {FLAGS.split}"
        print(evaluation.format_table(results, title=title), end="\n\n")


if __name__ == "__main__":
    command.run(run)
