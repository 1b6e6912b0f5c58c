"""How likely a moment is the right one, by its score.

The scores of a model have no scale of their own. A curve over them says what
they have meant in videos that were not trained on, both in those that hold the
moment of a sentence and in those that do not:

    p = 1 / (1 + exp(-(slope * score + intercept)))

Of a sentence's moments, in one video or many, it changes no order.
"""

from __future__ import annotations

import dataclasses
import json
import os
import textwrap
import typing
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from acnn_tf import evaluation, search, segments
from acnn_tf.data.sentences import Vocabulary
from acnn_tf.files.atomic import write_text
from acnn_tf.models import load_model
from acnn_tf.search.index_files import fingerprint

if typing.TYPE_CHECKING:
    import keras

    from acnn_tf.data.annotations import Moment

NAME = "calibration.json"
# Sentences of which fewer say too little: shares of 30 are off by .09.
FEWEST = 30
# Other videos in which a sentence is searched for, and sentences: enough for
# two numbers.
_OTHERS = 4
_SENTENCES = 2000
_BINS = 10


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The curve of a model.

    `p` is the share of cases in which the best moment of a video was right, at
    IoU 0.5 or more, where every second video held such a moment. What a video
    has second or third best is less likely than that.

    Args:
        slope: Slope of the curve, not negative.
        intercept: Logit of the likelihood at a score of 0.

    Example:

    >>> from acnn_tf.calibration import Calibration
    >>> round(Calibration(slope=0.6, intercept=-2.2).likelihood(4.0), 2)
    0.55
    """

    slope: float
    intercept: float

    def likelihood(self, score: ArrayLike) -> float | np.ndarray:
        """`p` of a score, or of an array of them."""
        logit = self.slope * np.asarray(score, np.float64) + self.intercept
        # Without overflow.
        likelihood = 0.5 + 0.5 * np.tanh(logit / 2)
        return likelihood if likelihood.ndim else float(likelihood)


def fit(
    scores: ArrayLike, is_right: ArrayLike, weights: ArrayLike | None = None
) -> Calibration:
    """The curve that fits best, by maximum likelihood.

    The targets are not 0 and 1 but `1 / (n + 2)` and `(n + 1) / (n + 2)`, which
    is as much as n cases can show; so there always is a curve. If better scores
    are not right more often, the curve is level.

    Args:
        scores: Scores `[N]` of moments.
        is_right: Bools `[N]`: whether each moment is right.
        weights: Floats `[N]`, how much each of them counts. Default: 1 each.

    Returns:
        `Calibration`.

    Reference: Platt, 1999: Probabilistic outputs for support vector machines.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.calibration import fit
    >>> curve = fit([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 0, 1, 1, 1])
    >>> curve.likelihood(np.array([0.0, 1.0])).round(3).tolist()
    [0.333, 0.667]
    """
    scores = np.asarray(scores, np.float64)
    is_right = np.asarray(is_right, bool)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights)
    right, wrong = weights[is_right].sum(), weights[~is_right].sum()
    target = np.where(is_right, (right + 1) / (right + 2), 1 / (wrong + 2))
    mean = np.average(target, weights=weights)
    level = Calibration(0.0, float(np.log(mean / (1 - mean))))
    centre, scale = scores.mean(), scores.std()
    if not scale > 0:
        return level
    columns = np.stack([(scores - centre) / scale, np.ones(len(scores))])

    def loss(curve):
        logit = curve @ columns
        return weights @ (np.logaddexp(0, logit) - target * logit)

    curve = np.array([0.0, level.intercept])
    for _ in range(100):  # Newton's steps, halved while they overshoot
        p = 0.5 + 0.5 * np.tanh(curve @ columns / 2)
        gradient = columns @ (weights * (p - target))
        curvature = (columns * (weights * p * (1 - p))) @ columns.T
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        before = loss(curve)
        while loss(curve - step) > before and np.abs(step).max() > 1e-9:
            step /= 2
        curve = curve - step
        if np.abs(step).max() < 1e-9:
            break
    slope, intercept = curve[0] / scale, curve[1] - curve[0] * centre / scale
    return Calibration(float(slope), float(intercept)) if slope > 0 else level


def calibrate(
    model: keras.Model,
    moments: Sequence[Moment],
    features: Mapping[str, np.ndarray],
    sentence_vectors: Mapping[str | int, np.ndarray] | None = None,
    seed: int = 0,
) -> tuple[Calibration, dict]:
    """Fits the curve of a model to videos that it was not trained on.

    Each sentence is searched for in its own video and in four others, in which
    no moment is right. The four others together count as much as its own.

    Args:
        model: A model of `acnn_tf.models`.
        moments: The moments whose queries are searched for. If there are more
            than 2,000, so many are drawn.
        features: Mapping from video id to `[T, D]` clip features.
        sentence_vectors: Mapping from query id to `[E]`, for a model without
            a vocabulary.
        seed: Seed of the drawn sentences and videos.

    Returns:
        `(curve, report)`: a `Calibration`, and what `reliability` says of the
        same searches.

    Example:

    >>> import acnn_tf
    >>> curve, report = acnn_tf.calibration.calibrate(
    ...     model, moments, features
    ... )  # doctest: +SKIP
    >>> curve.likelihood(4.0)  # doctest: +SKIP
    0.55
    """
    searches = best_scores(model, moments, features, sentence_vectors, seed)
    scores, is_own, is_right = searches
    curve = fit(scores, is_right, _balanced(is_own))
    return curve, reliability(curve, *searches)


def best_scores(
    model: keras.Model,
    moments: Sequence[Moment],
    features: Mapping[str, np.ndarray],
    sentence_vectors: Mapping[str | int, np.ndarray] | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The searches of `calibrate`, whose arguments are the same.

    Returns:
        `(scores, is_own, is_right)`, each `[N]`: the best score of a sentence
        in a video, whether the video is its own, and whether the best moment
        is right.
    """
    rng = np.random.default_rng(seed)
    if model.vocabulary is not None:
        read = Vocabulary(model.vocabulary).read([m.query for m in moments])
        moments = [m for m, known in zip(moments, read.is_known) if known]
    if len(moments) > _SENTENCES:
        drawn = rng.choice(len(moments), _SENTENCES, replace=False)
        moments = [moments[row] for row in np.sort(drawn)]
    if not moments:
        raise ValueError("There are no sentences that the model knows.")
    queries = evaluation.encode_sentences(model, moments, sentence_vectors)
    own, durations = evaluation.rows_by_video(moments)
    asked = {video_id: list(rows) for video_id, rows in own.items()}
    names = list(durations)
    for row, moment in enumerate(moments):
        others = [name for name in names if name != moment.video_id]
        count = min(_OTHERS, len(others))
        for place in rng.choice(len(others), count, replace=False):
            asked[others[place]].append(row)
    is_exact = all(moment.num_annotators is None for moment in moments)
    found = []
    for video in search.encode_videos(
        model, features, durations, is_exact=is_exact
    ):
        rows = asked[video.video_id]
        candidates, scores = search.candidates(model, queries[rows], video)
        best = scores.argmax(axis=1)
        for place, row in enumerate(rows):
            is_own = moments[row].video_id == video.video_id
            overlap = segments.iou(
                candidates[place, best[place]],
                np.asarray(moments[row].segments),
            ).max()
            is_right = is_own and overlap >= 0.5
            found.append((scores[place, best[place]], is_own, is_right))
    scores, is_own, is_right = map(np.array, zip(*found))
    return scores, is_own, is_right


def reliability(
    curve: Calibration,
    scores: np.ndarray,
    is_own: np.ndarray,
    is_right: np.ndarray,
) -> dict:
    """How far a curve can be trusted.

    Args:
        curve: The curve to judge.
        scores: Float `[N]`: the best score of a sentence in a video, as of
            `best_scores`.
        is_own: Bool `[N]`: whether the video is the sentence's own.
        is_right: Bool `[N]`: whether the best moment is right.

    Returns:
        Dictionary of floats: `"calibration_error"`, how far the likelihoods
        are from the shares that were right, on average over ten bins;
        `"auc_own"`, how often a sentence scores higher in its own video than
        another does in one that is not its own; `"auc_right"`, the same of
        right moments and those of other videos; `"num_searches"`, and
        `"num_sentences"`, the searches in the sentence's own video.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.calibration import Calibration, reliability
    >>> report = reliability(
    ...     Calibration(slope=1.0, intercept=0.0),
    ...     scores=np.array([2.0, 1.0, -1.0, -2.0]),
    ...     is_own=np.array([True, True, False, False]),
    ...     is_right=np.array([True, False, False, False]),
    ... )
    >>> report["auc_own"], report["num_searches"]
    (1.0, 4)
    """
    weights, likelihood = _balanced(is_own), curve.likelihood(scores)
    bins = np.minimum((likelihood * _BINS).astype(int), _BINS - 1)
    gap = np.bincount(bins, weights * (likelihood - is_right), _BINS)
    return {
        "calibration_error": float(np.abs(gap).sum() / weights.sum()),
        "auc_own": _auc(scores[is_own], scores[~is_own]),
        "auc_right": _auc(scores[is_right], scores[~is_own]),
        "num_searches": len(scores),
        "num_sentences": int(np.sum(is_own)),
    }


def in_words(report: Mapping) -> str:
    """What `reliability` returned, to be printed."""
    text = (
        f"Calibration on {report['num_searches']:,} searches: likelihoods are "
        f"off by {report['calibration_error']:.3f} on average"
    )
    if report["auc_own"] is not None:
        text += (
            "; a sentence scores higher in its own video than another does "
            f"in one that is not its own {report['auc_own']:.1%} of the time"
        )
    return textwrap.fill(f"{text}.", 80)


def calibrate_run(
    workdir: str | os.PathLike,
    moments: Sequence[Moment],
    features: Mapping[str, np.ndarray],
    sentence_vectors: Mapping[str | int, np.ndarray] | None = None,
) -> dict:
    """`calibrate` for the model of a run; keeps the curve beside it.

    Args:
        workdir: Folder with `model.keras`, to which `calibration.json` is
            written.
        moments: The moments of videos that the model was not trained on.
        features: Mapping from video id to `[T, D]` clip features.
        sentence_vectors: Mapping from query id to `[E]`, for a model without
            a vocabulary.

    Returns:
        The report of `calibrate`.

    Raises:
        ValueError: If the model knows words of fewer than 30 sentences.
    """
    model = load_model(os.path.join(workdir, "model.keras"))
    curve, report = calibrate(model, moments, features, sentence_vectors)
    if report["num_sentences"] < FEWEST:
        raise ValueError(
            f"{report['num_sentences']} of the {len(moments)} sentences can be "
            "searched for, which is too few to say how likely a moment is "
            f"right. At least {FEWEST} are needed, of videos that were not "
            "trained on."
        )
    about = {
        "model": fingerprint(model),
        **dataclasses.asdict(curve),
        "validation": report,
    }
    write_text(os.path.join(workdir, NAME), f"{json.dumps(about, indent=1)}\n")
    return report


def read_calibration(
    workdir: str | os.PathLike, model: keras.Model
) -> Calibration | None:
    """The curve of a run's model.

    Args:
        workdir: Folder with `calibration.json`.
        model: The model of this run.

    Returns:
        `Calibration`, or `None` if the folder has no curve of these weights.

    Raises:
        ValueError: If the file is damaged.
    """
    path = os.path.join(workdir, NAME)
    try:
        with open(path, encoding="utf-8") as file:
            about = json.load(file)
        if about["model"] != fingerprint(model):
            return None
        curve = Calibration(float(about["slope"]), float(about["intercept"]))
        if not np.isfinite([curve.slope, curve.intercept]).all():
            raise ValueError("its numbers are not finite")
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error!s:.80}); remove it, and make it again: "
            "python -m experiments.calibrate"
        ) from None
    return curve


def _balanced(is_own):
    """Weights by which own videos and others count as much."""
    others = np.count_nonzero(~is_own)
    share = np.count_nonzero(is_own) / max(others, 1)
    return np.where(is_own, 1.0, share)


def _auc(higher, lower):
    """How often one of the first is above one of the second; ties are half."""
    if not (len(higher) and len(lower)):
        return None
    lower = np.sort(lower)
    below = np.searchsorted(lower, higher, "left")
    up_to = np.searchsorted(lower, higher, "right")
    return float((below + up_to).mean() / 2 / len(lower))
