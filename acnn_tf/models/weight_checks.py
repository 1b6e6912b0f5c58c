"""What the weights of a model file may be: plain arrays, within it.

`check_weights` raises `ValueError` for what Keras would not have written. It
looks at sizes before it reads, and allocates no more than what it is given.
"""

import io
import math
import re

import h5py

_DEPTH = 32
# Weights, groups and the optimizer's state of a model are some hundred.
_OBJECTS = 10_000
_ATTRIBUTES = 8
_ATTRIBUTE_BYTES = 1024


def check_weights(data):
    """Counts the bytes of the weights of a file, none of which lies elsewhere.

    Args:
        data: Bytes of `model.weights.h5`.

    Returns:
        Int: bytes of all arrays together, all within `data`.
    """
    if not data.startswith(b"\x89HDF\r\n\x1a\n"):
        raise ValueError("expected HDF5 in model.weights.h5, found no HDF5")
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            total = _check_group(file.id, len(data), set(), 0)
    except ValueError:
        raise
    except Exception as error:  # HDF5's own are of many kinds
        raise ValueError(
            f"expected HDF5 in model.weights.h5, found: {error!s:.200}"
        ) from error
    if total > len(data):
        raise ValueError(
            f"expected at most {len(data):,} bytes of arrays in "
            f"model.weights.h5, found {total:,} declared"
        )
    return total


def _check_group(group, size, seen, depth):
    if depth > _DEPTH or group.get_num_objs() > _OBJECTS:
        raise ValueError("model.weights.h5 has too many groups in each other")
    _check_attributes(group)
    total = 0
    for name in group:
        if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
            raise ValueError(
                "expected arrays in model.weights.h5 itself, found a link "
                f"{name!a:.60} to elsewhere"
            )
        item = h5py.h5o.open(group, name)
        address = h5py.h5o.get_info(item).addr
        if address in seen or len(seen) >= _OBJECTS:
            raise ValueError(
                f"model.weights.h5 has {name!a:.60} twice, or more than "
                f"{_OBJECTS:,} objects"
            )
        seen.add(address)
        if isinstance(item, h5py.h5g.GroupID):
            total += _check_group(item, size, seen, depth + 1)
        elif isinstance(item, h5py.h5d.DatasetID):
            total += _check_array(item, name, size)
        else:
            raise ValueError(
                f"expected arrays in model.weights.h5, found {name!a:.60}"
            )
    return total


def _check_array(array, name, size):
    """Bytes of an array of numbers, stored within the file and as it is."""
    _check_attributes(array)
    stored = array.get_create_plist()
    # Before its shape: asking a virtual array for it may open its sources.
    is_plain = (
        stored.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
        and stored.get_external_count() == 0
        and stored.get_nfilters() == 0
    )
    if not is_plain:
        raise ValueError(
            f"expected {name!a:.60} of model.weights.h5 in one piece within "
            "the file, found it compressed, in pieces, or elsewhere"
        )
    kind, width = array.get_type(), array.get_type().get_size()
    # bfloat16 is opaque to HDF5.
    if not (
        kind.get_class() in (h5py.h5t.FLOAT, h5py.h5t.INTEGER)
        or (kind.get_class() == h5py.h5t.OPAQUE and width == 2)
    ):
        raise ValueError(
            f"expected numbers in {name!a:.60} of model.weights.h5, found "
            "another type"
        )
    shape = array.get_space().get_simple_extent_dims()
    count = math.prod(shape) * width
    start = 0
    if stored.get_layout() == h5py.h5d.CONTIGUOUS:
        start = array.get_offset()
    if count and (start is None or start + count > size):
        raise ValueError(
            f"{name!a:.60} of model.weights.h5 declares the shape {shape}, "
            "which the file does not hold"
        )
    return count


def _check_attributes(item):
    if (number := h5py.h5a.get_num_attrs(item)) > _ATTRIBUTES:
        raise ValueError(f"model.weights.h5 has {number} attributes on one")
    for index in range(number):
        attribute = h5py.h5a.open(item, index=index)
        kind = attribute.get_type().get_class()
        if (
            kind != h5py.h5t.STRING
            or attribute.get_space().get_simple_extent_ndims() != 0
            or attribute.get_storage_size() > _ATTRIBUTE_BYTES
        ):
            raise ValueError(
                "expected short text in the attributes of model.weights.h5, "
                f"found {re.sub('[^!-~]', '?', str(attribute.name))[:60]}"
            )
