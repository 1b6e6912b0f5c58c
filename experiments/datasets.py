"""The flags that name data, and what they name; shared by the mains."""

import sys
import typing

from absl import flags

from acnn_tf.data import annotations, inspection, synthetic
from acnn_tf.data import features as features_lib
from acnn_tf.data import sentences as sentences_lib
from acnn_tf.files.atomic import replacing

FLAGS = flags.FLAGS

flags.DEFINE_enum(
    "dataset",
    None,
    annotations.DATASETS,
    "Format of the annotations. `synthetic` makes scenes and needs no files.",
)
flags.DEFINE_string(
    "data_dir", None, "Folder that holds a dataset under its known file names."
)
flags.DEFINE_string("annotations", None, "File of sentences and moments.")
flags.DEFINE_string("durations", None, "JSON file: video id to seconds.")
flags.DEFINE_string("num_frames", None, "JSON file: video id to frames.")
flags.DEFINE_string("features", None, "HDF5, TFRecord or folder of .npy.")
flags.DEFINE_float(
    "clip_seconds", None, "Seconds of a clip, where the features do not say."
)
flags.DEFINE_string(
    "sentence_vectors", None, "HDF5 or folder of .npy: a vector for each query."
)
flags.DEFINE_bool(
    "skip_bad",
    False,
    "Leave bad annotations and videos out, not stop.",
)
flags.DEFINE_integer(
    "num_scenes", 400, "Training videos of --dataset=synthetic.", lower_bound=1
)


class Split(typing.NamedTuple):
    """One split of a dataset.

    Attributes:
        moments: List of `Moment`.
        features: Mapping from video id to `[T, D]`; `None` where there are
            none to be had.
        sentence_vectors: Mapping from query id to `[E]`, or `None`.
    """

    moments: list
    features: typing.Mapping | None
    sentence_vectors: typing.Mapping | None


def load_split(split, prefix="", with_features=True):
    """Loads what the flags name.

    Args:
        split: `"train"`, `"val"` or `"test"`: of `--data_dir`, or of scenes.
        prefix: Of the flags that name files: `"val_"` reads
            `--val_annotations` in place of `--annotations`, and so on.
        with_features: Open the features as well.

    Returns:
        `Split`.
    """
    if FLAGS.dataset is None:
        raise ValueError(
            "--dataset must say which format the annotations have: one of "
            f"{', '.join(annotations.DATASETS)}."
        )
    if FLAGS.dataset == "synthetic" and not (
        FLAGS.data_dir or FLAGS.annotations
    ):
        count = FLAGS.num_scenes
        if split != "train":
            count = max(1, count // 5)
        scenes = synthetic.make_scenes(count, split=split)
        return Split(scenes.moments, Preloaded(scenes.features, scenes), None)
    paths = {}
    if FLAGS.data_dir:
        named = FLAGS[f"{prefix}annotations"].value
        paths = annotations.known_files(
            FLAGS.dataset, FLAGS.data_dir, split, annotations=named
        )
    for name in ("annotations", "durations", "num_frames", "features"):
        paths[name] = FLAGS[prefix + name].value or paths.get(name)
    if not paths["annotations"]:
        raise ValueError(f"Give --{prefix}annotations, or --data_dir.")
    problems = [] if FLAGS.skip_bad else None
    moments = annotations.read_moments(
        paths["annotations"],
        FLAGS.dataset,
        durations=paths["durations"],
        num_frames=paths["num_frames"],
        problems=problems,
    )
    features = vectors = None
    if paths["features"] and with_features:
        features = features_lib.open_features(
            paths["features"], clip_seconds=FLAGS.clip_seconds
        )
        if FLAGS.skip_bad:
            moments, unsound = inspection.with_sound_features(moments, features)
            problems += unsound
    if FLAGS.sentence_vectors:
        vectors = sentences_lib.read_sentence_vectors(FLAGS.sentence_vectors)
    dropped = [problem for problem in problems or () if problem.dropped]
    for problem in dropped:
        print(f"left out: {problem}", file=sys.stderr)
    return Split(moments, features, vectors)


class Preloaded(dict):
    """Clip features of some videos, in memory.

    Args:
        features: Mapping from video id to `[T, D]`.
        source: Where they are from; has `clip_seconds`.
        videos: Ids of the videos to hold; default: all.
    """

    def __init__(self, features, source, videos=None):
        super().__init__(
            (video, features[video])
            for video in (features if videos is None else videos)
        )
        self.clip_seconds = source.clip_seconds


def preload(split, in_memory=True):
    """The same split, with its features in memory, where they are to be."""
    if split.features is None:
        raise ValueError(
            "There are no features: give --features (and --val_features), or "
            "a --data_dir that holds them."
        )
    if not in_memory:
        return split
    videos = dict.fromkeys(moment.video_id for moment in split.moments)
    features = Preloaded(split.features, split.features, videos)
    return split._replace(features=features)


def given_flags():
    """Those of the data's flags that were given, as one types them: list."""
    words = []
    for flag in FLAGS.get_key_flags_for_module(__name__):
        if flag.present:
            words += flag.serialize().split("\n")
    return words


def save_flags(path):
    """Writes every flag of this run, so that `--flagfile` repeats it.

    Args:
        path: File to write.
    """
    lines = []
    for flag in FLAGS.get_key_flags_for_module(sys.argv[0]):
        if flag.value is not None:
            lines += flag.serialize().split("\n")
    with replacing(path) as partial:
        with open(partial, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
