"""The batches of a training, and their flags."""

from absl import flags

import acnn_tf

flags.DEFINE_integer(
    "batch_size", None, "Queries in a batch. Default: 32.", lower_bound=1
)
flags.DEFINE_enum(
    "batches",
    None,
    ["videos", "pairs"],
    "What a query is trained with: all windows of its video, or, as in the "
    "paper, one window that shows its moment. Default: videos.",
)
flags.DEFINE_float(
    "min_iou",
    None,
    "Windows above this IoU learn offsets, and make pairs. Default: 0.5.",
)
flags.DEFINE_float(
    "crop", None, "Share of videos that --batches=videos crops. Default: 0.5."
)
flags.DEFINE_float(
    "max_niol",
    None,
    "Windows below this nIoL (share outside the moment) make pairs of "
    "--batches=pairs. Default: 0.15.",
)
flags.DEFINE_integer(
    "video_negatives",
    None,
    "Windows of low IoU that a pair of --batches=pairs brings along. Default: "
    "0.",
)
flags.DEFINE_integer(
    "videos_in_memory",
    None,
    "Videos that --batches=pairs holds at a time, reading them anew in each "
    "epoch. Default: all.",
    lower_bound=1,
)
flags.register_multi_flags_validator(
    ["batches", "videos_in_memory"],
    lambda given: given["batches"] == "pairs" or not given["videos_in_memory"],
    "--videos_in_memory is for --batches=pairs.",
)


def make_batches(
    model,
    split,
    *,
    batches="videos",
    batch_size=32,
    min_iou=0.5,
    crop=0.5,
    max_niol=0.15,
    video_negatives=0,
    videos_in_memory=None,
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
