"""Text and JSON files, item by item, each with its line; safe sentences.

What is wrong with an item comes out in its place, as a `ValueError`, so that
one reading finds all there is to mend.
"""

import csv
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator

from acnn_tf.files.manifests import check_file
from acnn_tf.files.pickles import kind_of, read_pickle, text_of
from acnn_tf.files.problems import FeatureError, Problem

# A line is a record, and the largest of the datasets, a video's predictions,
# has 100 kB. Python takes up to 30 times as many bytes as JSON has.
MAX_LINE_BYTES = 8 * 2**20
# A file that is read as a whole: that of ActivityNet Captions has 10 MB.
MAX_FILE_BYTES = 64 * 2**20
# Of what made some features, see `acnn_tf.encoders`: those of here have 600.
MAX_DESCRIPTION_BYTES = 16 * 2**10

_SPACE = re.compile(r"[ \t\r\n]*")

# Of a sentence, in characters; it has at most half as many words. The longest
# of the datasets has 1,070. Each character takes some hundred bytes on its way
# through words and an encoder, and a batch is as wide as its longest sentence.
MAX_CHARACTERS = 2000

# Control characters, and those that turn the direction of the text after them:
# on a terminal they would change what stands around them.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def normalize(sentence: str) -> str:
    r"""Brings a sentence to one form, in which equal sentences are equal text.

    A letter and its accent become one character, where Unicode has one (Unicode
    NFC). TensorFlow has no operation for it, so this is done before `tokenize`.
    A control character, a line break or a sign that turns the direction of text
    becomes a space, as in `tokenize`.

    Args:
        sentence: The sentence.

    Returns:
        The sentence in this form.

    Raises:
        ValueError: If it has more than `MAX_CHARACTERS`, or half of a letter
            (a lone surrogate), which is no text.

    Example:

    >>> from acnn_tf.files.text import normalize
    >>> normalize("a cafe\u0301\nis\x00open")
    'a café is open'
    """
    if len(sentence) > MAX_CHARACTERS:
        raise ValueError(
            f"a sentence may have {MAX_CHARACTERS:,} characters, found "
            f"{len(sentence):,} in {sentence[:40]!a}...; cut it, or make "
            "several of it"
        )
    if half := re.search("[\ud800-\udfff]", sentence):
        raise ValueError(
            f"expected text, found half a letter, {half[0]!a}, in "
            f"{sentence[:40]!a}; write it again in UTF-8"
        )
    return unicodedata.normalize("NFC", _CONTROLS.sub(" ", sentence))


def text_lines(
    path: str | os.PathLike,
) -> Iterator[tuple[int, str | ValueError]]:
    """Yields `(line, text)` of the lines of a UTF-8 file that are not blank.

    A line of more than `MAX_LINE_BYTES` is not read, nor is what follows it.
    """
    with open(path, "rb") as file:
        lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
        for line, data in enumerate(lines, start=1):
            if len(data) > MAX_LINE_BYTES:
                yield line, _too_large("a line", MAX_LINE_BYTES)
                return
            try:
                text = data.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                yield line, _not_utf8(error)
                continue
            if text.strip():
                yield line, text.strip()


def json_items(
    path: str | os.PathLike, kind: type
) -> Iterator[tuple[int, object]]:
    """Yields `(line, item)` for each item of a JSON file.

    `kind`, `dict` or `list`, is what the file is at its top; an item of a
    `dict` is `(key, value)`.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        yield 1, _too_large("the file", MAX_FILE_BYTES)
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield data[: error.start].count(b"\n") + 1, _not_utf8(error)
        return
    if not text.strip():
        return
    line, counted = 1, 0
    try:
        for place, item in _scan(text, kind):
            line += text.count("\n", counted, place)
            counted = place
            yield line, item
    except json.JSONDecodeError as error:
        # The decoder's own words, and the line on which it stopped.
        yield (
            error.lineno,
            ValueError(
                f"is not JSON: {error.msg} at column {error.colno}; is the "
                "file cut short?"
            ),
        )
    except ValueError as error:  # a number of thousands of digits
        yield line, ValueError(f"is not JSON: {error}")
    except RecursionError:
        yield line, ValueError("is not an annotation: nested too deeply")


def _scan(text, kind):
    """Yields `(place, item)`; the standard decoder would lose the places."""
    opening, closing = "{}" if kind is dict else "[]"
    decode = json.JSONDecoder(object_pairs_hook=_object).raw_decode

    def skip(place, expected):
        place = _SPACE.match(text, place).end()
        if text[place : place + 1] not in tuple(expected):
            raise json.JSONDecodeError(
                f"expected {' or '.join(expected)}", text, place
            )
        return place + 1

    place = skip(0, opening)
    after = _SPACE.match(text, place).end()
    if text[after : after + 1] == closing:
        return
    while text[place - 1] != closing:
        start = place = _SPACE.match(text, place).end()
        item, place = decode(text, place)
        if kind is dict:
            place = _SPACE.match(text, skip(place, ":")).end()
            value, place = decode(text, place)
            item = (str(item), value)
        yield start, item
        place = skip(place, "," + closing)
    place = _SPACE.match(text, place).end()
    if place != len(text):
        raise json.JSONDecodeError("expected the end", text, place)


def parse_json(text: str) -> object:
    """The value of a line of JSON.

    Args:
        text: The line.

    Returns:
        Dictionary, list, string, number, bool or `None`.

    Raises:
        ValueError: If it is not JSON, or an object in it has the same key
            twice. Python's own reader would keep the last one silently.

    Example:

    >>> from acnn_tf.files.text import parse_json
    >>> parse_json('{"qid": 7, "vid": "v1"}')
    {'qid': 7, 'vid': 'v1'}
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}; found {text[:60]!r}") from None


def _object(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(
            f"expected each key of an object once, found {twice!r:.40} twice; "
            "remove one of the two"
        )
    return found


def parse_number(text: str) -> float:
    """A finite number of a text file.

    Args:
        text: The number as text, such as `12`, `0.5` or `1e-3`. Python itself
            would also take `1_0` for ten, and `nan`.

    Returns:
        The number.

    Raises:
        ValueError: If it is no such number.

    Example:

    >>> from acnn_tf.files.text import parse_number
    >>> parse_number("24.3")
    24.3
    """
    if not re.fullmatch(r"\s*[-+]?[\d.]+([eE][-+]?\d+)?\s*", text, re.ASCII):
        raise ValueError(f"expected a number, found {text!r:.40}")
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, found {text!r:.40}")
    return number


def _too_large(what, limit):
    return ValueError(
        f"expected {what} to have at most {limit:,} bytes, found more; is it "
        "another kind of file? Else split it"
    )


def _not_utf8(error):
    byte = error.object[error.start]
    return ValueError(f"is not UTF-8: byte 0x{byte:02x}; convert the file")


def read_numbers(
    path: str | os.PathLike, problems: list[Problem]
) -> dict[str, float]:
    """Reads one number above 0 per video: durations, or counts of frames.

    Args:
        path: JSON file `{video: number}`; CSV file with the columns `id` and
            `length`, as that of Charades; or a pickle of such a dictionary, as
            `video_allframes_info.pkl` of TACoS. No code in a pickle is run.
        problems: A list to which a `Problem` is added for everything that is
            malformed, or is not as the file's manifest says.

    Returns:
        Dictionary from video id to number.

    Example:

    >>> import tempfile
    >>> from acnn_tf.files.text import read_numbers
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    ...     _ = file.write('{"cat": 12.5}')
    ...     file.flush()
    ...     read_numbers(file.name, problems=[])
    {'cat': 12.5}
    """
    path = os.fspath(path)
    damage = check_file(path)
    if damage:
        problems += damage
        return {}
    if path.endswith(".csv"):
        items = _csv_items(path)
    elif path.endswith(".pkl"):
        items = _pickled_items(path)
    else:
        items = json_items(path, dict)
    numbers, line = {}, None
    for line, item in items:
        try:
            if isinstance(item, ValueError):
                raise item
            video, number = item
            if not is_number(number) or number <= 0:
                raise ValueError(
                    f"video {video!r}: expected a number above 0, found "
                    f"{number!r:.40}"
                )
            if video in numbers:
                raise ValueError(f"video {video!r} is in the file twice")
        except ValueError as error:
            problems.append(Problem(path, line, str(error)))
            continue
        numbers[video] = number
    if line is None:
        problems.append(Problem(path, 1, "the file holds no records"))
    return numbers


def _csv_items(path):
    lines = text_lines(path)
    columns = None
    for line, text in lines:
        if isinstance(text, ValueError):
            yield line, text
            continue
        try:
            row = next(csv.reader([text]))
        except csv.Error as error:
            yield line, ValueError(f"is not CSV: {error}; found {text[:60]!r}")
            continue
        if columns is None:
            columns = row
            if not columns.count("id") == columns.count("length") == 1:
                yield (
                    line,
                    ValueError(
                        f"expected one column id and one length; found {row}"
                    ),
                )
                return
            continue
        entry = dict(zip(columns, row, strict=False))
        try:
            number = parse_number(entry["length"])
        except (KeyError, ValueError):
            number = entry.get("length")
        yield line, (entry.get("id", ""), number)


def _pickled_items(path):
    try:
        value, _ = read_pickle(path)
        if type(value) is not dict:
            raise ValueError(
                "expected a dictionary from video to number, found "
                f"{kind_of(value)}"
            )
    except FeatureError as error:
        yield 1, ValueError(error.problems[0].message)
        return
    except ValueError as error:
        yield 1, error
        return
    for number, (video, length) in enumerate(value.items(), start=1):
        try:
            yield number, (text_of(video), length)
        except (TypeError, ValueError) as error:
            yield number, ValueError(f"the name of a video: {error}")


def is_number(value: object) -> bool:
    """Whether `value` is a finite number of a size that times can have."""
    return type(value) in (int, float) and abs(value) < 1e12
