"""Arrays as TensorProtos and as JSON, by TensorFlow Serving's rules.

Server and client share this file, and a client of REST needs no TensorFlow.
Dtypes are names, those of NumPy and "string". Whatever does not fit raises a
`ValueError` that goes on from "Input `x` is ", see `convert`. Sizes are checked
before anything is allocated: what is read here came over the network.
"""

import base64
import itertools
import json
import math

import numpy as np

# Of each dtype, its number in a TensorProto and the list of its values.
_DTYPES = {
    "float32": (1, "float_val"),
    "float64": (2, "double_val"),
    "int32": (3, "int_val"),
    "uint8": (4, "int_val"),
    "int16": (5, "int_val"),
    "int8": (6, "int_val"),
    "string": (7, "string_val"),
    "complex64": (8, "scomplex_val"),
    "int64": (9, "int64_val"),
    "bool": (10, "bool_val"),
    "bfloat16": (14, "half_val"),
    "uint16": (17, "int_val"),
    "complex128": (18, "dcomplex_val"),
    "float16": (19, "half_val"),
    "uint32": (22, "uint32_val"),
    "uint64": (23, "uint64_val"),
}
_NAMES = {number: name for name, (number, _) in _DTYPES.items()}
# Lists whose packed bytes are those of the array, and their field numbers.
_RAW_FIELDS = {
    "float_val": 5,
    "double_val": 6,
    "scomplex_val": 9,
    "bool_val": 11,
    "dcomplex_val": 12,
}
# What NumPy before 2.0 can hold.
_MAX_RANK = 32
# Of a string in TensorFlow, apart from its text.
_STRING_BYTES = 24


def convert(kind, values, function):
    """What a function makes of each (name, value); an error names `kind`."""
    results = {}
    for name, value in values.items():
        try:
            results[name] = function(name, value)
        except ValueError as error:
            raise ValueError(f"{kind} `{name[:100]}` is {error}") from None
    return results


def dtype_name(array):
    """Name of an array's dtype; "string" for text, bytes and objects."""
    return "string" if array.dtype.kind in "OSU" else array.dtype.name


def numpy_dtype(name):
    """NumPy's dtype of that name; strings are objects."""
    if name == "string":
        return np.dtype(object)
    if name == "bfloat16":
        import ml_dtypes  # comes with TensorFlow

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def format_shape(shape):
    """Shape as text, with `?` for what may be any."""
    if shape is None:
        return "of any rank"
    return "[{}]".format(", ".join("?" if d < 0 else str(d) for d in shape))


def to_proto(array):
    """Returns the TensorProto of an array of numbers, booleans or strings.

    Values go where TensorFlow Serving puts them, into `float_val` and its
    like rather than `tensor_content`: there are clients that read only those.
    """
    from tensorflow.core.framework import tensor_pb2

    array = np.asarray(array)
    name = dtype_name(array)
    if name not in _DTYPES:
        raise ValueError(f"of dtype {name}, which is not served.")
    number, field = _DTYPES[name]
    proto = tensor_pb2.TensorProto(dtype=number)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if field in _RAW_FIELDS:
        # A million floats take 1 ms so, and 30 ms one after the other.
        values = array.tobytes()
        tag = bytes([_RAW_FIELDS[field] << 3 | 2])
        proto.MergeFromString(tag + _varint(len(values)) + values)
    elif name == "string":
        proto.string_val.extend(map(_encoded, array.ravel().tolist()))
    else:
        flat = array.ravel()
        if field == "half_val":
            flat = flat.view(np.uint16)
        getattr(proto, field).extend(flat.tolist())
    return proto


def _varint(number):
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _encoded(value):
    return value.encode() if isinstance(value, str) else value


def from_proto(proto, max_bytes=2**31):
    """Returns the array of a TensorProto. It may be read-only.

    A single value stands for all, as in TensorFlow; any other number of
    values must be that of the shape. A shape that declares more than
    `max_bytes` is refused unallocated.
    """
    name = _NAMES.get(proto.dtype)
    if name is None:
        raise ValueError(f"of dtype number {proto.dtype}, which is not served.")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise ValueError("of unknown shape. Set every dimension.")
    if len(shape) > _MAX_RANK:
        raise ValueError(f"of rank {len(shape)}, more than {_MAX_RANK}.")
    field = _DTYPES[name][1]
    values = getattr(proto, field)
    dtype = numpy_dtype(name)
    item_bytes = dtype.itemsize
    if name == "string":
        text = len(values[0]) if len(values) == 1 else 0
        item_bytes = _STRING_BYTES + text
    # Without the zeros: NumPy multiplies the rest even of an empty array.
    if math.prod(filter(None, shape)) * item_bytes > max_bytes:
        raise ValueError(
            f"of shape {format_shape(shape)}, more than the {max_bytes} bytes "
            "that it may have. Send smaller parts."
        )
    count = math.prod(shape)
    if proto.tensor_content:
        found = len(proto.tensor_content)
        if name == "string" or found != count * item_bytes:
            raise ValueError(
                f"of shape {format_shape(shape)} and dtype {name}, but its "
                f"`tensor_content` has {found} bytes. "
                "Make it with `tf.make_tensor_proto`."
            )
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    flat = _values(proto, name, dtype)
    if len(flat) == count:
        return flat.reshape(shape)
    if len(flat) == 1:
        return np.full(shape, flat[0], dtype)
    raise ValueError(
        f"of shape {format_shape(shape)}, {count} values, but has "
        f"{len(flat)} in `{field}`. Make it with `tf.make_tensor_proto`."
    )


def _values(proto, name, dtype):
    """Values of a TensorProto's list as a flat array."""
    field = _DTYPES[name][1]
    values = getattr(proto, field)
    if name == "string":
        return _objects(values)
    if field in _RAW_FIELDS:
        return _raw_values(proto, field, dtype)
    if field not in ("int_val", "half_val"):
        return np.fromiter(values, dtype, len(values))
    # These lists are wider than what they hold.
    wide = np.fromiter(values, np.int32, len(values))
    flat = wide.astype(np.uint16 if field == "half_val" else dtype)
    if not np.array_equal(flat, wide):
        raise ValueError(f"of numbers that do not fit into {name}.")
    return flat.view(dtype)


def _raw_values(proto, field, dtype):
    """Values of a list whose packed bytes are those of the array.

    A message of that list alone ends with these bytes. Reading a million
    floats takes 3 ms so, and 50 ms one after the other.
    """
    alone = type(proto)()
    alone.CopyFrom(proto)
    alone.DiscardUnknownFields()
    for descriptor, _ in proto.ListFields():
        if descriptor.name != field:
            alone.ClearField(descriptor.name)
    wire = alone.SerializeToString()
    count = len(getattr(proto, field))
    if dtype.kind == "c":
        if count % 2:
            raise ValueError("of complex numbers, but half a number is left.")
        count //= 2
    start = len(wire) - count * dtype.itemsize
    return (
        np.frombuffer(wire, dtype, count, start)
        if count
        else (np.empty(0, dtype))
    )


def _objects(values):
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array


def brief(value):
    """What a message says of a JSON value, however long that is."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with the keys {json.dumps(list(value)[:8])[:100]}"
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:100] + "..."


def from_json(value, dtype):
    """Returns the array of a value or of nested lists, of the dtype so named.

    They are as parsed from JSON. Bytes are `{"b64": "..."}`.
    """
    shape, flat = [], [value]
    while flat and isinstance(flat[0], list):
        sizes = {len(v) if isinstance(v, list) else None for v in flat}
        if len(sizes) > 1:
            raise ValueError(
                f"ragged: {_sizes(sizes)} at depth {len(shape)}. All lists of "
                "a depth must have the same length."
            )
        shape.append(sizes.pop())
        if len(shape) > _MAX_RANK:
            raise ValueError(f"nested more than {_MAX_RANK} lists deep.")
        flat = list(itertools.chain.from_iterable(flat))
    if list in set(map(type, flat)):
        raise ValueError(f"ragged: values and lists at depth {len(shape)}.")
    return _flat_array(flat, dtype).reshape(shape)


def _sizes(sizes):
    names = {None: "a bare value"}
    found = [names.get(size, f"{size} values") for size in list(sizes)[:4]]
    return " and ".join(found)


def _flat_array(flat, dtype):
    """Array of a list of JSON's values, all checked."""
    if dtype == "string":
        return _objects([_bytes_of(value) for value in flat])
    kinds = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
    kind = "f" if dtype == "bfloat16" else numpy_dtype(dtype).kind
    if kind not in kinds:
        raise ValueError(f"of dtype {dtype}, which JSON has not. Use gRPC.")
    types = set(map(type, flat))
    if not types <= kinds[kind]:
        wrong = next(v for v in flat if type(v) not in kinds[kind])
        raise ValueError(f"of dtype {dtype}, but has {brief(wrong)}.")
    if kind == "f":
        return _floats(flat, dtype, int in types)
    if kind != "b" and flat:
        limits = np.iinfo(dtype)
        for value in (min(flat), max(flat)):
            if not limits.min <= value <= limits.max:
                raise ValueError(
                    f"of dtype {dtype}, which cannot hold {brief(value)}."
                )
    return np.array(flat, dtype)


def _floats(flat, dtype, has_integers):
    try:
        wide = np.array(flat, np.float64)
    except OverflowError:
        raise ValueError(f"of dtype {dtype}, too small for them.") from None
    with np.errstate(over="ignore"):
        array = wide.astype(numpy_dtype(dtype))
    lost = np.isfinite(wide) & ~np.isfinite(array.astype(np.float64))
    if has_integers and dtype in ("float32", "float64"):
        # TensorFlow Serving refuses whole numbers that floats may round.
        largest = 2 ** (24 if dtype == "float32" else 53) - 1
        for place in np.flatnonzero(np.abs(wide) > largest):
            lost[place] |= type(flat[place]) is int
    if lost.any():
        value = brief(flat[int(np.argmax(lost))])
        raise ValueError(
            f"of dtype {dtype}, which cannot hold {value} exactly."
        )
    return array


def is_b64(value):
    """Whether a JSON value stands for bytes."""
    return isinstance(value, dict) and list(value) == ["b64"]


def _bytes_of(value):
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise ValueError("text with half a surrogate pair.") from None
    if not (is_b64(value) and isinstance(value["b64"], str)):
        raise ValueError(
            'of dtype string, "text" or {"b64": "..."}, but has '
            f"{brief(value)}."
        )
    text = value["b64"]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ValueError(f"not base64: {brief(text)}.") from None


def to_json(array, as_bytes=False):
    """Returns an array as JSON's nested lists.

    With `as_bytes`, strings become `{"b64": "..."}` rather than text.
    """
    array = np.asarray(array)
    name = dtype_name(array)
    if name == "string":
        values = [_text_of(v, as_bytes) for v in array.ravel().tolist()]
        return _objects(values).reshape(array.shape).tolist()
    if name.startswith("complex"):
        raise ValueError(f"of dtype {name}, which JSON has not. Use gRPC.")
    if name == "bfloat16":
        array = array.astype(np.float32)
    if name in ("float32", "float16", "bfloat16"):
        # 0.2 rather than 0.20000000298023224.
        array = array.astype(str).astype(np.float64)
    return array.tolist()


def _text_of(value, as_bytes):
    value = _encoded(value)
    if as_bytes:
        return {"b64": base64.b64encode(value).decode()}
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError(
            "not UTF-8. Use gRPC, or export the output under a name that ends "
            "in `_bytes`: it is then sent as base64."
        ) from None
