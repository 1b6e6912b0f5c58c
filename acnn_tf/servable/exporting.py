"""Exports a model as a folder for TensorFlow Serving."""

import os
from collections.abc import Mapping

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from acnn_tf.files.atomic import replacing
from acnn_tf.search.moment_index import MomentIndex
from acnn_tf.search.shortlist import check_recall
from acnn_tf.servable.readme import readme
from acnn_tf.servable.signatures import Signatures
from acnn_tf.servable.verification import ExportError, verify

# How TensorFlow tells of a disk that is full, and of a limit.
_FULL = (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError)


def export(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    index: MomentIndex | None = None,
    top_n: int = 10,
    nms_threshold: float = 0.5,
    shortlist: str | None = None,
    min_recall: float = 0.99,
    assets_extra: Mapping[str, bytes] | None = None,
    example_query: str | None = None,
) -> dict[str, float]:
    """Writes a model as a SavedModel that answers sentences with moments.

    The folder needs none of this code: TensorFlow Serving, the C API or
    `tf.saved_model.load` run it, sentences and clip features in, moments out.
    A model of sentence vectors takes those, or sentences if the text tower of
    its `sentence_encoder` can go into the folder. `Signatures` says what it
    answers, and so does a README in the folder. It is written elsewhere,
    loaded again, compared with the model and only then renamed, so that a
    server never sees half of it.

    Args:
        model: One of `acnn_tf.models`, built and trained.
        path: Folder that does not exist yet. A server wants an integer for
            its name: `models/acnn/1`.
        index: The videos to search in. Default: the servable does not search,
            and answers for the videos that a request brings.
        top_n: How many moments an answer has.
        nms_threshold: Largest IoU that two moments of one video may have.
        shortlist: `"linear"` searches the index as `MomentIndex` does with it.
            Default: exactly.
        min_recall: Share of the best moments that the linear shortlist is to
            find, below 1. What it expects is the output `recall`.
        assets_extra: Files for the folder `assets.extra`, by their names.
        example_query: Sentence for the requests in the README. Default:
            frequent words of the vocabulary.

    Returns:
        Dictionary from the names of the signatures to the largest error
        against the model.

    Raises:
        ValueError: If an argument is none of its values.
        ExportError: If what was written does not give the model's numbers,
            or needs operations that a stock server does not have.
        FileExistsError: If `path` exists already.
        WriteError: If the folder cannot be written; nothing of it stays.

    Example:

    >>> export(model, "models/acnn/1", index=index)  # doctest: +SKIP
    """
    path = os.path.abspath(path)
    if os.path.exists(path):
        raise FileExistsError(
            f"{path} is there already: a version, once served, must not "
            "change. Choose another number."
        )
    if shortlist not in (None, "linear"):
        raise ValueError(
            "A servable's `shortlist` must be 'linear' or None. "
            f"Received: {shortlist}"
        )
    if shortlist is None:
        min_recall = None
    else:
        check_recall(min_recall)
        if index is None:
            raise ValueError("A `shortlist` needs an `index` to search in.")
    signatures = Signatures(model, index, top_n, nms_threshold, min_recall)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    size = sum(variable.numpy().nbytes for variable in signatures.variables)
    # Its name is not a number: a server that looks on takes it for no version.
    with replacing(path, size=size, errors=_FULL) as partial:
        functions = signatures.concrete_functions()
        tf.saved_model.save(signatures, partial, signatures=functions)
        _check_operations(partial)
        for file_name, content in (assets_extra or {}).items():
            extra = os.path.join(partial, "assets.extra", file_name)
            os.makedirs(os.path.dirname(extra), exist_ok=True)
            with open(extra, "wb") as file:
                file.write(content)
        with open(
            os.path.join(partial, "README.md"), "w", encoding="utf-8"
        ) as file:
            file.write(
                readme(
                    model,
                    signatures,
                    functions,
                    index,
                    top_n,
                    nms_threshold,
                    os.path.basename(os.path.dirname(path)),
                    example_query,
                )
            )
        errors = verify(partial, model, index, top_n, nms_threshold, min_recall)
    return errors


def _check_operations(path):
    """Refuses operations that stock TensorFlow Serving lacks."""
    saved = saved_model_pb2.SavedModel()
    with open(os.path.join(path, "saved_model.pb"), "rb") as file:
        saved.ParseFromString(file.read())
    graph = saved.meta_graphs[0].graph_def
    found = {node.op for node in graph.node}
    for function in graph.library.function:
        found |= {node.op for node in function.node_def}
    bad = [
        name
        for name in sorted(found)
        if not hasattr(tf.raw_ops, name) or "PyFunc" in name
    ]
    if bad:
        raise ExportError(
            f"The model needs operations that no stock server has: {bad}."
        )
