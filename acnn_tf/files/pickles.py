"""Pickles of plain data and NumPy arrays, read without running anything.

A pickle is a program. Python's own reader calls whatever function the program
names; this one takes a name for a name, and does by itself the few things that
plain data needs: `None`, numbers, text, bytes, lists, tuples, dictionaries,
and NumPy's arrays and scalars of numbers. All else is refused where it stands.

Python takes a list of 56 bytes for one byte of a pickle, so that what is built
is counted, and a pickle that asks for too much is refused as well.
"""

import codecs
import math
import os
import re
import struct
import sys
import warnings
from collections.abc import Callable, Mapping

import numpy as np

from acnn_tf.files.manifests import check_file, open_file
from acnn_tf.files.problems import FeatureError, fail

# Bytes that may be built: so many, and so many more for each of the pickle.
# Sentence vectors take 2 for one, and names with numbers 15.
_SPARE, _SHARE = 2**20, 20
# What a reference takes in a list, and an entry in a dictionary, while they
# grow.
_REFERENCE, _ENTRY = 12, 136
_DIGITS = 64
_AS = "write it again as plain lists and arrays of numbers"
_AVI = re.compile(r"\.avi_(\d+_\d+)$")
_DTYPE = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])", re.ASCII)
_SWAPS = {"<": "<", ">": ">", "=": "=", "|": "="}
_KEYS = (str, bytes, int, float, bool)


class Name:
    """What a pickle calls by name, `MODULE.NAME`: the name, and no more."""

    def __init__(self, name: str):
        self.name = name


def unpickle(
    data: bytes,
    known: Mapping[str, Callable | None] | None = None,
    persistent: Callable | None = None,
) -> object:
    r"""The value of a pickle of plain data, of any protocol.

    It takes at most 20 times the memory of `data`, and a megabyte. Parts of the
    value may be the same object, even one that contains itself: so look only
    at the parts that you expect, where you expect them.

    Args:
        data: The bytes of the pickle.
        known: More names that the pickle may call, `"MODULE.NAME"`, and the
            functions that are then called with the arguments. `None` in place
            of a function is a name that is not called.
        persistent: Function that returns an object that is kept outside of the
            pickle, from what the pickle says of it. Default: there are no such
            objects.

    Returns:
        `None`, bool, int, float, str, bytes, list, tuple, dictionary or NumPy
        array. Text of Python 2 is returned as bytes, because it cannot be told
        from data.

    Raises:
        ValueError: If the pickle is damaged, asks for anything else, or needs
            more memory. The message names the byte.

    Example:

    >>> import pickle
    >>> import numpy as np
    >>> from acnn_tf.files.pickles import unpickle
    >>> unpickle(pickle.dumps({"s13-d21": np.array([1.0, 2.0])}))
    {'s13-d21': array([1., 2.])}
    >>> unpickle(pickle.dumps(print))
    Traceback (most recent call last):
    ...
    ValueError: byte 31: names 'builtins.print', which is no plain data
    """
    machine = _Machine(data, {**_KNOWN, **(known or {})}, persistent)
    try:
        return machine.run()
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        struct.error,
    ) as error:
        said = str(error)
        if not isinstance(error, _Refused):
            said = f"is damaged or cut short ({said:.80})"
        raise ValueError(f"byte {machine.place:,}: {said}") from None


class _Refused(ValueError):
    """What is no plain data, in words of this file."""


class _Machine:
    """A stack of values, marks in it, and a memo of values by number."""

    def __init__(self, data, known, persistent):
        self.place = 0
        self._data = data
        self._known = known
        self._persistent = persistent
        self._left = _SPARE + _SHARE * len(data)
        self._stack, self._marks, self._memo = [], [], {}
        self._unfilled = {}  # arrays whose numbers are still to come, by id

    def run(self):
        while True:
            (code,) = self.take(1)
            if code == _STOP:
                return self.pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise _Refused(
                    f"holds an object, or a set (operation {code:#04x}), which "
                    "is no plain data"
                )
            operation(self)

    # What the operations below are made of.

    def take(self, size):
        part = self._data[self.place : self.place + size]
        if len(part) < size:
            raise ValueError(f"{size:,} bytes wanted, {len(part):,} left")
        self.place += size
        return part

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self, most=None):
        end = self._data.index(b"\n", self.place)
        if most is not None and end - self.place > most:
            raise ValueError(f"a number of {end - self.place:,} digits")
        return self.take(end + 1 - self.place)[:-1]

    def spend(self, size):
        self._left -= size
        if self._left < 0:
            raise _Refused(
                f"asks for more than {_SHARE} times the memory of its "
                f"{len(self._data):,} bytes"
            )

    def push(self, value, size=None):
        if size is None:
            size = sys.getsizeof(value)
        self.spend(_REFERENCE + size)
        self._stack.append(value)

    def push_number(self, value):
        # Python keeps one object of each small number.
        small = type(value) is int and -6 < value < 257
        self.push(value, 0 if small else None)

    def pop(self):
        return self._stack.pop()

    def mark(self):
        self.spend(_REFERENCE + sys.getsizeof(0))
        self._marks.append(len(self._stack))

    def since_mark(self):
        mark = self._marks.pop()
        # Python copies them here, and once more to delete them.
        copies = 2 * _REFERENCE * max(len(self._stack) - mark, 0)
        self.spend(copies)
        values = self._stack[mark:]
        del self._stack[mark:]
        self._left += copies
        return values

    def top(self, kind):
        if type(self._stack[-1]) is not kind:
            raise _Refused(f"adds to what is no {kind.__name__}")
        return self._stack[-1]

    def extend(self, values):
        self.spend(_REFERENCE * len(values))
        self.top(list).extend(values)

    def update(self, values):
        entries = self.top(dict)
        if len(values) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(values[::2], values[1::2]):
            # The hash of a tuple of tuples may take for ever.
            if type(key) not in _KEYS:
                raise _Refused("has a key that is neither text nor a number")
            if key not in entries:
                self.spend(_ENTRY)
            entries[key] = value

    def remember(self, key):
        if key not in self._memo:
            self.spend(_ENTRY)
        self._memo[key] = self._stack[-1]

    def name(self, module, name):
        name = f"{module}.{name}"
        if name not in self._known:
            raise _Refused(f"names {name!a:.80}, which is no plain data")
        self.push(Name(name))

    def reduce(self):
        arguments, called = self.pop(), self.pop()
        function = None
        if type(called) is Name and type(arguments) is tuple:
            function = self._known[called.name]
        if function is None:
            raise _Refused("calls what is no function of plain data")
        made = function(*arguments)
        if function is _empty_array:
            self._unfilled[id(made)] = made
        self.push(made)

    def build(self):
        state, made = self.pop(), self._stack[-1]
        if type(made) is _DType:
            # (version, byte order, ...), then what only records have.
            made.set_order(state[1])
        elif id(made) in self._unfilled:
            # (version, shape, dtype, is_fortran, data)
            *_, shape, dtype, is_fortran, data = state
            shape, dtype, data = _checked_array(shape, dtype, data)
            self.spend(len(data))
            del self._unfilled[id(made)]
            made.__setstate__((1, shape, dtype, bool(is_fortran), data))
        else:
            raise _Refused("sets up an object, which is no plain data")

    def persist(self):
        if self._persistent is None:
            raise _Refused("speaks of an object that is kept elsewhere")
        self.push(self._persistent(self.pop()), sys.getsizeof(0))


def _string(machine):
    """Text of Python 2 as its `repr`: protocol 0."""
    line = machine.line().strip()
    if len(line) < 2 or line[:1] not in b"'\"" or line[:1] != line[-1:]:
        raise ValueError("text without quotes")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of what is no escape
        try:
            machine.push(codecs.escape_decode(line[1:-1])[0])
        except DeprecationWarning as warning:
            raise ValueError(warning) from None


def _integer(machine):
    line = machine.line(_DIGITS)
    if line in (b"00", b"01"):
        machine.push(line == b"01", 0)
    else:
        machine.push_number(int(line.removesuffix(b"L")))


def _long(machine, size):
    if size > 16:
        raise _Refused(f"holds a number of {size:,} bytes")
    machine.push_number(
        int.from_bytes(machine.take(size), "little", signed=True)
    )


def _tuple(size):
    def make(machine):
        values = [machine.pop() for _ in range(size)]
        machine.push(tuple(reversed(values)))

    return make


def _text(form):
    return lambda m: m.push(
        m.take(m.number(form)).decode("utf-8", "surrogatepass")
    )


def _bytes(form):
    return lambda m: m.push(m.take(m.number(form)))


def _stack_name(machine):
    name, module = machine.pop(), machine.pop()
    if type(name) is not str or type(module) is not str:
        raise ValueError("a name that is no text")
    machine.name(module, name)


def _push_dict(machine, values):
    machine.push({})
    machine.update(values)


_STOP = ord(".")
_OPERATIONS = {
    # The machine itself.
    b"\x80": lambda m: m.take(1),  # version
    b"\x95": lambda m: m.take(8),  # length of a frame
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": _Machine.since_mark,
    b"2": lambda m: m.push(m._stack[-1], 0),
    b"p": lambda m: m.remember(int(m.line(_DIGITS))),
    b"q": lambda m: m.remember(m.number("B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": lambda m: m.remember(len(m._memo)),
    b"g": lambda m: m.push(m._memo[int(m.line(_DIGITS))], 0),
    b"h": lambda m: m.push(m._memo[m.number("B")], 0),
    b"j": lambda m: m.push(m._memo[m.number("<I")], 0),
    # Numbers.
    b"N": lambda m: m.push(None, 0),
    b"\x88": lambda m: m.push(True, 0),
    b"\x89": lambda m: m.push(False, 0),
    b"I": _integer,
    b"L": _integer,
    b"J": lambda m: m.push_number(m.number("<i")),
    b"K": lambda m: m.push_number(m.number("B")),
    b"M": lambda m: m.push_number(m.number("<H")),
    b"\x8a": lambda m: _long(m, m.number("B")),
    b"\x8b": lambda m: _long(m, m.number("<I")),
    b"F": lambda m: m.push_number(float(m.line(_DIGITS))),
    b"G": lambda m: m.push_number(m.number(">d")),
    # Text and bytes.
    b"S": _string,
    b"T": _bytes("<I"),
    b"U": _bytes("B"),
    b"B": _bytes("<I"),
    b"C": _bytes("B"),
    b"\x8e": _bytes("<Q"),
    b"\x96": _bytes("<Q"),
    b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
    b"X": _text("<I"),
    b"\x8c": _text("B"),
    b"\x8d": _text("<Q"),
    # Lists, tuples, dictionaries.
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.since_mark()),
    b"a": lambda m: m.extend([m.pop()]),
    b"e": lambda m: m.extend(m.since_mark()),
    b")": lambda m: m.push((), 0),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"}": lambda m: m.push({}),
    b"d": lambda m: _push_dict(m, m.since_mark()),
    b"s": lambda m: m.update([m.pop(), m.pop()][::-1]),
    b"u": lambda m: m.update(m.since_mark()),
    # What is called by name.
    b"c": lambda m: m.name(*(m.line().decode() for _ in range(2))),
    b"\x93": _stack_name,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
    b"Q": _Machine.persist,
}
_OPERATIONS = {ord(code): do for code, do in _OPERATIONS.items()}


class _DType:
    """A type of numbers whose byte order is still to come."""

    def __init__(self, code, *_):
        code = code.decode() if type(code) is bytes else code
        if type(code) is not str or not _DTYPE.fullmatch(code):
            raise _Refused(
                f"holds an array of type {code!a:.40}, expected numbers"
            )
        self.value = np.dtype(code)

    def set_order(self, order):
        order = order.decode() if type(order) is bytes else order
        self.value = self.value.newbyteorder(_SWAPS[order])


def _checked_array(shape, dtype, data):
    """`(shape, np.dtype, bytes)` of an array that is its numbers."""
    if type(dtype) is not _DType or type(data) is not bytes:
        raise _Refused("holds an array that is no array of numbers")
    if type(shape) is not tuple or not all(
        type(size) is int and size >= 0 for size in shape
    ):
        raise _Refused("holds an array whose shape is no tuple of sizes")
    size = math.prod(shape) * dtype.value.itemsize
    if size != len(data) or len(shape) > 32:
        raise _Refused(
            f"holds an array of shape {list(shape)!s:.60} of {dtype.value}, "
            f"which takes {size:,} bytes, but has {len(data):,}"
        )
    return shape, dtype.value, data


def _empty_array(kind, *_):
    """An array whose shape and numbers come later."""
    if type(kind) is not Name or kind.name != "numpy.ndarray":
        raise _Refused("holds an array of a kind that is not NumPy's own")
    return np.ndarray((0,), np.int8)


def _array(data, dtype, shape, order="C"):
    shape, dtype, data = _checked_array(shape, dtype, data)
    order = order.decode() if type(order) is bytes else order
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _scalar(dtype, data):
    return _array(data, dtype, ()).item()


def _ordered(pairs=()):
    """A dictionary in order, as all are now; Python 2 gives it its pairs."""
    if type(pairs) not in (list, tuple) or not all(
        type(pair) in (list, tuple) and type(pair[0]) in _KEYS for pair in pairs
    ):
        raise _Refused("has a key that is neither text nor a number")
    return dict(pairs)


def _encode(text, encoding):
    """Bytes that are not empty, as Python 3 writes them for Python 2."""
    if type(text) is not str or encoding not in ("latin1", b"latin1"):
        raise _Refused("encodes what is no data")
    return text.encode("latin1")


_KNOWN = {
    "__builtin__.bytes": lambda: b"",  # as Python 3 writes it for Python 2
    "_codecs.encode": _encode,
    "collections.OrderedDict": _ordered,
    "numpy.dtype": _DType,
    "numpy.ndarray": None,
}
for _core in ("numpy.core", "numpy._core"):  # before NumPy 2, and after
    _KNOWN |= {
        f"{_core}.multiarray._reconstruct": _empty_array,
        f"{_core}.multiarray.scalar": _scalar,
        f"{_core}.numeric._frombuffer": _array,
    }


def read_pickle(path: str | os.PathLike) -> tuple[object, int]:
    """Reads a file that is a pickle.

    Args:
        path: The file.

    Returns:
        `(value, size)`: the value, as of `unpickle`, and the bytes of the file.

    Raises:
        FeatureError: If `unpickle` refuses it, or it is not as its manifest
            says.
    """
    if problems := check_file(path):
        raise FeatureError(problems)
    with open_file(path) as file:
        data = file.read()
    try:
        return unpickle(data), len(data)
    except ValueError as error:
        fail(path, f"{error}; {_AS}")


def text_of(value: object) -> str:
    """Text of either Python, as a string; a `TypeError` if it is none."""
    if type(value) not in (str, bytes):
        raise TypeError(f"expected text, found {kind_of(value)}")
    return value if type(value) is str else value.decode()


def kind_of(value: object) -> str:
    """What a value is, in a few words; it is not looked into."""
    if type(value) is np.ndarray:
        return f"an array of shape {list(value.shape)!s:.40}"
    if type(value) in (list, tuple, dict):
        return f"a {type(value).__name__} of {len(value):,}"
    return f"{value!a:.40}" if type(value) in _KEYS else type(value).__name__


class PickleFile:
    """Named arrays in a pickle; see `acnn_tf.files.arrays`.

    It holds a list of `[name, vectors]`, or a dictionary from name to vectors.
    Vectors are an array, or a list of `[E]`, each an array or a list of
    floats. That is the form of `{train,test}_clip-sentvec.pkl`, as the authors
    of CTRL and those after them distribute them; their `VIDEO.avi_START_END`
    is `VIDEO_START_END` here, as in the annotations.
    """

    def __init__(self, path: str):
        self.path = path
        self.others, self.clip_seconds, self.encoders = [], None, {}
        self._records, numbers = {}, 0
        value, size = read_pickle(path)
        if type(value) not in (list, dict):
            fail(
                path,
                f"expected a list of records, found {kind_of(value)}; {_AS}",
            )
        records = value if type(value) is list else value.items()
        for number, record in enumerate(records, start=1):
            try:
                name, vectors = record
                name = _AVI.sub(r"_\1", text_of(name))
                # Not of each: a thousand may be the same object.
                numbers += len(vectors) * math.prod(_shape(vectors[0]))
            except (TypeError, ValueError, LookupError):
                fail(
                    path,
                    f"expected [name, vectors], found {kind_of(record)}; {_AS}",
                    number,
                )
            if name in self._records:
                fail(
                    path,
                    f"{name!a:.80} is already record "
                    f"{self._records[name][0]:,}; remove one of the two",
                    number,
                )
            self._records[name] = number, vectors
        if numbers > size:
            fail(
                path,
                f"{size:,} bytes cannot hold its {numbers:,} numbers; {_AS}",
            )
        self.names = list(self._records)

    def place(self, name: str) -> tuple[str, int | None]:
        return self.path, self._records[name][0]

    def read(self, name: str) -> np.ndarray:
        number, vectors = self._records[name]
        if type(vectors) is np.ndarray:
            return vectors
        shapes = {_shape(row) for row in vectors}
        if len(shapes) > 1 or shapes == {()}:
            found = sorted({kind_of(row) for row in vectors})
            fail(
                self.path,
                f"{name!a:.80}: expected vectors, all as long, found "
                f"{' and '.join(found[:3])}; {_AS}",
                number,
            )
        for row in vectors:
            if type(row) is list and not all(type(x) is float for x in row):
                wrong = next(x for x in row if type(x) is not float)
                fail(
                    self.path,
                    f"{name!a:.80}: expected floats, found {kind_of(wrong)}; "
                    f"{_AS}",
                    number,
                )
        return np.array(vectors)

    def close(self) -> None:
        pass


def _shape(row):
    """The shape of a vector, or of a number; nothing else has one."""
    if type(row) is list:
        return (len(row),)
    return np.shape(row) if isinstance(row, (np.ndarray, np.generic)) else ()
