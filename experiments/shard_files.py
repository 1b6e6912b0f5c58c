"""The files of an evaluation in shards: predictions, and counts of hits."""

import dataclasses
import hashlib
import json
import os

from acnn_tf.data.predictions import write_predictions
from acnn_tf.files.atomic import replacing
from acnn_tf.search.shard_names import shard_name


def describe(about, moments_of):
    """What each shard's counts say they are counts of.

    Args:
        about: What else they depend on: a value that JSON can hold.
        moments_of: List of the list of `Moment`s of each shard.

    Returns:
        List of dictionaries: `number`, `num_shards` and a digest, `corpus`.
    """
    digest = hashlib.sha256(json.dumps(about).encode())
    for moments in moments_of:
        # Without `source`: the file may lie elsewhere.
        texts = [dataclasses.astuple(moment)[:5] for moment in moments]
        digest.update(json.dumps(texts).encode())
    return [
        {
            "number": number,
            "num_shards": len(moments_of),
            "corpus": digest.hexdigest(),
        }
        for number in range(len(moments_of))
    ]


def paths(folder, shard):
    """Its file of predictions, and that of counts."""
    stem = shard_name(shard["number"], shard["num_shards"])
    stem = os.path.join(folder, stem)
    return f"{stem}.predictions.jsonl", f"{stem}.counts.json"


def write_shard(folder, shard, moments, predictions, counts):
    """Writes both; the counts last, which make the shard complete."""
    os.makedirs(folder, exist_ok=True)
    path, counts_path = paths(folder, shard)
    write_predictions(path, moments, predictions)
    record = {"shard": shard, "counts": counts}
    record["digest"] = _digest(record)
    with replacing(counts_path) as partial:
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(record, file)


def read_counts(folder, shard):
    """Counts of a shard, or `None` where it is not complete.

    Raises:
        ValueError: If they are damaged, or of another model, split, protocol
            or division.
    """
    path, counts_path = paths(folder, shard)
    try:
        with open(counts_path, "rb") as file:
            record = json.loads(file.read().decode())
        digest = record.pop("digest")
        if digest != _digest(record):
            raise ValueError("its digest is that of another content")
        found, counts = record["shard"], record["counts"]
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{counts_path} is damaged ({error}): remove it, and run the "
            "command once more."
        ) from None
    if found != shard:
        raise ValueError(
            f"{counts_path} counts hits of another model, other queries or "
            f"another protocol (digest {found.get('corpus')!s:.12}, expected "
            f"{shard['corpus']:.12}): choose another folder, or remove it."
        )
    return counts if os.path.exists(path) else None


def _digest(record):
    text = json.dumps([record["shard"], record["counts"]])
    return hashlib.sha256(text.encode()).hexdigest()
