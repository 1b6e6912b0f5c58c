"""The losses and the optimizer of a training, and their flags."""

import typing

from experiments import argument_flags


def compile_model(
    model,
    num_steps,
    *,
    target_iou=0.3,
    video_weight=1.0,
    batch_weight=0.5,
    offset_weight=1.0,
    positive_weight: float | None = None,
    negative_weight: float | None = None,
    learning_rate=1e-3,
    schedule: typing.Literal["cosine", "constant"] = "cosine",
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


argument_flags.define(
    compile_model,
    "Losses and optimizer",
    target_iou="Windows of the query's video above this IoU are what it should "
    "be aligned with.",
    video_weight="Weight of the loss within videos.",
    batch_weight="Weight of the loss within batches.",
    offset_weight="Weight of the offset loss, lambda.",
    positive_weight="Weight of the pairs of a batch that match, alpha_1. "
    "Default: 1 + 1 / the size of the batch.",
    negative_weight="Weight of the pairs of a batch that do not match, "
    "alpha_2. Default: 1 / the size of the batch.",
    learning_rate="Highest learning rate.",
    schedule="Learning rate over time: warm-up and then a cosine decay, or "
    "always the same.",
    clipnorm="Largest norm of a gradient; 0: any.",
    weight_decay="Weight decay of Adam.",
    ema_momentum="Momentum of the averaged weights, which are evaluated and "
    "saved; 0 takes no average.",
)
