r"""Trains a model: from annotations and features to WORKDIR/model.keras.

  python -m experiments.train --dataset=synthetic --workdir=runs/scenes

  python -m experiments.train --dataset=jsonl --annotations=train.jsonl \
      --features=clips.hdf5 --val_annotations=val.jsonl \
      --val_features=clips.hdf5 --workdir=runs/mine

Shows progress, searches the validation split after every epoch and keeps the
best model. Started again with the same --workdir, it continues where it was
stopped, at whatever step, and ends with the same model. WORKDIR then holds
model.keras (the best), history.csv, training.png (the paper's Figure 5),
tensorboard/, checkpoints/, and flags.txt, which as a --flagfile repeats the
run. With --strategy it trains the same model on several devices or machines,
which share --workdir. Bad input is named with file and line, and ends the run
with exit code 2.
"""

import os

import keras
import tensorflow as tf
from absl import flags

from acnn_tf import callbacks, evaluation, training
from experiments import (
    curves,
    datasets,
    model_flags,
    objective,
    strategies,
    training_batches,
)
from export import command

FLAGS = flags.FLAGS
for module in (
    datasets,
    model_flags,
    objective,
    strategies,
    training_batches,
):
    flags.adopt_module_key_flags(module)

flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
flags.DEFINE_string("val_annotations", None, "As --annotations, validation.")
flags.DEFINE_string("val_durations", None, "As --durations, validation.")
flags.DEFINE_string("val_num_frames", None, "As --num_frames, validation.")
flags.DEFINE_string("val_features", None, "As --features, validation.")
flags.DEFINE_integer("epochs", 12, "Epochs.", lower_bound=1)
flags.DEFINE_integer(
    "checkpoint_steps",
    None,
    "Steps that a run which is killed does twice, at most. Default: an epoch.",
    lower_bound=1,
)
flags.DEFINE_string("monitor", "val_mIoU", "What decides which is the best.")
flags.register_validator(
    "monitor", lambda name: name.startswith("val_"), "starts with val_."
)
flags.DEFINE_bool("smoke", False, "One epoch of 64 queries: does it run?")

flags.DEFINE_integer(
    "train_queries",
    0,
    "Search for so many training queries, too: their lead is learnt by heart.",
    lower_bound=0,
)


def train():
    strategy = strategies.make_strategy()
    chief = strategy.extended.should_checkpoint
    keras.utils.set_random_seed(FLAGS.seed)
    tf.config.experimental.enable_op_determinism()
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

    def make_batches(epoch):
        return training_batches.make_batches(model, split, first_epoch=epoch)

    with strategy.scope():
        model = model_flags.make_model(split)
        # The file may hold other videos as well.
        videos = dict.fromkeys(moment.video_id for moment in split.moments)
        model.adapt(split.features[video] for video in videos)
        data = make_batches(0)
        model(next(iter(data.dataset))[0])  # builds it
        objective.compile_model(model, FLAGS.epochs * data.steps_per_epoch)
    validation = callbacks.Validation(
        val.moments,
        val.features,
        in_workdir("model.keras") if chief else None,
        FLAGS.monitor,
        sentence_vectors=val.sentence_vectors,
    )
    resume = training.ResumableTraining(
        model,
        in_workdir("checkpoints"),
        every=FLAGS.checkpoint_steps,
        history_path=in_workdir("history.csv"),
    )

    def draw(_, logs):
        rows = [*resume.history, logs]
        curves.draw_epochs(
            in_workdir("training.png"), rows, data.steps_per_epoch, chance
        )

    chance = evaluation.chance(val.moments, model.grid)["R@1,IoU=0.5"]
    of_chief = [
        # Not before: a refused folder keeps the flags of its own run.
        keras.callbacks.LambdaCallback(
            on_train_begin=lambda _: datasets.save_flags(
                in_workdir("flags.txt")
            ),
            on_epoch_end=draw,
        ),
        keras.callbacks.TensorBoard(in_workdir("tensorboard")),
    ]
    resume.fit(
        make_batches,
        epochs=FLAGS.epochs,
        callbacks=[
            validation,
            *curves.watch(split, FLAGS.train_queries, FLAGS.seed),
            *(of_chief if chief else []),
        ],
    )
    print(
        f"Best {FLAGS.monitor}: {validation.best:.4f}. "
        f"Model: {in_workdir('model.keras')}"
    )


if __name__ == "__main__":
    command.run(train)
