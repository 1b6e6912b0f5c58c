"""The losses of the two tasks: alignment and boundary offsets."""

import keras
from keras import ops

from acnn_tf import replicas


@keras.saving.register_keras_serializable(package="acnn_tf")
class AlignmentLoss(keras.losses.Loss):
    """Cross-entropy of matching and other query-window pairs of a batch.

        L = sum_P a1 log(1 + exp(-s)) + sum_N a2 log(1 + exp(s))

    over the pairs of every query with every window of the batch, divided by
    the number of pairs. P are the pairs whose query and window belong to the
    same moment, N are the other pairs. So two sentences of one moment are not
    negatives of each other. If several replicas share a batch, each has some
    of its queries and all of its windows.

    Args:
        positive_weight: a1. Defaults to `1 + 1 / B`, as in the public code of
            this family of models.
        negative_weight: a2. Defaults to `1 / B`.

    Call arguments:
        y_true: int `[B]`, the id of each example's moment.
        y_pred: `[B, B]`, scores of query i and the window of example j; on
            each of several replicas `[b, B]` for the `[b]` of `y_true`.

    Returns:
        Scalar; by Keras's `reduction`.

    Example:

    >>> import acnn_tf, keras
    >>> loss = acnn_tf.losses.AlignmentLoss(
    ...     positive_weight=1.0, negative_weight=1.0
    ... )
    >>> ids, scores = keras.ops.array([0, 1]), keras.ops.zeros((2, 2))
    >>> round(float(loss(ids, scores)), 4)  # log 2
    0.6931

    Reference: paper, Eq. 8.
    """

    def __init__(
        self,
        positive_weight: float | None = None,
        negative_weight: float | None = None,
        name: str = "alignment_loss",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.positive_weight = positive_weight
        self.negative_weight = negative_weight

    def call(
        self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor
    ) -> keras.KerasTensor:
        moment = ops.reshape(y_true, (-1,))
        all_moments = replicas.gather(moment)
        batch = ops.cast(ops.shape(all_moments)[0], y_pred.dtype)
        positive_weight = self.positive_weight
        negative_weight = self.negative_weight
        if positive_weight is None:
            positive_weight = 1.0 + 1.0 / batch
        if negative_weight is None:
            negative_weight = 1.0 / batch
        return ops.mean(
            ops.where(
                ops.equal(moment[:, None], all_moments[None, :]),
                positive_weight * ops.softplus(-y_pred),
                negative_weight * ops.softplus(y_pred),
            ),
            axis=-1,
        )

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "positive_weight": self.positive_weight,
            "negative_weight": self.negative_weight,
        }


@keras.saving.register_keras_serializable(package="acnn_tf")
class VideoAlignmentLoss(keras.losses.Loss):
    """Cross-entropy of a query's scores over the windows of its own video.

    Windows that overlap the moment share the target by their IoU:

        p_w  proportional to  max(0, iou_w - min_iou);
        L = -sum_w p_w log softmax(s)_w

    If no window is above `min_iou`, the window of the highest IoU is the
    target.

    Args:
        min_iou: A window of this IoU or less is a negative; in `[0, 1)`. The
            default, 0.3, is low because search raises the score of a window by
            the scores of the windows that it overlaps.

    Call arguments:
        y_true: `[B, W]`, IoU of each window with the query's moment, -1 for
            padding.
        y_pred: `[B, W]`, scores.

    Returns:
        Scalar; by Keras's `reduction`.

    Example:

    >>> import acnn_tf, keras
    >>> loss = acnn_tf.losses.VideoAlignmentLoss()
    >>> iou = keras.ops.array([[1.0, 0.2, -1.0]])
    >>> scores = keras.ops.array([[0.0, 0.0, 9.0]])
    >>> round(float(loss(iou, scores)), 4)  # log 2
    0.6931
    """

    def __init__(
        self, min_iou: float = 0.3, name: str = "video_alignment_loss", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        if not 0 <= min_iou < 1:
            raise ValueError(
                f"`min_iou` must be in [0, 1). Received: {min_iou}"
            )
        self.min_iou = min_iou

    def call(
        self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor
    ) -> keras.KerasTensor:
        real = y_true >= 0
        best = ops.max(y_true, axis=-1, keepdims=True)
        target = ops.maximum(y_true - self.min_iou, 0.0)
        # Without a window above the bound, the best one is the target.
        target = ops.where(
            best > self.min_iou,
            target,
            ops.cast(ops.equal(y_true, best), target.dtype),
        )
        target = ops.where(real, target, ops.zeros_like(target))
        target = target / ops.sum(target, axis=-1, keepdims=True)
        lowest = ops.min(y_pred, axis=-1, keepdims=True)
        highest = ops.max(
            ops.where(real, y_pred, lowest), axis=-1, keepdims=True
        )
        zeros = ops.zeros_like(y_pred)
        shifted = ops.where(real, y_pred - ops.stop_gradient(highest), zeros)
        # Padding is left out of the sum, not added as a huge negative number.
        partition = ops.sum(
            ops.where(real, ops.exp(shifted), zeros), axis=-1, keepdims=True
        )
        return -ops.sum(target * (shifted - ops.log(partition)), axis=-1)

    def get_config(self) -> dict:
        return {**super().get_config(), "min_iou": self.min_iou}


@keras.saving.register_keras_serializable(package="acnn_tf")
class OffsetLoss(keras.losses.Loss):
    """L1 loss of the boundary offsets of positive windows.

        L = sum_P |d*_s - d_s| + |d*_e - d_e|

    averaged over the positive windows P of each example, and then over the
    batch.

    Call arguments:
        y_true: `[B, W, 3]`: the offsets of start and end, from
            `acnn_tf.segments.encode_offsets`, and the weight of the window,
            which is 0 where it is no positive.
        y_pred: `[B, W, 2]`, the predicted offsets.

    Returns:
        Scalar; by Keras's `reduction`.

    Example:

    >>> import acnn_tf, keras
    >>> loss = acnn_tf.losses.OffsetLoss()
    >>> true = keras.ops.array([[[1.0, -1.0, 1.0], [9.0, 9.0, 0.0]]])
    >>> float(loss(true, keras.ops.zeros((1, 2, 2))))
    2.0

    Reference: paper, Eq. 10.
    """

    def __init__(self, name: str = "offset_loss", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(
        self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor
    ) -> keras.KerasTensor:
        weight = y_true[..., 2]
        distance = ops.sum(ops.abs(y_true[..., :2] - y_pred), axis=-1)
        total = ops.sum(weight * distance, axis=-1)
        return total / ops.maximum(ops.sum(weight, axis=-1), 1e-6)
