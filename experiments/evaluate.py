r"""Evaluates a model on a split, or scores a file of predictions.

  python -m experiments.evaluate --workdir=runs/charades --split=val \
      --suppression=per_threshold --predictions_out=predictions.jsonl
  python -m experiments.evaluate --model=zero_shot --dataset=charades_sta \
      --annotations=charades_sta_val.txt --durations=durations_val.json \
      --features=clip_val.hdf5 --sentence_vectors=clip_sentences.hdf5
  python -m experiments.evaluate --predictions=predictions.jsonl \
      --dataset=jsonl --annotations=val.jsonl --report=report.html

A run's dataset is that of its training unless you name another. The file of
predictions may be anybody's: a line for each query, {"qid": ..., "query": ...,
"vid": ..., "pred_relevant_windows": [[start, end, score], ...]}, in seconds.

Prints R@n, IoU=m (share of queries with one of the top n results at IoU >= m),
mIoU (mean IoU of the first result) and mAP (mean over IoU=.5, .55, ..., .95 of
the mean average precision of ten results), and the protocol of suppression,
which changes all but R@1 and mIoU. Of QVHighlights also what its own protocol
measures (acnn_tf.qvhighlights); predictions may then have
"pred_saliency_scores", one for each two seconds. With --strategy several
devices or machines share the videos. If an input is bad, says which file and
line.
"""

import dataclasses
import functools
import json
import math
import os
import sys

from absl import flags

import acnn_tf
from acnn_tf.segments import SUPPRESSIONS
from experiments import (
    evaluation_plots,
    evaluation_report,
    frames,
    per_query_csv,
    splits,
    strategies,
    tensorboard_log,
)
from export import command, flag_help, run_models

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(splits)
flags.adopt_module_key_flags(evaluation_plots)
flags.adopt_module_key_flags(strategies)

run_models.define_flags()
flags.DEFINE_string("workdir", None, "Folder of a run, to evaluate its model.")
flags.DEFINE_string("predictions", None, "File of predictions to score.")
flags.DEFINE_enum(
    "split", "val", ["train", "val", "test"], "Split of the dataset to use."
)
flags.DEFINE_enum(
    "suppression",
    None,
    SUPPRESSIONS,
    "Among the results of a query: none; NMS at a fixed IoU; or, as in the "
    "paper's tables, for IoU=m NMS at m - 0.05. IoU is between the results "
    "themselves, windows shifted by their offsets. Default: of a model fixed, "
    "as searches do; of --predictions, and on QVHighlights, none.",
)
flags.DEFINE_float(
    "nms_threshold", None, "IoU of --suppression=fixed. Default: 0.5."
)
flags.DEFINE_list(
    "window_lengths", None, "Lengths of windows, in place of the training's."
)
flags.DEFINE_bool(
    "shuffled", False, "Evaluate with shuffled sentences, too, as a control."
)
flags.DEFINE_integer("seed", 0, "Seed of the order of --shuffled.")
flags.DEFINE_bool(
    "allow_missing", False, "Count queries that are not predicted as misses."
)
flags.DEFINE_list(
    "videos",
    None,
    "Files, folders and patterns of the videos, whose frames pictures then "
    "show. Those of built-in scenes are rendered.",
)
flags.DEFINE_bool("json", False, "Print one JSON object, with fractions.")
flags.DEFINE_string("predictions_out", None, "File to write predictions to.")
flags.DEFINE_string(
    "report",
    None,
    "HTML file to write a page to: the tables, curves of recall, and the best "
    "and the worst queries. It needs no network.",
)
flags.DEFINE_string(
    "per_query_out", None, "CSV file to write each query's IoU and hits to."
)
flag_help.subject(
    "Protocol",
    "suppression",
    "nms_threshold",
    "window_lengths",
    "shuffled",
    "seed",
    "allow_missing",
)
flag_help.subject(
    "Output", "videos", "json", "predictions_out", "report", "per_query_out"
)


def data_settings():
    """The arguments of `load_split`: of the flags, and of the run's training.

    The mains that evaluate in other ways use it, too.
    """
    data = command.flag_values(splits)
    if FLAGS.workdir and not FLAGS.dataset:
        data = splits.settings_of_run(FLAGS.workdir, FLAGS.split) | data
    if FLAGS.encoder:
        if FLAGS.sentence_vectors:
            raise ValueError("Give --sentence_vectors or --encoder, not both.")
        data.pop("sentence_vectors", None)
    return data


def suppression(dataset):
    """The arguments that say how results are suppressed.

    Without suppression the ten best windows of a model are nearly one moment,
    and R@10 is little more than R@1. So the default for a model is that of
    searches; but QVHighlights scores results as they stand.
    """
    default = {"suppression": "fixed"}
    if FLAGS.predictions or dataset == "qvhighlights":
        default = {}
    return default | command.given("suppression", "nms_threshold")


def measure(evaluate, model, split, **options):
    """Tables of a model, and with shuffled sentences; and its predictions."""
    evaluate = functools.partial(
        evaluate,
        model,
        split.moments,
        split.features,
        sentence_vectors=split.sentence_vectors,
        **options,
    )
    results, predictions = evaluate()
    tables = {"model": results}
    if FLAGS.shuffled:
        tables["shuffled"], _ = evaluate(shuffle_seed=FLAGS.seed)
    return tables, predictions


def evaluate_model(split, strategy, with_highlights, **protocol):
    """Returns the model, tables by their titles, and the predictions."""
    with strategy.scope():
        model = run_models.load_model(
            FLAGS.workdir,
            features=split.features,
            with_sentences=split.sentence_vectors is None,
            **command.given("model", "encoder"),
        )
    if FLAGS.window_lengths:
        lengths = tuple(map(float, FLAGS.window_lengths))
        model.grid = dataclasses.replace(model.grid, lengths=lengths)
    if strategy.extended.should_checkpoint:
        command.tell_unknown(split.features, model)
    evaluate = acnn_tf.evaluation.evaluate
    if with_highlights:
        evaluate = acnn_tf.qvhighlights.evaluate
    tables, predictions = measure(
        evaluate, model, split, strategy=strategy, **protocol
    )
    results = tables["model"]
    results["num_parameters"] = sum(
        math.prod(variable.shape) for variable in model.trainable_variables
    )
    tables["chance"] = acnn_tf.evaluation.chance(split.moments, model.grid)
    return model, tables, predictions


def draw(**given):
    """Draws what was evaluated, where there is Matplotlib."""
    try:
        drawn = evaluation_plots.draw_evaluation(
            FLAGS.workdir, **given, **command.flag_values(evaluation_plots)
        )
    except ImportError as error:  # the figures are there
        print(error, file=sys.stderr)
        return
    folder = os.path.join(FLAGS.workdir, "pictures")
    tensorboard_log.write_pictures(
        os.path.join(FLAGS.workdir, "tensorboard", "pictures"),
        {
            os.path.splitext(os.path.relpath(path, folder))[0]: path
            for path in drawn
        },
    )


def report(model, split, tables, predictions, **given):
    """Writes the page about an evaluation of a model, or of predictions."""
    facts, curve_of = {"predictions": FLAGS.predictions}, None
    if model is not None:
        facts = {
            "model": FLAGS.workdir or FLAGS.model,
            "parameters": f"{tables['model']['num_parameters']:,}",
        }

        def curve_of(moment):
            return acnn_tf.evaluation.score_curve(
                model, moment, split.features, split.sentence_vectors
            )

    evaluation_report.write(
        FLAGS.report,
        facts=facts,
        tables=tables,
        moments=split.moments,
        predictions=predictions,
        curve_of=curve_of,
        texts=[
            acnn_tf.qvhighlights.format_table(results, title=name)
            for name, results in tables.items()
            if "R1,IoU=0.5" in results
        ],
        **given,
    )
    print(f"wrote {FLAGS.report}", file=sys.stderr)


def show(tables, data_name):
    """Prints tables by their titles, of which the first is the main one."""
    if FLAGS.json:
        results = tables.pop(next(iter(tables)))
        print(json.dumps(results | tables))
        return
    printed = []
    for name, results in tables.items():
        title = f"{name} on {data_name}"
        printed.append(acnn_tf.evaluation.format_table(results, title=title))
        if "R1,IoU=0.5" in results:
            table = acnn_tf.qvhighlights.format_table(results, title=title)
            printed.append(table)
    print(*printed, sep="\n\n")


def run():
    if not (FLAGS.predictions or FLAGS.workdir or FLAGS.model):
        raise ValueError("Give --workdir, --model=zero_shot or --predictions.")
    if not FLAGS.predictions:
        run_models.check_choice(FLAGS.workdir, FLAGS.model)
    if FLAGS.timelines and not FLAGS.workdir:
        raise ValueError("--timelines draws into --workdir, which is missing.")
    strategy = strategies.make_strategy(**command.flag_values(strategies))
    data = data_settings()
    split = splits.load_split(
        FLAGS.split, **data, with_features=not FLAGS.predictions
    )
    protocol = suppression(data["dataset"])
    with_highlights = data["dataset"] == "qvhighlights"
    model = None
    if FLAGS.predictions:
        predictions = acnn_tf.data.read_predictions(
            FLAGS.predictions, split.moments, FLAGS.allow_missing
        )
        results = acnn_tf.evaluation.score_predictions(
            split.moments, predictions, **protocol
        )
        if with_highlights:
            results |= acnn_tf.qvhighlights.score_predictions(
                split.moments, predictions, **protocol
            )
        tables = {"predictions": results}
    else:
        model, tables, predictions = evaluate_model(
            split, strategy, with_highlights, **protocol
        )
    if not strategy.extended.should_checkpoint:
        return  # The first of the workers says it.
    title = splits.title(FLAGS.split, **data)
    frames_of = frames.of_split(data["dataset"], FLAGS.videos)
    # A page has pictures of its own.
    is_drawn = FLAGS.timelines is not None or not FLAGS.report
    if model is not None and FLAGS.workdir and is_drawn:
        draw(
            model=model,
            split=split,
            results=tables["model"],
            predictions=predictions,
            frames_of=frames_of,
            title=title,
        )
    if FLAGS.report:
        report(
            model,
            split,
            tables,
            predictions,
            title=title,
            protocol=protocol,
            frames_of=frames_of,
        )
    if FLAGS.predictions_out:
        acnn_tf.data.write_predictions(
            FLAGS.predictions_out, split.moments, predictions
        )
    if FLAGS.per_query_out:
        evaluation = acnn_tf.evaluation
        hits = evaluation.query_hits(
            split.moments,
            predictions,
            ns=evaluation.NS,
            ious=evaluation.IOUS,
            **protocol,
        )
        per_query_csv.write_per_query(FLAGS.per_query_out, split.moments, hits)
    show(tables, title)


if __name__ == "__main__":
    command.run(run)
