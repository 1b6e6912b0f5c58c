r"""Fits how likely a moment is right, by its score: WORKDIR/calibration.json.

  python -m experiments.calibrate --workdir=runs/charades

experiments.train does so at its end; this is for a run of before, or for
videos of another kind, named by the flags of experiments.evaluate. It takes
the split that the model was chosen by, and prints how far the likelihoods can
be trusted there.
"""

from absl import flags

import acnn_tf
from experiments import splits
from export import command, run_models

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(splits)

flags.DEFINE_string("workdir", None, "Folder of a run.", required=True)
flags.DEFINE_enum(
    "split", "val", ["train", "val", "test"], "Split of the dataset to use."
)
flags.DEFINE_string(
    "encoder",
    None,
    "Encoder of the sentences, as clip:FOLDER, for a model that takes their "
    "vectors. Default: the one that the model names.",
)


def run():
    data = command.flag_values(splits)
    if not FLAGS.dataset:
        data = splits.settings_of_run(FLAGS.workdir, FLAGS.split) | data
    split = splits.load_split(FLAGS.split, **data)
    if split.sentence_vectors is None:
        model = run_models.load_model(**command.given("workdir", "encoder"))
        if model.vocabulary is None:
            split = splits.encode_sentences(split, model.sentence_encoder)
    report = acnn_tf.calibration.calibrate_run(FLAGS.workdir, *split)
    print(acnn_tf.calibration.in_words(report))


if __name__ == "__main__":
    command.run(run)
