"""Adds the videos of a file of features to an index, and the flags for it."""

import contextlib

from absl import flags

import acnn_tf
from acnn_tf.data.durations import known_seconds
from export import command, flag_help, run_models
from export.progress import Progress

flags.DEFINE_string(
    "durations",
    None,
    "JSON or CSV file of the seconds of each video. Default: those beside the "
    "features, as experiments.extract_features leaves them, or of its clips.",
)
flags.DEFINE_float(
    "clip_seconds",
    None,
    "Seconds from one clip to the next. Default: as the features say.",
)
flag_help.subject("Data", "durations", "clip_seconds")


def load_model(workdir=None, path=None, clip_seconds=None, **settings):
    """`run_models.load_model` for the clip features of a file, if any."""
    with contextlib.ExitStack() as stack:
        features = None
        if path and not workdir:
            features = stack.enter_context(
                acnn_tf.data.open_features(path, clip_seconds=clip_seconds)
            )
        return run_models.load_model(workdir, features=features, **settings)


def add_videos(index, path, durations=None, clip_seconds=None, videos=None):
    """Encodes the videos that an index does not have yet; shows progress.

    The `MomentIndex` takes those of a file of clip features, or only `videos`,
    ids. `durations` is a file, see `known_seconds`; `clip_seconds` is for
    features that do not say.
    """
    with acnn_tf.data.open_features(
        path, clip_seconds=clip_seconds
    ) as features:
        command.tell_unknown(features, index)
        seconds = known_seconds(features, durations)
        progress = Progress(None, "windows")

        def tell(done, total):
            progress.total = total
            progress(done / total, done)

        index.add_missing(features, seconds, videos, tell)
