"""Checkpoints of a training: written whole, found whole, or told of."""

import contextlib
import glob
import logging
import os
import re
import shutil
from collections.abc import Sequence

import tensorflow as tf

from acnn_tf.files.atomic import WriteError

_LOG = logging.getLogger(__name__)

# Of reading a whole checkpoint into variables of other names or shapes; of all
# else that a reader raises, a damaged one is the cause.
_OTHERS = (AssertionError, ValueError, tf.errors.InvalidArgumentError)
_DAMAGED = (tf.errors.OpError, IndexError, RuntimeError)


class Checkpoints:
    """Saves variables and a state of Python to a folder; keeps the last two.

    A checkpoint counts once it is complete. If the newest was cut short or
    damaged afterwards, a warning says so, and the one before it is restored.

    Args:
        folder: Folder for the checkpoints.
        variables: Variables to save. They are restored in this order.
        state: What is saved besides the variables.

    See `acnn_tf.training.ResumableTraining` for an example.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        variables: Sequence[tf.Variable],
        state: tf.train.experimental.PythonState,
    ):
        self.folder = os.fspath(folder)
        self._variables = variables
        self._checkpoint = tf.train.Checkpoint(variables=variables, state=state)
        try:
            self._manager = self._make_manager()
        except (ValueError, tf.errors.OpError) as error:
            # Of its list alone. What is there counts, see `_paths`.
            path = os.path.join(self.folder, "checkpoint")
            _LOG.warning("%s is damaged: %s", path, error)
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
            self._manager = self._make_manager()

    def _make_manager(self):
        return tf.train.CheckpointManager(
            self._checkpoint, self.folder, max_to_keep=2
        )

    def save(self) -> None:
        """Writes a checkpoint, and removes what a killed process left of one.

        Raises:
            WriteError: If it cannot be written. The checkpoints that were
                written before stay.
        """
        try:
            self._manager.save()
        except (tf.errors.OpError, OSError) as error:
            raise self._write_error(error) from error
        finally:
            self._sweep()

    def restore(self) -> str | None:
        """Restores the newest checkpoint that is whole.

        Returns:
            Its path, or `None` if the folder has no checkpoint.

        Raises:
            ValueError: If it is of another model, or if there are checkpoints
                but none is whole.
        """
        damaged = []
        for path in self._paths():
            try:
                status = self._checkpoint.restore(path)
                # An error tells it; no warning for each variable besides.
                status.expect_partial()
                status.assert_consumed()
            except _OTHERS as error:
                raise ValueError(
                    f"{path} does not fit this model: its settings must have "
                    "been others. Repeat them, or choose an empty folder.\n"
                    f"{error}"
                ) from error
            except _DAMAGED as error:
                damaged.append(f"{path} is damaged: {str(error)[:200]}")
                continue
            for message in damaged:
                _LOG.warning("%s\nGoing on from %s.", message, path)
            return path
        if damaged:
            raise ValueError(
                "\n".join(damaged)
                + f"\nNo checkpoint in {self.folder} is whole: remove the "
                "folder to train from the beginning."
            )
        return None

    def _paths(self):
        """Checkpoints in the folder, the newest first.

        What is there counts, not what the file `checkpoint` says, which may
        be damaged too.
        """
        found = {}
        for path in self._files():
            if match := re.search(r"ckpt-(\d+)\.index$", path):
                found[int(match[1])] = path.removesuffix(".index")
        return [found[number] for number in sorted(found, reverse=True)]

    def _files(self, name="ckpt-*"):
        return glob.glob(os.path.join(glob.escape(self.folder), name))

    def _sweep(self):
        """Removes every part of a checkpoint that is not one of those kept."""
        kept = self._manager.checkpoints
        # The second: TensorFlow's list of checkpoints, before it is renamed.
        for path in self._files() + self._files("checkpoint.tmp*"):
            name = re.fullmatch(r"(.*ckpt-\d+)(\.index|\.data-\S+)", path)
            if name and name[1] in kept:
                continue
            with contextlib.suppress(OSError):
                if os.path.isdir(path):
                    shutil.rmtree(path)
                else:
                    os.remove(path)

    def _write_error(self, error):
        kept = self._manager.checkpoints
        size = sum(
            variable.shape.num_elements() * variable.dtype.size
            for variable in self._variables
        )
        space = os.statvfs(self.folder)
        goes_on = kept[-1] if kept else "the beginning"
        return WriteError(
            f"{self.folder}: a checkpoint could not be written: {size:,} "
            f"bytes were wanted, {space.f_bavail * space.f_frsize:,} are free "
            f"there. Make room and run again: training goes on from {goes_on}. "
            f"({error})"
        )
