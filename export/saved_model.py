r"""Exports a trained model as a servable: DIR/acnn/<version>/.

  python -m export.saved_model --workdir=runs/charades --export_dir=models \
      --corpus=clips.hdf5

The folder takes sentences (and clip features) and answers with moments, and
needs none of this code. With --corpus, all windows of those videos are encoded
into it, and sentences are searched for in all of them. The folder is written
elsewhere, loaded again, compared with the model and then renamed, so that a
server that watches DIR/acnn never sees half of it. See its README.md, and
BUILD.md for how to serve it.
"""

import os
import sys

import keras
from absl import app, flags, logging

from acnn_tf import search, serving
from acnn_tf.data.features import open_features
from acnn_tf.data.problems import DataError
from acnn_tf.data.text_files import read_numbers
from acnn_tf.models import ACNN  # noqa: F401 - so that Keras can load it
from export import warmup

FLAGS = flags.FLAGS

flags.DEFINE_string("workdir", None, "Folder of a run.", required=True)
flags.DEFINE_string("export_dir", None, "Where to.", required=True)
flags.DEFINE_string("name", "acnn", "Name of the model on the server.")
flags.DEFINE_integer(
    "version", None, "Default: one more than the highest there.", lower_bound=1
)
flags.DEFINE_string(
    "corpus", None, "HDF5, TFRecord or folder of .npy: videos to search in."
)
flags.DEFINE_string("durations", None, "JSON file: seconds of each video.")
flags.DEFINE_float(
    "clip_seconds", None, "Seconds of a clip, where the features do not say."
)
flags.DEFINE_string(
    "index", None, "Folder of an index of the corpus (experiments.search)."
)
flags.DEFINE_integer("top_n", 10, "Moments of an answer.", lower_bound=1)
flags.DEFINE_float(
    "nms_threshold", 0.5, "IoU that two moments of one video may have."
)


def make_index(model):
    """The index that the flags ask for, or `None`."""
    if not (FLAGS.corpus or FLAGS.index):
        return None
    index = search.MomentIndex(model, FLAGS.index)
    if not FLAGS.corpus:
        return index
    durations, problems = {}, []
    if FLAGS.durations:
        durations = read_numbers(FLAGS.durations, problems)
    if problems:
        raise DataError(problems)
    with open_features(
        FLAGS.corpus, clip_seconds=FLAGS.clip_seconds
    ) as features:
        known = set(index.video_ids)
        index.append(
            features,
            {
                video: durations.get(video)
                or len(features[video]) * features.clip_seconds
                for video in features
                if video not in known
            },
            lambda done, total: print(
                f"\r{done:,} of {total:,} windows encoded",
                end="\n" if done == total else "",
                file=sys.stderr,
            ),
        )
    return index


def next_version(folder):
    """One more than the highest integer among the folders there."""
    there = os.listdir(folder) if os.path.isdir(folder) else []
    return 1 + max([int(name) for name in there if name.isdecimal()], default=0)


def run():
    folder = os.path.join(FLAGS.export_dir, FLAGS.name)
    version = FLAGS.version or next_version(folder)
    target = os.path.join(folder, str(version))
    if os.path.exists(target):  # before videos are encoded for hours
        raise FileExistsError(f"{target} is there already.")
    path = os.path.join(FLAGS.workdir, "model.keras")
    model = keras.saving.load_model(path, compile=False)
    index = make_index(model)
    try:
        assets_extra = warmup.files(FLAGS.name, model, index)
    except ImportError as error:
        print(error, file=sys.stderr)
        assets_extra = None
    errors = serving.export(
        model,
        target,
        index=index,
        top_n=FLAGS.top_n,
        nms_threshold=FLAGS.nms_threshold,
        assets_extra=assets_extra,
    )
    print(f"{target}: the same numbers as {path}, but for rounding:")
    for signature, error in errors.items():
        print(f"  {signature:<15} {error:.1e} of the largest number")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Not a flag: {argv[1:]}")
    # TensorFlow tells what it writes, in the middle of the progress.
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        run()
    except (KeyError, OSError, ValueError) as error:
        logging.debug("Where it happened:", exc_info=True)
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main)
