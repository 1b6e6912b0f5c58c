"""Sentences -> words, words -> ids; word vectors and sentence vectors."""

from __future__ import annotations

import codecs
import collections
import os
import re
import typing
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from acnn_tf.files.arrays import open_arrays
from acnn_tf.files.hdf5 import write_hdf5
from acnn_tf.files.manifests import check_file, replacing_with_manifest
from acnn_tf.files.names import paths_of
from acnn_tf.files.problems import FeatureError, Problem, UnknownIdError
from acnn_tf.files.text import normalize

if typing.TYPE_CHECKING:
    from acnn_tf.data.annotations import Moment
    from acnn_tf.encoders import Encoder

PADDING, UNKNOWN = 0, 1
_FIRST_WORD = 2
# Of a file of word vectors: one of another kind has as many as lines.
_MOST_PROBLEMS = 1000
# Those of `normalize`, for a graph, which may be given what was not put
# through it.
CONTROLS = r"[\p{Cc}\x{202a}-\x{202e}\x{2066}-\x{2069}]"


def tokenize(sentences: tf.Tensor | Sequence[str]) -> tf.RaggedTensor:
    """Splits sentences into words, in lower case.

    "'s" is a word of its own, as in GloVe; other apostrophes are left out
    ("don't" -> "dont") and other punctuation parts words. The operations are
    TensorFlow's, so that they can be part of a SavedModel.

    Args:
        sentences: String tensor or list of strings, `[Q]`, in UTF-8, put
            through `normalize`.

    Returns:
        Ragged string tensor `[Q, (L)]`.

    Example:

    >>> from acnn_tf.data.sentences import tokenize
    >>> tokenize(["The chef's knife, again!"]).to_list()
    [[b'the', b'chef', b"'s", b'knife', b'again']]
    """
    text = tf.convert_to_tensor(sentences, tf.string)
    # Before letters, some of which are lowered by what follows them.
    text = tf.strings.regex_replace(text, CONTROLS, " ")
    text = tf.strings.lower(text, encoding="utf-8")
    text = tf.strings.regex_replace(
        text, "\N{RIGHT SINGLE QUOTATION MARK}", "'"
    )
    # In lower case an "S" can stand for "'s" while punctuation goes.
    text = tf.strings.regex_replace(text, r"'s([^\pL\pM\pN]|$)", r" S \1")
    text = tf.strings.regex_replace(text, "'", "")
    text = tf.strings.regex_replace(text, r"[^\pL\pM\pN]+", " ")
    text = tf.strings.regex_replace(text, "S", "'s")
    return tf.strings.split(text)


class Vocabulary:
    """Words and their ids: 0 is padding, 1 an unknown word, 2 the first word.

    Args:
        words: Iterable of distinct words, as `tokenize` makes them.

    Example:

    >>> from acnn_tf.data import Vocabulary
    >>> vocabulary = Vocabulary(["a", "man", "runs"])
    >>> vocabulary.encode(["A man runs.", "A dog"]).tolist()
    [[2, 3, 4], [2, 1, 0]]
    """

    def __init__(self, words: Iterable[str]):
        self.words = list_of_strings(words, "words")
        self._ids = {
            word: number
            for number, word in enumerate(self.words, start=_FIRST_WORD)
        }
        if len(self._ids) < len(self.words) or "" in self._ids:
            counts = collections.Counter(self.words)
            bad = [w for w, count in counts.items() if count > 1 or not w]
            raise ValueError(
                f"`words` must be distinct and not empty. Received: {bad[:5]}"
            )

    @classmethod
    def from_sentences(
        cls, sentences: Iterable[str], min_count: int = 1
    ) -> Vocabulary:
        """The words of `sentences`, the most frequent first, then by alphabet.

        Args:
            sentences: The sentences.
            min_count: Words that occur less often than this are left out.

        Returns:
            The vocabulary of these words.

        Example:

        >>> from acnn_tf.data import Vocabulary
        >>> Vocabulary.from_sentences(["A man runs.", "A man sits."]).words
        ['a', 'man', 'runs', 'sits']
        """
        counts = collections.Counter(
            word for words in _words(sentences) for word in words
        )
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls(word for word, count in ordered if count >= min_count)

    def __len__(self):
        """Number of ids, with those of padding and of unknown words."""
        return len(self.words) + _FIRST_WORD

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Ids of the words of each sentence.

        Args:
            sentences: List of strings, `[Q]`.

        Raises:
            ValueError: If `sentences` is no list of strings, or `normalize`
                refuses a sentence.

        Returns:
            `int32 [Q, L]`, padded with 0 to the longest; `[1]` for a sentence
            without words.
        """
        return self.read(sentences).queries

    def read(self, sentences: Sequence[str]) -> ReadSentences:
        """The ids of sentences, and which of their words have none.

        Args:
            sentences: List of strings, `[Q]`.

        Returns:
            `ReadSentences`.

        Raises:
            ValueError: If `sentences` is no list of strings, or `normalize`
                refuses a sentence.

        Example:

        >>> from acnn_tf.data import Vocabulary
        >>> read = Vocabulary(["a", "man"]).read(["A dog and a man", "?!"])
        >>> read.unknown_words, read.is_known
        ([['dog', 'and'], []], [True, False])
        """
        words = _words(sentences)
        longest = max([1, *map(len, words)])
        queries = np.full((len(words), longest), PADDING, np.int32)
        for row, own in zip(queries, words, strict=True):
            row[0] = UNKNOWN  # where there are no words
            row[: len(own)] = [self._ids.get(word, UNKNOWN) for word in own]
        unknown = [
            list(dict.fromkeys(word for word in own if word not in self._ids))
            for own in words
        ]
        is_known = (queries > UNKNOWN).any(axis=1).tolist()
        is_mostly_known = [
            2 * len(missing) < len(set(own))
            for own, missing in zip(words, unknown, strict=True)
        ]
        return ReadSentences(queries, unknown, is_known, is_mostly_known)


class ReadSentences(typing.NamedTuple):
    """Sentences as a model takes them.

    Attributes:
        queries: What the model's `encode_queries` takes, a row for each
            sentence.
        unknown_words: For each sentence, the words that the model does not
            know.
        is_known: For each sentence, whether the model knows any of its words.
            If not, there is nothing to search for.
        is_mostly_known: For each sentence, whether the model knows more than
            half of its words, each counted once. If not, a score says nothing
            of how likely a moment is right.
    """

    queries: np.ndarray
    unknown_words: list
    is_known: list
    is_mostly_known: list


def list_of_strings(values: Iterable[str], name: str) -> list[str]:
    """The values as a list. A single string is refused: it is no list.

    Raises:
        ValueError: If `values` is a string, or has a value that is no string.
    """
    if isinstance(values, (str, bytes)):
        raise ValueError(
            f"`{name}` must be a list of strings. Received: {values!r:.60}"
        )
    values = list(values)
    if wrong := [value for value in values if not isinstance(value, str)]:
        raise ValueError(
            f"`{name}` must be strings. Received: {wrong[0]!r:.60}"
        )
    return values


def encode(sentences: Sequence[str], encoder: Encoder) -> ReadSentences:
    """Sentences as vectors of an encoder: `Vocabulary.read` without words.

    Args:
        sentences: The sentences, `[Q]`.
        encoder: An encoder that has `encode_sentences`.

    Returns:
        `ReadSentences`, whose queries are `float32 [Q, E]`. No word is
        unknown; only a sentence without letters cannot be searched for.
    """
    sentences = _normalized_list(sentences)
    is_known = [any(map(str.isalnum, sentence)) for sentence in sentences]
    return ReadSentences(
        encoder.encode_sentences(sentences),
        [[] for _ in sentences],
        is_known,
        is_known,
    )


def _normalized_list(sentences):
    return [
        _normalized(row, sentence)
        for row, sentence in enumerate(list_of_strings(sentences, "sentences"))
    ]


def _words(sentences):
    sentences = _normalized_list(sentences)
    if not sentences:
        return []
    return [
        [word.decode() for word in words]
        for words in tokenize(sentences).to_list()
    ]


def _normalized(row, sentence):
    try:
        return normalize(sentence)
    except ValueError as error:
        raise ValueError(f"`sentences`, row {row}: {error}") from None


def query_inputs(
    moments: Sequence[Moment],
    vocabulary: Sequence[str] | None = None,
    vectors: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """What a model's `encode_queries` takes, a row for each moment.

    Args:
        moments: The moments whose queries are meant.
        vocabulary: The model's words, for a model that has a vocabulary.
        vectors: Mapping from query id to `[E]`, for a model that takes
            vectors of sentences.

    Returns:
        `int32 [Q, L]` word ids or `float32 [Q, E]` sentence vectors.

    Example:

    >>> from acnn_tf.data import Moment, query_inputs
    >>> moment = Moment("1", "A dog runs.", "v", 9.0, ((0.0, 5.0),))
    >>> query_inputs([moment], vocabulary=["a", "dog"]).tolist()
    [[2, 3, 1]]
    """
    if vocabulary is not None:
        return Vocabulary(vocabulary).encode([m.query for m in moments])
    if vectors is None:
        raise ValueError(
            "This model has no vocabulary: it needs `sentence_vectors`, a "
            "mapping from query ids to vectors."
        )
    return np.stack([vectors[moment.query_id] for moment in moments])


def read_glove(
    path: str | os.PathLike,
    words: Iterable[str] | None = None,
    max_words: int | None = None,
) -> tuple[list[str], np.ndarray]:
    r"""Reads word vectors from a text file, a word and its numbers a line.

    Words are brought to one form (Unicode NFC), as `normalize` does with
    sentences. If two lines then have the same word, the first one counts.

    Args:
        path: File as GloVe publishes them, UTF-8; a first line with the
            numbers of words and of columns, as word2vec and fastText write
            it, is left out, and so are blank lines.
        words: The words to take. Default: all words.
        max_words: The most words to take, from the top of the file.

    Returns:
        `(words, vectors)`: list of the N words that were found, in the order
        of the file, and `float32 [N, D]`.

    Raises:
        FeatureError: If a line is not UTF-8, repeats a word, or does not hold
            as many finite numbers as the first line; the message lists up to
            1,000 such lines. Also if the file has none of `words`, or is not
            as its manifest says. Lines of words that were not asked for are
            not checked.

    Example:

    >>> import tempfile
    >>> from acnn_tf.data import read_glove
    >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    ...     _ = file.write("the 0.5 1\nof -1 2\n")
    ...     file.flush()
    ...     words, vectors = read_glove(file.name)
    >>> words, vectors.tolist()
    (['the', 'of'], [[0.5, 1.0], [-1.0, 2.0]])
    """
    path = os.fspath(path)
    wanted = None if words is None else _spellings(words)
    if damage := check_file(path):
        raise FeatureError(damage)
    found, vectors, problems, dim = {}, [], [], None
    seen, line = {}, None
    for line, data in _vector_lines(path):
        if max_words is not None and len(found) >= max_words:
            break
        if len(problems) >= _MOST_PROBLEMS:
            break
        word, _, numbers = data.partition(b" ")
        count = data.count(b" ")
        if dim is None:
            dim = count
        try:
            if count > dim:
                word, numbers = _long_word(data, dim)
            elif not word or count < dim or not dim:
                raise ValueError(
                    f"expected a word and {dim or 'its'} numbers, found "
                    f"{count} numbers in {data[:40]!r}; is the file cut short?"
                )
            if wanted is not None and word not in wanted:
                continue
            name = unicodedata.normalize("NFC", word.decode("utf-8"))
            if word in seen:
                raise ValueError(
                    f"word {name!r} is already on line {seen[word]}; remove "
                    "one of the two"
                )
            seen[word] = line
            vector = _vector(numbers, name, dim)
            if name not in found:
                found[name] = line
                vectors.append(vector)
        except UnicodeDecodeError:
            message = f"is not UTF-8: {word[:40]!r}"
            problems.append(Problem(path, line, message))
        except ValueError as error:
            problems.append(Problem(path, line, str(error)))
    if line is None:
        problems.append(Problem(path, 1, "the file holds no records"))
    elif wanted and not found and not problems:
        message = (
            f"has none of the {len(words):,} words, such as "
            f"{', '.join(map(repr, list(words)[:3]))}; are they of another "
            "language, or the file no text of word vectors?"
        )
        problems.append(Problem(path, None, message))
    if problems:
        raise FeatureError(problems)
    return list(found), np.array(vectors, np.float32).reshape(
        len(vectors), dim or 0
    )


def _spellings(words):
    """The words in UTF-8, in the ways in which Unicode can write them."""
    return {
        unicodedata.normalize(form, word).encode()
        for word in words
        for form in ("NFC", "NFD")
    }


def _vector_lines(path):
    """Yields `(line, data)` of lines with a word, with single spaces."""
    with open(path, "rb") as file:
        lines = enumerate(map(_single_spaces, file), start=1)
        lines = ((line, data) for line, data in lines if data)
        line, first = next(lines, (1, b""))
        first = first.removeprefix(codecs.BOM_UTF8)
        second = next(lines, None)
        # The header of word2vec: how many words there are, and how wide.
        header = re.fullmatch(rb"\d+ (\d+)", first)
        if not (header and second) or second[1].count(b" ") != int(header[1]):
            yield from [(line, first)] if first else []
        yield from [second] if second else []
        yield from lines


def _single_spaces(data):
    data = data.replace(b"\t", b" ").strip()
    return b" ".join(data.split()) if b"  " in data else data


def _long_word(data, dim):
    """Splits a line whose word holds spaces, as some of GloVe 840B do."""
    word, *numbers = data.rsplit(b" ", dim)
    try:
        float(word.rpartition(b" ")[2])
    except ValueError:
        return word, b" ".join(numbers)
    raise ValueError(
        f"expected a word and {dim} numbers, found more in {data[:40]!r}"
    )


def _vector(numbers, name, dim):
    with warnings.catch_warnings():
        # Older NumPy only warns of what is not a number.
        warnings.simplefilter("error")
        try:
            vector = np.fromstring(numbers, np.float32, sep=" ")
        except (ValueError, DeprecationWarning):
            vector = np.zeros(0)
    if len(vector) != dim:
        raise ValueError(
            f"word {name!r}: expected {dim} numbers, found {numbers[:40]!r}"
        )
    if not np.isfinite(vector).all():
        raise ValueError(f"word {name!r}: not all numbers are finite")
    return vector


class SentenceVectors:
    """Sentence vectors by query id, each float32 `[E]`.

    A file may hold a vector for each query id. It may instead hold a vector or
    an array `[N, E]` for each `VIDEO_START_END`. The query id is then
    `VIDEO_START_END_K`, as for annotations without ids of their own, and K is
    the row.

    Args:
        path: `.hdf5` or `.h5` file, a folder of `.npy` files, or a pickle such
            as `{train,test}_clip-sentvec.pkl`; see
            `acnn_tf.files.pickles.PickleFile`. No code in a pickle is run.
            Several of them, with commas between, are read as one.

    Attributes:
        path: Where the vectors lie.
        dim: E.

    Raises:
        FeatureError: If two files hold a vector of the same name.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        self._known = {}  # name -> the arrays that it is in
        for one in paths_of(path):
            arrays = open_arrays(one)
            for name in arrays.names:
                if name in self._known:
                    arrays.fail(
                        name,
                        f"is in {self._known[name].path}, too; remove one of "
                        "the two",
                    )
                self._known[name] = arrays
        self.dim = self._read(next(iter(self._known))).shape[1]

    def __getitem__(self, query_id: str) -> np.ndarray:
        name, row = str(query_id), "0"
        if name not in self._known:
            name, _, row = name.rpartition("_")
        if name not in self._known or not row.isdecimal():
            raise UnknownIdError(
                f"{self.path} has no vector for query {query_id!r}, nor for "
                f"{name!r}; compute it, or leave out the query"
            )
        vectors, arrays = self._read(name), self._known[name]
        if vectors.shape[1] != self.dim:
            arrays.fail(
                name,
                f"expected {self.dim} numbers as in the others, found "
                f"{vectors.shape[1]}",
            )
        if int(row) >= len(vectors) or (
            name == str(query_id) and len(vectors) > 1
        ):
            arrays.fail(
                name, f"holds {len(vectors)} vectors, wanted for {query_id!r}"
            )
        return vectors[int(row)]

    def _read(self, name):
        vectors = self._known[name].read(name)
        if vectors.ndim not in (1, 2) or 0 in vectors.shape:
            self._known[name].fail(
                name,
                "expected a vector or sentences x numbers, found shape "
                f"{vectors.shape}",
            )
        return np.atleast_2d(vectors)

    def close(self) -> None:
        """Closes the files."""
        for arrays in set(self._known.values()):
            arrays.close()


def read_sentence_vectors(path: str | os.PathLike) -> SentenceVectors:
    """Opens a file of sentence vectors, such as Skip-thoughts.

    Args:
        path: `.hdf5` or `.h5` file, folder of `.npy` files, or pickle; see
            `SentenceVectors`.

    Returns:
        `SentenceVectors`: a mapping from query id to float32 `[E]`.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from acnn_tf.data import read_sentence_vectors
    >>> folder = tempfile.mkdtemp()
    >>> np.save(folder + "/query7.npy", np.array([0.5, 1.0], np.float32))
    >>> read_sentence_vectors(folder)["query7"].tolist()
    [0.5, 1.0]
    """
    return SentenceVectors(path)


def write_sentence_vectors(
    path: str | os.PathLike, vectors: Mapping[str, np.ndarray]
) -> None:
    """Writes sentence vectors in a form that `read_sentence_vectors` reads.

    An older file stays until the new one is complete. The new file gets a
    manifest; see `acnn_tf.files.manifests`.

    Args:
        path: `.hdf5` or `.h5` file.
        vectors: Mapping from the names that `SentenceVectors` explains to
            floats `[E]` or `[N, E]`, which keep their dtype.

    Raises:
        WriteError: If the file could not be written, as on a full disk.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from acnn_tf.data import read_sentence_vectors, write_sentence_vectors
    >>> path = tempfile.mkdtemp() + "/vectors.hdf5"
    >>> write_sentence_vectors(path, {"v_0_5": np.ones((2, 3), np.float32)})
    >>> read_sentence_vectors(path)["v_0_5_1"].tolist()
    [1.0, 1.0, 1.0]
    """
    if os.path.splitext(path)[1] not in (".hdf5", ".h5"):
        raise ValueError(
            f"`path` must end in .hdf5 or .h5. Received: {os.fspath(path)}"
        )
    with replacing_with_manifest(path, len(vectors)) as partial:
        write_hdf5(partial, vectors)
