"""What a training prints: a header, and a line for each epoch."""

import functools
import math
import os
import sys
import time

from export.progress import Progress

# Of a line, beside what the best epoch is chosen by.
_SHOWN = ("val_R@1_IoU=0.5", "train_R@1_IoU=0.5")


def header(dataset, split, val, model, batches, epochs, workdir):
    """Says what is trained, on what, and where to look.

    Args:
        dataset: Its name.
        split: `Split` to train on.
        val: `Split` to validate on.
        model: Built model, with a `grid`.
        batches: `Batches` of the training.
        epochs: Int.
        workdir: Folder of the run.

    Returns:
        List of lines.
    """
    grid = model.grid
    durations = {m.video_id: m.duration for m in split.moments}
    count = functools.cache(lambda duration: len(grid.windows(duration)))
    lengths = ", ".join(f"{length:g}" for length in grid.lengths)
    unit = "frames" if grid.frame_rate else "s"
    weights = sum(math.prod(v.shape) for v in model.trainable_variables)
    tensorboard = os.path.join(workdir, "tensorboard")
    return [
        f"dataset   {dataset}: {_sizes(split)}; validation {_sizes(val)}",
        f"windows   {sum(map(count, durations.values())):,} of {lengths} "
        f"{unit} in the training videos",
        f"model     {type(model).__name__}, {weights:,} parameters",
        f"training  {_count(epochs, 'epoch')} of "
        f"{_count(batches.steps_per_epoch, 'step')}",
        f"logs      {os.path.join(workdir, 'history.csv')}, training.png, and "
        "in a browser:",
        f"          tensorboard --logdir={tensorboard}",
    ]


def _sizes(split):
    videos = {moment.video_id for moment in split.moments}
    queries = _count(len(split.moments), "query", "queries")
    return f"{_count(len(videos), 'video')}, {queries}"


def _count(number, one, many=None):
    return f"{number:,} {one if number == 1 else many or one + 's'}"


class EpochLines:
    """Prints a line for each epoch, and on a terminal a bar until it ends.

    Args:
        resume: `acnn_tf.training.ResumableTraining` that fits.
        validation: `acnn_tf.callbacks.Validation`, which comes before it.
        epochs: Int.
        steps_per_epoch: Int.
    """

    def __init__(self, resume, validation, epochs, steps_per_epoch):
        self._resume, self._validation = resume, validation
        self._epochs, self._steps = epochs, steps_per_epoch
        self._best = None

    def callback(self):
        """Returns the callback of Keras that prints."""
        import keras

        return keras.callbacks.LambdaCallback(
            on_train_begin=self._begin,
            on_epoch_begin=self._begin_epoch,
            on_train_batch_end=self._step,
            on_epoch_end=self._end_epoch,
        )

    def _begin(self, logs=None):
        if self._best is None and self._resume.num_steps:
            print(
                f"resumed at step {self._resume.num_steps:,}, epoch "
                f"{len(self._resume.history) + 1} of {self._epochs}",
                flush=True,
            )
        self._best = self._validation.best

    def _begin_epoch(self, epoch, logs=None):
        self._started, self._bar = time.monotonic(), None
        if sys.stderr.isatty():
            title = f"epoch {epoch + 1}/{self._epochs}: "
            self._bar = Progress(self._steps, "steps", title)

    def _step(self, batch, logs=None):
        done = self._resume.num_steps % self._steps
        if self._bar and done:
            self._bar(done / self._steps, done)

    def _end_epoch(self, epoch, logs=None):
        if self._bar:
            self._bar.clear()
        monitor = self._validation.monitor
        is_best = self._validation.best > self._best
        self._best = self._validation.best
        parts = [
            f"epoch {epoch + 1:>{len(str(self._epochs))}}/{self._epochs}",
            f"{time.monotonic() - self._started:4.0f} s",
            f"loss {logs['loss']:.3f}",
        ]
        for name in dict.fromkeys((*_SHOWN, monitor)):
            if name in logs:
                words = name.removeprefix("val_").replace("_", " ")
                words = words.replace("=0.", "=.")
                value = f"{logs[name]:.3f}".removeprefix("0")
                mark = " (best)" * (name == monitor and is_best)
                parts.append(f"{words} {value}{mark}")
        print("  ".join(parts), flush=True)
