"""Training batches, by flags."""

from absl import flags

from acnn_tf.data import batches, pair_batches, sentences

FLAGS = flags.FLAGS

flags.DEFINE_integer("seed", 0, "Of weights, order, crops and dropout.")
flags.DEFINE_integer("batch_size", 32, "Queries in a batch.", lower_bound=1)
flags.DEFINE_enum(
    "batches",
    "videos",
    ["videos", "pairs"],
    "Each query with all windows of its video, or, as in the paper, with one "
    "window that answers it.",
)
flags.DEFINE_float("crop", 0.5, "Share of videos cropped, of --batches=videos.")
flags.DEFINE_integer(
    "video_negatives", 0, "Windows of low IoU a pair, of --batches=pairs."
)
flags.DEFINE_integer(
    "videos_in_memory",
    None,
    "Read the videos anew each epoch and hold so many of them at a time, of "
    "--batches=pairs. Default: hold all.",
    lower_bound=1,
)
flags.register_multi_flags_validator(
    ["batches", "videos_in_memory"],
    lambda given: given["batches"] == "pairs" or not given["videos_in_memory"],
    "--videos_in_memory is for --batches=pairs.",
)
flags.DEFINE_float(
    "min_iou", 0.5, "Windows above this IoU learn offsets, and make pairs."
)
flags.DEFINE_float("max_niol", 0.15, "And below this nIoL, with pairs.")


def make_batches(model, split, first_epoch=0):
    """Training batches from the given epoch on."""
    queries = sentences.query_inputs(
        split.moments, model.vocabulary, split.sentence_vectors
    )
    settings = {
        "batch_size": FLAGS.batch_size,
        "min_iou": FLAGS.min_iou,
        "seed": FLAGS.seed,
        "first_epoch": first_epoch,
    }
    if FLAGS.batches == "videos":
        make = batches.training_videos
        settings["crop"] = FLAGS.crop
    else:
        make = pair_batches.training_pairs
        settings["max_niol"] = FLAGS.max_niol
        settings["video_negatives"] = FLAGS.video_negatives
        settings["videos_in_memory"] = FLAGS.videos_in_memory
    return make(split.moments, queries, split.features, model, **settings)
