"""Moment retrieval in untrimmed videos with Keras.

`import acnn_tf` is enough: `acnn_tf.models.ACNN`, `acnn_tf.losses`,
`acnn_tf.data.read_moments` and so on are imported when they are first used,
so that `import acnn_tf` itself takes no time and needs no TensorFlow.
"""

import importlib

from acnn_tf.version import __version__

_MODULES = (
    "calibration",
    "callbacks",
    "data",
    "didemo",
    "encoders",
    "evaluation",
    "files",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "plots",
    "qvhighlights",
    "retriever",
    "search",
    "segments",
    "servable",
    "training",
)

__all__ = ["__version__", "MomentRetriever", *_MODULES]


def __getattr__(name):
    if name == "MomentRetriever":
        return importlib.import_module(f"{__name__}.retriever").MomentRetriever
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
