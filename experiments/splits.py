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
    "Format of the annotations. `synthetic` makes its own scenes where no "
    "files are given.",
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of the dataset. Files that are not named by other flags are found "
    "in it by their usual names.",
)
flags.DEFINE_string("annotations", None, "File of sentences and their moments.")
flags.DEFINE_string(
    "durations", None, "File of the seconds of each video: JSON or CSV."
)
flags.DEFINE_string(
    "num_frames", None, "JSON file of the number of frames of each video."
)
flags.DEFINE_string(
    "features",
    None,
    "Clip features of the videos: HDF5, TFRecord or a folder of .npy files.",
)
flags.DEFINE_float(
    "clip_seconds",
    None,
    "Seconds from one clip to the next. Default: as the features say.",
)
flags.DEFINE_string(
    "sentence_vectors",
    None,
    "A vector for each query, for models without words: HDF5 or a folder of "
    ".npy files.",
)
flags.DEFINE_bool(
    "skip_bad",
    None,
    "Leave out bad annotations and videos, and go on. Default: stop and list "
    "them.",
)
flags.DEFINE_integer(
    "num_scenes",
    None,
    "Number of training videos that --dataset=synthetic makes; validation and "
    "test have a fifth of it. Default: 400.",
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
    """Loads one split of a dataset.

    Args:
        split: `"train"`, `"val"` or `"test"`.
        dataset: Name of the format, one of `acnn_tf.data.annotations.DATASETS`.
        data_dir: Folder in which files that are not named are found by their
            usual names.
        annotations: Path of the sentences and their moments, or `None`.
        durations: Path of the seconds of each video, or `None`.
        num_frames: Path of the frames of each video, or `None`.
        features: Path of the clip features, or `None`.
        clip_seconds: Seconds from one clip to the next, where the features do
            not say.
        sentence_vectors: Path of a vector for each query, or `None`.
        skip_bad: Leave out bad annotations and videos, and print what is
            wrong with them, in place of raising.
        num_scenes: Training videos of the built-in scenes, which
            `dataset="synthetic"` makes where no files are given.
        with_features: Open the features as well; they must be there.

    Returns:
        `Split`.

    Raises:
        DataError: Lists what is wrong in the files.
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
                "(for validation, training has --val_features), or a "
                "--data_dir that holds them."
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
    """Loads the features of the split's videos into memory.

    Args:
        split: `Split`.

    Returns:
        `Split` with the same moments and vectors.
    """
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
