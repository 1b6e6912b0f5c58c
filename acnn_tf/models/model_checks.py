"""What a model file may hold: its archive and its settings.

Each function raises `ValueError` for what Keras would not have written. They
look at sizes before they read, and allocate no more than what they are given.
"""

import io
import json
import math
import zipfile

import keras

from acnn_tf.models.ensemble import Ensemble
from acnn_tf.models.window_model import WindowModel

# What Keras writes, and in this order.
MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
# "sha256:" and 64 digits.
DIGEST_BYTES = 71
# Settings of a model are 3 kB, and its vocabulary 10 bytes a word.
_CONFIG_BYTES = 16 * 2**20
# Python takes up to 30 times as many bytes as JSON, for "[[],[],[]]".
_JSON_EXPANSION = 32
_METADATA_BYTES = 4096
_DEPTH = 32
_NUMBERS = 10_000
_LARGEST = 2**53
_END, _END_64 = b"PK\5\6", b"PK\6\7"
_END_BYTES, _END_64_BYTES = 22, 20
_DIRECTORY_BYTES = 4096
# The objects of Keras that a compiled model can have; ours are registered.
_OF_KERAS = {
    "keras": ("DTypePolicy",),
    "keras.optimizers": ("Adam", "AdamW", "SGD", "LossScaleOptimizer"),
    "keras.optimizers.schedules": (
        "CosineDecay",
        "ExponentialDecay",
        "InverseTimeDecay",
        "PiecewiseConstantDecay",
        "PolynomialDecay",
    ),
    "keras.losses": ("MeanAbsoluteError", "MeanSquaredError"),
}
_BUILT = {"input_shape"}
_OF_ANY = ("name", "trainable", "dtype")
# Each is a weight of its own, and takes its time. A paper's model has 9.
_TAPS = 1000
_OBJECT_KEYS = {"module", "class_name", "registered_name"}


def comment_of(file):
    """The comment of a zip file, which ends with it, and where that starts.

    Args:
        file: Open binary file.

    Returns:
        `(comment, start)`: bytes, none or as many as a digest has.
    """
    size = file.seek(0, io.SEEK_END)
    for length in (0, DIGEST_BYTES):
        start = size - length
        # What may say, before the end, that the file is a larger one.
        file.seek(max(0, start - _END_BYTES - _END_64_BYTES))
        tail = file.read(start - file.tell() if start > 0 else 0)
        end = tail[-_END_BYTES:]
        if end.startswith(_END) and end[20:] == length.to_bytes(2, "little"):
            break
    else:
        raise ValueError(
            "expected a zip file that Keras wrote, found another end: it was "
            "cut short, or is no model"
        )
    if tail[:-_END_BYTES].startswith(_END_64):
        raise ValueError("expected a zip file below 4 GiB, found a larger one")
    directory = int.from_bytes(end[12:16], "little")
    if directory > _DIRECTORY_BYTES:  # zipfile would read all of it
        raise ValueError(
            f"expected the {len(MEMBERS)} members {', '.join(MEMBERS)}, found "
            f"a list of {directory:,} bytes"
        )
    return file.read(), start


def read_members(file):
    """Contents of the members of an archive, by name.

    Keras stores what it writes as it is. So members take no more memory than
    the file has bytes, and there is nothing that unpacks to more.

    Args:
        file: Open binary file.

    Returns:
        Dictionary from `MEMBERS` to bytes, whose checksums are right.
    """
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        names = [info.orig_filename for info in infos]
        if sorted(names) != sorted(MEMBERS):
            raise ValueError(
                f"expected the members {', '.join(MEMBERS)}, found "
                f"{names!a:.200}"
            )
        for info in infos:
            kind = info.external_attr >> 28  # 8: a file, of Unix; 0: unsaid
            if (
                info.compress_type != zipfile.ZIP_STORED
                or info.compress_size != info.file_size
                or info.flag_bits & ~0x808  # streamed; name in UTF-8
                or kind not in (0, 8)
            ):
                raise ValueError(
                    f"expected {info.filename} as a plain file that is "
                    "neither compressed nor encrypted, found another kind"
                )
        if sum(info.file_size for info in infos) > size:
            raise ValueError("its members overlap, or are larger than it is")
        return {info.filename: archive.read(info) for info in infos}


def read_json(data, name, limit):
    """An object of JSON, strict and of bounded size and depth.

    Args:
        data: Bytes.
        name: What messages call it.
        limit: Int, most bytes.
    """
    if len(data) > limit:
        raise ValueError(
            f"expected at most {limit:,} bytes of {name}, found {len(data):,}"
        )

    def unique(pairs):
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands twice in an object")
        return found

    def integer(text):
        if len(text) > 17 or abs(int(text)) > _LARGEST:
            raise ValueError(f"the integer {text:.20}... is too large")
        return int(text)

    def number(text):
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text:.20} is no finite number")
        return value

    try:
        found = json.loads(
            data.decode(),
            object_pairs_hook=unique,
            parse_int=integer,
            parse_float=number,
            parse_constant=number,
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"expected JSON in {name}, found: {error!s:.200}"
        ) from None
    if not isinstance(found, dict):
        raise ValueError(f"expected an object in {name}, found {found!r:.40}")
    return found


def check_config(data, max_bytes):
    """The settings of a model, every object of which may be made.

    Args:
        data: Bytes of `config.json`.
        max_bytes: Int, of memory.

    Returns:
        The dictionary that Keras makes a model of.
    """
    limit = min(_CONFIG_BYTES, max_bytes // _JSON_EXPANSION)
    config = read_json(data, "config.json", limit)
    numbers = _check_values(config, "config.json", 0)
    if numbers > _NUMBERS:
        raise ValueError(
            f"expected at most {_NUMBERS:,} numbers in config.json, found "
            f"{numbers:,}"
        )
    registered = config.get("registered_name")
    found = keras.saving.get_registered_object(registered)
    own, networks, known = config.get("config"), 1, {*_OF_ANY}
    unknown = set()
    if found is Ensemble and isinstance(own, dict):
        known |= {"network", "members", "settings"}
        unknown = own.keys() - known
        networks, registered = own.get("members"), own.get("network")
        found = keras.saving.get_registered_object(registered)
        own, known = own.get("settings"), set()
    if not (
        isinstance(found, type)
        and issubclass(found, WindowModel)
        and isinstance(own, dict)
        and isinstance(networks, int)
    ):
        raise ValueError(
            f"expected a model of acnn_tf in config.json, found {registered!r}"
        )
    # More would take Keras to other ways of making a model, of layers.
    unknown |= own.keys() - known - found.arguments().keys()
    unknown, built = sorted(unknown), config.get("build_config")
    if unknown or not (isinstance(built, dict) and built.keys() == _BUILT):
        raise ValueError(
            f"expected the settings of {registered} and its input_shape in "
            f"config.json, found {unknown!a:.100} and {built!a:.100}"
        )
    sizes = [
        size
        for name in ("kernel_sizes", "context_size")
        for size in _listed(own.get(name))
        if isinstance(size, (int, float))
    ]
    if sum(sizes) * networks > _TAPS:
        raise ValueError(
            f"expected at most {_TAPS:,} context windows, or taps of all "
            f"kernels, in config.json, found {sum(sizes) * networks:,}"
        )
    return config


def _listed(value):
    return value if isinstance(value, list) else [value]


def _check_values(value, place, depth):
    """Checks all that is in a value; returns how many numbers it has."""
    if depth > _DEPTH:
        raise ValueError(f"expected at most {_DEPTH} levels in {place:.80}")
    if isinstance(value, str) or value is None:
        return 0
    if isinstance(value, list):
        return sum(_check_values(one, place, depth + 1) for one in value)
    if not isinstance(value, dict):
        return 1
    if value.keys() & _OBJECT_KEYS:
        _check_object(value, place, depth)
    return sum(
        _check_values(one, f"{place}, {name!a:.40}", depth + 1)
        for name, one in value.items()
    )


def _check_object(value, place, depth):
    known = _OBJECT_KEYS | {"config"}
    if depth == 0:
        known |= {"build_config", "compile_config"}
    module, name = value.get("module"), value.get("class_name")
    registered = value.get("registered_name")
    is_known = isinstance(module, str) and isinstance(name, str)
    if is_known and registered in (None, name):
        is_known = name in _OF_KERAS.get(module, ())
        # What is registered goes first.
        is_known &= keras.saving.get_registered_object(name) is None
    elif is_known:
        found = isinstance(registered, str) and (
            keras.saving.get_registered_object(registered)
        )
        is_known = (
            isinstance(found, type)
            and registered == f"acnn_tf>{name}"
            and found.__module__.startswith("acnn_tf.")
            and module.startswith("acnn_tf.")
        )
    if not is_known:
        raise ValueError(
            "expected an object that a compiled model of acnn_tf has, found "
            f"{module!a:.60}, {name!a:.60}, {registered!a:.60} in {place}"
        )
    if not value.keys() <= known or not isinstance(value.get("config"), dict):
        raise ValueError(
            f"expected the settings of {name}, found {sorted(value)!a:.100} "
            f"in {place}"
        )


def check_metadata(data):
    """Checks `metadata.json`, which says which Keras wrote the file."""
    found = read_json(data, "metadata.json", _METADATA_BYTES)
    if not all(isinstance(value, str) for value in found.values()):
        raise ValueError("expected only text in metadata.json")
