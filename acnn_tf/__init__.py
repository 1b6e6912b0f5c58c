"""Moment retrieval in untrimmed videos with Keras.

The names are in the modules: `acnn_tf.models.ACNN`, `acnn_tf.layers`,
`acnn_tf.losses`, `acnn_tf.metrics`, `acnn_tf.data`, `acnn_tf.search`,
`acnn_tf.evaluation`, `acnn_tf.callbacks` and `acnn_tf.plots`.
"""

from acnn_tf.version import __version__

__all__ = ["__version__"]
