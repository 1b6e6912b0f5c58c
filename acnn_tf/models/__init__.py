"""Keras models that localise moments."""

from acnn_tf.models.acnn import ACNN

__all__ = ["ACNN"]
