"""Annotations, features, sentences, windows and batches.

Each name is imported from its module when it is first used: reading an
annotation file needs no TensorFlow.
"""

import importlib

# Public name -> its module.
_MODULES = {
    "ClipFeatures": "features",
    "Moment": "annotations",
    "Video": "video",
    "VideoError": "video",
    "Vocabulary": "sentences",
    "WindowGrid": "windows",
    "find_files": "annotations",
    "make_scenes": "synthetic",
    "open_features": "features",
    "open_video": "video",
    "pair_windows": "windows",
    "query_inputs": "sentences",
    "read_glove": "sentences",
    "read_moments": "annotations",
    "read_predictions": "predictions",
    "read_sentence_vectors": "sentences",
    "training_pairs": "pair_batches",
    "training_videos": "batches",
    "video_seconds": "durations",
    "write_features": "features",
    "write_jsonl": "annotations",
    "write_predictions": "predictions",
    "write_sentence_vectors": "sentences",
}

__all__ = list(_MODULES)


def __getattr__(name):
    if name in _MODULES:
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
