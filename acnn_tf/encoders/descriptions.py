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

Of a stranger's, the first two are enough, and there may be more.
"""

import hashlib
import json
from collections.abc import Iterable
from importlib import metadata

import numpy as np

from acnn_tf.files.problems import DataError, FeatureError, fail
from acnn_tf.files.text import MAX_DESCRIPTION_BYTES, parse_json

# What decides the numbers of a clip, beside the encoder and its frame rate.
_COMPARED = ("weights", "clip_frames", "size", "preprocessing", "dim")
_PACKAGES = ("acnn_tf", "keras", "tensorflow", "keras-hub", "pillow")
# Of a text, in characters; so much of one is shown.
_LONGEST, _SHOWN = 1000, 80


def check(
    made_by: dict | None, learned_from: dict | None, path: str | None = None
) -> None:
    """Refuses features that another encoder made than those of a model.

    If one of the two descriptions is not known, nothing is compared; `unknown`
    says so.

    Args:
        made_by: Description of what made the features, or `None`.
        learned_from: Description of what made the features that a model was
            trained on, or `None`.
        path: File of the features, for the message.

    Raises:
        DataError: If the descriptions differ. The message says in what, and
            what to do.

    Example:

    >>> from acnn_tf.encoders import check
    >>> pixels = {"encoder": "pixels", "name": "pixels", "frame_rate": 2.0}
    >>> check(pixels, pixels), check(pixels, None), check(None, pixels)
    (None, None, None)
    >>> check(pixels | {"frame_rate": 1.0}, pixels, "clips.hdf5")
    Traceback (most recent call last):
    ...
    acnn_tf.files.problems.DataError: clips.hdf5: made by pixels at 1 fps, ...
    """
    if made_by is None or learned_from is None:
        return
    if found := difference(made_by, learned_from):
        message = (
            f"{found}; extract the features as those that it learned from, "
            "or train a model on these"
        )
        fail(path or "the features", message, kind=DataError)


def unknown(
    made_by: dict | None, learned_from: dict | None, path: str | None = None
) -> str | None:
    """Says in a line what `check` could not compare.

    Args:
        made_by: Description of what made the features, or `None`.
        learned_from: Description of what made the features that a model was
            trained on, or `None`.
        path: File of the features, for the line.

    Returns:
        The line, or `None` if both descriptions are known.

    Example:

    >>> from acnn_tf.encoders import unknown
    >>> pixels = {"encoder": "pixels", "name": "pixels"}
    >>> unknown(None, pixels, "clips.hdf5")
    'clips.hdf5 does not say what made its features. They are taken as they ...'
    """
    path = path or "the features"
    taken = "They are taken as they are; only width and clip_seconds count."
    if made_by is None:
        return f"{path} does not say what made its features. {taken}"
    if learned_from is None:
        return (
            f"The model does not say what it learned from, {path} was made by "
            f"{_named(made_by)}. {taken}"
        )
    return None


def difference(
    made_by: dict,
    learned_from: dict,
    between: str = "the model learned from",
) -> str | None:
    """Says how features differ from those that a model learned from.

    Names of files and folders are not compared: the same weights are the same
    encoder, in whatever folder they lie.

    Args:
        made_by: Description of what made the features.
        learned_from: Description of what made the features that a model was
            trained on.
        between: The words that stand between the two descriptions.

    Returns:
        A few words, or `None` if the features can be used with the model.

    Example:

    >>> from acnn_tf.encoders import difference
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
        words = _named(description)
        details = [f"{key} {shown(description.get(key))}" for key in differing]
        return words + (f" ({', '.join(details)})" if details else "")

    return f"made by {say(made_by)}, {between} {say(learned_from)}"


def _named(description):
    """What a description is of, in a few words."""
    rate = description.get("frame_rate")
    at = f" at {rate:g} fps" if isinstance(rate, int | float) else ""
    return shown(description.get("name")) + at


def shown(value: object) -> str:
    """A stranger's value as text to be shown; a digest by its first digits."""
    text = str(value)
    size = 15 if text.startswith("sha256:") else _SHOWN
    if not text.isprintable():  # which could change a terminal
        text = ascii(text)[1:-1]
    return text if len(text) <= size else f"{text[:size]}..."


def _is_count(value):
    return type(value) is int and 0 < value < 2**31


# What each value must be, and how to say it.
_KINDS = {
    "encoder": (lambda value: isinstance(value, str), "text"),
    "name": (lambda value: isinstance(value, str), "text"),
    "weights": (lambda value: isinstance(value, str), "text"),
    "preprocessing": (lambda value: isinstance(value, str), "text"),
    "frame_rate": (
        lambda value: type(value) in (int, float) and 0 < value < 1e9,
        "a number above 0",
    ),
    "clip_frames": (_is_count, "an integer above 0"),
    "dim": (_is_count, "an integer above 0"),
    "size": (
        lambda value: (
            isinstance(value, list)
            and len(value) == 2
            and all(map(_is_count, value))
        ),
        "a list of two integers above 0",
    ),
    "versions": (
        lambda value: (
            isinstance(value, dict)
            and all(isinstance(one, str) for one in value.values())
        ),
        "an object of texts",
    ),
}


def checked(description: dict) -> dict:
    """A copy of a description, in the plain values that JSON has.

    Args:
        description: A description, perhaps from a file of unknown origin.

    Returns:
        The copy.

    Raises:
        ValueError: If it is no description. The message says what was expected
            and what was found.

    Example:

    >>> from acnn_tf.encoders.descriptions import checked
    >>> checked({"encoder": "mine", "name": "mine:1", "size": (8, 8)})
    {'encoder': 'mine', 'name': 'mine:1', 'size': [8, 8]}
    """
    if not isinstance(description, dict):
        raise ValueError(
            "expected an object with `encoder` and `name`, found "
            f"{description!a:.60}"
        )
    try:
        text = json.dumps(description, allow_nan=False)
    except (RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"expected plain values, found others: {error}") from (
            None
        )
    if len(text) > MAX_DESCRIPTION_BYTES:
        raise ValueError(
            f"expected at most {MAX_DESCRIPTION_BYTES:,} bytes, found "
            f"{len(text):,}"
        )
    plain = json.loads(text)
    for key, (is_right, words) in _KINDS.items():
        value = plain.get(key)
        if key not in plain and key not in ("encoder", "name"):
            continue
        if not is_right(value) or len(str(value)) > _LONGEST:
            raise ValueError(
                f"expected {words} as `{key}`, found {value!a:.60}"
            )
    return plain


def parse(text: bytes, path: str, record: int | None = None) -> dict:
    """Reads the description that a file of features holds, as JSON.

    Args:
        text: The JSON.
        path: The file, for the message.
        record: Number of the record in this file, for the message, if it has
            records.

    Returns:
        The description.

    Raises:
        FeatureError: If the text is no description.
    """
    try:
        if len(text) > MAX_DESCRIPTION_BYTES:
            raise ValueError(
                f"expected at most {MAX_DESCRIPTION_BYTES:,} bytes, found more"
            )
        return checked(parse_json(text.decode()))
    except (RecursionError, ValueError) as error:
        message = (
            "`encoder`, which describes what made the features: "
            f"{error!s:.200}; extract them again, or remove it"
        )
        fail(path, message, record, kind=FeatureError)


def digest(arrays: Iterable[np.ndarray]) -> str:
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
