"""Converts sentences to word ids and unknown words, in a graph."""

import unicodedata
from collections.abc import Sequence

import tensorflow as tf

from acnn_tf.data import sentences
from acnn_tf.servable import normal_forms


class WordIds(tf.Module):
    """Converts sentences to word ids: `Vocabulary.read` as a graph.

    The letters of sentences, and of the vocabulary, are written out as base
    letter and marks (NFD); composed and decomposed writing then give the same
    words, as they do in training.

    Args:
        vocabulary: List of words, those of `Vocabulary.words`.

    Call arguments:
        query: string `[Q]`, in UTF-8.

    Returns:
        `(ids, unknown_words)`: `int32 [Q, L]`, padded with 0 to the longest,
        `[1]`, an unknown word, for a sentence without words; and string
        `[Q]`, the words that are not in the vocabulary, with spaces between.

    Raises:
        tf.errors.InvalidArgumentError: As `normal_forms.checked`.

    Example:

    >>> from acnn_tf.servable.word_ids import WordIds
    >>> ids, unknown_words = WordIds(["a", "man", "runs"])(
    ...     ["A man runs.", "A dog"]
    ... )
    >>> ids.numpy().tolist(), unknown_words.numpy().tolist()
    ([[2, 3, 4], [2, 1, 0]], [b'', b'dog'])
    """

    def __init__(self, vocabulary: Sequence[str]):
        super().__init__()
        words = [unicodedata.normalize("NFD", word) for word in vocabulary]
        first = sentences.UNKNOWN + 1
        self._ids = normal_forms.string_table(
            words, range(first, first + len(words)), sentences.UNKNOWN
        )
        self._decompose = normal_forms.NFD()

    def __call__(self, query):
        query = normal_forms.checked(query)
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
