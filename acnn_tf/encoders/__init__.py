"""Frames -> clip features: one encoder a file, imported when it is made."""

from acnn_tf.encoders.descriptions import check, difference, unknown
from acnn_tf.encoders.encoder import Encoder, make

__all__ = ["Encoder", "check", "difference", "make", "unknown"]
