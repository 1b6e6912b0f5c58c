"""What REST's `:predict` takes and returns, by TensorFlow Serving's rules.

By rows, `{"instances": [row, ...]}` gives `{"predictions": [row, ...]}`; a row
is a bare value where there is one input or one output. By columns,
`{"inputs": ...}` gives `{"outputs": ...}`. Everything raises `ValueError`.
"""

import collections
import json

from export.protocol.tensors import brief, convert, from_json, is_b64, to_json

# Bytes in Python of what these begin: texts, null, false, true, numbers.
_COSTS = {b"{": 256, b"[": 96, b'"': 32, b"l": 8, b"r": 8, b",": 32}


def parse_json(body, max_bytes=2**31):
    """Returns the JSON object in `body`, bytes.

    NaN and Infinity are numbers here, as in TensorFlow Serving. What would
    take more than `max_bytes` in Python is refused unread.
    """
    size = sum(body.count(sign) * cost for sign, cost in _COSTS.items())
    if size > max_bytes:
        raise ValueError(
            f"The body has so many values that they take some {size} bytes, "
            f"where {max_bytes} may be. Send them by gRPC, or fewer."
        )
    try:
        value = json.loads(
            body.decode(),
            object_pairs_hook=_unique_keys,
            parse_float=_number(float),
            parse_int=_number(int),
        )
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The body must be JSON in UTF-8. Byte {error.start} is not."
        ) from None
    except RecursionError:
        raise ValueError("The body's lists are nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"The body must be JSON. {error}") from None
    if not isinstance(value, dict):
        raise ValueError(
            'The body must be an object such as {"instances": [...]}. '
            f"Received: {brief(value)}"
        )
    return value


def _number(kind):
    """Python's own, in Python: other threads run between two calls of it."""
    return lambda text: kind(text)


def _unique_keys(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = collections.Counter(k for k, _ in pairs).most_common(1)
        raise ValueError(f"The key {brief(twice)} stands twice in an object.")
    return found


def inputs_from_json(body, dtypes):
    """Returns the arrays of a `:predict` body, and whether it had rows.

    `dtypes` has the name of the dtype of each input of the signature.
    """
    if len(body.keys() & {"instances", "inputs"}) != 1:
        raise ValueError(
            "The body must have either `instances`, a list of rows, or "
            f"`inputs`. Received: {brief(body)}"
        )
    by_row = "instances" in body
    if by_row:
        columns = _columns(body["instances"], dtypes)
    else:
        columns = body["inputs"]
        if not isinstance(columns, dict) or is_b64(columns):
            columns = {_only(dtypes): columns}
        check_names(columns, dtypes, "in `inputs`")
    inputs = convert(
        "Input", columns, lambda name, value: from_json(value, dtypes[name])
    )
    return inputs, by_row


def _columns(rows, dtypes):
    """Turns a list of rows into a list for each input."""
    if not isinstance(rows, list) or not rows:
        raise ValueError(
            "`instances` must be a list of at least one row. "
            f"Received: {brief(rows)}"
        )
    named = isinstance(rows[0], dict) and not is_b64(rows[0])
    if not named:
        return {_only(dtypes): rows}
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(
                f"Row {place} of `instances` must be an object, as row 0 is. "
                f"Received: {brief(row)}"
            )
        check_names(row, dtypes, f"in row {place} of `instances`")
    return {name: [row[name] for row in rows] for name in dtypes}


def _only(dtypes):
    if len(dtypes) != 1:
        raise ValueError(
            f"The signature has {len(dtypes)} inputs, {sorted(dtypes)}: send "
            "an object with their names, not a bare value."
        )
    return next(iter(dtypes))


def check_names(found, expected, place):
    """Raises a `ValueError` unless these are the names of the inputs."""
    if found.keys() != expected.keys():
        missing = sorted(expected.keys() - found.keys())
        unknown = [name[:100] for name in found if name not in expected]
        raise ValueError(
            f"The inputs {place} must be {sorted(expected)}. "
            f"Missing: {missing}. Unknown: {sorted(unknown[:8])}."
        )


def outputs_to_json(outputs, by_row, max_bytes=2**31):
    """Returns the object that answers `:predict`.

    `by_row` says whether the request came as `instances`. Outputs that would
    take more than `max_bytes` in Python are refused.
    """
    num_values = sum(value.size for value in outputs.values())
    if num_values * _COSTS[b","] > max_bytes:
        raise ValueError(
            f"The outputs have {num_values} values, too many for JSON. Use "
            "gRPC, or send fewer rows."
        )
    if by_row:
        rows = {v.shape[0] if v.ndim else None for v in outputs.values()}
        if len(rows) != 1 or None in rows:
            shapes = {k: list(v.shape) for k, v in outputs.items()}
            raise ValueError(
                f"The outputs have no rows in common, their shapes are "
                f"{shapes}. Send `inputs` instead of `instances`."
            )
    values = convert(
        "Output",
        outputs,
        lambda name, array: to_json(array, as_bytes=name.endswith("_bytes")),
    )
    if len(values) == 1:
        (value,) = values.values()
        return {"predictions" if by_row else "outputs": value}
    if by_row:
        rows = zip(*values.values())
        return {"predictions": [dict(zip(values, row)) for row in rows]}
    return {"outputs": values}
