import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow.core.framework import tensor_pb2

from export.protocol import bodies, tensors

NUMBERS = ["float16", "float32", "float64", "bool", "complex64", "complex128"]
NUMBERS += [f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)]


def any_array(name):
    shape = arrays.array_shapes(min_dims=0, min_side=0, max_side=4)
    return arrays.arrays(np.dtype(name), shape)


@given(st.sampled_from(NUMBERS).flatmap(any_array))
def test_protos_are_those_of_tensorflow(array):
    proto = tensors.to_proto(array)
    assert proto.ByteSize() == len(proto.SerializeToString())
    for found in (
        tf.make_ndarray(proto),
        tensors.from_proto(proto),
        tensors.from_proto(tf.make_tensor_proto(array)),
    ):
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()


def test_values_stand_in_the_lists_that_tensorflow_serving_fills():
    proto = tensors.to_proto(np.array([[1.5], [-2]], np.float32))
    assert list(proto.float_val) == [1.5, -2]
    assert not proto.tensor_content
    assert list(tensors.to_proto(np.array([True, False])).bool_val) == [1, 0]
    large = np.arange(1000.0)
    assert list(tensors.to_proto(large).double_val) == large.tolist()


def test_bfloat16_keeps_its_bits():
    array = tf.constant([1, 1e-3, -3e38], tf.bfloat16).numpy()
    proto = tensors.to_proto(array)
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)
    np.testing.assert_array_equal(tensors.from_proto(proto), array)
    assert tensors.to_json(array[:1]) == [1.0]


def test_strings_keep_every_byte():
    array = np.array([[b"\x00\xff", b"", b"a\x00"]], object)
    found = tensors.from_proto(tensors.to_proto(array))
    assert found.tolist() == array.tolist()
    assert tensors.from_proto(tensors.to_proto("ä")) == "ä".encode()


def test_one_value_stands_for_all_of_a_small_tensor(refused):
    found = tensors.from_proto(tf.make_tensor_proto(7, shape=[2, 3]))
    assert found.tolist() == [[7] * 3] * 2
    large = tf.make_tensor_proto(7, shape=[2**14 + 1])
    text = tf.make_tensor_proto("a" * 2**15, shape=[2])
    for bad in (large, text):
        with refused(ValueError, "in up to 65536 bytes only"):
            tensors.from_proto(bad)


def test_lists_are_read_packed_or_not_and_with_their_signs():
    for number, value, dtype, values in (
        (
            3,
            b"\x38\x07\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            int,
            [7, -1],
        ),
        (1, b"\x2d\0\0\x80\x3f\x2a\x04\0\0\0\x40", float, [1, 2]),
        (10, b"\x5a\x02\x02\0", bool, [True, False]),
    ):
        message = bytes([8, number]) + b"\x12\x04\x12\x02\x08\x02" + value
        found = tensors.WireTensor(message).array(1000)
        assert found.astype(dtype).tolist() == values
    many = np.arange(-(2**20), 2**20)
    assert (tensors.from_proto(tensors.to_proto(many)) == many).all()


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reading_of_a_proto(message):
    try:
        array = tensors.WireTensor(message).array(1000)
    except ValueError:
        return
    # It may take fields of a wrong kind for right ones.
    assert array.nbytes <= 1000


def proto(shape, dtype=tf.float32, **values):
    found = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, **values)
    for size in shape:
        found.tensor_shape.dim.add(size=size)
    return found


def test_protos_that_do_not_fit_are_refused(refused):
    for bad, message in (
        (proto([2], float_val=[1, 2, 3]), "2 values, but has 3"),
        (proto([3], float_val=[1, 2]), "3 values, but has 2"),
        (proto([3]), "3 values, but has 0"),
        (proto([2], tensor_content=b"1234567"), "has 7 bytes"),
        (proto([1], tf.string, tensor_content=b"12"), "has 2 bytes"),
        (proto([-1], float_val=[1]), "unknown shape"),
        (proto([1] * 33, float_val=[1]), "rank 33"),
        (proto([2**62], float_val=[1]), "more than the 1000 bytes"),
        (proto([2**62] * 9, float_val=[1]), "more than the 1000 bytes"),
        (proto([0, 2**62, 2**62]), "more than the 1000 bytes"),
        (proto([9], tf.string, string_val=[b"1" * 99]), "than the 1000 bytes"),
        (proto([1], tf.int8, int_val=[128]), "do not fit into int8"),
        (proto([1], tf.float16, half_val=[-1]), "do not fit into float16"),
        (proto([1], tf.complex64, scomplex_val=[1]), "half a number"),
        (proto([1], tf.resource), "not served"),
        (tensor_pb2.TensorProto(), "not served"),
        (proto([1], variant_val=[{}] * 2**17), "more than 8192 values"),
        (proto([1] * 2000, float_val=[1]), "more than 1000 values"),
    ):
        with refused(ValueError, message):
            message = bad.SerializeToString()
            tensors.WireTensor(message).array(max_bytes=1000)


@given(any_array("float32"))
def test_floats_survive_json(array):
    text = json.dumps(tensors.to_json(array))
    found = tensors.from_json(json.loads(text), "float32")
    if array.size:  # [] says nothing of the dimensions behind a zero
        np.testing.assert_array_equal(found, array)


def test_floats_are_written_short():
    array = np.array([0.1, np.nan, np.inf, -np.inf], np.float32)
    assert json.dumps(tensors.to_json(array)) == (
        "[0.1, NaN, Infinity, -Infinity]"
    )


def test_strings_in_json():
    value = ["ä", {"b64": "AP8="}, {"b64": "AP8"}]
    found = tensors.from_json(value, "string")
    assert found.tolist() == ["ä".encode(), b"\x00\xff", b"\x00\xff"]
    assert tensors.to_json(found[:1]) == ["ä"]
    assert tensors.to_json(found, as_bytes=True)[1] == {"b64": "AP8="}
    with pytest.raises(ValueError, match="not UTF-8"):
        tensors.to_json(found)


def test_json_that_does_not_fit_is_refused(refused):
    for *case, message in (
        ([[1, 2], [3]], "float32", "ragged: .* at depth 1"),
        ([[1, 2], 3], "float32", "ragged: .*bare value"),
        ([1, [2]], "float32", "ragged"),
        ([True], "float32", "float32, but has true"),
        (["1"], "float32", 'float32, but has "1"'),
        ([None], "float32", "has null"),
        ([{}], "float32", "has an object"),
        ([1.0], "int32", "int32, but has 1.0"),
        ([True], "int32", "int32, but has true"),
        ([1], "bool", "bool, but has 1"),
        ([300], "uint8", "cannot hold 300"),
        ([2**70], "int64", "cannot hold"),
        ([1e300], "float32", "cannot hold 1e"),
        ([2**24], "float32", "cannot hold 16777216"),
        ([10**400], "float64", "too small"),
        ([1], "complex64", "Use gRPC"),
        ([1], "string", "has 1"),
        ([{"b64": "?"}], "string", "not base64"),
        ([{"b64": 1}], "string", "has an object"),
        (["\ud800"], "string", "surrogate"),
    ):
        with refused(ValueError, message):
            tensors.from_json(*case)


def test_bad_bodies_are_refused(refused):
    for case, message in (
        (b"", "must be JSON"),
        (b"\xff", "UTF-8. Byte 0"),
        (b"{", "must be JSON"),
        (b"[1]", "must be an object .* a list of 1"),
        (b'{"a": 1, "a": 2}', 'The key "a" stands twice'),
        (b"[" * 10**5, "nested too deeply"),
        (b"[" + b"1" * 10**4 + b"]", "digits"),
    ):
        with refused(ValueError, message):
            bodies.parse_json(case)


def test_inputs_that_do_not_fit_are_refused(refused):
    dtypes = {"a": "int32", "b": "float32"}
    for body, message in (
        ({}, "either `instances`"),
        ({"instances": [1], "inputs": [1]}, "either `instances`"),
        ({"instances": []}, "at least one row"),
        ({"instances": 1}, "at least one row"),
        ({"instances": [1]}, "has 2 inputs"),
        ({"inputs": [1]}, "has 2 inputs"),
        ({"inputs": {"a": 1, "c": 1}}, r"Missing: \['b'\]. Unknown: \['c'\]"),
        ({"instances": [{"a": 1, "b": 1}, 1]}, "Row 1 .* must be an object"),
        ({"instances": [{"a": 1, "b": 1}, {"a": 1}]}, "row 1 .*Missing"),
        ({"inputs": {"a": 1, "b": "x"}}, "Input `b` is of dtype float32"),
    ):
        with refused(ValueError, message):
            bodies.inputs_from_json(body, dtypes)
