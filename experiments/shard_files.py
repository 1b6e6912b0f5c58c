"""The files of an evaluation in shards: predictions, and counts of hits."""

import dataclasses
import hashlib
import json
import os

from acnn_tf.data.predictions import (
    Predictions,
    read_predictions,
    write_predictions,
)
from acnn_tf.files.atomic import write_text
from acnn_tf.files.manifests import open_file, read_manifest, save_manifest
from acnn_tf.files.problems import DataError
from acnn_tf.search.shards import number_shards, shard_name

_REMEDY = "remove it, and run the command once more"


def describe(about, moments_of):
    """What the counts of each shard say they are counts of.

    The digest, `corpus`, is of the moments of all shards, and of what else the
    counts depend on, which JSON can hold.
    """
    digest = hashlib.sha256(json.dumps(about).encode())
    for moments in moments_of:
        # Without `source`: the file may lie elsewhere.
        texts = [dataclasses.astuple(moment)[:5] for moment in moments]
        digest.update(json.dumps(texts).encode())
    return number_shards(len(moments_of), digest.hexdigest())


def _paths(folder, shard):
    """What its manifest is named after; predictions; counts."""
    stem = shard_name(shard["number"], shard["num_shards"])
    stem = os.path.join(folder, stem)
    return stem, f"{stem}.predictions.jsonl", f"{stem}.counts.json"


def write_shard(folder, shard, moments, predictions, counts):
    """Writes both; their manifest last, which makes the shard complete."""
    os.makedirs(folder, exist_ok=True)
    stem, path, counts_path = _paths(folder, shard)
    write_predictions(path, moments, predictions)
    write_text(counts_path, json.dumps({"shard": shard, "counts": counts}))
    save_manifest(stem, {path: len(moments), counts_path: len(counts)})


def read_shards(folder, shards, moments_of, moments):
    """The `Predictions` of all shards, in the order of `moments`."""
    found = {}
    for shard, own in zip(shards, moments_of, strict=True):
        _, path, _ = _paths(folder, shard)
        predictions = read_predictions(path, own)
        for moment, *one in zip(own, predictions, predictions.saliency):
            found[moment.query_id] = one
    return Predictions(*zip(*(found[m.query_id] for m in moments)))


def read_counts(folder, shard):
    """Counts of a shard, or `None` where it is not complete.

    Raises:
        DataError: If a file is damaged.
        ValueError: If they are of another model, split, protocol or division.
    """
    stem, *files = _paths(folder, shard)
    problems = []
    manifest = read_manifest(stem, problems, _REMEDY)
    if manifest is not None and all(map(os.path.exists, files)):
        problems += [p for file in files for p in manifest.check(file)]
    elif not problems:
        return None
    if problems:
        raise DataError(problems)
    with open_file(files[-1]) as file:
        record = json.loads(file.read())
    found = record["shard"]
    if found != shard:
        raise ValueError(
            f"{files[-1]} counts hits of another model, other queries or "
            f"another protocol (digest {found['corpus']:.12}, expected "
            f"{shard['corpus']:.12}): choose another folder, or remove it."
        )
    return record["counts"]
