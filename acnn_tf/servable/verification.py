"""Compares the answers of a SavedModel with those of its model."""

import os
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from acnn_tf import segments as segments_lib
from acnn_tf.data.batches import pad
from acnn_tf.search import candidates, encode_videos, nms
from acnn_tf.search.moment_index import MomentIndex
from acnn_tf.servable.signatures import (
    NO_SCORE,
    describe_model,
    takes_sentences,
)

# Largest error, relative to the largest number of an output, by the type in
# which the model computes: the graph rounds elsewhere than the library does.
_TOLERANCES = {"float16": 5e-3, "bfloat16": 4e-2}
# Of sentences for an encoder, which has no list of the words that it knows.
_WORDS = ["A", "person", "opens", "2", "cafés:", "CAFE\u0301S", "don't", "ẞ!"]


class ExportError(ValueError):
    """Raised if a SavedModel does not give the answers of its model.

    Its message names the signature and how far the answers are apart.

    See `export` for an example.
    """


def example_inputs(
    model: keras.Model, num_clips: Sequence[int] = (9, 5)
) -> dict[str, dict[str, np.ndarray]]:
    """Makes inputs for each signature, of random clips and known words.

    Args:
        model: One of `acnn_tf.models`, built.
        num_clips: How many clips each of the videos has.

    Returns:
        Dictionary from `"search"`, `"localize"`, `"encode_windows"`,
        `"encode_queries"` and `"describe"` to dictionaries of arrays.

    Example:

    >>> import acnn_tf
    >>> model = acnn_tf.models.CTRL(vocabulary=["a", "dog"])
    >>> model.build({"clip": (None, None, 6), "query": (None, None)})
    >>> inputs = acnn_tf.servable.example_inputs(model)
    >>> inputs["localize"]["clip"].shape
    (2, 9, 6)
    >>> inputs["search"]["query"].tolist()
    ['a dog a', 'dog a dog a']
    """
    rng = np.random.default_rng(0)
    clip = rng.normal(size=(len(num_clips), max(num_clips), model.clip_dim))
    if normalization := getattr(model, "normalization", None):
        clip = clip * normalization.scale + normalization.mean
    for row, count in enumerate(num_clips):
        clip[row, count:] = 0
    video = {
        "clip": np.asarray(clip, np.float32),
        "num_clips": np.array(num_clips, np.int32),
        "duration": np.array(num_clips) * float(model.clip_seconds),
    }
    if not takes_sentences(model):
        width = model.query_dim
        query = rng.normal(size=(len(num_clips), width)).astype(np.float32)
    else:
        words = model.vocabulary or _WORDS
        starts = range(len(num_clips))
        sentences = [
            [words[(start + n) % len(words)] for n in range(start + 3)]
            for start in starts
        ]
        query = np.array(list(map(" ".join, sentences)), object)
    return {
        "search": {"query": query},
        "localize": {**video, "query": query},
        "encode_windows": video,
        "encode_queries": {"query": query},
        "describe": {"row": np.arange(len(num_clips), dtype=np.int32)},
    }


def expected_outputs(
    model: keras.Model,
    inputs: Mapping[str, Mapping[str, np.ndarray]],
    index: MomentIndex | None = None,
    top_n: int = 10,
    nms_threshold: float = 0.5,
) -> dict[str, dict[str, np.ndarray]]:
    """Computes the outputs of each signature by the library, without a graph.

    Args:
        model: One of `acnn_tf.models`.
        inputs: Inputs of each signature, as `example_inputs` returns them.
        index: Index of the videos in which `search` searches. Default: there
            is no such signature.
        top_n: How many moments an answer has.
        nms_threshold: Largest IoU that two moments of one video may have.

    Returns:
        Dictionary from names of signatures to dictionaries of arrays.

    Example:

    >>> import acnn_tf
    >>> model = acnn_tf.models.CTRL(vocabulary=["a", "dog"], embedding_dim=4)
    >>> model.build({"clip": (None, None, 6), "query": (None, None)})
    >>> inputs = acnn_tf.servable.example_inputs(model)
    >>> outputs = acnn_tf.servable.expected_outputs(model, inputs, top_n=5)
    >>> outputs["localize"]["score"].shape
    (2, 5)
    """
    max_iou = segments_lib.suppression_iou("fixed", nms_threshold)

    def encoded(queries):
        if takes_sentences(model):
            queries = model.read_sentences(list(queries)).queries
        return np.asarray(model.encode_queries(queries), np.float32)

    videos = inputs["encode_windows"]
    rows = list(map(str, range(len(videos["clip"]))))
    features = {
        name: clip[:count]
        for name, clip, count in zip(rows, videos["clip"], videos["num_clips"])
    }
    durations = dict(zip(rows, videos["duration"].tolist()))
    found = encode_videos(model, features, durations)
    videos = sorted(found, key=lambda video: int(video.video_id))
    outputs = {
        "encode_queries": {"query": encoded(inputs["encode_queries"]["query"])},
        "encode_windows": {
            "window": pad([video.encoding for video in videos]),
            "segment": pad([np.float32(video.windows) for video in videos]),
            "num_windows": np.array([len(video.windows) for video in videos]),
        },
        "describe": {
            "description": np.full(
                len(inputs["describe"]["row"]), describe_model(model), object
            )
        },
    }
    answers = []
    for video, query in zip(videos, encoded(inputs["localize"]["query"])):
        (segments,), (scores,) = candidates(model, query[None], video)
        (kept,) = nms([segments], [scores], max_iou, top_n).numpy()
        answers.append(
            [("", *segments[i].tolist(), float(scores[i])) for i in kept]
        )
    outputs["localize"] = _moments(answers, top_n)
    outputs["localize"].pop("video_id")
    if index is not None:
        found = index.search_encoded(
            encoded(inputs["search"]["query"]),
            top_n=top_n,
            nms_threshold=nms_threshold,
        )
        outputs["search"] = _moments(found, top_n)
    if takes_sentences(model):
        for name in outputs.keys() - {"encode_windows", "describe"}:
            read = model.read_sentences(list(inputs[name]["query"]))
            words = list(map(" ".join, read.unknown_words))
            outputs[name]["unknown_words"] = np.array(words, object)
    return outputs


def verify(
    path: str | os.PathLike,
    model: keras.Model,
    index: MomentIndex | None = None,
    top_n: int = 10,
    nms_threshold: float = 0.5,
    min_recall: float | None = None,
) -> dict[str, float]:
    """Loads a SavedModel and compares its answers with the model's.

    Args:
        path: Folder of the SavedModel.
        model: The model that it was made of, one of `acnn_tf.models`.
        index: The index that it was made with, if there was one.
        top_n: How many moments an answer has, as in `Signatures`.
        nms_threshold: Largest IoU that two moments of one video may have, as
            in `Signatures`.
        min_recall: As in `Signatures`. Where it is given, moments that a
            search missed are no error; that it found others, or gives them
            other scores, is one.

    Returns:
        Dictionary from the names of the signatures to the largest error,
        relative to the largest number of each output.

    Raises:
        ExportError: If the answers differ by more than rounding.

    Example:

    >>> acnn_tf.servable.verify("models/acnn/1", model)  # doctest: +SKIP
    {'localize': 2.1e-07, 'encode_windows': 1.3e-07, ...}
    """
    tolerance = _TOLERANCES.get(model.compute_dtype, 1e-4)
    inputs = example_inputs(model)
    expected = expected_outputs(model, inputs, index, top_n, nms_threshold)
    loaded = tf.saved_model.load(path)
    errors = {}
    for name, outputs in expected.items():
        tensors = {k: tf.constant(v) for k, v in inputs[name].items()}
        answer = loaded.signatures[name](**tensors)
        if name == "describe":
            told = [text.decode() for text in answer["description"].numpy()]
            if told != outputs["description"].tolist():
                raise ExportError(f"{path}: `describe` answers {told}.")
            continue
        if name == "search" and min_recall is not None:
            outputs = _without_missed(outputs, answer, tolerance)
        errors[name] = max(
            _error(answer[key].numpy(), value, f"{path}, {name}: {key}")
            for key, value in outputs.items()
            # In half precision near ties are ranked either way.
            if value.dtype.kind not in "OSU"
            and not (tolerance > 1e-4 and key in ("start", "end"))
        )
        if errors[name] > tolerance:
            raise ExportError(
                f"{path}: what `{name}` answers is off by {errors[name]:.1e} "
                f"of the largest number; at most {tolerance:.0e} is rounding."
            )
    return errors


def _without_missed(exact, answer, tolerance):
    """Replaces exact moments that the shortlist missed by those it found."""
    scores, found = exact["score"], answer["score"].numpy()
    largest = np.abs(np.where(scores > NO_SCORE / 2, scores, 0)).max()
    is_missed = found < scores - tolerance * largest
    is_missed = np.logical_or.accumulate(is_missed, axis=1)
    return {
        key: np.where(is_missed, answer[key].numpy(), value)
        if value.shape == is_missed.shape
        else value
        for key, value in exact.items()
    }


def _error(one, other, place):
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.shape != other.shape:
        raise ExportError(
            f"{place} has shape {one.shape}. Expected: {other.shape}"
        )
    if not other.size:
        return 0.0
    # What stands for no moment is no number to compare with.
    largest = np.abs(np.where(other > NO_SCORE / 2, other, 0)).max()
    with np.errstate(over="ignore"):
        return float(np.abs(one - other).max() / max(largest, 1e-9))


def _moments(answers, top_n):
    """Converts rows of `(video id, start, end, score)` to arrays."""
    none = ("", 0.0, 0.0, NO_SCORE)
    rows = [[*row, *[none] * (top_n - len(row))] for row in answers]
    columns = np.array(rows, object).reshape(-1, top_n, 4)
    video_id, *numbers = np.moveaxis(columns, -1, 0)
    start, end, score = (array.astype(np.float32) for array in numbers)
    return {"video_id": video_id, "start": start, "end": end, "score": score}
