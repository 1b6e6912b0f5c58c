"""`model.fit` that can be stopped at any moment and loses nothing."""

import contextlib
import csv
import dataclasses
import io
import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from acnn_tf.checkpoints import Checkpoints
from acnn_tf.data.batches import Batches
from acnn_tf.files.atomic import write_text
from acnn_tf.files.locks import FolderInUseError, locked
from acnn_tf.replicas import gather_arrays

# What a process ends with that was asked to (128 + SIGTERM).
TERMINATED = 143

_LOG = logging.getLogger(__name__)


class ResumableTraining(keras.callbacks.Callback):
    """Fits a model, from exactly where an earlier fit of it was stopped.

    It saves weights, optimizer, random states, the position in the data, the
    sums behind the metrics, and the history. It saves after every `every`
    steps, at the end of each epoch before its validation, when the process is
    told to end (by SIGTERM, or by Ctrl-C, which then raises
    KeyboardInterrupt), and when the training is done. The order of the data
    follows from seed and epoch. So a training that was killed at any moment
    and started again ends with the same weights, to the last bit, as one that
    was not killed. At most `every` steps are done twice. (TensorFlow must be
    told to be deterministic: `tf.config.experimental.enable_op_determinism`.)

    Under a strategy of several workers, all workers read the checkpoints, so
    they must share the folder. Only the first worker writes. While one
    training fits, another training with the same folder is refused.

    >>> training = ResumableTraining(  # doctest: +SKIP
    ...     model, "runs/mine/checkpoints"
    ... )
    >>> history = training.fit(
    ...     lambda epoch: training_videos(..., first_epoch=epoch), epochs=12
    ... )  # doctest: +SKIP

    Args:
        model: Built and compiled model.
        folder: Folder for the checkpoints.
        every: Steps from one checkpoint to the next. Default: the steps of an
            epoch.
        history_path: CSV file that gets a line for each epoch. Default: none
            is written.
        grace: Seconds after SIGTERM at which the process ends even if a step,
            or the writing of a checkpoint, has not ended.

    Attributes:
        history: List of the logs of each epoch, with those of earlier runs.
        num_epochs: How many epochs this object has ended itself.
        num_steps: How many steps are done, with those of earlier runs.
    """

    def __init__(
        self,
        model: keras.Model,
        folder: str | os.PathLike,
        every: int | None = None,
        history_path: str | os.PathLike | None = None,
        grace: float = 8.0,
    ):
        super().__init__()
        self.folder = os.fspath(folder)
        if every is not None and every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every}")
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "`ResumableTraining` needs Keras's TensorFlow backend; on "
                "others `model.fit` trains. Received: KERAS_BACKEND="
                f"{keras.backend.backend()}"
            )
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        self.fitted = model
        self.every = every
        self.grace = grace
        self.history = []
        self.num_epochs = 0
        self.history_path = history_path
        self._strategy = model.distribute_strategy
        self._chief = self._strategy.extended.should_checkpoint
        self._callbacks = []
        self._epoch = self._step = self._steps_per_epoch = 0
        self._logs, self._metrics = {}, None
        self._saved, self._terminated = True, False
        # One by one, in order: the random states of dropout are variables of a
        # model, but not weights of its layers.
        variables = model.variables + model.optimizer.variables
        self._variables = [variable.value for variable in variables]

    @property
    def num_steps(self) -> int:
        return self._epoch * self._steps_per_epoch + self._step

    def fit(
        self,
        make_batches: Callable[[int], Batches],
        *,
        epochs: int,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: str | int = "auto",
    ) -> dict[str, list[float | None]]:
        """Trains until `epochs` are done, counting those of earlier runs.

        Args:
            make_batches: Function of an epoch, counted from 0, that returns
                `acnn_tf.data.batches.Batches` from that epoch on. They are
                shared out among the replicas of the model's strategy.
            epochs: How many epochs the training has, those of earlier runs
                included.
            callbacks: Callbacks of Keras. If a callback must remember
                something when the training goes on, it returns it from
                `get_state()`, as values of JSON, and gets it back by
                `set_state()`. `Validation` does so.
            verbose: See `keras.Model.fit`.

        Returns:
            `history`, as a dictionary from name to a list, one per epoch.

        Raises:
            FolderInUseError: If another training is at work in the folder.
            ValueError: If the checkpoints are of another model or other data,
                or all damaged; or if the loss is no longer finite: the last
                checkpoint is then from before.
            WriteError: If a checkpoint cannot be written.
            ConnectionError: If another worker has stopped.
        """
        self._callbacks = list(callbacks)
        with (
            self._until_terminated(),
            self._with_others(),
            alone(self._strategy, self.folder),
        ):
            self._checkpoints = Checkpoints(
                self.folder, self._variables, _State(self)
            )
            self._checkpoints.restore()
            self._agree()
            self._write_history()
            if self._step:
                self._finish_epoch(self._batches(make_batches), verbose)
            if self._epoch < epochs and not self.fitted.stop_training:
                batches = self._batches(make_batches)
                self._fit(batches, self._epoch, epochs, verbose)
                self._save()
        # Where the optimizer averages weights, they become the model's.
        optimizer = self.fitted.optimizer
        optimizer.finalize_variable_values(self.fitted.trainable_variables)
        return {n: [row.get(n) for row in self.history] for n in self._names()}

    def _batches(self, make_batches):
        batches = make_batches(self._epoch)
        if self._steps_per_epoch not in (0, batches.steps_per_epoch):
            raise ValueError(
                f"{self.folder} is of a training with "
                f"{self._steps_per_epoch} steps in an epoch; now there are "
                f"{batches.steps_per_epoch}: the data, or the size of a batch, "
                "must have been others. Repeat them, or choose an empty folder."
            )
        self._steps_per_epoch = batches.steps_per_epoch
        return batches

    def _finish_epoch(self, batches, verbose):
        """The steps of an epoch that are left, or its end alone."""
        epoch, left = self._epoch, batches.steps_per_epoch - self._step
        if left:
            batches = dataclasses.replace(
                batches.skip(self._step), steps_per_epoch=left
            )
            self._fit(batches, epoch, epoch + 1, verbose)
            return
        ending = keras.callbacks.CallbackList(
            self._all_callbacks(), model=self.fitted, epochs=epoch + 1
        )
        self._metrics = None
        ending.on_train_begin()
        ending.on_epoch_begin(epoch)
        ending.on_epoch_end(epoch, self._logs)
        ending.on_train_end()

    def _fit(self, batches, initial_epoch, epochs, verbose):
        # Keras puts averages in the place of weights at the end of each fit,
        # which is not the end of the training.
        own = vars(self.fitted.optimizer)
        own["finalize_variable_values"] = lambda variables: None
        try:
            self.fitted.fit(
                batches.distribute(self._strategy).dataset,
                steps_per_epoch=batches.steps_per_epoch,
                initial_epoch=initial_epoch,
                epochs=epochs,
                shuffle=False,  # it is already
                verbose=verbose if self._chief else 0,
                callbacks=self._all_callbacks(),
            )
        finally:
            del own["finalize_variable_values"]

    def _all_callbacks(self):
        # The last of them sees what the others have logged.
        ending = keras.callbacks.LambdaCallback(on_epoch_end=self._end_epoch)
        return [self, *self._callbacks, ending]

    # What Keras calls.

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch, self._first = epoch, self._step

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._step, self._saved = self._first + batch + 1, False
        if self._metrics is not None:
            # Now they exist. What an epoch has summed up so far comes on top.
            for variable, value in zip(
                self.fitted.metrics_variables, self._metrics, strict=True
            ):
                for local in self._local(variable):
                    local.assign_add(value)
            self._metrics = None
            logs.update(self.fitted.get_metrics_result())
        self._logs = {name: float(value) for name, value in logs.items()}
        if not math.isfinite(self._logs["loss"]):
            raise ValueError(self._not_finite("the loss"))
        done = self._epoch * self._steps_per_epoch + self._step
        if (
            self._terminated
            or self._step == self._steps_per_epoch
            or (self.every and done % self.every == 0)
        ):
            self._save()
        if self._terminated:
            self._leave()

    def _end_epoch(self, epoch, logs):
        self._epoch, self._step = epoch + 1, 0
        self.num_epochs += 1
        self.history.append({name: float(v) for name, v in logs.items()})
        self._write_history()

    def _local(self, variable):
        return self._strategy.experimental_local_results(variable.value)

    # Saving.

    def _save(self):
        if self._chief:
            if not all(
                bool(tf.reduce_all(tf.math.is_finite(variable)))
                for variable in self._variables
                if variable.dtype.is_floating
            ):
                raise ValueError(self._not_finite("a weight"))
            self._checkpoints.save()
        self._saved = True

    def _not_finite(self, what):
        return (
            f"{what} is not finite after step {self._step} of epoch "
            f"{self._epoch + 1}. What is in {self.folder} is "
            "from before. Look at the features (experiments.inspect_data), or "
            "train with a lower learning rate."
        )

    def _write_history(self):
        if not (self._chief and self.history_path):
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, ["epoch", "step", *self._names()])
        writer.writeheader()
        for epoch, row in enumerate(self.history):
            step = (epoch + 1) * self._steps_per_epoch
            writer.writerow({"epoch": epoch, "step": step, **row})
        write_text(self.history_path, text.getvalue())

    def _names(self):
        return dict.fromkeys(name for row in self.history for name in row)

    def _agree(self):
        """All workers must have found the same."""
        position = [[self._epoch, self._step]]
        everywhere = gather_arrays(self._strategy, position).tolist()
        if any(other != everywhere[0] for other in everywhere):
            raise ValueError(
                "The workers found different checkpoints in "
                f"{self.folder}: (epoch, step) {everywhere}. It "
                "must be a folder that all of them share."
            )

    # Ending.

    @contextlib.contextmanager
    def _until_terminated(self):
        if threading.current_thread() is not threading.main_thread():
            yield  # Python takes no signals elsewhere.
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {n: signal.signal(n, self._on_signal) for n in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number, _):
        self._terminated = number
        # What waits for other workers, which may be gone, will not end.
        timer = threading.Timer(self.grace, os._exit, [128 + number])
        timer.daemon = True
        timer.start()
        if self._saved:
            self._leave()

    def _leave(self):
        message = (
            f"Told to end. Saved after step {self._step} of epoch "
            f"{self._epoch + 1}; run again to go on."
        )
        if self._terminated == signal.SIGINT:
            raise KeyboardInterrupt(message)
        _LOG.warning(message)
        sys.exit(TERMINATED)

    @contextlib.contextmanager
    def _with_others(self):
        """Says it where a step failed for want of another worker."""
        try:
            yield
        except (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.InternalError,
            tf.errors.DeadlineExceededError,
        ) as error:
            if self._terminated:
                self._leave()
            if self._strategy.num_replicas_in_sync == 1:
                raise
            raise ConnectionError(
                "Another worker has stopped, or cannot be reached "
                f"({error.message[:300]}). Start all of them again: training "
                "goes on from the last checkpoint in "
                f"{self.folder}."
            ) from error


@contextlib.contextmanager
def alone(
    strategy: tf.distribute.Strategy, folder: str | os.PathLike
) -> Iterator[None]:
    """Locks a folder that workers share, for all of a strategy's workers.

    Args:
        strategy: Strategy of the workers. One worker alone has one, too.
        folder: Folder that all workers share.

    Raises:
        FolderInUseError: In every worker, if the folder is in use.
    """
    with contextlib.ExitStack() as stack:
        refused = None
        if strategy.extended.should_checkpoint:
            try:
                stack.enter_context(locked(folder))
            except FolderInUseError as error:
                refused = error
        if gather_arrays(strategy, [[int(refused is not None)]]).any():
            raise refused or FolderInUseError(
                f"{folder} is in use, as the first worker says."
            )
        yield


class _State(tf.train.experimental.PythonState):
    """What a checkpoint holds besides variables."""

    def __init__(self, resume):
        super().__init__()
        self._resume = resume

    def serialize(self):
        own = self._resume
        return json.dumps(
            {
                "epoch": own._epoch,
                "step": own._step,
                "steps_per_epoch": own._steps_per_epoch,
                "history": own.history,
                "logs": own._logs,
                # Each replica has the sums of all: see `MomentModel`.
                "metrics": [
                    own._local(variable)[0].numpy().tolist()
                    for variable in own.fitted.metrics_variables
                ],
                "callbacks": [
                    callback.get_state()
                    for callback in own._callbacks
                    if hasattr(callback, "get_state")
                ],
            }
        )

    def deserialize(self, text):
        own, state = self._resume, json.loads(text)
        own._epoch, own._step = state["epoch"], state["step"]
        own._steps_per_epoch = state["steps_per_epoch"]
        own.history = state["history"]
        own._logs = state["logs"]
        own._metrics = state["metrics"] if own._step else None
        with_state = [c for c in own._callbacks if hasattr(c, "set_state")]
        for callback, saved in zip(with_state, state["callbacks"], strict=True):
            callback.set_state(saved)
