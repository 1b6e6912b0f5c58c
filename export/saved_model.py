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

from absl import flags

from acnn_tf import search, servable
from acnn_tf.files.locks import locked
from acnn_tf.files.names import check_file_name
from acnn_tf.models import load_model
from export import command, corpus, warmup

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
    if FLAGS.corpus:
        corpus.add_videos(
            index, FLAGS.corpus, FLAGS.durations, FLAGS.clip_seconds
        )
    return index


def next_version(folder):
    """One more than the highest integer among the folders there."""
    there = os.listdir(folder) if os.path.isdir(folder) else []
    return 1 + max([int(name) for name in there if name.isdecimal()], default=0)


def run():
    check_file_name(FLAGS.name)
    folder = os.path.join(FLAGS.export_dir, FLAGS.name)
    with locked(folder):  # two exports must not choose one version
        export(folder)


def export(folder):
    version = FLAGS.version or next_version(folder)
    target = os.path.join(folder, str(version))
    if os.path.exists(target):  # before videos are encoded for hours
        raise FileExistsError(f"{target} is there already.")
    path = os.path.join(FLAGS.workdir, "model.keras")
    model = load_model(path)
    index = make_index(model)
    try:
        assets_extra = warmup.files(FLAGS.name, model, index)
    except ImportError as error:
        print(error, file=sys.stderr)
        assets_extra = None
    errors = servable.export(
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


if __name__ == "__main__":
    command.run(run)
