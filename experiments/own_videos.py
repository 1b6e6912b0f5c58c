"""Training on a folder of videos and a file of sentences: `--videos`.

The features are extracted once and kept in the folder of the run. Without
validation files, a share of the videos is held out.
"""

import os
import sys

import numpy as np

import acnn_tf
from acnn_tf.data import extraction
from acnn_tf.data.annotations import DATASETS, read_moments
from acnn_tf.data.durations import videos_path
from acnn_tf.files.problems import DataError, Problem
from export import command
from export.progress import Progress

# Of the videos, if there are no validation files.
_HELD_OUT = 0.2


def prepare(
    workdir,
    videos,
    annotations,
    val_annotations=None,
    *,
    dataset="jsonl",
    encoder="pixels",
    fps=None,
    skip_bad=False,
):
    """Extracts features, and divides the sentences.

    A run that was begun keeps its features and its division.

    Args:
        workdir: Folder of the run.
        videos: Files, folders and patterns.
        annotations: File of sentences.
        val_annotations: Likewise, for validation. Default: the sentences of a
            fifth of the videos, always the same, are held out.
        dataset: Format of both files.
        encoder: Name of the encoder.
        fps: Frames of a second to encode. Default: the encoder's own.
        skip_bad: Bool: leave out what cannot be used, and go on.

    Returns:
        Dictionary of flags of `experiments.train` that name the files.

    Raises:
        DataError: If there are no videos; if there are sentences about others;
            if one cannot be read; if the features are of another encoder.
        ValueError: If there are too few videos, or the sentences are no more
            those that the run was begun with.
    """
    if not annotations:
        raise ValueError("--videos needs --annotations, a file of sentences.")
    found = command.find_videos(videos)
    encoder = acnn_tf.encoders.make(encoder, fps)
    paths = [annotations, *filter(None, [val_annotations])]
    needed = _annotated(paths, dataset, found, skip_bad)
    features = os.path.join(workdir, "features.hdf5")
    # Their digests are those of the run, so they stay as they are.
    if not os.path.exists(os.path.join(workdir, "flags.txt")):
        _extract(found, encoder, features, None if skip_bad else needed)
    with acnn_tf.data.open_features(features) as clips:
        between = "--encoder and --fps now say"
        if differs := acnn_tf.encoders.difference(
            clips.encoder or {}, encoder.description, between
        ):
            raise DataError(
                [
                    Problem(
                        features, None, f"{differs}; choose another --workdir"
                    )
                ]
            )
    files = {"features": features, "val_features": features}
    if val_annotations:
        files |= {"dataset": dataset, "annotations": annotations}
        return files | {"val_annotations": val_annotations}
    problems = [] if skip_bad else None
    durations = videos_path(features)
    moments = read_moments(
        annotations, dataset, durations=durations, problems=problems
    )
    command.tell_problems(problems or ())
    return files | _hold_out(workdir, annotations, moments)


def _annotated(paths, dataset, videos, skip_bad):
    """Ids of those of the videos that sentences are about."""
    known, problems, unread = set(), [], []
    form = DATASETS[dataset]
    for path in paths:
        for line, entry in form.entries(path):
            try:
                if isinstance(entry, ValueError):
                    raise entry
                _, records = form.parse(entry)
            except ValueError as error:
                # Who reads it for good will tell, if that is not all there is.
                unread.append(Problem(os.fspath(path), line, str(error)))
                continue
            for record in records:
                known.add(record.video_id)
                if record.video_id in videos:
                    continue
                advice = "add its file, named so, or remove the record"
                stem, _ = os.path.splitext(record.video_id)
                if stem in videos:
                    advice = f"write {stem!r}, without the ending"
                message = (
                    f"video {record.video_id!r} is not among the "
                    f"{len(videos):,} of --videos; {advice}"
                )
                problems.append(Problem(os.fspath(path), line, message))
    if problems and not skip_bad:
        raise DataError([*unread, *problems])
    if unread and not known:
        raise DataError(unread)
    if not known & videos.keys():
        listed = ", ".join(list(videos)[:3])
        raise ValueError(
            f"{paths[0]} has no sentence about any of --videos ({listed}, ...):"
            " their ids are the names of the files, without endings."
        )
    return known


def _extract(videos, encoder, path, needed):
    problems = extraction.extract(
        videos, encoder, path, progress=Progress(len(videos), "videos")
    )
    failed = [problem for problem in problems if problem.dropped]
    if len(failed) == len(videos):
        raise DataError(failed)
    if failed and needed:
        with acnn_tf.data.open_features(path) as features:
            if not needed <= set(features):
                raise DataError(failed)
    command.tell_problems(problems)


def _hold_out(workdir, annotations, moments):
    """Writes the sentences of most videos, and those of the others."""
    videos = sorted({moment.video_id for moment in moments})
    if len(videos) < 2:
        raise ValueError(
            f"{annotations} has sentences about {len(videos) or 'no'} video. "
            "To learn from some and be tested on others, there must be two at "
            "least; or give --val_annotations."
        )
    count = max(round(_HELD_OUT * len(videos)), 1)
    order = np.random.default_rng(0).permutation(len(videos))
    held_out = {videos[index] for index in order[:count]}
    files = {"dataset": "jsonl"}
    for flag, is_held in (("annotations", False), ("val_annotations", True)):
        name = "val.jsonl" if is_held else "train.jsonl"
        path = files[flag] = os.path.join(workdir, name)
        part = [m for m in moments if (m.video_id in held_out) == is_held]
        if os.path.exists(os.path.join(workdir, "flags.txt")):
            _check_same(path, part, annotations, workdir)
        else:
            acnn_tf.data.write_jsonl(part, path)
    sentences = sum(moment.video_id in held_out for moment in moments)
    print(
        f"Held out for validation: {count} of {len(videos)} videos, "
        f"{sentences} of {len(moments)} sentences; see "
        f"{files['val_annotations']}.",
        file=sys.stderr,
    )
    return files


def _check_same(path, moments, annotations, workdir):
    then = [
        (m.query_id, m.query, m.video_id, m.segments)
        for m in read_moments(path, "jsonl")
    ]
    now = [(m.query_id, m.query, m.video_id, m.segments) for m in moments]
    if then != now:
        raise ValueError(
            f"{annotations} is no more what the run in {workdir} was begun "
            "with: choose an empty --workdir."
        )
