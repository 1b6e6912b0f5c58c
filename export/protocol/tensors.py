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

from export.protocol import wire

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
# The numbers of these lists.
_FIELDS = {
    "float_val": 5,
    "double_val": 6,
    "int_val": 7,
    "string_val": 8,
    "scomplex_val": 9,
    "int64_val": 10,
    "bool_val": 11,
    "dcomplex_val": 12,
    "half_val": 13,
    "uint32_val": 16,
    "uint64_val": 17,
}
# Those whose packed bytes are the bytes of the array.
_RAW_FIELDS = {"float_val", "double_val", "scomplex_val", "dcomplex_val"}
# Bytes of a tensor that a single value may stand for.
_MOST_FILLED = 2**16
# Numbers that are text at a time.
_PIECE = 2**16
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
    if isinstance(array, WireTensor):
        return array.dtype
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
    if field in _RAW_FIELDS or name == "bool":
        # A million floats take 1 ms so, and 30 ms one after the other.
        values = array.tobytes()
        tag = bytes([_FIELDS[field] << 3 | 2])
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
    """Returns the array of a TensorProto. It may be read-only."""
    message = proto.SerializeToString()
    return WireTensor(message, max_fields=2**31).array(max_bytes)


class WireTensor:
    """A TensorProto as it came, of which only dtype and shape are read.

    Attributes:
        dtype: Name of the dtype.
        shape: Tuple of ints.
    """

    def __init__(self, message, max_fields=wire.MAX_FIELDS):
        try:
            self._fields = wire.fields(message, max_fields)
            number = wire.integer(self._fields.get(1, [b""])[-1])
            shape = wire.fields(wire.joined(self._fields.get(2, [])), 1000)
            sizes = [
                wire.integer(wire.fields(dim, 9).get(1, [b""])[-1])
                for dim in shape.get(2, [])
            ]
        except ValueError as error:
            raise ValueError(f"no TensorProto: {error}") from None
        if number not in _NAMES:
            raise ValueError(f"of dtype number {number}, which is not served.")
        self.dtype = _NAMES[number]
        if 3 in shape or max(sizes, default=0) >= 2**63:
            raise ValueError("of unknown shape. Set every dimension.")
        if len(sizes) > _MAX_RANK:
            raise ValueError(f"of rank {len(sizes)}, more than {_MAX_RANK}.")
        self.shape = tuple(sizes)

    def array(self, max_bytes):
        """Returns the array. It may be read-only.

        A single value stands for all, as in TensorFlow, but only in so small a
        tensor: a request must not ask for more than it brings. Any other
        number of values must be that of the shape. A shape that declares more
        than `max_bytes` is refused unread.
        """
        dtype = numpy_dtype(self.dtype)
        is_string = self.dtype == "string"
        field = _DTYPES[self.dtype][1]
        values = self._fields.get(_FIELDS[field], [])
        item_bytes = dtype.itemsize
        if is_string:
            text = len(values[0]) if len(values) == 1 else 0
            item_bytes = _STRING_BYTES + text
        # Without the zeros: NumPy multiplies the rest even of an empty array.
        if math.prod(filter(None, self.shape)) * item_bytes > max_bytes:
            raise ValueError(
                f"of shape {format_shape(self.shape)}, more than the "
                f"{max_bytes} bytes that it may have. Send smaller parts."
            )
        count = math.prod(self.shape)
        content = self._fields.get(4, [b""])[-1]
        if len(content):
            if is_string or len(content) != count * item_bytes:
                raise ValueError(
                    f"of shape {format_shape(self.shape)} and dtype "
                    f"{self.dtype}, but its `tensor_content` has "
                    f"{len(content)} bytes. Make it with "
                    "`tf.make_tensor_proto`."
                )
            return np.frombuffer(content, dtype).reshape(self.shape)
        if not is_string:
            values = wire.joined(values)
        found = _count(values, self.dtype, dtype)
        is_fill = found == 1 and count * item_bytes <= _MOST_FILLED
        if found != count and not is_fill:
            raise ValueError(
                f"of shape {format_shape(self.shape)}, {count} values, but "
                f"has {found} in `{field}`. Make it with "
                "`tf.make_tensor_proto`; one value stands for all in up to "
                f"{_MOST_FILLED} bytes only."
            )
        flat = _values(values, self.dtype, dtype, found)
        if found == count:
            return flat.reshape(self.shape)
        return np.full(self.shape, flat[0], dtype)


def _count(values, name, dtype):
    """How many values of a dtype a list of a TensorProto has."""
    if name == "string":
        return len(values)
    if _DTYPES[name][1] not in _RAW_FIELDS:
        return wire.count_varints(values)
    count, rest = divmod(len(values), dtype.itemsize)
    if rest:
        raise ValueError(f"of dtype {name}, but half a number is left.")
    return count


def _values(values, name, dtype, count):
    """Values of a TensorProto's list as a flat array."""
    if name == "string":
        return _objects(list(map(bytes, values)))
    field = _DTYPES[name][1]
    if field in _RAW_FIELDS:
        return np.frombuffer(values, dtype)
    flat = np.empty(count, np.uint16 if field == "half_val" else dtype)
    first = 0
    for numbers in wire.varints(values):
        # These lists are wider than what they hold.
        if flat.dtype.kind != "u" or field in ("int_val", "half_val"):
            numbers = numbers.view(np.int64)
        piece = flat[first : first + len(numbers)]
        first += len(numbers)
        piece[:] = numbers.astype(flat.dtype)
        if name != "bool" and not np.array_equal(piece, numbers):
            raise ValueError(f"of numbers that do not fit into {name}.")
    return flat.view(dtype)


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
    text = "".join(value["b64"].split())  # as MIME wraps it
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
        # 0.2 rather than 0.20000000298023224. A text takes 128 bytes.
        wide = np.empty(array.size)
        for first in range(0, array.size, _PIECE):
            piece = array.ravel()[first : first + _PIECE].astype(str)
            wide[first : first + _PIECE] = piece
        array = wide.reshape(array.shape)
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
