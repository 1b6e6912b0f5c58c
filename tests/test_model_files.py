"""Saving and loading models; hostile files are in test_untrusted_archives."""

import os
import zipfile

import keras
import numpy as np
import pytest

from acnn_tf import layers, losses
from acnn_tf.files.atomic import WriteError
from acnn_tf.models import ModelFileError, load_model, save_model
from acnn_tf.optimizers import FusedAdam
from tests.disks import full_disk
from tests.processes import run_module
from tests.small_acnn import make_model


@pytest.fixture(scope="module")
def model():
    return make_model()


def assert_same(model, loaded):
    assert loaded.get_config() == model.get_config()
    for own, other in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(own), keras.ops.convert_to_numpy(other)
        )


def test_mixed_precision_is_loaded(tmp_path):
    for dtype in ("mixed_bfloat16", "mixed_float16"):
        model = make_model(dtype=dtype)
        save_model(model, tmp_path / "model.keras")
        assert_same(model, load_model(tmp_path / "model.keras"))


COMPILED_WITH = """
import sys
import acnn_tf.models
import keras
model = keras.saving.load_model(sys.argv[1])
print(type(model).__name__, type(model.optimizer).__name__)
print(*sorted(type(loss).__name__ for loss in model.loss.values()))
"""


def test_a_new_process_reads_a_compiled_model_by_keras(tmp_path):
    model = make_model(context_pooling="concat")
    rate = keras.optimizers.schedules.CosineDecay(1e-3, 100)
    model.compile(
        FusedAdam(rate, weight_decay=0.1, use_ema=True),
        {
            "score": losses.VideoAlignmentLoss(),
            "offset": losses.OffsetLoss(),
            "batch_score": losses.AlignmentLoss(),
        },
    )
    save_model(model, tmp_path / "model.keras")
    done = run_module("-c", COMPILED_WITH, tmp_path / "model.keras")
    assert done.stdout.splitlines() == [
        "ACNN FusedAdam",
        "AlignmentLoss OffsetLoss VideoAlignmentLoss",
    ]
    # Ours constructs the model and leaves the rest.
    loaded = load_model(tmp_path / "model.keras")
    assert_same(model, loaded)
    assert not loaded.compiled


def test_keras_reads_what_is_saved_and_the_other_way_round(model, tmp_path):
    save_model(model, tmp_path / "ours.keras")
    assert_same(model, keras.saving.load_model(tmp_path / "ours.keras"))
    model.save(tmp_path / "theirs.keras")
    assert_same(model, load_model(tmp_path / "theirs.keras"))


def test_a_file_with_a_digest_is_loaded(model, tmp_path):
    # As version 1 saved them: 71 bytes as the comment of the zip file.
    path = tmp_path / "model.keras"
    save_model(model, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"sha256:" + b"0" * 64
    assert path.read_bytes().endswith(b"0" * 64)
    assert_same(model, load_model(path))


@keras.saving.register_keras_serializable(package="tests")
class MaxPooling(keras.layers.Layer):
    def call(self, inputs):
        return keras.ops.max(inputs, axis=-2)


def test_a_layer_of_the_package_is_a_setting(tmp_path):
    pooling = layers.AttentionPooling("relu", name="scorer")
    model = make_model(context_pooling=pooling)
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert_same(model, loaded)
    assert loaded.context_pooling.activation is keras.activations.relu
    assert_same(model, keras.saving.load_model(tmp_path / "model.keras"))


def test_a_layer_of_others_is_for_keras_to_read(tmp_path):
    path = tmp_path / "model.keras"
    model = make_model(context_pooling=MaxPooling())
    save_model(model, path)
    with pytest.raises(
        ModelFileError, match=r"MaxPooling'.*keras\.saving\.load_model.*trust"
    ):
        load_model(path)
    assert_same(model, keras.saving.load_model(path))


def test_a_model_replaces_another(model, tmp_path):
    path = tmp_path / "model.keras"
    save_model(make_model(filters=3), path)
    save_model(model, path)
    assert load_model(path).filters == model.filters
    assert os.listdir(tmp_path) == ["model.keras"]
    # As of a file that was simply opened.
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.filterwarnings(  # h5py or zipfile, whose file cannot be closed
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_full_disk_keeps_the_old_model(model, tmp_path):
    path = tmp_path / "model.keras"
    save_model(model, path)
    before = path.read_bytes()
    wanted = r"bytes were wanted, [\d,]+ were"
    for share in (0.01, 0.5, 0.99):
        room = int(len(before) * share)
        with full_disk(room), pytest.raises(WriteError, match=wanted):
            save_model(model, path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["model.keras"]


def test_what_takes_or_holds_no_model_is_told(model, tmp_path):
    for name in ("model.h5", "missing/model.keras"):
        told = r"ends in \.keras, in a folder"
        with pytest.raises(ModelFileError, match=told):
            save_model(model, tmp_path / name)
    with pytest.raises(ModelFileError, match="nothing is there"):
        load_model(tmp_path / "model.keras")
    with pytest.raises(ModelFileError, match=r"directory|no plain file"):
        load_model(tmp_path)
    os.mkfifo(tmp_path / "fifo.keras")
    with pytest.raises(ModelFileError, match="no plain file"):
        load_model(tmp_path / "fifo.keras")


def test_a_file_above_the_limit_is_told_before_it_is_read(model, tmp_path):
    path = tmp_path / "model.keras"
    save_model(model, path)
    size = path.stat().st_size
    assert_same(model, load_model(path, max_bytes=size))
    with pytest.raises(ModelFileError, match="larger `max_bytes`"):
        load_model(path, max_bytes=size - 1)
