"""What TensorBoard shows besides curves: pictures, and a run's settings."""

import contextlib
import os

from absl import logging

# Settings that are paths, or say how a run was made and not what it is.
_NO_SETTINGS = ("workdir", "smoke", "data_dir")


def write_pictures(folder, pictures, step=0):
    """Writes pictures as images.

    Args:
        folder: Folder of TensorBoard's files.
        pictures: Dictionary from names, such as `"timelines/q1"`, to paths of
            .png files. A file that is not there, as without Matplotlib, is
            left out.
        step: Int, the step that they belong to.
    """
    import tensorflow as tf

    pictures = {n: p for n, p in pictures.items() if os.path.exists(p)}
    if not pictures:
        return
    with _writer(folder):
        for name, path in pictures.items():
            image = tf.io.decode_png(tf.io.read_file(os.fspath(path)), 3)
            tf.summary.image(name, image[None], step=step)


def write_settings(folder, settings, results):
    """Writes the settings of a run, and what it reached with them.

    They are on the page "HParams", which compares runs. A TensorBoard without
    that page gets them as text.

    Args:
        folder: Folder of TensorBoard's files.
        settings: Dictionary from names of flags to their text, as
            `run_settings.read_flags` returns it.
        results: Dictionary from names of measures to numbers.
    """
    import tensorflow as tf

    settings = {
        name: _value(text)
        for name, text in settings.items()
        if name not in _NO_SETTINGS
    }
    with _writer(folder):
        try:
            from tensorboard.plugins.hparams import api

            api.hparams(settings)
        except ImportError as error:  # as of a TensorBoard of another time
            logging.debug("No page of settings: %s", error)
            rows = (f"| {name} | {value} |" for name, value in settings.items())
            table = "\n".join(["| setting | value |", "|---|---|", *rows])
            tf.summary.text("settings", table, step=0)
        for name, value in results.items():
            tf.summary.scalar(name, value, step=0)


@contextlib.contextmanager
def _writer(folder):
    import tensorflow as tf

    writer = tf.summary.create_file_writer(os.fspath(folder))
    try:
        with writer.as_default():
            yield
    finally:
        writer.close()


def _value(text):
    """A number or a bool, which are then sorted as such, or the text."""
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text)
    except ValueError:
        return text
