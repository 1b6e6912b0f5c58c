"""Keras models that localise moments, and their files.

Importing this registers with Keras all that such a model is saved with, so
that `keras.saving.load_model` reads it.
"""

from acnn_tf.models.acnn import ACNN
from acnn_tf.models.acrn import ACRN
from acnn_tf.models.ctrl import CTRL
from acnn_tf.models.ensemble import Ensemble
from acnn_tf.models.fine_tuning import start_from
from acnn_tf.models.model_files import ModelFileError, load_model, save_model
from acnn_tf.models.zero_shot import ZeroShot

__all__ = [
    "ACNN",
    "ACRN",
    "CTRL",
    "Ensemble",
    "ModelFileError",
    "ZeroShot",
    "load_model",
    "save_model",
    "start_from",
]
