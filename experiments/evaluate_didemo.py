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

import functools
import json
import os

from absl import flags

from acnn_tf import didemo
from acnn_tf.data import annotations, predictions
from acnn_tf.models import load_model
from experiments import datasets, evaluate
from export import command

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(datasets)
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
    "prior_annotations", None, "Those of training: `train_data.json`."
)


def evaluate_model(split):
    """Returns tables by their titles, and the predictions."""
    model = load_model(os.path.join(FLAGS.workdir, "model.keras"))
    measure = functools.partial(
        didemo.evaluate,
        model,
        split.moments,
        split.features,
        sentence_vectors=split.sentence_vectors,
    )
    results, found = measure()
    tables = {"model": results}
    if FLAGS.shuffled:
        tables["shuffled"], _ = measure(shuffle_seed=FLAGS.seed)
    return tables, found


def baselines(moments):
    """Tables of what needs no model."""
    rankings = {}
    if FLAGS.prior_annotations:
        known = annotations.read_moments(FLAGS.prior_annotations, "didemo")
        rankings["prior"] = didemo.frequency_prior(known, moments)
    rankings["oracle"] = didemo.oracle(moments)
    tables = {
        title: didemo.score_predictions(moments, ranking)
        for title, ranking in rankings.items()
    }
    return {**tables, "chance": didemo.chance(moments)}


def run():
    if FLAGS.workdir and not FLAGS.predictions:
        evaluate.use_dataset_of_run(FLAGS.workdir)
    FLAGS.set_default("dataset", FLAGS.dataset or "didemo")
    split = datasets.load_split(
        FLAGS.split, with_features=not FLAGS.predictions
    )
    moments, tables, found = split.moments, {}, None
    if FLAGS.predictions:
        found = predictions.read_predictions(
            FLAGS.predictions, moments, FLAGS.allow_missing
        )
        tables["predictions"] = didemo.score_predictions(moments, found)
    elif FLAGS.workdir:
        if split.features is None:
            raise ValueError(
                "A model needs --features of the split, or a --data_dir that "
                "holds them."
            )
        tables, found = evaluate_model(split)
    tables |= baselines(moments)
    if FLAGS.predictions_out:
        if found is None:
            raise ValueError("--predictions_out needs --workdir.")
        predictions.write_predictions(FLAGS.predictions_out, moments, found)
    if FLAGS.json:
        print(json.dumps(tables))
        return
    for title, results in tables.items():
        title = f"{title} on {FLAGS.split}"
        print(didemo.format_table(results, title), end="\n\n")


if __name__ == "__main__":
    command.run(run)
