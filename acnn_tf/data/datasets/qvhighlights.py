"""QVHighlights: several windows a query, and how salient each 2 seconds are.

    {"qid": 8737, "query": "a family plays", "vid": "bP5KfdFJzC4_660.0_810.0",
     "duration": 126, "relevant_windows": [[0, 4], [20, 22]],
     "relevant_clip_ids": [0, 1, 10],
     "saliency_scores": [[4, 1, 1], [4, 2, 1], [3, 3, 2]]}

one object a line. The video is cut into clips of two seconds, those of the
annotation and not of the features; three annotators gave each of the clips in
`relevant_clip_ids` a score, from 0 (very bad) to 4 (very good). The public test
split has none of the last three keys.
"""

import dataclasses

from acnn_tf.data.datasets import jsonl
from acnn_tf.data.datasets.records import Dataset
from acnn_tf.files.text import parse_json, text_lines

CLIP_SECONDS = 2
NUM_ANNOTATORS = 3
_SCORES = range(5)
_HIDDEN = ("relevant_windows", "relevant_clip_ids", "saliency_scores")


def num_clips(duration: float) -> int:
    """How many clips of the annotation a video has.

    Args:
        duration: Duration of the video in seconds. What is left after the last
            whole clip is not a clip.

    Example:

    >>> from acnn_tf.data.datasets.qvhighlights import num_clips
    >>> num_clips(151.0)
    75
    """
    return int(duration / CLIP_SECONDS)


def _entries(path):
    """The objects of a file, in which all have the same of the hidden keys."""
    first = None
    for line, entry in text_lines(path):
        if isinstance(entry, str):
            try:
                entry = parse_json(entry)
            except ValueError as error:
                entry = error
        if isinstance(entry, dict):
            found = [key for key in _HIDDEN if key in entry]
            first = (line, found) if first is None else first
            if differing := set(found) ^ set(first[1]):
                key = min(differing)
                has, other = ("no", "one") if key in first[1] else ("a", "none")
                entry = ValueError(
                    f"query {entry.get('qid')!r:.40}: has {has} `{key}`, but "
                    f"line {first[0]} has {other}: a split is hidden as a "
                    "whole, or not at all"
                )
        yield line, entry


def _query(entry):
    key, (record,) = jsonl.parse(entry, with_windows=False)
    if record.duration is None:
        raise ValueError(f"query {key}: has no `duration`")
    if "saliency_scores" in entry or "relevant_clip_ids" in entry:
        saliency = _saliency(entry, num_clips(record.duration), key)
        record = dataclasses.replace(record, saliency=saliency)
    return key, [record]


def _saliency(entry, count, key):
    """The scores of each clip by each annotator, 0 where none was asked for."""
    if "relevant_windows" not in entry:
        raise ValueError(
            f"query {key}: has scores of clips but no `relevant_windows`"
        )
    clips = entry.get("relevant_clip_ids")
    scores = entry.get("saliency_scores")
    if (
        not isinstance(clips, list)
        or not isinstance(scores, list)
        or len(clips) != len(scores)
    ):
        raise ValueError(
            f"query {key}: expected lists `relevant_clip_ids` and "
            "`saliency_scores` of one length, found "
            f"{clips!r:.40} and {scores!r:.40}"
        )
    saliency = [(0,) * NUM_ANNOTATORS] * count
    seen = set()
    for clip, given in zip(clips, scores, strict=True):
        if type(clip) is not int or not 0 <= clip < count:
            raise ValueError(
                f"query {key}: `relevant_clip_ids` must be whole numbers below "
                f"{count}, as the video has {count} clips of {CLIP_SECONDS} s; "
                f"found {clip!r:.40}"
            )
        if clip in seen:
            raise ValueError(
                f"query {key}: `relevant_clip_ids` has {clip} twice"
            )
        seen.add(clip)
        if (
            not isinstance(given, list)
            or len(given) != NUM_ANNOTATORS
            or not all(type(one) is int and one in _SCORES for one in given)
        ):
            raise ValueError(
                f"query {key}: `saliency_scores` of a clip must be "
                f"{NUM_ANNOTATORS} whole numbers from 0 to {_SCORES[-1]}; "
                f"found {given!r:.40} for clip {clip}"
            )
        saliency[clip] = tuple(given)
    return tuple(saliency)


DATASET = Dataset(
    _entries,
    _query,
    lambda split: [f"highlight_{split}_release.jsonl", f"{split}.jsonl"],
)
