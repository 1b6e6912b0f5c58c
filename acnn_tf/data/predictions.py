"""Files of predicted moments, one JSON object a line.

    {"qid": "7", "query": "a man runs", "vid": "v1",
     "pred_relevant_windows": [[3.2, 9.0, 0.91], ...],
     "pred_saliency_scores": [0.1, 0.7, ...]}

Each window is start, end (seconds) and score. The last key may be left out: a
score for each two seconds of the video, as QVHighlights asks for. Libraries for
moment retrieval share this format and its keys, so that the predictions of any
of them can be scored here, and ours elsewhere. That is why the keys are `qid`
and `vid`, where everything else here says `query_id` and `video_id`.
"""

from __future__ import annotations

import json
import os
import typing
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from acnn_tf.files.atomic import replacing
from acnn_tf.files.problems import DataError, Problem
from acnn_tf.files.text import is_number, parse_json, text_lines

if typing.TYPE_CHECKING:
    from acnn_tf.data.annotations import Moment


class Predictions(list):
    """A list with the predictions for each query: start, end, score.

    Args:
        windows: The predictions for each query, `float64 [N, 3]`: start and
            end in seconds, and score.
        saliency: For each query `float64 [C]`, a score for each two seconds
            of its video, or `None` where the query has none. `None` in place
            of the list if no query has any.

    Example:

    >>> from acnn_tf.data.predictions import Predictions
    >>> predictions = Predictions([[[3.2, 9.0, 0.91]]], saliency=[[0.1, 0.7]])
    >>> len(predictions), predictions.saliency
    (1, [[0.1, 0.7]])
    """

    def __init__(
        self,
        windows: Iterable[ArrayLike] = (),
        saliency: Sequence[ArrayLike | None] | None = None,
    ):
        super().__init__(windows)
        self.saliency = saliency


def write_predictions(
    path: str | os.PathLike,
    moments: Sequence[Moment],
    predictions: Sequence[ArrayLike],
) -> None:
    """Writes the predictions for `moments`.

    Args:
        path: The file to write. An older file is replaced only when the new
            one is complete.
        moments: The moments whose queries were searched for.
        predictions: For each moment `[N, 3]`: start, end, score. The saliency
            of `Predictions` is written, too.

    Example:

    >>> import tempfile
    >>> from acnn_tf.data import Moment, write_predictions
    >>> path = tempfile.mkdtemp() + "/predictions.jsonl"
    >>> moment = Moment("7", "a man runs", "v1", 30.0, ((3.0, 9.0),))
    >>> write_predictions(path, [moment], [[[3.2, 9.0, 0.91]]])
    >>> with open(path) as file:
    ...     file.read()
    '{"qid": "7", "query": "a man runs", "vid": "v1", ...
    """
    saliency = getattr(predictions, "saliency", None)
    saliency = saliency or [None] * len(predictions)
    with replacing(path) as partial:
        with open(partial, "w", encoding="utf-8") as file:
            for moment, predicted, clips in zip(
                moments, predictions, saliency, strict=True
            ):
                record = {
                    "qid": moment.query_id,
                    "query": moment.query,
                    "vid": moment.video_id,
                    "pred_relevant_windows": np.asarray(predicted).tolist(),
                }
                if clips is not None:
                    record["pred_saliency_scores"] = np.asarray(clips).tolist()
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_predictions(
    path: str | os.PathLike,
    moments: Sequence[Moment],
    allow_missing: bool = False,
) -> Predictions:
    """Reads predictions for `moments`, from this package or any other.

    Args:
        path: The file to read.
        moments: The moments, each with a query id of its own.
        allow_missing: Whether the file may leave queries out. Such a query
            gets an empty list; otherwise it is an error.

    Returns:
        `Predictions`: for each moment `float64 [N, 3]`: start, end, score, in
        the order of the file.

    Raises:
        DataError: If a line is malformed, is not UTF-8, is repeated, or is
            about a query or a video that the annotations do not have; if a
            window is not finite or ends before it starts; if saliency is not
            finite; if queries have no predictions. The message lists all such
            lines or queries.
        ValueError: If two moments have the same query id.

    Example:

    >>> import tempfile
    >>> from acnn_tf.data import Moment, read_predictions, write_predictions
    >>> path = tempfile.mkdtemp() + "/predictions.jsonl"
    >>> moment = Moment("7", "a man runs", "v1", 30.0, ((3.0, 9.0),))
    >>> write_predictions(path, [moment], [[[3.2, 9.0, 0.91]]])
    >>> read_predictions(path, [moment])
    [array([[3.2 , 9.  , 0.91]])]
    """
    # Their text: other libraries write 7 for "7", and the other way round.
    by_id = {str(moment.query_id): moment for moment in moments}
    if len(by_id) < len(moments):
        raise ValueError(
            "Predictions are told apart by query id, but the annotations "
            f"have {len(moments)} queries with {len(by_id)} ids."
        )
    path = os.fspath(path)
    problems, lines, predictions, saliency = [], {}, {}, {}
    for number, text in text_lines(path):
        try:
            record = _parse(text)
            query_id = str(record["qid"])
            _check_query(record, query_id, by_id.get(query_id))
            if query_id in lines:
                raise ValueError(
                    f"query {query_id!r} is predicted twice, first in line "
                    f"{lines[query_id]}"
                )
            lines[query_id] = number
            predictions[query_id] = _windows(record)
            if "pred_saliency_scores" in record:
                saliency[query_id] = _saliency(record)
        except ValueError as error:
            problems.append(Problem(path, number, str(error)))
    # A query whose line is bad has been reported.
    missing = [query_id for query_id in by_id if query_id not in lines]
    if missing and not allow_missing and not problems:
        named = ", ".join(map(repr, missing[:5]))
        more = ", ..." if len(missing) > 5 else ""
        message = (
            f"has no predictions for {len(missing)} of {len(moments)} queries "
            f"of the annotations: {named}{more}"
        )
        problems.append(Problem(path, None, message))
    if problems:
        raise DataError(problems)
    return Predictions(
        (predictions.get(query_id, np.zeros((0, 3))) for query_id in by_id),
        [saliency.get(query_id) for query_id in by_id] if saliency else None,
    )


def _parse(text):
    if isinstance(text, ValueError):  # not UTF-8
        raise text
    record = parse_json(text)
    if not isinstance(record, dict):
        raise ValueError(
            f"expected a JSON object, found {type(record).__name__}"
        )
    for key in ("qid", "pred_relevant_windows"):
        if key not in record:
            raise ValueError(f"has no {key!r}; found {sorted(record)!r:.80}")
    return record


def _check_query(record, query_id, moment):
    if moment is None:
        raise ValueError(f"query {query_id!r:.80} is not in the annotations")
    video_id = str(record.get("vid", moment.video_id))
    if video_id != moment.video_id:
        raise ValueError(
            f"query {query_id!r} is about video {moment.video_id!r} in the "
            f"annotations, about {video_id!r:.80} here"
        )


def _windows(record):
    windows = record["pred_relevant_windows"]
    if not isinstance(windows, list):
        raise ValueError(
            "'pred_relevant_windows' must be a list, found "
            f"{type(windows).__name__}"
        )
    for window in windows:
        if (
            not isinstance(window, list)
            or len(window) != 3
            or not all(map(is_number, window))
        ):
            raise ValueError(
                "a window must be [start, end, score], three finite numbers; "
                f"found {window!s:.80}"
            )
        if window[1] < window[0]:
            raise ValueError(f"window {window} ends before it starts")
    return np.array(windows, np.float64).reshape(-1, 3)


def _saliency(record):
    scores = record["pred_saliency_scores"]
    if not isinstance(scores, list) or not all(map(is_number, scores)):
        raise ValueError(
            "'pred_saliency_scores' must be a list of finite numbers, found "
            f"{scores!s:.80}"
        )
    return np.array(scores, np.float64)
