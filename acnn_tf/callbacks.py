"""What happens between the epochs of `model.fit`."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from acnn_tf.evaluation import evaluate
from acnn_tf.models import save_model


class Validation(keras.callbacks.Callback):
    """Searches a split after every epoch, and keeps the best model.

    Adds `val_R@1_IoU=0.3` and its like, and `val_mIoU`, to the logs of the
    epoch. Where the optimizer averages weights (`use_ema=True`), the averaged
    ones are evaluated and kept.

    Args:
        moments: List of `Moment`.
        features: Mapping from video id to `[T, D]` clip features.
        path: Where to save the best model, `*.keras`; `None` saves none. A
            better one replaces it by rename, so that there is always a whole
            one.
        monitor: Name in the logs, the higher the better.
        **kwargs: Further arguments of `acnn_tf.evaluation.evaluate`.
    """

    def __init__(
        self,
        moments,
        features,
        path=None,
        monitor="val_mIoU",
        **kwargs,
    ):
        super().__init__()
        self.moments = moments
        self.features = features
        self.path = path
        self.monitor = monitor
        self.kwargs = {"ns": (1, 5), "ious": (0.3, 0.5, 0.7), **kwargs}
        # A variable, so that a checkpoint can hold it.
        self.best = tf.Variable(-np.inf, trainable=False, dtype="float64")

    def on_epoch_end(self, epoch, logs=None):
        with averaged_weights(self.model):
            results, _ = evaluate(
                self.model, self.moments, self.features, **self.kwargs
            )
            self._record(results, logs)

    def _record(self, results, logs):
        for name, value in results.items():
            if isinstance(value, float):
                logs[f"val_{name.replace(',', '_')}"] = value
        if self.monitor not in logs:
            raise ValueError(
                f"`monitor` must be one of {sorted(logs)}. "
                f"Received: {self.monitor}"
            )
        if logs[self.monitor] > float(self.best):
            self.best.assign(logs[self.monitor])
            if self.path is not None:
                save_model(self.model, self.path)


@contextlib.contextmanager
def averaged_weights(model):
    """Lends a model the averaged weights of its optimizer, for a while.

    Without an average (`use_ema=False`) its weights stay as they are.
    `keras.callbacks.SwapEMAWeights` swaps by adding and subtracting, which
    changes the last bits of the weights; this one does not.

    Args:
        model: Compiled model.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not getattr(optimizer, "use_ema", False) or not optimizer.built:
        yield
        return
    own = [keras.ops.copy(v) for v in model.trainable_variables]
    averages = optimizer._model_variables_moving_average
    for variable, average in zip(
        model.trainable_variables, averages, strict=True
    ):
        variable.assign(average)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, own, strict=True):
            variable.assign(value)


class Resume(keras.callbacks.Callback):
    """Continues an interrupted training where its last epoch ended.

    Saves weights, optimizer, random state and epoch after every epoch. The
    order of the data follows from seed and epoch, so a continued training
    ends with the weights of one that was never interrupted.

    >>> resume = Resume(model, "runs/mine/checkpoints")  # doctest: +SKIP
    >>> epoch = resume.restore()  # doctest: +SKIP
    >>> model.fit(..., initial_epoch=epoch, callbacks=[resume])
    ... # doctest: +SKIP

    Args:
        model: Built and compiled model.
        folder: Where the checkpoints go.
        **state: Further variables to save, such as `best=validation.best`.
    """

    def __init__(self, model, folder, **state):
        super().__init__()
        model.optimizer.build(model.trainable_variables)
        self.epoch = tf.Variable(0, trainable=False, dtype="int64")
        # One by one, in order: the random states of dropout are variables of a
        # model, but not weights of its layers.
        variables = model.variables + model.optimizer.variables
        self.checkpoint = tf.train.Checkpoint(
            epoch=self.epoch,
            variables=[variable.value for variable in variables],
            **state,
        )
        self.manager = tf.train.CheckpointManager(
            self.checkpoint, folder, max_to_keep=2
        )

    def restore(self):
        """Loads the newest checkpoint, if there is one.

        Returns:
            Int: epochs that are already done.

        Raises:
            ValueError: If the checkpoint is of another model.
        """
        newest = self.manager.latest_checkpoint
        if newest is None:
            return 0
        try:
            self.checkpoint.restore(newest).assert_consumed()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise ValueError(
                f"{newest} does not fit this model: its settings must have "
                "been others. Repeat them, or choose an empty folder.\n"
                f"{error}"
            ) from error
        return int(self.epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.epoch.assign(epoch + 1)
        self.manager.save()
