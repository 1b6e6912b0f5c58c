"""Encodes sentences with CLIP's text tower, in a graph."""

import itertools
import re

import tensorflow as tf

from acnn_tf.data import sentences
from acnn_tf.servable import normal_forms, pairs

# In place of the tokens start and end, where a sentence has them written out:
# no other control character is left in it.
_START, _END = "\1", "\2"
# Ends of words that are words of their own, for CLIP.
_ENDS = "'s|'t|'re|'ve|'m|'ll|'d"


class SentenceVectors(tf.Module):
    """Vectors of sentences: `acnn_tf.data.sentences.encode` as a graph.

    Args:
        encoder: `acnn_tf.encoders.clip.CLIP`.

    Call arguments:
        query: string `[Q]`, in UTF-8.

    Returns:
        `(vectors, is_known)`: float32 `[Q, E]`, each of length 1; and bool
        `[Q]`, whether the sentence has any letter or number.

    Raises:
        tf.errors.InvalidArgumentError: As `normal_forms.checked`.

    Example:

    >>> from acnn_tf.servable.sentence_vectors import SentenceVectors
    >>> to_vectors = SentenceVectors(encoder)  # doctest: +SKIP
    >>> vectors, is_known = to_vectors(["a dog", "?!"])  # doctest: +SKIP
    >>> is_known.numpy().tolist()  # doctest: +SKIP
    [True, False]
    """

    def __init__(self, encoder: object):
        super().__init__()
        self._text_tower = lambda: encoder.text_tower  # not to be looked into
        self.weights = [weight.value for weight in encoder.text_tower.variables]
        self._compose = normal_forms.NFC()
        self._tokens = Tokens(encoder)
        letters = filter(str.isalnum, normal_forms.characters())
        self._has_letters = f".*[{_ranges(letters)}].*"

    # Traced once for all signatures.
    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
    )
    def __call__(self, query):
        query = normal_forms.checked(query)
        # As `acnn_tf.files.text.normalize` does.
        text = tf.strings.regex_replace(query, sentences.CONTROLS, " ")
        text = self._compose(text)
        is_known = tf.strings.regex_full_match(text, self._has_letters)
        vectors = self._text_tower()(self._tokens(text), training=False)
        return tf.math.l2_normalize(tf.cast(vectors, tf.float32), 1), is_known


class Tokens(tf.Module):
    """Tokens of CLIP: those that keras-hub's tokenizer makes, in a graph.

    In a graph that tokenizer itself does not do all that it does outside of
    one: capitals, marks and numbers stay as they are. Here words are split
    into bytes, and these joined by its rules. What is a letter, a number and
    lower case is asked of the library that it calls.

    Args:
        encoder: `acnn_tf.encoders.clip.CLIP`.

    Call arguments:
        text: string `[Q]`, in UTF-8 and Unicode NFC, without control
            characters.

    Returns:
        int32 `[Q, L]`: start, tokens, end, zeros. What is beyond the L tokens
        that CLIP takes is cut off.

    Example:

    >>> from acnn_tf.servable.sentence_vectors import Tokens
    >>> Tokens(encoder)(["a dog"])[0, :4].numpy()  # doctest: +SKIP
    array([49406,   320,  1929, 49407], dtype=int32)
    """

    def __init__(self, encoder: object):
        super().__init__()
        tokenizer = encoder.tokenizer
        self._length = encoder.num_tokens
        self._start = tokenizer.start_token_id
        self._end = tokenizer.end_token_id
        start, end = map(
            re.escape, (tokenizer.start_token, tokenizer.end_token)
        )
        self._written_out = {start: _START, end: _END}
        plain, letters, numbers = _characters()
        self._plain = normal_forms.string_table(plain, plain.values(), "")
        word = (
            f"[{_START}{_END}]|{_ENDS}|[{letters}]+|[{numbers}]|"
            f"[^ {_START}{_END}{letters}{numbers}]+"
        )
        # The tokenizer splits twice, and only at first knows those two.
        self._words = f"({start}|{end}|{word})", f"({word})"
        ids = tokenizer.vocabulary
        self._ids = self._ids_of_bytes(ids, "")
        self._last_ids = self._ids_of_bytes(ids, "</w>")
        merges = [tuple(merge.split(" ")) for merge in tokenizer.merges]
        self._pairs = pairs.pair_table(
            {
                (ids[a], ids[b]): (rank, ids[a + b])
                for rank, (a, b) in enumerate(merges)
                if "#version:" not in a
            }
        )

    def __call__(self, text):
        for written_out, one in self._written_out.items():
            text = tf.strings.regex_replace(text, written_out, one)
        text = normal_forms.replaced(tf.strings.lower(text), self._plain)
        for pattern in self._words:
            text = tf.strings.regex_replace(text, pattern, r" \1 ")
        words = tf.strings.split(text)  # [Q, (W)]
        tokens = tf.strings.bytes_split(words.flat_values)  # [sum of W, (n)]
        numbers = tf.io.decode_raw(tokens.flat_values, tf.uint8)
        numbers = tf.cast(tf.reshape(numbers, [-1]), tf.int32)
        last = tokens.row_splits[1:, None] - 1
        tokens = tokens.with_flat_values(
            tf.tensor_scatter_nd_update(
                tf.gather(self._ids, numbers),
                last,
                tf.gather(self._last_ids, tf.gather_nd(numbers, last)),
            )
        )
        tokens = pairs.join(tokens, pairs.just_before, self._pairs)
        tokens = tf.RaggedTensor.from_row_splits(
            tf.cast(tokens.flat_values, tf.int32),
            tf.gather(tokens.row_splits, words.row_splits),
        )[:, : self._length - 2]  # [Q, (L - 2)]
        one = tf.ones([tf.shape(text)[0], 1], tf.int32)
        tokens = tf.concat([one * self._start, tokens, one * self._end], axis=1)
        return tokens.to_tensor(shape=(None, self._length))

    def _ids_of_bytes(self, ids, end):
        """Returns the token of each byte, int64 `[256]`."""
        found = [ids.get(one + end, self._end) for one in _letters_of_bytes()]
        if end:
            found[ord(_START)], found[ord(_END)] = self._start, self._end
        return tf.constant(found, tf.int64)


def _letters_of_bytes():
    """Returns the letter with which the tokenizer writes each byte."""
    from tokenizers import pre_tokenizers

    # Those that can be seen as themselves, the others from 256 on.
    letters = set(pre_tokenizers.ByteLevel.alphabet())
    others = map(chr, itertools.count(256))
    return [
        chr(byte) if chr(byte) in letters else next(others)
        for byte in range(256)
    ]


def _characters():
    """Returns how the tokenizer reads characters.

    Returns:
        Dictionary of those beyond ASCII that it takes for others: in lower
        case, and each space for the usual one; and its letters and its
        numbers, as `_ranges`.
    """
    from tokenizers import Regex, normalizers

    def ranges(kind):
        others = normalizers.Replace(Regex(kind), "")
        others = set(others.normalize_str("".join(everything)))
        return _ranges(one for one in everything if one not in others)

    everything = normal_forms.characters()
    letters = everything[128:]
    plain = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s"), " "), normalizers.Lowercase()]
    ).normalize_str("|".join(letters))
    plain = zip(letters, plain.split("|"), strict=True)
    return (
        {one: other for one, other in plain if one != other},
        ranges(r"\p{L}"),
        ranges(r"\p{N}"),
    )


def _ranges(characters):
    r"""Writes sorted characters as ranges of a regular expression.

    >>> from acnn_tf.servable.sentence_vectors import _ranges
    >>> _ranges("abcx")
    '\\x{61}-\\x{63}\\x{78}-\\x{78}'
    """
    numbers = [ord(character) for character in characters]
    runs = itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    found = [[number for _, number in run] for _, run in runs]
    return "".join(rf"\x{{{run[0]:x}}}-\x{{{run[-1]:x}}}" for run in found)
