"""Annotations, features, sentences, windows and batches.

Each name is imported from its module when it is first used: reading an
annotation file needs no TensorFlow.
"""

import importlib

_NAMES = {
    "annotations": ("Moment", "find_files", "read_moments", "write_jsonl"),
    "batches": ("training_videos",),
    "cutting": ("cut_video",),
    "durations": ("video_seconds",),
    "extraction": ("encode_video", "extract", "find_videos"),
    "features": (
        *("ClipFeatures", "WindowFeatures", "open_features"),
        *("pack_windows", "write_features"),
    ),
    "pair_batches": ("training_pairs",),
    "predictions": ("read_predictions", "write_predictions"),
    "sentences": (
        *("Vocabulary", "query_inputs", "read_glove"),
        *("read_sentence_vectors", "write_sentence_vectors"),
    ),
    "synthetic": ("make_scenes",),
    "video": ("Video", "VideoError", "open_video"),
    "windows": ("WindowGrid", "pair_windows"),
}
# Public name -> its module.
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = list(_MODULES)


def __getattr__(name):
    if name in _MODULES:
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
