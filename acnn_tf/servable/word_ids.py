"""Sentences to word ids, and to the words that have none, in a graph."""

import functools
import sys
import unicodedata

import tensorflow as tf

from acnn_tf.data import sentences
from acnn_tf.files.text import MAX_CHARACTERS


@functools.cache
def _unicode():
    """How letters are written out, and the order of marks: dictionaries."""
    letters = [
        chr(number)
        for number in range(0x80, sys.maxunicode + 1)
        if not 0xD800 <= number < 0xE000  # halves of letters
    ]
    written_out = {
        letter: unicodedata.normalize("NFD", letter)
        for letter in letters
        if not unicodedata.is_normalized("NFD", letter)
    }
    marks = {
        letter: unicodedata.combining(letter)
        for letter in letters
        if unicodedata.combining(letter)
    }
    return written_out, marks


class WordIds(tf.Module):
    """Ids of the words of sentences: `Vocabulary.read` as a graph.

    TensorFlow has no Unicode normalisation. So the letters of sentences, and
    of the vocabulary, are written out by a table as base letter and marks
    (NFD), and the marks brought into their order; composed and decomposed
    writing then give the same words, as they do in training.

    Args:
        vocabulary: List of words, those of `Vocabulary.words`.

    Call arguments:
        query: string `[Q]`, in UTF-8.

    Returns:
        `(ids, unknown_words)`: `int32 [Q, L]`, padded with 0 to the longest,
        `[1]`, an unknown word, for a sentence without words; and string
        `[Q]`, the words that are not in the vocabulary, with spaces between.

    Raises:
        tf.errors.InvalidArgumentError: If a sentence is not UTF-8, or has more
            than `MAX_CHARACTERS`.

    Example:

    >>> ids, unknown_words = WordIds(["a", "man", "runs"])(
    ...     ["A man runs.", "A dog"]
    ... )
    >>> ids.numpy().tolist(), unknown_words.numpy().tolist()
    ([[2, 3, 4], [2, 1, 0]], [b'', b'dog'])
    """

    def __init__(self, vocabulary):
        super().__init__()
        words = [unicodedata.normalize("NFD", word) for word in vocabulary]
        first = sentences.UNKNOWN + 1
        self._ids = _table(
            words, range(first, first + len(words)), sentences.UNKNOWN
        )
        written_out, marks = _unicode()
        self._written_out = _table(written_out, written_out.values(), "")
        self._mark_order = _table(marks, marks.values(), 0)

    def __call__(self, query):
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
        query = _refuse(
            query,
            replaced != query,
            "`query` must be UTF-8 text. It is not in row:",
        )
        text = self._decompose(query)
        ids = self._ids.lookup(sentences.tokenize(text))  # [Q, (L)]
        # The same words, with their letters as they were written.
        unknown_words = tf.strings.reduce_join(
            tf.ragged.boolean_mask(
                sentences.tokenize(query), tf.equal(ids, sentences.UNKNOWN)
            ),
            axis=-1,
            separator=" ",
        )
        no_words = tf.equal(ids.row_lengths(), 0)
        ids = tf.pad(ids.to_tensor(sentences.PADDING), [[0, 0], [0, 1]])
        length = tf.maximum(1, tf.shape(ids)[1] - 1)
        first = tf.where(no_words, sentences.UNKNOWN, ids[:, 0])
        ids = tf.concat([first[:, None], ids[:, 1:length]], axis=1)
        return ids, unknown_words

    def _decompose(self, text):
        """Unicode NFD."""
        letters = tf.strings.unicode_split(text, "UTF-8")  # [Q, (n)]
        found = self._written_out.lookup(letters.flat_values)
        flat = tf.where(tf.equal(found, ""), letters.flat_values, found)
        text = tf.strings.reduce_join(letters.with_flat_values(flat), axis=-1)
        # Marks on one letter come by their class, those of a class as written.
        letters = tf.strings.unicode_split(text, "UTF-8")
        order = self._mark_order.lookup(letters.flat_values)
        row = letters.value_rowids()
        new_row = tf.concat([[True], row[1:] != row[:-1]], axis=0)
        starts = tf.logical_or(tf.equal(order, 0), new_row[: tf.size(row)])
        group = tf.cumsum(tf.cast(starts, tf.int32))
        sorted_letters = tf.gather(
            letters.flat_values, tf.argsort(group * 256 + order, stable=True)
        )
        return tf.strings.reduce_join(
            letters.with_flat_values(sorted_letters), axis=-1
        )


def _refuse(query, is_bad, message):
    """The queries, unless there are bad ones, whose rows it tells."""
    # Not their bytes: errors travel as UTF-8.
    bad = tf.where(is_bad)[:, 0]
    check = tf.debugging.Assert(tf.equal(tf.size(bad), 0), [message, bad])
    with tf.control_dependencies([check]):
        return tf.identity(query)


def _table(keys, values, default):
    """A hash table from strings; its content is part of the graph."""
    dtype = tf.string if isinstance(default, str) else tf.int32
    keys = tf.constant([*keys, "\0"], tf.string)  # none may be empty
    values = tf.constant([*values, default], dtype)
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(keys, values), default
    )
