"""Normalizes Unicode text in a graph.

TensorFlow has no Unicode normalisation, so that tables do it.
"""

import functools
import unicodedata
from collections.abc import Sequence

import tensorflow as tf

from acnn_tf.files.text import MAX_CHARACTERS
from acnn_tf.servable import pairs

# All letters, marks and numbers of Unicode lie below it.
_LIMIT = 0x40000


def characters() -> list[str]:
    """Lists all characters that may be letters."""
    return [
        chr(number)
        for number in range(_LIMIT)
        if not 0xD800 <= number < 0xE000  # halves of letters
    ]


def checked(query: tf.Tensor) -> tf.Tensor:
    """Checks that sentences are UTF-8 of at most `MAX_CHARACTERS`.

    Args:
        query: string `[Q]`.

    Raises:
        tf.errors.InvalidArgumentError: Names the rows of those that are not.
    """
    query = tf.convert_to_tensor(query, tf.string)
    # Bytes too: what is not UTF-8 may have many and no characters.
    query = _refuse(
        query,
        (tf.strings.length(query, "UTF8_CHAR") > MAX_CHARACTERS)
        | (tf.strings.length(query) > 4 * MAX_CHARACTERS),
        f"`query` must have at most {MAX_CHARACTERS:,} characters. It has "
        "more in row:",
    )
    replaced = tf.strings.unicode_transcode(query, "UTF-8", "UTF-8")
    return _refuse(
        query,
        replaced != query,
        "`query` must be UTF-8 text. It is not in row:",
    )


class NFD(tf.Module):
    """Letters written out as base letter and marks, the marks in their order.

    Call arguments:
        text: string `[Q]`, in UTF-8.

    Returns:
        string `[Q]`.

    Example:

    >>> from acnn_tf.servable.normal_forms import NFD
    >>> NFD()(["caf\u00e9"]).numpy()[0].decode() == "cafe\u0301"
    True
    """

    def __init__(self):
        super().__init__()
        written_out, marks = _unicode()
        self._written_out = string_table(written_out, written_out.values(), "")
        self._mark_order = string_table(marks, marks.values(), 0)

    def __call__(self, text):
        split = replaced(text, self._written_out)
        # Marks on one letter come by their class, those of a class as written.
        split = tf.strings.unicode_split(split, "UTF-8")
        order = self._mark_order.lookup(split.flat_values)
        row = split.value_rowids()
        new_row = tf.concat([[True], row[1:] != row[:-1]], axis=0)
        starts = tf.logical_or(tf.equal(order, 0), new_row[: tf.size(row)])
        group = tf.cumsum(tf.cast(starts, tf.int32))
        sorted_letters = tf.gather(
            split.flat_values, tf.argsort(group * 256 + order, stable=True)
        )
        return tf.strings.reduce_join(
            split.with_flat_values(sorted_letters), axis=-1
        )


class NFC(tf.Module):
    """Letters and marks written as one character, where there is one.

    Call arguments:
        text: string `[Q]`, in UTF-8.

    Returns:
        string `[Q]`.

    Example:

    >>> from acnn_tf.servable.normal_forms import NFC
    >>> NFC()(["cafe\u0301"]).numpy()[0].decode() == "caf\u00e9"
    True
    """

    def __init__(self):
        super().__init__()
        self._decompose = NFD()
        written_out, marks = _unicode()
        composed = {}
        for letter, text in written_out.items():
            if unicodedata.is_normalized("NFC", letter):
                # The letter with all marks but the last, and that one.
                before = unicodedata.normalize("NFC", text[:-1])
                composed[ord(before), ord(text[-1])] = 0, ord(letter)
        self._composed = pairs.pair_table(composed)
        self._mark_order = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant([ord(mark) for mark in marks], tf.int64),
                tf.constant(list(marks.values()), tf.int64),
            ),
            0,
        )

    def __call__(self, text):
        numbers = tf.strings.unicode_decode(self._decompose(text), "UTF-8")
        numbers = pairs.join(
            tf.cast(numbers, tf.int64), self._letter_of, self._composed
        )
        return tf.strings.unicode_encode(tf.cast(numbers, tf.int32), "UTF-8")

    def _letter_of(self, numbers, row):
        """Returns the place of the letter that a mark may be joined to.

        The last letter before it, unless a mark of the same class, or another
        letter, is between them: Unicode calls that blocked.
        """
        place = tf.range(tf.size(numbers, tf.int64))
        order = self._mark_order.lookup(numbers)
        is_letter = tf.cast(order == 0, tf.int64)
        letter = tf.concat([[-1], tf.where(order == 0)[:, 0]], axis=0)
        left = tf.gather(letter, tf.cumsum(is_letter) - is_letter)
        is_free = (left == place - 1) | (tf.roll(order, 1, 0) < order)
        same_row = tf.gather(row, tf.maximum(left, 0)) == row
        return tf.where(is_free & same_row, left, -1)


def replaced(text: tf.Tensor, table: tf.lookup.StaticHashTable) -> tf.Tensor:
    """Replaces the characters of texts, string `[Q]`, by those of a table."""
    split = tf.strings.unicode_split(text, "UTF-8")  # [Q, (n)]
    found = table.lookup(split.flat_values)
    flat = tf.where(tf.equal(found, ""), split.flat_values, found)
    return tf.strings.reduce_join(split.with_flat_values(flat), axis=-1)


def string_table(
    keys: Sequence[str], values: Sequence, default: object
) -> tf.lookup.StaticHashTable:
    """Makes a hash table from strings that is part of the graph."""
    dtype = tf.string if isinstance(default, str) else tf.int32
    keys = tf.constant([*keys, "\0"], tf.string)  # none may be empty
    values = tf.constant([*values, default], dtype)
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(keys, values), default
    )


@functools.cache
def _unicode():
    """Returns decompositions of letters and the order of marks."""
    written_out = {
        letter: unicodedata.normalize("NFD", letter)
        for letter in characters()
        if not unicodedata.is_normalized("NFD", letter)
    }
    marks = {
        letter: unicodedata.combining(letter)
        for letter in characters()
        if unicodedata.combining(letter)
    }
    return written_out, marks


def _refuse(query, is_bad, message):
    """Raises an error that names the rows of bad queries, if any."""
    # Not their bytes: errors travel as UTF-8.
    bad = tf.where(is_bad)[:, 0]
    check = tf.debugging.Assert(tf.equal(tf.size(bad), 0), [message, bad])
    with tf.control_dependencies([check]):
        return tf.identity(query)
