"""Words, vocabularies, word vectors and sentence vectors."""

import h5py
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from acnn_tf.data.sentences import (
    Vocabulary,
    read_glove,
    read_sentence_vectors,
    tokenize,
    write_sentence_vectors,
)
from acnn_tf.files.manifests import save_manifest
from acnn_tf.files.problems import FeatureError, UnknownIdError
from acnn_tf.files.text import normalize


def words_of(sentence):
    return [word.decode() for word in tokenize([sentence]).to_list()[0]]


def test_words_of_a_sentence(subtests):
    for sentence, words in (
        ("The man runs.", "the man runs"),
        ("  a  man,\ta dog;\n(runs)!", "a man a dog runs"),
        ("The chef's knife", "the chef 's knife"),
        ("the chef\u2019s knife", "the chef 's knife"),
        ("it's", "it 's"),
        ("chefs' knives", "chefs knives"),
        ("don't, they're", "dont theyre"),
        ("'scrambled' eggs 's", "scrambled eggs 's"),
        ("o'slow", "oslow"),
        ("S's SS", "s 's ss"),
        ("plastic/paper 1/2 3rd", "plastic paper 1 2 3rd"),
        ("ÉCOLE ÀÇ 日本", "école àç 日本"),
        ("नमस्ते", "नमस्ते"),
        ("...", ""),
        ("", ""),
    ):
        with subtests.test(sentence):
            assert words_of(sentence) == words.split()


def test_letters_written_in_two_ways_are_one_word():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert normalize(decomposed) == composed
    vocabulary = Vocabulary.from_sentences([composed])
    assert vocabulary.encode([decomposed]).tolist() == [[2]]


@given(st.text())
def test_words_hold_no_space_and_splitting_them_changes_nothing(sentence):
    words = words_of(normalize(sentence).encode(errors="replace").decode())
    assert all(word and not word.isspace() for word in words)
    assert words_of(" ".join(words)) == words


def test_splitting_runs_in_a_graph_with_tensorflow_operations_only():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def graph(sentences):
        return tokenize(sentences).to_tensor()

    assert graph(tf.constant(["A man's dog", "Runs"])).numpy().tolist() == [
        [b"a", b"man", b"'s", b"dog"],
        [b"runs", b"", b"", b""],
    ]
    operations = {
        op.type for op in graph.get_concrete_function().graph.get_operations()
    }
    assert not any("PyFunc" in operation for operation in operations)


def test_ids_leave_0_to_padding_and_1_to_unknown_words():
    vocabulary = Vocabulary(["a", "man", "'s"])
    ids = vocabulary.encode(["A man's", "the man", "", "!"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [[2, 3, 4], [1, 3, 0], [1, 0, 0], [1, 0, 0]]
    assert len(vocabulary) == 5
    assert vocabulary.words == ["a", "man", "'s"]


def test_a_sentence_is_mostly_known_by_more_than_half_of_its_words():
    read = Vocabulary(["a", "the", "man", "in"]).read(
        ["the man", "a man runs", "a dog", "the cat in the hat", "?!", ""]
    )
    assert read.is_mostly_known == [True, True, False, False, False, False]


def test_encoding_no_sentence_gives_no_row():
    assert Vocabulary(["a"]).encode([]).shape == (0, 1)


def test_words_are_sorted_by_count_and_then_by_alphabet():
    sentences = ["b a c", "C b", "d c"]  # c 3, b 2, a 1, d 1
    assert Vocabulary.from_sentences(sentences).words == ["c", "b", "a", "d"]
    assert Vocabulary.from_sentences(sentences, 2).words == ["c", "b"]
    assert Vocabulary.from_sentences([]).words == []


@given(st.lists(st.text(alphabet="ab' ", max_size=8), max_size=5))
def test_every_word_of_its_own_sentences_is_known(sentences):
    vocabulary = Vocabulary.from_sentences(sentences)
    ids = vocabulary.encode(sentences)
    for row, sentence in zip(ids, sentences, strict=True):
        words = [vocabulary.words[i - 2] for i in row if i > 1]
        assert words == words_of(sentence)


def test_words_of_a_vocabulary_are_distinct(refused):
    for words in (["a", "a"], ["a", ""]):
        with refused(ValueError, "distinct", words=words):
            Vocabulary(words)


@pytest.fixture
def glove(tmp_path):
    def write(content):
        path = tmp_path / "glove.txt"
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content)
        return path

    return write


def test_word_vectors_are_read_in_the_order_of_the_file(glove):
    path = glove("the 1 -2.5\né 3e-1 4\r\nof 5 6")
    words, vectors = read_glove(path)
    assert words == ["the", "é", "of"]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[1, -2.5], [0.3, 4], [5, 6]])
    words, vectors = read_glove(path, words=["of", "the", "dog"])
    assert words == ["the", "of"]
    assert vectors.tolist() == [[1.0, -2.5], [5.0, 6.0]]
    assert read_glove(path, max_words=1)[0] == ["the"]
    with pytest.raises(
        FeatureError, match="none of the 1 words, such as 'dog'"
    ):
        read_glove(path, words=["dog"])
    assert read_glove(path, max_words=0)[0] == []


def test_word_vectors_are_read_however_they_are_spelt(glove):
    # A byte-order mark, a header, blank lines, tabs, letters in two parts.
    text = "\ufeff4 2\nthe 1 2\n\ncafe\u0301\t3  4 \n\ncaf\u00e9 9 9\n4 5 6\n\n"
    words, vectors = read_glove(glove(text))
    assert words == ["the", "caf\u00e9", "4"]
    assert vectors.tolist() == [[1, 2], [3, 4], [5, 6]]
    words, vectors = read_glove(glove(text), words=["caf\u00e9"])
    assert (words, vectors.tolist()) == (["caf\u00e9"], [[3, 4]])
    # No header: of such vectors there are not so many numbers.
    assert read_glove(glove("4 3\n5 2\n"))[0] == ["4", "5"]


def test_word_vectors_with_a_manifest_are_as_it_says(glove):
    path = glove("the 1 2\nof 3 4\n")
    save_manifest(path, {path: 2})
    assert read_glove(path)[0] == ["the", "of"]
    glove("the 1 2\nof 3 5\n")
    with pytest.raises(FeatureError, match="other bytes"):
        read_glove(path, words=["the"])


def test_words_with_spaces_are_read_as_one(glove):
    # GloVe 840B has "at name@domain.com" and ". . .".
    words, vectors = read_glove(glove("the 1 2\n. . . 3 4\nat a@b.c 5 6\n"))
    assert words == ["the", ". . .", "at a@b.c"]
    assert vectors.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_bad_word_vector_is_named_by_its_line(refused, glove):
    for content, line, message in (
        ("", 1, "no records"),
        ("the\n", 1, "found 0 numbers"),
        ("the 1 2\nof 1\n", 2, "2 numbers, found 1 numbers .*cut short"),
        ("the 1 2\nof 1 2 3\n", 2, "2 numbers, found more"),
        ("the 1 2\nof 1 x\n", 2, "'of': expected 2 numbers"),
        ("the 1 2\nof 1 nan\n", 2, "'of': not all numbers are finite"),
        ("the 1 2\nof inf 1\n", 2, "finite"),
        ("the 1 2\nof 1e60 1\n", 2, "finite"),
        ("the 1 2\n 1 2\n", 2, "expected a word"),
        ("the 1 2\nof 1 2\nthe 3 4\n", 3, "'the' is already on line 1"),
        (b"the 1 2\n\xff 1 2\n", 2, "UTF-8"),
        (b"the 1 2\nof 1 \xff\n", 2, "'of': expected 2 numbers"),
    ):
        message = rf"glove\.txt:{line}: .*{message}"
        with refused(FeatureError, message, content=content):
            read_glove(glove(content))


def test_all_bad_word_vectors_are_told_at_once(glove):
    path = glove("the 1 2\nof 1\na 1 2\na 3 4\n")
    with pytest.raises(FeatureError) as error:
        read_glove(path)
    assert [problem.line for problem in error.value.problems] == [2, 4]
    # A line that is too short is told even if its word is not wanted.
    with pytest.raises(FeatureError, match=r"glove\.txt:2"):
        read_glove(path, words=["the"])
    # A file of another kind does not fill the memory with what is wrong in it.
    path = glove("2 3\n" + "the 1 2\n" * 3000)
    with pytest.raises(FeatureError) as error:
        read_glove(path)
    assert len(error.value.problems) == 1000


VECTORS = {
    "q1": np.array([1.0, 2.0]),
    "v_1_9": np.array([[3.0, 4.0], [5.0, 6.0]]),
    "v_2.5_9": np.array([7.0, 8.0], np.float16),
}


def save_vectors(path, vectors):
    if path.suffix:
        with h5py.File(path, "w") as file:
            for name, vector in vectors.items():
                file[name] = vector
    else:
        path.mkdir()
        for name, vector in vectors.items():
            np.save(path / f"{name}.npy", vector)
    return path


@pytest.fixture(params=["vectors.hdf5", "vectors"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_sentence_vectors_by_query_or_by_video_start_end(path):
    vectors = read_sentence_vectors(save_vectors(path, VECTORS))
    assert vectors.dim == 2
    assert vectors["q1"].dtype == np.float32
    assert vectors["q1"].tolist() == [1, 2]
    assert vectors["v_1_9_0"].tolist() == [3, 4]
    assert vectors["v_1_9_1"].tolist() == [5, 6]
    assert vectors["v_2.5_9_0"].tolist() == [7, 8]
    vectors.close()


def test_unknown_query_names_the_file_and_the_query(refused, path):
    vectors = read_sentence_vectors(save_vectors(path, VECTORS))
    for query in ("q2", "w_1_9_0", "v_1_9_x", "q1_"):
        with refused(UnknownIdError, f"vectors.*{query!r}"):
            vectors[query]


def test_bad_sentence_vector_is_named(refused, tmp_path):
    for number, (vector, query, message) in enumerate(
        (
            (np.ones(3), "b", "'b': expected 2 numbers"),
            (np.ones((0, 2)), "b_0", "shape"),
            (np.ones((1, 1, 2)), "b", "shape"),
            (np.ones((2, 2)), "b", "2 vectors, wanted for 'b'"),
            (np.ones((2, 2)), "b_2", "2 vectors, wanted for 'b_2'"),
        )
    ):
        for path in (tmp_path / f"{number}.hdf5", tmp_path / f"{number}"):
            save_vectors(path, {"a": np.ones(2), "b": vector})
            with refused(FeatureError, f"{path.name}.*{message}"):
                read_sentence_vectors(path)[query]


def test_written_sentence_vectors_are_read_and_have_a_manifest(tmp_path):
    path = tmp_path / "v.h5"
    write_sentence_vectors(path, VECTORS)
    assert read_sentence_vectors(path)["v_1_9_1"].tolist() == [5, 6]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(FeatureError, match=r"v\.h5: has .* bytes, but"):
        read_sentence_vectors(path)


def test_real_word_vectors(shared_data):
    path = shared_data / "glove" / "glove.300d.charades.txt"
    words, vectors = read_glove(path, words=["door", "person"])
    assert sorted(words) == ["door", "person"]
    assert vectors.shape == (2, 300)
    assert len(read_glove(path)[0]) == 1096
