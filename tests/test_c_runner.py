"""The program on the C API, with models that a reader computes in the head."""

import numpy as np
import pytest
import tensorflow as tf

from tests import c_runner


class Toy(tf.Module):
    """Numbers of every type, strings, and a table that init fills."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable([10.0, 1.0])
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                ["door", "cup"], tf.constant([7, 8], tf.int64)
            ),
            default_value=-1,
        )

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="x")])
    def dot(self, x):
        return {"y": tf.linalg.matvec(x, self.weight)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "word")])
    def words(self, word):
        return {
            "number": self.table.lookup(word),
            "twice": tf.strings.join([word, word]),
        }

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float64, "double"),
            tf.TensorSpec([], tf.int32, "int"),
            tf.TensorSpec([None, None], tf.int64, "long"),
            tf.TensorSpec([None], tf.bool, "flag"),
        ]
    )
    def types(self, double, int, long, flag):
        return {
            "double": double / 2,
            "int": int + 1,
            "long": long + 1,
            "flag": ~flag,
        }

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, "x")])
    def python(self, x):
        return {"y": tf.numpy_function(lambda value: value, [x], tf.float32)}


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy = Toy()
    names = ("dot", "words", "types", "python")
    signatures = {name: getattr(toy, name) for name in names}
    tf.saved_model.save(toy, str(folder), signatures=signatures)
    return folder


def test_one_load_runs_many_requests(program, saved_model):
    # The words are in the table only if loading ran the init op.
    numbers, words, again = c_runner.run(
        program,
        saved_model,
        [
            ("dot", {"x": np.array([[1, 2], [0.5, 0]], np.float32)}),
            ("words", {"word": ["cup", "door", "sofa"]}),
            ("dot", {"x": np.zeros((0, 2), np.float32)}),
        ],
    )
    # 10 * 1 + 1 * 2, 10 * 0.5.
    np.testing.assert_array_equal(numbers["y"], np.float32([12, 5]))
    assert numbers["y"].dtype == np.float32
    np.testing.assert_array_equal(words["number"], [8, 7, -1])
    assert list(words["twice"]) == [b"cupcup", b"doordoor", b"sofasofa"]
    assert again["y"].shape == (0,)


def test_every_type_arrives_as_it_was_sent(program, saved_model):
    (outputs,) = c_runner.run(
        program,
        saved_model,
        [
            (
                "types",
                {
                    "double": np.array([1.0, 3.0]),
                    "int": np.int32(41),
                    "long": np.array([[2**40], [-2]]),
                    "flag": np.array([True, False, True]),
                },
            )
        ],
    )
    expected = {
        "double": np.array([0.5, 1.5]),
        "int": np.array(42, np.int32),
        "long": np.array([[2**40 + 1], [-1]]),
        "flag": np.array([False, True, False]),
    }
    assert outputs.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(outputs[name], array, strict=True)


def test_strings_keep_their_bytes(program, saved_model):
    # Empty, with zero bytes, beyond ASCII, and too long to be kept inline.
    sent = ["", b"\0a\0", "Tür", b"\xff", "x" * 5000]
    (outputs,) = c_runner.run(program, saved_model, [("words", {"word": sent})])
    assert list(outputs["twice"]) == [
        b"",
        b"\0a\0\0a\0",
        "TürTür".encode(),
        b"\xff\xff",
        b"x" * 10000,
    ]


@pytest.mark.parametrize(
    "request_, message",
    [
        (("dot", {"x": np.zeros((1, 3), np.float32)}), "(?i)in\\[0\\]|shape"),
        (("dot", {"x": np.zeros((1, 2))}), "double.*float|float.*double"),
        (("dot", {}), "dot_x"),
        # What lives in the Python process is not in the SavedModel.
        (("python", {"x": np.float32(1)}), "pyfunc|PyFunc"),
    ],
)
def test_errors_carry_the_message_of_tensorflow(
    program, saved_model, request_, message
):
    with pytest.raises(RuntimeError, match=message):
        c_runner.run(program, saved_model, [request_])


def test_unknown_names_are_told_with_the_known(program, saved_model):
    with pytest.raises(ValueError, match=r"'search'.*'dot'"):
        c_runner.run(program, saved_model, [("search", {})])
    with pytest.raises(ValueError, match=r"'clip'.*'x'"):
        c_runner.run(program, saved_model, [("dot", {"clip": [1.0]})])


def test_a_damaged_model_is_an_error(program, saved_model, tmp_path):
    # Without its variables.
    whole = (saved_model / "saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(whole)
    request = ("dot", {"x": np.zeros((1, 2), np.float32)})
    with pytest.raises(RuntimeError, match="variable"):
        c_runner.run(program, tmp_path, [request])
