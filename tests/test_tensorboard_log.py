"""What TensorBoard is given: images, settings and what they reached."""

import sys

import matplotlib.image
import numpy as np
import tensorflow as tf

from experiments import tensorboard_log


def values(folder):
    """What is in the event files of a folder, by tag."""
    found = {}
    files = [str(path) for path in folder.glob("*")]
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            found[value.tag] = event.step, value
    return found


def test_tensorboard_shows_pictures_as_images(tmp_path):
    picture = np.zeros((2, 3, 3), np.float32)
    picture[1, 2] = 1.0
    matplotlib.image.imsave(tmp_path / "one.png", picture)
    pictures = {
        "scenes, test/one": tmp_path / "one.png",
        "none": tmp_path / "not drawn.png",
    }
    tensorboard_log.write_pictures(tmp_path / "log", pictures, step=7)
    ((tag, (step, value)),) = values(tmp_path / "log").items()
    assert (tag, step) == ("scenes, test/one", 7)
    assert value.metadata.plugin_data.plugin_name == "images"
    image = tf.io.decode_png(value.tensor.string_val[2])
    np.testing.assert_array_equal(image, 255 * picture)


def test_tensorboard_compares_settings_and_what_they_reached(
    tmp_path, monkeypatch
):
    settings = {"dropout": "0.5", "smoke": "False", "model": "ctrl"}
    reached = {"best/val_mIoU": 0.25}
    tensorboard_log.write_settings(tmp_path / "one", settings, reached)
    found = values(tmp_path / "one")
    kinds = {
        value.metadata.plugin_data.plugin_name for _, value in found.values()
    }
    assert kinds == {"hparams", "scalars"}
    _, start = found["_hparams_/session_start_info"]
    from tensorboard.plugins.hparams import metadata

    hparams = metadata.parse_session_start_info_plugin_data(
        start.metadata.plugin_data.content
    ).hparams
    assert hparams["dropout"].number_value == 0.5
    assert hparams["model"].string_value == "ctrl"
    assert "smoke" not in hparams
    assert tf.make_ndarray(found["best/val_mIoU"][1].tensor) == 0.25
    # A TensorBoard without that page shows them as text.
    monkeypatch.setitem(sys.modules, "tensorboard.plugins.hparams", None)
    monkeypatch.delitem(sys.modules, "tensorboard.plugins.hparams.api")
    tensorboard_log.write_settings(tmp_path / "two", settings, reached)
    _, text = values(tmp_path / "two")["settings"]
    assert text.metadata.plugin_data.plugin_name == "text"
    assert b"| dropout | 0.5 |" in text.tensor.string_val[0]
