"""A trained model as a SavedModel that needs none of this code."""

from acnn_tf.serving.exporting import export
from acnn_tf.serving.signatures import NO_SCORE, Signatures
from acnn_tf.serving.verification import (
    ExportError,
    example_inputs,
    expected_outputs,
    verify,
)

__all__ = [
    "NO_SCORE",
    "ExportError",
    "Signatures",
    "example_inputs",
    "expected_outputs",
    "export",
    "verify",
]
