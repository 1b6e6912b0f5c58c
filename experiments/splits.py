"""Splits of datasets: the flags that name their files, and how to load them."""

import os
import sys
import typing

import acnn_tf
from acnn_tf.data import inspection
from acnn_tf.data.annotations import DATASETS, find_files, read_moments
from experiments import argument_flags, run_settings
from export import run_models

# What datasets are called in titles.
_TITLES = {
    "activitynet_captions": "ActivityNet Captions",
    "charades_sta": "Charades-STA",
    "didemo": "DiDeMo",
    "qvhighlights": "QVHighlights",
    "synthetic": "built-in scenes",
    "tacos": "TACoS",
}
# Arguments of `load_split` that differ from one split to the next.
FILES = ("annotations", "durations", "num_frames", "features")


class Split(typing.NamedTuple):
    """One split of a dataset."""

    moments: list
    features: typing.Mapping | None  # video id -> [T, D]
    sentence_vectors: typing.Mapping | None  # query id -> [E]


def load_split(
    split,
    *,
    dataset: typing.Literal[*DATASETS] | None = None,
    data_dir=None,
    annotations=None,
    durations=None,
    num_frames=None,
    features=None,
    clip_seconds: float | None = None,
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
        clips = scenes.features
        clips = Preloaded(clips, clips, scenes.clip_seconds, scenes.encoder)
        return Split(scenes.moments, clips, None)
    paths = find_files(
        dataset,
        data_dir,
        split,
        annotations=annotations,
        durations=durations,
        num_frames=num_frames,
        features=features,
    )
    path = paths.pop("features", None)
    problems = [] if skip_bad else None
    moments = read_moments(
        paths.pop("annotations"), dataset, problems=problems, **paths
    )
    features = vectors = None
    if with_features:
        if path is None:
            raise ValueError(
                f"There are no features of the {split} split: give --features "
                "(in training also --val_features), or a --data_dir with them."
            )
        features = acnn_tf.data.open_features(path, clip_seconds=clip_seconds)
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


argument_flags.define(
    load_split,
    "Data",
    dataset="Format of the annotations; synthetic makes scenes if no files are "
    "given.",
    data_dir="Folder in which files are found by their usual names.",
    annotations="File of sentences and moments.",
    durations="JSON or CSV file of the seconds of each video.",
    num_frames="JSON file, or pickle, of the number of frames of each video.",
    features="Features: HDF5, TFRecord, .npz, .pt, or a folder of .npy, .npz "
    "or .pt, one for each video or, VIDEO_START_END.npy in frames, for each "
    "window. Several, with commas between, are joined.",
    clip_seconds="Seconds from one clip to the next. Default: as the features "
    "say.",
    sentence_vectors="A vector for each query, in place of words: HDF5, a "
    "folder of .npy, or the clip-sentvec.pkl of TACoS.",
    skip_bad="Leave out bad annotations and videos, and go on.",
    num_scenes="Training videos of --dataset=synthetic.",
)


def title(split, *, dataset, data_dir=None, annotations=None, **_):
    """Dataset and split in words, for the titles of tables and pictures.

    Args:
        split: `"train"`, `"val"` or `"test"`.
        dataset: As of `load_split`, whose other arguments may be given, too.
        data_dir: Likewise. Data of one's own have the name of this folder.
        annotations: Likewise; or the name of this file, or of its folder,
            where the file is called as the split is.

    Returns:
        String.

    Example:

    >>> title("test", dataset="charades_sta", data_dir="data/charades")
    'Charades-STA, test'
    >>> title("val", dataset="jsonl", annotations="holidays/val.jsonl")
    'holidays, val'
    """
    if dataset in _TITLES:
        return f"{_TITLES[dataset]}, {split}"
    name = data_dir
    if annotations:
        name, _ = os.path.splitext(annotations)
        if split in os.path.basename(name):
            name = os.path.dirname(os.path.abspath(annotations))
    name = os.path.basename(os.path.abspath(name)) if name else ""
    return f"{name or dataset}, {split}"


class Preloaded(dict):
    """Clip features of some videos, in memory, and what is known of them."""

    def __init__(self, features, videos, clip_seconds, encoder, path=None):
        super().__init__((video, features[video]) for video in videos)
        self.clip_seconds = clip_seconds
        self.encoder = encoder
        self.path = path


def preload(split):
    """The same `Split`, with the features of its videos in memory."""
    videos = dict.fromkeys(moment.video_id for moment in split.moments)
    clips = split.features
    about = clips.clip_seconds, clips.encoder, clips.path
    return split._replace(features=Preloaded(clips, videos, *about))


class EncodedSentences(dict):
    """Sentence vectors by query id, and the description of their encoder."""

    def __init__(self, moments, encoder):
        vectors = encoder.encode_sentences([one.query for one in moments])
        super().__init__(zip((one.query_id for one in moments), vectors))
        self.description = encoder.description


def encode_sentences(split, encoder):
    """The same `Split`, with vectors of its sentences by an encoder."""
    if split.sentence_vectors is not None:
        raise ValueError(
            f"Give --sentence_vectors or --query_encoder={encoder.name}, not "
            "both."
        )
    vectors = EncodedSentences(split.moments, encoder)
    return split._replace(sentence_vectors=vectors)


def settings_of_run(workdir, split):
    """The data that a run was trained on, or its model was chosen by.

    They are arguments of `load_split`. A training has no files of its own for
    the split `"test"`: it has those of `data_dir` alone.
    """
    run_models.check_run(workdir)
    used = run_settings.read_flags(workdir)
    kinds = {"dataset": str, "num_scenes": int, "clip_seconds": float}
    settings = {n: kind(used[n]) for n, kind in kinds.items() if n in used}
    settings["skip_bad"] = used.get("skip_bad") == "True"
    paths = {name: name for name in ("data_dir", "sentence_vectors")}
    prefix = {"train": "", "val": "val_"}.get(split)
    if prefix is not None:
        paths |= {name: prefix + name for name in FILES}
    for name, flag in paths.items():
        if flag in used:
            settings[name] = run_settings.find(used[flag], workdir)
    return settings


def files_of(split, *, dataset=None, data_dir=None, annotations=None, **others):
    """The files of one split, which `load_split` of these arguments reads.

    Returns:
        Dictionary from their kind to their path; empty for built-in scenes.
    """
    if dataset == "synthetic" and not (data_dir or annotations):
        return {}
    files = {name: others[name] for name in FILES if others.get(name)}
    return find_files(
        dataset, data_dir, split, annotations=annotations, **files
    )
