r"""Trains ACNN: from annotations and features to WORKDIR/model.keras.

  python -m experiments.train --dataset=synthetic --workdir=runs/scenes

  python -m experiments.train --dataset=jsonl --annotations=train.jsonl \
      --features=clips.hdf5 --val_annotations=val.jsonl \
      --val_features=clips.hdf5 --workdir=runs/mine

Shows progress, searches the validation split after every epoch and keeps the
best model. Started again with the same --workdir, it continues where it was
interrupted. WORKDIR then holds model.keras (the best), history.csv,
training.png (the paper's Figure 5), tensorboard/, checkpoints/, and flags.txt,
which as a --flagfile repeats the run. Bad input is named with file and line,
and ends the run with exit code 2.
"""

import csv
import os

import keras
from absl import flags, logging

from acnn_tf import callbacks, evaluation, plots
from experiments import (
    datasets,
    model_flags,
    objective,
    training_batches,
)
from export import command

FLAGS = flags.FLAGS
for module in (datasets, model_flags, objective, training_batches):
    flags.adopt_module_key_flags(module)

flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
flags.DEFINE_string("val_annotations", None, "As --annotations, validation.")
flags.DEFINE_string("val_durations", None, "As --durations, validation.")
flags.DEFINE_string("val_num_frames", None, "As --num_frames, validation.")
flags.DEFINE_string("val_features", None, "As --features, validation.")
flags.DEFINE_integer("epochs", 12, "Epochs.", lower_bound=1)
flags.DEFINE_string("monitor", "val_mIoU", "What decides which is the best.")
flags.register_validator(
    "monitor", lambda name: name.startswith("val_"), "starts with val_."
)
flags.DEFINE_bool("smoke", False, "One epoch of 64 queries: does it run?")

CURVE = "val_R@1_IoU=0.5"


def draw_curve(workdir, steps_per_epoch, chance):
    """Draws R@1, IoU=0.5 over steps, of all epochs so far."""
    with open(os.path.join(workdir, "history.csv"), encoding="utf-8") as file:
        # By epoch: one that was interrupted may stand there twice.
        by_epoch = {int(row["epoch"]): row for row in csv.DictReader(file)}
    try:
        plots.recall_curve(
            os.path.join(workdir, "training.png"),
            [(epoch + 1) * steps_per_epoch for epoch in by_epoch],
            {"validation": [float(row[CURVE]) for row in by_epoch.values()]},
            chance=chance,
        )
    except ImportError as error:  # no Matplotlib: no reason to stop
        logging.log_first_n(logging.WARNING, "No curve: %s", 1, error)


def train():
    keras.utils.set_random_seed(FLAGS.seed)
    split = datasets.preload(
        datasets.load_split("train"), in_memory=FLAGS.videos_in_memory is None
    )
    val = datasets.preload(datasets.load_split("val", prefix="val_"))
    if FLAGS.smoke:
        split = split._replace(moments=split.moments[:64])
        val = val._replace(moments=val.moments[:64])
        FLAGS.epochs = 1
    os.makedirs(FLAGS.workdir, exist_ok=True)

    def in_workdir(name):
        return os.path.join(FLAGS.workdir, name)

    model = model_flags.make_model(split)
    # The file may hold other videos as well.
    videos = dict.fromkeys(moment.video_id for moment in split.moments)
    model.adapt(split.features[video] for video in videos)
    data = training_batches.make_batches(model, split)
    model(next(iter(data.dataset))[0])  # builds it
    objective.compile_model(model, FLAGS.epochs * data.steps_per_epoch)
    validation = callbacks.Validation(
        val.moments,
        val.features,
        in_workdir("model.keras"),
        FLAGS.monitor,
        sentence_vectors=val.sentence_vectors,
    )
    chance = evaluation.chance(val.moments, model.grid)["R@1,IoU=0.5"]
    resume = callbacks.Resume(
        model, in_workdir("checkpoints"), best=validation.best
    )
    epoch = resume.restore()
    # Not before: a refused folder keeps the flags of its own run.
    datasets.save_flags(in_workdir("flags.txt"))
    if epoch:
        data = training_batches.make_batches(model, split, first_epoch=epoch)
    model.fit(
        data.dataset,
        steps_per_epoch=data.steps_per_epoch,
        epochs=FLAGS.epochs,
        initial_epoch=epoch,
        shuffle=False,  # it is already
        callbacks=[
            validation,
            keras.callbacks.CSVLogger(in_workdir("history.csv"), append=True),
            keras.callbacks.TensorBoard(in_workdir("tensorboard")),
            resume,
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda *_: draw_curve(
                    FLAGS.workdir, data.steps_per_epoch, chance
                )
            ),
        ],
    )
    print(
        f"Best {FLAGS.monitor}: {float(validation.best):.4f}. "
        f"Model: {in_workdir('model.keras')}"
    )


if __name__ == "__main__":
    command.run(train)
