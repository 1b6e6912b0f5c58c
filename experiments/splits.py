"""Splits of datasets: the flags that name their files, and how to load them."""

import os
import sys
import typing

from absl import flags

import acnn_tf
from acnn_tf.data import inspection
from acnn_tf.data.annotations import DATASETS, find_files, read_moments

flags.DEFINE_enum(
    "dataset",
    None,
    list(DATASETS),
    "Format of the annotations; synthetic makes scenes if no files are given.",
)
flags.DEFINE_string(
    "data_dir", None, "Folder in which files are found by their usual names."
)
flags.DEFINE_string("annotations", None, "File of sentences and moments.")
flags.DEFINE_string(
    "durations", None, "JSON or CSV file of the seconds of each video."
)
flags.DEFINE_string(
    "num_frames", None, "JSON file of the number of frames of each video."
)
flags.DEFINE_string(
    "features", None, "Clip features: HDF5, TFRecord or a folder of .npy."
)
flags.DEFINE_float(
    "clip_seconds",
    None,
    "Seconds from one clip to the next. Default: as the features say.",
)
flags.DEFINE_string(
    "sentence_vectors",
    None,
    "A vector for each query, in place of words: HDF5 or a folder of .npy.",
)
flags.DEFINE_bool(
    "skip_bad", None, "Leave out bad annotations and videos, and go on."
)
flags.DEFINE_integer(
    "num_scenes",
    None,
    "Training videos of --dataset=synthetic. Default: 400.",
    lower_bound=1,
)

# Arguments of `load_split` that differ from one split to the next.
FILES = ("annotations", "durations", "num_frames", "features")


class Split(typing.NamedTuple):
    """One split of a dataset.

    Attributes:
        moments: List of `Moment`.
        features: Mapping from video id to `[T, D]`, or `None`.
        sentence_vectors: Mapping from query id to `[E]`, or `None`.
    """

    moments: list
    features: typing.Mapping | None
    sentence_vectors: typing.Mapping | None


def load_split(
    split,
    *,
    dataset=None,
    data_dir=None,
    annotations=None,
    durations=None,
    num_frames=None,
    features=None,
    clip_seconds=None,
    sentence_vectors=None,
    skip_bad=False,
    num_scenes=400,
    with_features=True,
):
    """Loads one split of a dataset: `"train"`, `"val"` or `"test"`.

    The arguments are explained by the flags of their names. Without
    `with_features`, the features are not opened, and need not be there.

    Returns:
        `Split`.

    Raises:
        DataError: Lists what is wrong in the files, unless `skip_bad`.
        ValueError: If it is not said which dataset, or which files.
    """
    if dataset is None:
        raise ValueError(
            "--dataset must say which format the annotations have: one of "
            f"{', '.join(DATASETS)}."
        )
    if dataset == "synthetic" and not (data_dir or annotations):
        count = num_scenes if split == "train" else max(1, num_scenes // 5)
        scenes = acnn_tf.data.make_scenes(count, split=split)
        return Split(scenes.moments, Preloaded(scenes.features, scenes), None)
    paths = find_files(
        dataset,
        data_dir,
        split,
        annotations=annotations,
        durations=durations,
        num_frames=num_frames,
        features=features,
    )
    problems = [] if skip_bad else None
    moments = read_moments(
        paths["annotations"],
        dataset,
        durations=paths.get("durations"),
        num_frames=paths.get("num_frames"),
        problems=problems,
    )
    features = vectors = None
    if with_features:
        if "features" not in paths:
            raise ValueError(
                f"There are no features of the {split} split: give --features "
                "(in training also --val_features), or a --data_dir with them."
            )
        features = acnn_tf.data.open_features(
            paths["features"], clip_seconds=clip_seconds
        )
        if skip_bad:
            moments, unusable = inspection.with_usable_features(
                moments, features
            )
            problems += unusable
    if sentence_vectors:
        vectors = acnn_tf.data.read_sentence_vectors(sentence_vectors)
    for problem in problems or ():
        if problem.dropped:
            print(f"left out: {problem}", file=sys.stderr)
    return Split(moments, features, vectors)


class Preloaded(dict):
    """Clip features of some videos, in memory.

    Args:
        features: Mapping from video id to `[T, D]`.
        source: Where they are from; has `clip_seconds`.
        videos: Ids of the videos to hold. Default: all.
    """

    def __init__(self, features, source, videos=None):
        super().__init__(
            (video, features[video])
            for video in (features if videos is None else videos)
        )
        self.clip_seconds = source.clip_seconds


def preload(split):
    """The same `Split`, with the features of its videos in memory."""
    videos = dict.fromkeys(moment.video_id for moment in split.moments)
    features = Preloaded(split.features, split.features, videos)
    return split._replace(features=features)


def settings_of_run(workdir, split):
    """The data that a run was trained on, or its model was chosen by.

    Args:
        workdir: Folder of a run of experiments.train.
        split: `"train"` or `"val"`, to have the files that the run used for
            this split; `"test"` has those of `data_dir` alone.

    Returns:
        Dictionary of arguments for `load_split`.
    """
    with open(os.path.join(workdir, "flags.txt"), encoding="utf-8") as lines:
        used = dict(line.strip()[2:].partition("=")[::2] for line in lines)
    kinds = {"dataset": str, "data_dir": str, "sentence_vectors": str}
    kinds |= {"num_scenes": int, "clip_seconds": float}
    settings = {n: kind(used[n]) for n, kind in kinds.items() if n in used}
    settings["skip_bad"] = "skip_bad" in used
    prefix = {"train": "", "val": "val_"}.get(split)
    for name in FILES:
        if prefix is not None and prefix + name in used:
            settings[name] = used[prefix + name]
    return settings
