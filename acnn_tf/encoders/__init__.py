"""Frames -> clip features: one encoder a file, imported when it is made."""

from acnn_tf.encoders.descriptions import check, difference, unknown
from acnn_tf.encoders.encoder import Encoder, make, make_described
from acnn_tf.encoders.sentences import check_space, sentence_encoder

__all__ = [
    "Encoder",
    "check",
    "check_space",
    "difference",
    "make",
    "make_described",
    "sentence_encoder",
    "unknown",
]
