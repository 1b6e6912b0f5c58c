"""The losses and the optimizer of a training, and their flags."""

from absl import flags

flags.DEFINE_float(
    "target_iou",
    None,
    "Windows of the query's video above this IoU are what it should be aligned "
    "with. Default: 0.3.",
)
flags.DEFINE_float(
    "video_weight", None, "Weight of the loss within videos. Default: 1."
)
flags.DEFINE_float(
    "batch_weight", None, "Weight of the loss within batches. Default: 0.5."
)
flags.DEFINE_float(
    "offset_weight", None, "Weight of the offset loss, lambda. Default: 1."
)
flags.DEFINE_float(
    "positive_weight",
    None,
    "Weight of the pairs of a batch that match, alpha_1. Default: 1 + 1 / the "
    "size of the batch.",
)
flags.DEFINE_float(
    "negative_weight",
    None,
    "Weight of the pairs of a batch that do not match, alpha_2. Default: 1 / "
    "the size of the batch.",
)
flags.DEFINE_float(
    "learning_rate", None, "Highest learning rate. Default: 0.001."
)
flags.DEFINE_enum(
    "schedule",
    None,
    ["cosine", "constant"],
    "Learning rate over time: warm-up and then a cosine decay, or always the "
    "same. Default: cosine.",
)
flags.DEFINE_float(
    "clipnorm", None, "Largest norm of a gradient; 0: any. Default: 1."
)
flags.DEFINE_float(
    "weight_decay", None, "Weight decay of Adam. Default: 0.0001."
)
flags.DEFINE_float(
    "ema_momentum",
    None,
    "Momentum of the averaged weights, which are evaluated and saved; 0 takes "
    "no average. Default: 0.99.",
)


def compile_model(
    model,
    num_steps,
    *,
    target_iou=0.3,
    video_weight=1.0,
    batch_weight=0.5,
    offset_weight=1.0,
    positive_weight=None,
    negative_weight=None,
    learning_rate=1e-3,
    schedule="cosine",
    clipnorm=1.0,
    weight_decay=1e-4,
    ema_momentum=0.99,
):
    """Gives a model its losses and its optimizer.

    The learning rate changes over `num_steps`, those of the whole training.
    The other arguments are explained by the flags of their names.
    """
    import keras

    from acnn_tf import losses, optimizers

    if schedule == "cosine":
        learning_rate = keras.optimizers.schedules.CosineDecay(
            learning_rate / 10,
            decay_steps=num_steps,
            warmup_target=learning_rate,
            warmup_steps=num_steps // 20,
        )
    model.compile(
        optimizers.FusedAdam(
            learning_rate,
            weight_decay=weight_decay or None,
            clipnorm=clipnorm or None,
            use_ema=ema_momentum > 0,
            ema_momentum=ema_momentum,
        ),
        loss={
            "score": losses.VideoAlignmentLoss(target_iou),
            "offset": losses.OffsetLoss(),
            "batch_score": losses.AlignmentLoss(
                positive_weight, negative_weight
            ),
        },
        loss_weights={
            "score": video_weight,
            "offset": offset_weight,
            "batch_score": batch_weight,
        },
        jit_compile=False,
    )
