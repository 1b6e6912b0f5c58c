"""Losses and optimizer, by flags."""

import keras
from absl import flags

from acnn_tf import losses, optimizers

FLAGS = flags.FLAGS

flags.DEFINE_float(
    "target_iou",
    0.3,
    "Windows above this IoU share the target of the alignment within the "
    "query's video.",
)
flags.DEFINE_float(
    "video_weight", 1.0, "Weight of the alignment within the query's video."
)
flags.DEFINE_float(
    "batch_weight", 0.5, "Weight of the alignment within the batch."
)
flags.DEFINE_float("offset_weight", 1.0, "Lambda, the weight of the offsets.")
flags.DEFINE_float("positive_weight", None, "Alpha 1. Default: 1 + 1 / B.")
flags.DEFINE_float("negative_weight", None, "Alpha 2. Default: 1 / B.")
flags.DEFINE_float("learning_rate", 1e-3, "The highest, after the warm-up.")
flags.DEFINE_enum(
    "schedule",
    "cosine",
    ["cosine", "constant"],
    "Learning rate over time: warm-up and cosine decay, or always the same.",
)
flags.DEFINE_float("clipnorm", 1.0, "Largest norm of a gradient; 0: any.")
flags.DEFINE_float("weight_decay", 1e-4, "Of Adam.")
flags.DEFINE_float("ema_momentum", 0.99, "Of averaged weights; 0: no average.")


def compile_model(model, num_steps):
    """Losses, weights and optimizer; `num_steps`: of the whole training."""
    learning_rate = FLAGS.learning_rate
    if FLAGS.schedule == "cosine":
        learning_rate = keras.optimizers.schedules.CosineDecay(
            FLAGS.learning_rate / 10,
            decay_steps=num_steps,
            warmup_target=FLAGS.learning_rate,
            warmup_steps=num_steps // 20,
        )
    model.compile(
        optimizers.FusedAdam(
            learning_rate,
            weight_decay=FLAGS.weight_decay or None,
            clipnorm=FLAGS.clipnorm or None,
            use_ema=FLAGS.ema_momentum > 0,
            ema_momentum=FLAGS.ema_momentum,
        ),
        loss={
            "score": losses.VideoAlignmentLoss(FLAGS.target_iou),
            "offset": losses.OffsetLoss(),
            "batch_score": losses.AlignmentLoss(
                FLAGS.positive_weight, FLAGS.negative_weight
            ),
        },
        loss_weights={
            "score": FLAGS.video_weight,
            "offset": FLAGS.offset_weight,
            "batch_score": FLAGS.batch_weight,
        },
        jit_compile=False,
    )
