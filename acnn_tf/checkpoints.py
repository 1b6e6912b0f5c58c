"""Checkpoints of a training: written whole, found whole, or told of."""

import contextlib
import glob
import logging
import os
import re

import tensorflow as tf

from acnn_tf.data.atomic import WriteError

_LOG = logging.getLogger(__name__)

# What reading a damaged checkpoint ends with.
_DAMAGED = (
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
)


class Checkpoints:
    """Saves variables and a state of Python to a folder; keeps the last two.

    A checkpoint counts once it is complete. One that was cut short or damaged
    afterwards is told of and left for the one before it.

    Args:
        folder: Where they go.
        variables: List of variables, restored in this order.
        state: `tf.train.experimental.PythonState`.
    """

    def __init__(self, folder, variables, state):
        self.folder = os.fspath(folder)
        self._variables = variables
        self._checkpoint = tf.train.Checkpoint(variables=variables, state=state)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, self.folder, max_to_keep=2
        )

    def save(self):
        """Writes one more.

        Raises:
            WriteError: If it cannot be written. The others stay.
        """
        try:
            self._manager.save()
        except (tf.errors.OpError, OSError) as error:
            raise self._write_error(error) from error

    def restore(self):
        """Reads the newest that is whole.

        Returns:
            Its path, or `None` if the folder has none.

        Raises:
            ValueError: If it is of another model, or none of them is whole.
        """
        damaged = []
        for path in self._paths():
            try:
                self._checkpoint.restore(path).assert_consumed()
            except _DAMAGED as error:
                damaged.append(f"{path} is damaged: {error.message[:200]}")
                continue
            except (AssertionError, ValueError, tf.errors.OpError) as error:
                raise ValueError(
                    f"{path} does not fit this model: its settings must have "
                    "been others. Repeat them, or choose an empty folder.\n"
                    f"{error}"
                ) from error
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

    def _files(self):
        return glob.glob(os.path.join(glob.escape(self.folder), "ckpt-*"))

    def _write_error(self, error):
        kept = self._manager.checkpoints
        for path in self._files():  # the parts of this one
            if re.match(r"(.*ckpt-\d+)", path)[1] not in kept:
                with contextlib.suppress(OSError):
                    os.remove(path)
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
