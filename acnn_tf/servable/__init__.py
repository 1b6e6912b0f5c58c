"""A trained model as a SavedModel that needs none of this code."""

from acnn_tf.servable.exporting import export
from acnn_tf.servable.signatures import NO_SCORE, Signatures
from acnn_tf.servable.verification import (
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
