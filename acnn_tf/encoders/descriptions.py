"""What made some features, and whether two were made alike.

A description is a dictionary of plain values, so that it can be kept as JSON
in a file of features, in a model and in an index. `Encoder.description` is
one:

    encoder         "clip", "pixels", ...: the row of `encoder.ENCODERS`
    name            "clip:clip_vit_base_patch32", as it was asked for
    weights         "sha256:" and the digest of all weights, "" without any
    frame_rate      frames a second that it was given
    clip_frames     frames for each of its vectors
    size            [height, width] of a frame as the network sees it
    preprocessing   how a frame becomes that, in words
    dim             numbers in each vector
    versions        package -> version: for the record, not compared
"""

import hashlib
from importlib import metadata

import numpy as np

# What decides the numbers of a clip, beside the encoder and its frame rate.
_COMPARED = ("weights", "clip_frames", "size", "preprocessing", "dim")
_PACKAGES = ("acnn_tf", "keras", "tensorflow", "keras-hub", "pillow")


def difference(made_by: dict, learned_from: dict) -> str | None:
    """Says in words how features and what a model learned from differ.

    Names of files and folders do not count: the same weights are the same
    encoder, wherever they lie.

    Args:
        made_by: Description of what made the features.
        learned_from: Description of what made those that a model was trained
            on.

    Returns:
        String, or `None` if the features can be used with the model.

    Example:

    >>> pixels = {"encoder": "pixels", "name": "pixels", "frame_rate": 2.0}
    >>> clip = {"encoder": "clip", "name": "clip:mine", "frame_rate": 1.0}
    >>> difference(clip, pixels)
    'made by clip:mine at 1 fps, the model learned from pixels at 2 fps'
    """
    if made_by.get("encoder") != learned_from.get("encoder"):
        differing = []  # their names say it
    else:
        differing = [
            key
            for key in _COMPARED
            if made_by.get(key) != learned_from.get(key)
        ]
        same_rate = made_by.get("frame_rate") == learned_from.get("frame_rate")
        if not differing and same_rate:
            return None

    def say(description):
        words = f"{description.get('name')}"
        rate = description.get("frame_rate")
        if isinstance(rate, int | float):
            words += f" at {rate:g} fps"
        details = [f"{key} {_short(description.get(key))}" for key in differing]
        return words + (f" ({', '.join(details)})" if details else "")

    return f"made by {say(made_by)}, the model learned from {say(learned_from)}"


def _short(value):
    """A value as text; a digest by its first digits."""
    text = str(value)
    return f"{text[:15]}..." if text.startswith("sha256:") else text


def digest(arrays) -> str:
    """SHA-256 over the shapes and values of arrays in order: `"sha256:..."`."""
    sha = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(array)
    return f"sha256:{sha.hexdigest()}"


def versions() -> dict[str, str]:
    """Versions of the installed packages that encoders use."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
