r"""Trains a model: from annotations and features to WORKDIR/model.keras.

  python -m experiments.train --dataset=synthetic --workdir=runs/scenes

  python -m experiments.train --videos=videos --annotations=own.jsonl \
      --workdir=runs/mine

  python -m experiments.train --dataset=jsonl --annotations=train.jsonl \
      --features=clips.hdf5 --val_annotations=val.jsonl \
      --val_features=clips.hdf5 --workdir=runs/mine

With --init_from it starts from the model of another run, or from a .keras
file: words that it does not know are added, and settings of the model that are
not given are its own.

With --videos their features are extracted first, into WORKDIR/features.hdf5,
and without --val_annotations a fifth of the videos is held out. Videos of which
nothing can be read are left out and listed; if there are sentences about one,
or that is all of them, the exit code is 2.

Prints a line for each epoch, searches the validation split after it and keeps
the best model; at the end it finds out what that model's scores are worth.
Started again with the same --workdir, it continues where it was stopped, at
whatever step, and ends with the same model. WORKDIR then holds model.keras (the
best), calibration.json (how likely a moment is right, by its score),
history.csv, training.png (recall and losses), tensorboard/, checkpoints/, and
flags.txt, which as a --flagfile repeats the run, whatever becomes of defaults.
With --strategy it trains the same model on several devices or machines, which
share --workdir. Bad input is named with file and line, and ends the run with
exit code 2.
"""

import os
import sys

from absl import flags

import acnn_tf
from acnn_tf.data.windows import check_features
from experiments import (
    argument_flags,
    losses_and_optimizer,
    model_flags,
    own_videos,
    run_settings,
    splits,
    strategies,
    tensorboard_log,
    training_batches,
    training_curves,
    training_log,
)
from export import command, flag_help

FLAGS = flags.FLAGS
for module in (
    splits,
    model_flags,
    training_batches,
    losses_and_optimizer,
    strategies,
):
    flags.adopt_module_key_flags(module)

flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
for name in splits.FILES:
    flags.DEFINE_string(
        f"val_{name}", None, f"What --{name} is, for the validation split."
    )
flags.DEFINE_list(
    "videos",
    None,
    "Files, folders and patterns of videos, in place of --features.",
)
flags.DEFINE_string(
    "encoder",
    None,
    "What makes the features of --videos, as for experiments.extract_features. "
    "Default: pixels.",
)
flags.DEFINE_float(
    "fps",
    None,
    "Frames of a second of --videos to encode. Default: the encoder's own.",
)
flags.DEFINE_string(
    "init_from",
    None,
    "Run, or .keras file, whose model the training starts from. Words that it "
    "does not know are added; settings of the model that are not given are its "
    "own.",
)
flags.DEFINE_integer("epochs", 12, "Number of epochs.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of weights, order, crops and dropout.")
flags.DEFINE_integer(
    "checkpoint_steps",
    None,
    "Steps from one checkpoint to the next. Default: an epoch.",
    lower_bound=1,
)
flags.DEFINE_string(
    "monitor",
    "val_mIoU",
    "Column of history.csv that decides on the best epoch.",
)
flags.register_validator(
    "monitor", lambda name: name.startswith("val_"), "starts with val_."
)
flags.DEFINE_integer(
    "train_queries",
    0,
    "Search for so many training queries, too, after every epoch: their lead "
    "is what was learned by heart.",
    lower_bound=0,
)
flags.DEFINE_bool(
    "smoke", False, "Train one epoch on 64 queries, to see that it runs."
)
flag_help.subject(
    "Data", "val_annotations", "val_durations", "val_num_frames", "val_features"
)
flag_help.subject("Videos, in place of features", "videos", "encoder", "fps")
flag_help.subject(
    "Training",
    "epochs",
    "seed",
    "checkpoint_steps",
    "monitor",
    "train_queries",
    "smoke",
)


def initial_model():
    """The path of the model of --init_from."""
    path = FLAGS.init_from
    if os.path.isdir(path):
        path = os.path.join(path, "model.keras")
    own = os.path.join(FLAGS.workdir, "model.keras")
    if os.path.realpath(path) == os.path.realpath(own):
        raise ValueError(
            f"--init_from={FLAGS.init_from} is what --workdir itself writes: "
            "choose another --workdir. Without --init_from, its run goes on."
        )
    return path


def fill_in_flags(trained):
    """Gives each flag that was not given the default that it leaves."""
    defaults = model_flags.defaults(FLAGS.model, FLAGS.window_frames, trained)
    if FLAGS.window_seconds:  # in place of frames
        defaults.pop("window_frames", None)
    for function in (
        strategies.make_strategy,
        splits.load_split,
        training_batches.make_batches,
        losses_and_optimizer.compile_model,
    ):
        defaults |= argument_flags.defaults(function)
    for name, value in defaults.items():
        if name in FLAGS and FLAGS[name].value is None:
            values = value if isinstance(value, tuple) else (value,)
            text = ",".join(map(str, values))
            FLAGS[name].parse("none" if value is None else text)


def use_videos():
    """Has the flags name files that are made of --videos."""
    names = ("data_dir", "features", "val_features", "durations")
    given = [f"--{name}" for name in names if FLAGS[name].value]
    if given:
        raise ValueError(f"--videos goes without {', '.join(given)}.")
    files = own_videos.prepare(
        *(FLAGS.workdir, FLAGS.videos, FLAGS.annotations),
        FLAGS.val_annotations,
        **command.given("dataset", "encoder", "fps", "skip_bad"),
    )
    if not FLAGS.encoder:
        print(
            "note: without --encoder, features are made by `pixels`, which "
            "sees little but coloured shapes. For videos of the real world "
            "give --encoder=efficientnet_lite0, or one of CLIP.",
            file=sys.stderr,
        )
    for name, value in files.items():
        FLAGS[name].parse(value)
    # What they have come to is what repeats the run.
    for name in ("videos", "encoder", "fps"):
        FLAGS[name].value = None


def run():
    if not FLAGS.videos and (FLAGS.encoder or FLAGS.fps):
        raise ValueError("--encoder and --fps go with --videos.")
    strategy = strategies.make_strategy(**command.flag_values(strategies))
    with acnn_tf.training.alone(strategy, FLAGS.workdir):
        if FLAGS.videos:
            use_videos()
        train(strategy)


def train(strategy):
    import keras
    import tensorflow as tf

    is_chief = strategy.extended.should_checkpoint
    keras.utils.set_random_seed(FLAGS.seed)
    tf.config.experimental.enable_op_determinism()
    epochs = 1 if FLAGS.smoke else FLAGS.epochs

    def in_workdir(name):
        return os.path.join(FLAGS.workdir, name)

    files, trained = {}, None
    if FLAGS.init_from:
        files["init_from"] = initial_model()
        trained = acnn_tf.models.load_model(files["init_from"])
    fill_in_flags(trained)

    # Data.
    data = command.flag_values(splits)
    files |= splits.files_of("train", **data)
    for name in ("sentence_vectors", "word_vectors"):
        if FLAGS[name].value:
            files[name] = FLAGS[name].value
    val_data = data | {n: FLAGS[f"val_{n}"].value for n in splits.FILES}
    for name, path in splits.files_of("val", **val_data).items():
        files[f"val_{name}"] = path
    sentence_encoder = None
    if model_flags.encodes_sentences(FLAGS.query_encoder):
        sentence_encoder = acnn_tf.encoders.sentence_encoder(
            None, FLAGS.query_encoder
        )
    words = command.flag_words(sys.argv[0])
    split = splits.load_split("train", **data)
    made_by = split.features.encoder
    run_settings.check_same(FLAGS.workdir, words, files, made_by)
    val = splits.load_split("val", **val_data)
    if is_chief:
        command.tell_unknown(split.features)
        command.tell_unknown(val.features)
    if FLAGS.videos_in_memory is None:
        split = splits.preload(split)
    val = splits.preload(val)
    if FLAGS.smoke:
        split = split._replace(moments=split.moments[:64])
        val = val._replace(moments=val.moments[:64])
    if sentence_encoder is not None:
        split, val = (
            splits.encode_sentences(one, sentence_encoder)
            for one in (split, val)
        )

    with strategy.scope():
        # Model. The file of features may hold other videos as well.
        model = model_flags.make_model(
            split, trained=trained, **command.flag_values(model_flags)
        )
        check_features(model, val.features)
        if trained is None:  # or else it has the scale that it learned with
            videos = dict.fromkeys(moment.video_id for moment in split.moments)
            model.adapt(split.features[video] for video in videos)

        # Batches.
        def make_batches(epoch):
            return training_batches.make_batches(
                model,
                split,
                **command.flag_values(training_batches),
                seed=FLAGS.seed,
                first_epoch=epoch,
            )

        batches = make_batches(0)
        model(next(iter(batches.dataset))[0])  # builds it

        # Losses and optimizer.
        losses_and_optimizer.compile_model(
            model,
            epochs * batches.steps_per_epoch,
            **command.flag_values(losses_and_optimizer),
        )

    # Evaluate after every epoch, and save the best model.
    validation = acnn_tf.callbacks.Validation(
        val.moments,
        val.features,
        in_workdir("model.keras") if is_chief else None,
        FLAGS.monitor,
        sentence_vectors=val.sentence_vectors,
    )
    watch = training_curves.watch_training_queries(
        split, FLAGS.train_queries, FLAGS.seed
    )
    chance = acnn_tf.evaluation.chance(val.moments, model.grid)["R@1,IoU=0.5"]

    def draw_curves(_, logs):
        training_curves.draw_epochs(
            in_workdir("training.png"),
            [*resume.history, logs],
            batches.steps_per_epoch,
            monitor=FLAGS.monitor,
            chance=chance,
            title=f"{splits.title('val', **val_data)}, "
            f"{len(val.moments)} queries; best epoch by {FLAGS.monitor}",
        )

    def save_flags(_):
        run_settings.write_flags(FLAGS.workdir, words, files, made_by)

    log = [
        # Not before: a folder of another model keeps the flags of its own run.
        keras.callbacks.LambdaCallback(
            on_train_begin=save_flags, on_epoch_end=draw_curves
        ),
        keras.callbacks.TensorBoard(in_workdir("tensorboard")),
    ]

    # Fit, from the last checkpoint if there is one.
    resume = acnn_tf.training.ResumableTraining(
        model,
        in_workdir("checkpoints"),
        every=FLAGS.checkpoint_steps,
        history_path=in_workdir("history.csv"),
    )
    if is_chief:
        about = split, val, model, batches, epochs, FLAGS.workdir
        print(*training_log.header(FLAGS.dataset, *about), sep="\n")
        if len(val.moments) < acnn_tf.calibration.FEWEST:
            print(
                f"note: {len(val.moments)} queries to validate on are too few "
                "to choose the best epoch by. Give more videos and sentences, "
                "or --val_annotations.",
                file=sys.stderr,
            )
        lines = training_log.EpochLines(
            resume, validation, epochs, batches.steps_per_epoch
        )
        log.append(lines.callback())
    resume.fit(
        make_batches,
        epochs=epochs,
        callbacks=[validation, *watch, *(log if is_chief else [])],
        verbose=0,
    )
    if not resume.num_epochs:
        print(
            f"All {epochs} epochs were done before. A larger --epochs goes on."
        )
    if is_chief and not os.path.exists(in_workdir("model.keras")):
        raise FileNotFoundError(
            f"{in_workdir('model.keras')} is gone, and with it the weights of "
            "the best epoch. Bring it back, or train in an empty --workdir."
        )
    if is_chief:
        tensorboard_log.write_pictures(
            in_workdir("tensorboard/pictures"),
            {"training": in_workdir("training.png")},
            step=epochs,
        )
        tensorboard_log.write_settings(
            in_workdir("tensorboard/settings"),
            run_settings.read_flags(FLAGS.workdir),
            {f"best/{FLAGS.monitor}": validation.best},
        )
    print(
        f"Best {FLAGS.monitor}: {validation.best:.4f}. "
        f"Model: {in_workdir('model.keras')}"
    )
    if is_chief:
        try:
            report = acnn_tf.calibration.calibrate_run(FLAGS.workdir, *val)
            print(acnn_tf.calibration.in_words(report))
        except ValueError as error:  # which has not harmed the model
            print(f"There is no calibration: {error}", file=sys.stderr)
        command.say_next("experiments.evaluate", f"--workdir={FLAGS.workdir}")


if __name__ == "__main__":
    command.run(run)
