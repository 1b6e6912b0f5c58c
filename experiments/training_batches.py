"""The batches of a training, and their flags."""

import typing

from absl import flags

import acnn_tf
from experiments import argument_flags


def make_batches(
    model,
    split,
    *,
    batches: typing.Literal["videos", "pairs"] = "videos",
    batch_size=32,
    min_iou=0.5,
    crop=0.5,
    max_niol=0.15,
    video_negatives=0,
    videos_in_memory: int | None = None,
    seed=0,
    first_epoch=0,
):
    """Makes the training batches of a `Split` for a model: `Batches`.

    They follow from the seed and the number of the epoch. The other arguments
    are explained by the flags of their names, and by
    `acnn_tf.data.training_videos` and `acnn_tf.data.training_pairs`.
    """
    queries = acnn_tf.data.query_inputs(
        split.moments, model.vocabulary, split.sentence_vectors
    )
    settings = {
        "batch_size": batch_size,
        "min_iou": min_iou,
        "seed": seed,
        "first_epoch": first_epoch,
    }
    if batches == "videos":
        make = acnn_tf.data.training_videos
        settings |= {"crop": crop}
    else:
        make = acnn_tf.data.training_pairs
        settings |= {
            "max_niol": max_niol,
            "video_negatives": video_negatives,
            "videos_in_memory": videos_in_memory,
        }
    return make(split.moments, queries, split.features, model, **settings)


argument_flags.define(
    make_batches,
    "Batches",
    batch_size="Queries in a batch.",
    batches="What a query is trained with: all windows of its video, or, as in "
    "the paper, one window that shows its moment.",
    min_iou="Windows above this IoU learn offsets, and make pairs.",
    crop="Share of videos that --batches=videos crops.",
    max_niol="Windows below this nIoL (share outside the moment) make pairs of "
    "--batches=pairs.",
    video_negatives="Windows of low IoU that a pair of --batches=pairs brings "
    "along.",
    videos_in_memory="Videos that --batches=pairs holds at a time, reading "
    "them anew in each epoch. Default: all.",
)
flags.register_multi_flags_validator(
    ["batches", "videos_in_memory"],
    lambda given: given["batches"] == "pairs" or not given["videos_in_memory"],
    "--videos_in_memory is for --batches=pairs.",
)
