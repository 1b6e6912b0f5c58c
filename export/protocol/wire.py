"""Messages of protobuf as they came, before anything is made of them.

Protobuf's own parser makes objects of all that a message says, up to a hundred
times its size, and keeps Python from everything else meanwhile. Here values
stay where they lie. All that is wrong raises a `ValueError`.
"""

import numpy as np

# A list whose values are not packed has a field for each of them.
MAX_FIELDS = 2**13
# Bytes of a packed list that are read at a time, which bounds memory.
_PIECE = 2**20


def fields(message, max_fields=MAX_FIELDS):
    """Finds the values of a message.

    Args:
        message: Bytes, or a view of some.
        max_fields: Int, values beyond which it is refused.

    Returns:
        Dictionary from the numbers of fields to lists of views, of the bytes
        of each value. Of a list, all views joined are the packed list.

    Raises:
        ValueError: If it is no message, or has more values.

    Example:

    >>> [bytes(view) for view in fields(bytes([10, 1, 97]))[1]]
    [b'a']
    """
    message = memoryview(message)
    found, count, place, end = {}, 0, 0, len(message)
    try:
        while place < end:
            key, place = _varint(message, place)
            kind, first = key & 7, place
            if kind == 0:
                _, place = _varint(message, place)
            elif kind == 1:
                place += 8
            elif kind == 2:
                size, first = _varint(message, place)
                place = first + size
            elif kind == 5:
                place += 4
            else:
                raise ValueError(f"wire type {kind} is not read.")
            if place > end:
                raise IndexError
            count += 1
            if count > max_fields:
                raise ValueError(
                    f"it has more than {max_fields} values one by one. Pack "
                    "lists, or send `tensor_content`."
                )
            found.setdefault(key >> 3, []).append(message[first:place])
    except IndexError:
        raise ValueError("it ends too early.") from None
    return found


def _varint(data, place):
    """The number at a place, and the place behind it."""
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
        shift += 7
        if shift > 63:
            raise ValueError("it has a number of more than 64 bits.")


def integer(view):
    """The number, of at most 64 bits and without a sign, of one value."""
    return _varint(view, 0)[0] & (2**64 - 1) if len(view) else 0


def joined(views):
    """The bytes of a list, copied only where it came in parts."""
    return views[0] if len(views) == 1 else b"".join(views)


def count_varints(packed):
    """How many numbers a packed list has."""
    return int(np.count_nonzero(np.frombuffer(packed, np.uint8) < 128))


def varints(packed):
    """Yields the numbers of a packed list in pieces, uint64 arrays."""
    data = np.frombuffer(packed, np.uint8)
    while len(data):
        ends = np.flatnonzero(data[:_PIECE] < 128)
        starts = np.append(0, ends[:-1] + 1)
        sizes = ends - starts[: len(ends)] + 1
        if not len(ends) or sizes.max() > 10:
            raise ValueError("of a number of more than 64 bits.")
        numbers = np.zeros(len(ends), np.uint64)
        for place in range(sizes.max()):
            longer = sizes > place
            part = data[starts[longer] + place].astype(np.uint64) & 127
            numbers[longer] |= part << np.uint64(7 * place)
        yield numbers
        data = data[ends[-1] + 1 :]
