"""QVHighlights' own protocol: R1, mAP by length of moment, and highlights.

    R1,IoU=m   share of queries whose first window, as listed, has an IoU of m
               or more with one of the true windows
    mAP,IoU=m  mean over queries of the average precision of the first 10
               windows as listed, among which the order is by score
    mAP        its mean over m = .5, .55, ..., .95

and each of them for short, middle and long windows alone: only true windows of
that length count, queries without any are left out, and predictions stay.

Highlights are clips of two seconds to which annotators gave at least the score
Fair (2), Good (3) or VeryGood (4):

    HIT@1      share of queries whose clip of highest score, the first of
               equals, is a highlight for any annotator
    mAP        mean over queries and annotators of the average precision of
               the clips' scores

A query without predictions counts as 0.

Reference: Lei et al., QVHighlights: Detecting Moments and Highlights in Videos
via Natural Language Queries, 2021, and its public evaluation.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from acnn_tf import evaluation, metrics
from acnn_tf import segments as segments_lib
from acnn_tf.data.datasets.qvhighlights import CLIP_SECONDS

if typing.TYPE_CHECKING:
    import keras

    from acnn_tf.data.annotations import Moment
    from acnn_tf.data.predictions import Predictions

R1_IOUS = (0.5, 0.7)
# Seconds of true windows: above the first, up to the second.
LENGTHS = {"short": (0, 10), "middle": (10, 30), "long": (30, 150)}
# The least score of a highlight.
HIGHLIGHTS = {"Fair": 2, "Good": 3, "VeryGood": 4}


def evaluate(
    model: keras.Model,
    moments: Sequence[Moment],
    features: Mapping[str, np.ndarray],
    **options: Any,
) -> tuple[dict, Predictions]:
    """Searches as `acnn_tf.evaluation.evaluate` does, and measures more.

    Args:
        model: A model of `acnn_tf.models`.
        moments: The moments whose queries are searched for.
        features: Mapping from video id to `[T, D]` clip features.
        **options: Other arguments of `acnn_tf.evaluation.evaluate`, such as
            `suppression`.

    Returns:
        `(results, predictions)` as of `acnn_tf.evaluation.evaluate`. The
        results also have the figures of `score_predictions`, and the
        predictions have a saliency for each clip of two seconds.

    Example:

    >>> import acnn_tf
    >>> results, predictions = acnn_tf.qvhighlights.evaluate(
    ...     model, moments, features
    ... )  # doctest: +SKIP
    """
    results, predictions = evaluation.evaluate(
        model, moments, features, clip_seconds=CLIP_SECONDS, **options
    )
    protocol = {
        name: options[name]
        for name in ("suppression", "nms_threshold")
        if name in options
    }
    scored = score_predictions(moments, predictions, **protocol)
    return results | scored, predictions


def score_predictions(
    moments: Sequence[Moment],
    predictions: Sequence[ArrayLike],
    *,
    suppression: str = "none",
    nms_threshold: float = 0.5,
) -> dict[str, float | None]:
    """Measures predictions, whether or not they are from this package.

    Args:
        moments: The moments that the predictions should find.
        predictions: For each moment `[N, 3]`: start, end (seconds), score, in
            the order that counts. If they are `Predictions` with saliency,
            highlights are measured, too.
        suppression: One of `acnn_tf.segments.SUPPRESSIONS`. The public
            evaluation uses none. What a suppression leaves is listed by score.
        nms_threshold: The most IoU of two results under `"fixed"` suppression.

    Returns:
        Dictionary of fractions: `"R1,IoU=0.5"`, `"R1,IoU=0.7"`,
        `"mAP,IoU=0.5"`, `"mAP,IoU=0.75"` and `"mAP"`; these with `"short,"`,
        `"middle,"` and `"long,"` before them, which are `None` where no query
        has a true window of that length; and where both moments and
        predictions have saliency `"highlight,Fair,mAP"`,
        `"highlight,Fair,HIT@1"` and the same for `"Good"` and `"VeryGood"`.

    Raises:
        ValueError: If a prediction is NaN, or a moment is hidden. The message
            names the query.

    Example:

    >>> from acnn_tf.data import Moment
    >>> from acnn_tf.qvhighlights import score_predictions
    >>> moment = Moment("1", "a man runs", "v", 20.0, ((0.0, 10.0),))
    >>> results = score_predictions([moment], [[[0, 6, 0.9]]])
    >>> results["R1,IoU=0.5"], results["mAP"], results["long,mAP"]
    (1.0, 0.3, None)
    """
    protocol = {"suppression": suppression, "nms_threshold": nms_threshold}
    results = _retrieval(moments, predictions, protocol)
    keys = list(results)
    for name, (above, most) in LENGTHS.items():
        kept, found = [], []
        for moment, predicted in zip(moments, predictions, strict=True):
            segments = tuple(
                (start, end)
                for start, end in moment.segments
                if above < end - start <= most
            )
            if segments:
                kept.append(dataclasses.replace(moment, segments=segments))
                found.append(predicted)
        measured = _retrieval(kept, found, protocol) if kept else {}
        results |= {f"{name},{key}": measured.get(key) for key in keys}
    saliency = getattr(predictions, "saliency", None)
    if saliency is None or any(moment.saliency is None for moment in moments):
        return results
    return results | _highlights(moments, saliency)


def _retrieval(moments, predictions, protocol):
    """R1 and mAP of moments, all of which count."""
    first = np.zeros(len(moments))
    for row, (moment, found) in enumerate(
        zip(moments, predictions, strict=True)
    ):
        found = np.asarray(found, np.float64).reshape(-1, 3)
        if len(found):
            listed_by_score = protocol["suppression"] != "none"
            place = found[:, 2].argmax() if listed_by_score else 0
            first[row] = segments_lib.iou(
                found[place, :2], moment.segments
            ).max()
    results = {f"R1,IoU={m:g}": float((first >= m).mean()) for m in R1_IOUS}
    precision = evaluation.average_precisions(moments, predictions, **protocol)
    precision = precision.mean(axis=0)
    results |= {
        f"mAP,IoU={m:g}": float(precision[evaluation.MAP_IOUS.index(m)])
        for m in evaluation.SHOWN_MAP_IOUS
    }
    return {**results, "mAP": float(precision.mean())}


def _highlights(moments, saliency):
    """What the scores of clips reach, at each least score of a highlight."""
    results = {}
    for name, least in HIGHLIGHTS.items():
        precision, hits = [], []
        for moment, given in zip(moments, saliency, strict=True):
            is_highlight = np.array(moment.saliency) >= least  # [C, A]
            if given is None or not len(is_highlight):
                precision.append(0.0)
                hits.append(False)
                continue
            scores = _clip_scores(given, len(is_highlight))
            precision.append(
                np.mean(
                    [
                        metrics.clip_average_precision(of_annotator, scores)
                        for of_annotator in is_highlight.T
                    ]
                )
            )
            hits.append(is_highlight[scores.argmax()].any())
        results[f"highlight,{name},mAP"] = float(np.mean(precision))
        results[f"highlight,{name},HIT@1"] = float(np.mean(hits))
    return results


def _clip_scores(saliency, count):
    """The scores of as many clips: missing ones are 0, a surplus is cut."""
    scores = np.zeros(count)
    given = np.asarray(saliency, np.float64)[:count]
    scores[: len(given)] = given
    return scores


def format_table(results: Mapping[str, float | None], title: str = "") -> str:
    """The protocol's table.

    Args:
        results: From `score_predictions` or `evaluate`.
        title: What was evaluated.

    Returns:
        String of several lines.

    Example:

    >>> from acnn_tf.data import Moment
    >>> from acnn_tf.qvhighlights import format_table, score_predictions
    >>> moment = Moment("1", "a man runs", "v", 20.0, ((0.0, 10.0),))
    >>> results = score_predictions([moment], [[[0, 6, 0.9]]])
    >>> print(format_table(results))
    QVHighlights' protocol
                R1,IoU=0.5    R1,IoU=0.7   mAP,IoU=0.5  mAP,IoU=0.75 ...
    all              1.000         0.000         1.000         0.000 ...
    ...
    """
    ious = [f"R1,IoU={m:g}" for m in R1_IOUS]
    ious += [f"mAP,IoU={m:g}" for m in evaluation.SHOWN_MAP_IOUS]
    keys = [*ious, "mAP"]
    heading = "QVHighlights' protocol"
    lines = [f"{title}: {heading}" if title else heading]
    lines.append(" " * 9 + "".join(f"{key:>14}" for key in keys))
    rows = {"all": ""} | {name: f"{name}," for name in LENGTHS}
    for name, prefix in rows.items():
        values = (results[prefix + key] for key in keys)
        lines.append(f"{name:<9}" + "".join(map(_cell, values)))
    if "highlight,Fair,mAP" in results:
        lines.append(" " * 9 + f"{'mAP':>14}{'HIT@1':>14}")
        for name in HIGHLIGHTS:
            values = (
                results[f"highlight,{name},{k}"] for k in ("mAP", "HIT@1")
            )
            lines.append(f"{name:<9}" + "".join(map(_cell, values)))
    return "\n".join(lines)


def _cell(value):
    return f"{'-' if value is None else f'{value:.3f}':>14}"
