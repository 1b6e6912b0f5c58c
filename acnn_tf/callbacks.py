"""What happens between the epochs of `model.fit`."""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np

from acnn_tf.data.annotations import Moment
from acnn_tf.evaluation import evaluate
from acnn_tf.models import save_model


class Validation(keras.callbacks.Callback):
    """Searches a split after every epoch, and keeps the best model.

    Adds `val_R@1_IoU=0.3` and its like, and `val_mIoU`, to the logs of the
    epoch. Callbacks that read them, such as `EarlyStopping`, come after it in
    the list. Where the optimizer averages weights (`use_ema=True`), the
    averaged ones are evaluated and kept. The replicas of the model's strategy
    share the videos.

    Args:
        moments: The sentences of the split, with their true moments.
        features: Clip features `[T, D]` of each video, by video id.
        path: Where to save the best model, `*.keras`; `None` saves none. A
            better model replaces it by a rename, so that the file is whole at
            any time.
        monitor: Name in the logs of what says which model is best: the one of
            the highest value. `None` saves no model.
        prefix: What the names in the logs begin with: `"train_"` for training
            queries. What they score more than others was learnt by heart.
        **kwargs: Further arguments of `acnn_tf.evaluation.evaluate`.

    Example:

    >>> validation = acnn_tf.callbacks.Validation(  # doctest: +SKIP
    ...     moments, features, "best.keras"
    ... )
    >>> model.fit(batches, callbacks=[validation])  # doctest: +SKIP
    """

    def __init__(
        self,
        moments: Sequence[Moment],
        features: Mapping[str, np.ndarray],
        path: str | os.PathLike | None = None,
        monitor: str | None = "val_mIoU",
        prefix: str = "val_",
        **kwargs,
    ):
        super().__init__()
        self.moments = moments
        self.features = features
        self.path = path
        self.monitor = monitor
        self.prefix = prefix
        self.kwargs = {"ns": (1, 5), "ious": (0.3, 0.5, 0.7), **kwargs}
        self.best = -math.inf

    def get_state(self) -> dict[str, float]:
        """What a checkpoint keeps, see `acnn_tf.training.ResumableTraining`."""
        return {"best": self.best}

    def set_state(self, state: Mapping[str, float]) -> None:
        """Takes back what `get_state` returned."""
        self.best = state["best"]

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        with averaged_weights(self.model):
            results, _ = evaluate(
                self.model,
                self.moments,
                self.features,
                strategy=getattr(self.model, "distribute_strategy", None),
                **self.kwargs,
            )
            for name, value in results.items():
                if isinstance(value, float):
                    logs[f"{self.prefix}{name.replace(',', '_')}"] = value
            if self.monitor is None:
                return
            if self.monitor not in logs:
                raise ValueError(
                    f"`monitor` must be one of {sorted(logs)}. "
                    f"Received: {self.monitor}"
                )
            if logs[self.monitor] > self.best:
                self.best = logs[self.monitor]
                if self.path is not None:
                    save_model(self.model, self.path)


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Gives a model the averaged weights of its optimizer, within a `with`.

    If the optimizer has no average (`use_ema=False`), the weights stay as they
    are.
    `keras.callbacks.SwapEMAWeights` swaps by adding and subtracting, which
    changes the last bits of the weights; this one does not.

    Args:
        model: Compiled model.

    Example:

    >>> import acnn_tf, keras
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(use_ema=True), "mse")
    >>> with acnn_tf.callbacks.averaged_weights(model):
    ...     loss = model.evaluate(
    ...         keras.ops.ones((2, 1)), keras.ops.ones((2, 1)), verbose=0
    ...     )
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not getattr(optimizer, "use_ema", False) or not optimizer.built:
        yield
        return
    own = [keras.ops.copy(v) for v in model.trainable_variables]
    averages = optimizer._model_variables_moving_average
    try:
        for variable, average in zip(
            model.trainable_variables, averages, strict=True
        ):
            variable.assign(average)
        yield
    finally:
        for variable, value in zip(model.trainable_variables, own, strict=True):
            variable.assign(value)
