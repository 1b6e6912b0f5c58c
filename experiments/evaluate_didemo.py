r"""Evaluates on DiDeMo by its own protocol: R@1, R@5 and mIoU.

  python -m experiments.evaluate_didemo --workdir=runs/didemo --split=test
  python -m experiments.evaluate_didemo --data_dir=data/didemo --split=test \
      --predictions=predictions.jsonl

Ranks all stretches of a video's pieces of 5 s, 21 of 6 pieces. Of the people
who were asked about a query, the three that agree most with a ranking count:
a hit is a mean rank of at most 1, or 5; mIoU is the mean of the three best IoU
of the first result, in pieces. Flags are those of experiments.evaluate. Prints
besides what needs no model: the best ranking there is (oracle), a random one
(chance), and, with --prior_annotations, what annotators chose most often there.
"""

import json
import os

from absl import flags

import acnn_tf
from experiments import evaluate, splits
from export import command

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(splits)
# Those that both evaluations have.
for name in (
    "workdir",
    "predictions",
    "split",
    "shuffled",
    "seed",
    "allow_missing",
    "json",
    "predictions_out",
):
    flags.declare_key_flag(name)

flags.DEFINE_string(
    "prior_annotations",
    None,
    "Annotations of the training split, `train_data.json`: also scores how "
    "often its annotators chose each stretch.",
)


def baselines(moments):
    """Returns tables of what needs no model, by their titles."""
    didemo = acnn_tf.didemo
    rankings = {}
    if FLAGS.prior_annotations:
        known = acnn_tf.data.read_moments(FLAGS.prior_annotations, "didemo")
        rankings["prior"] = didemo.frequency_prior(known, moments)
    rankings["oracle"] = didemo.oracle(moments)
    tables = {
        title: didemo.score_predictions(moments, ranking)
        for title, ranking in rankings.items()
    }
    return {**tables, "chance": didemo.chance(moments)}


def run():
    with_model = FLAGS.workdir and not FLAGS.predictions
    data = {"dataset": "didemo", **evaluate.data_settings()}
    split = splits.load_split(
        FLAGS.split, **data, with_features=bool(with_model)
    )
    moments, tables, predictions = split.moments, {}, None
    if FLAGS.predictions:
        predictions = acnn_tf.data.read_predictions(
            FLAGS.predictions, moments, FLAGS.allow_missing
        )
        tables["predictions"] = acnn_tf.didemo.score_predictions(
            moments, predictions
        )
    elif with_model:
        path = os.path.join(FLAGS.workdir, "model.keras")
        model = acnn_tf.models.load_model(path)
        command.tell_unknown(split.features, model)
        tables, predictions = evaluate.measure(
            acnn_tf.didemo.evaluate, model, split
        )
    tables |= baselines(moments)
    if FLAGS.predictions_out:
        if predictions is None:
            raise ValueError("--predictions_out needs --workdir.")
        acnn_tf.data.write_predictions(
            FLAGS.predictions_out, moments, predictions
        )
    if FLAGS.json:
        print(json.dumps(tables))
        return
    data_name = splits.title(FLAGS.split, **data)
    for name, results in tables.items():
        title = f"{name} on {data_name}"
        print(acnn_tf.didemo.format_table(results, title), end="\n\n")


if __name__ == "__main__":
    command.run(run)
