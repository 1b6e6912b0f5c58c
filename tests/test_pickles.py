"""Pickles: plain data and NumPy arrays come out, nothing else is run."""

import collections
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from acnn_tf.data.annotations import read_moments
from acnn_tf.data.sentences import read_sentence_vectors
from acnn_tf.files.arrays import open_arrays
from acnn_tf.files.pickles import unpickle
from acnn_tf.files.problems import DataError, FeatureError, UnknownIdError
from acnn_tf.files.text import read_numbers

VALUES = {
    "numbers": [0, -1, 255, 256, 65536, 2**40, -(2**40), 2.5, True, None],
    "text": ["", "é", "\N{SNOWMAN}", b"\xff\n'"],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "arrays": [
        np.arange(6, dtype=">f4").reshape(2, 3).T,
        np.zeros((0, 2), np.float64),
        np.array(2.5, np.float16),
        np.array([True, False]),
    ],
}


def equal(one, other):
    if isinstance(other, np.ndarray):
        return np.array_equal(one, other) and one.shape == other.shape
    if isinstance(other, (list, tuple)):
        return type(one) is type(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


def test_plain_values_come_back_from_every_protocol():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        value = unpickle(pickle.dumps(VALUES, protocol))
        assert list(value) == list(VALUES)
        for name, values in VALUES.items():
            assert equal(value[name], values), (protocol, name)
        scalars = [np.float32(0.5), np.int64(7), np.bool_(True)]
        assert unpickle(pickle.dumps(scalars, protocol)) == [0.5, 7, True]
        ordered = collections.OrderedDict([("b", 1), (2, 3)])
        assert unpickle(pickle.dumps(ordered, protocol)) == {"b": 1, 2: 3}
    # As Python 2 writes it.
    pairs = b"ccollections\nOrderedDict\n((lp1\n(lp2\nS'b'\naI1\naatR."
    assert unpickle(pairs) == {b"b": 1}


def python2(value, protocol):
    """A pickle as Python 2 writes it: its text is bytes, named `str`."""
    if type(value) is list:
        items = b"".join(python2(item, protocol) + b"a" for item in value)
        return (b"]" if protocol else b"(l") + items
    if type(value) is dict:
        items = (
            python2(key, protocol) + python2(item, protocol) + b"s"
            for key, item in value.items()
        )
        return (b"}" if protocol else b"(d") + b"".join(items)
    if type(value) is int:
        return b"I%d\n" % value
    if type(value) is np.ndarray:
        text = python2(value.tobytes(), protocol)
        shape = b"".join(b"I%d\n" % size for size in value.shape)
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n"
            b"(cnumpy\nndarray\n(I0\ntS'b'\ntR"
            b"(I1\n(" + shape + b"tcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR"
            b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n" + text + b"tb"
        )
    data = value.encode() if type(value) is str else value
    if protocol:
        return b"T" + struct.pack("<i", len(data)) + data
    escaped = repr(data)[1:].encode()
    return b"S" + escaped + b"\n"


def write_tacos(folder, protocol=2):
    """The family's two files, and the annotations that they belong to."""
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype("<f4")
    records = [
        ["s13-d21.avi_252_452", [vectors[0], vectors[1]]],
        ["s13-d21.avi_1_129", [vectors[2]]],
    ]
    path = folder / "test_clip-sentvec.pkl"
    path.write_bytes(python2(records, protocol) + b".")
    frames = folder / "video_allframes_info.pkl"
    frames.write_bytes(python2({"s13-d21.avi": 800}, protocol) + b".")
    samples = folder / "TACoS_test_samples.txt"
    samples.write_text(
        "s13-d21.avi_252_452:He cuts.#She cuts.#\ns13-d21.avi_1_129:A man.#\n"
    )
    return samples, frames, path, vectors


def test_vectors_of_several_files_are_taken_together(tmp_path):
    _, _, path, vectors = write_tacos(tmp_path)
    other = tmp_path / "train_clip-sentvec.pkl"
    other.write_bytes(pickle.dumps([["s14-d1.avi_1_9", [vectors[0]]]]))
    read = read_sentence_vectors(f"{path},{other}")
    np.testing.assert_array_equal(read["s14-d1_1_9_0"], vectors[0])
    np.testing.assert_array_equal(read["s13-d21_1_129_0"], vectors[2])
    other.write_bytes(pickle.dumps([["s13-d21_1_129", [vectors[0]]]]))
    with pytest.raises(FeatureError, match=r"'s13-d21_1_129': is in .*test_c"):
        read_sentence_vectors(f"{path},{other}")


@pytest.mark.parametrize("protocol", [0, 2])
def test_files_of_tacos_are_read_as_python_2_wrote_them(tmp_path, protocol):
    samples, frames, path, vectors = write_tacos(tmp_path, protocol)
    moments = read_moments(samples, "tacos", num_frames=frames)
    assert [moment.duration * 29.4 for moment in moments] == [800] * 3
    read = read_sentence_vectors(path)
    found = np.stack([read[moment.query_id] for moment in moments])
    np.testing.assert_array_equal(found, vectors)
    with pytest.raises(UnknownIdError, match="no vector for query 's13-d21_9"):
        read["s13-d21_9_10_0"]


def test_what_is_no_record_is_named(tmp_path, subtests):
    path = tmp_path / "x.pkl"
    vector = np.ones(3, np.float32)
    for value, message in (
        ({}, "holds no arrays"),
        (3, "expected a list of records, found 3; write it again"),
        ([["a", [vector]], ["a", [vector]]], "x.pkl:2: 'a' is already rec"),
        ([["a"]], r"x.pkl:1: expected \[name, vectors\], found a list of 1"),
        ([[7, [vector]]], r"x.pkl:1: expected \[name, vectors\]"),
        ([["a", []]], r"x.pkl:1: expected \[name, vectors\]"),
        ([["a", [vector, vector[:2]]]], r"x.pkl:1: 'a': .* shape \[2\] and"),
        ([["a", [vector, 2.0]]], "x.pkl:1: 'a': expected vectors, all as"),
        ([["a", [[1.0, "2"]]]], "x.pkl:1: 'a': expected floats, found '2'"),
        ([["a", [[1.0, np.nan]]]], "x.pkl:1: 'a': clip 0, number 1 is nan"),
        ([["a", [vector] * 999]], "bytes cannot hold its 2,997 numbers"),
        ([["a", [np.arange(3)]]], "x.pkl:1: 'a': .* found int64"),
    ):
        path.write_bytes(pickle.dumps(value))
        with subtests.test(message), pytest.raises(FeatureError, match=message):
            read_sentence_vectors(path)
    for value, message in (
        ([1], "x.pkl:1: expected a dictionary from video to number"),
        ({"v": "8"}, "x.pkl:1: video 'v': expected a number above 0"),
        ({"v": 8, 3: 1}, "x.pkl:2: the name of a video: .* found 3"),
        (print, "x.pkl:1: byte 3.: names 'builtins.print'"),
    ):
        path.write_bytes(pickle.dumps(value))
        with subtests.test(message), pytest.raises(DataError, match=message):
            read_moments(write_tacos(tmp_path)[0], "tacos", num_frames=path)


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Built:
    def __reduce__(self):
        return object, (), {"a": 1}


NDARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tC\1btR"
FLOATS = b"cnumpy\ndtype\n(U\2f4K\0K\1tR"


def array_state(shape, dtype, data):
    return NDARRAY + b"(K\1(" + shape + b"t" + dtype + b"K\0" + data + b"tb."


def bombs(size):
    """Pickles that grow when they are read, of about so many bytes."""
    quarter = size // 4
    return {
        "lists": b"]" * size + b".",
        "dictionaries": b"}" * size + b".",
        "tuples": b")" + b"\x85" * size + b".",
        "marks": b"(" * size + b".",
        "memo": b"N" + b"\x94" * size + b".",
        "far memo": b"Nr\xff\xff\xff\xff.",
        "copies": b"](" + b"2" * size + b"e.",
        "doubled": b"]" + b"2\x86" * quarter + b".",
        "doubled lists": b"]" + b"q\0(h\0h\0l" * (size // 6) + b".",
        "vectors many times": b"](](X\1\0\0\0a]((G?\xf0\0\0\0\0\0\0lq\0"
        + b"h\0" * (size // 2)
        + b"eee.",
        "lists in lists": b"]q\1(](X\1\0\0\0a](h\1h\1h\1eee.",
        "key of tuples": b"}" + b")" + b"2\x86" * quarter + b"Ns.",
        "long": b"\x8b" + struct.pack("<I", 2**32 - 1) + b"\1.",
        "digits": b"L" + b"9" * size + b"L\n.",
        "text": b"\x8d" + struct.pack("<Q", 2**62) + b"a.",
        "bytes": b"\x8e" + struct.pack("<Q", 2**62) + b"a.",
        "bytes of 2**31": b"T\xff\xff\xff\xffa.",
        "frame": b"\x95" + struct.pack("<Q", 2**62) + b".",
        "wide text": b"X"
        + struct.pack("<I", size + 4)
        + "\N{GRINNING FACE}".encode()
        + b"a" * size
        + b".",
        "encoded": b"X" + struct.pack("<I", size) + b"a" * size + b"q\0c_codecs"
        b"\nencode\nq\1" + b"h\1(h\0U\6latin1tR" * (size // 16) + b".",
        "array of terabytes": array_state(
            b"\x8a\6" + b"\0" * 5 + b"\1", FLOATS, b"C\4\0\0\0\0"
        ),
        "endless shape": array_state(b"K\1" * size, FLOATS, b"C\4\0\0\0\0"),
        "negative shape": array_state(b"J\xff\xff\xff\xff" * 2, FLOATS, b"C\0"),
        "reconstruct": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray"
        b"\n(\x8a\6\0\0\0\0\0\1tC\1btR.",
        "array twice": NDARRAY
        + b"q\0(K\1(K\1t"
        + FLOATS
        + b"q\1K\0C\4abcdtb"
        + b"(K\1(K\1th\1K\0C\4abcdtb" * (size // 16)
        + b".",
        "swapped": b"B"
        + struct.pack("<I", size)
        + b"a" * size
        + b"q\0"
        + FLOATS
        + b"(K\3U\1>tbq\1"
        + (NDARRAY + b"(K\1(J" + struct.pack("<i", size // 4) + b"th\1K\0h\0tb")
        * (size // 64)
        + b".",
        "objects": array_state(b"K\1", FLOATS.replace(b"f4", b"O8"), b"](Nl"),
        "text arrays": array_state(b"K\1", FLOATS.replace(b"f4", b"U9"), b"N"),
        "records": array_state(
            b"K\1", FLOATS.replace(b"\2f4", b"\5f4,f4"), b"N"
        ),
    }


def calls(canary):
    """Pickles that run something, if anything does."""
    name = str(canary)
    text = b"X" + struct.pack("<I", len(name)) + name.encode()
    found = {
        f"protocol {protocol}": pickle.dumps(Canary(name), protocol)
        for protocol in range(6)
    }
    return found | {
        "in a list": pickle.dumps([["a", [Canary(name)]]]),
        "in an array": pickle.dumps(np.array([Canary(name)])),
        "state": pickle.dumps(Built()),
        "inst": b"(" + text + b"ios\nmkdir\n.",
        "obj": b"(cos\nmkdir\n" + text + b"o.",
        "newobj": b"cos\nmkdir\n" + text + b"\x85\x81.",
        "newobj_ex": b"cos\nmkdir\n" + text + b"\x85}\x92.",
        "getattr": b"cbuiltins\ngetattr\n.",
        "dotted": b"\x8c\5numpy\x8c\x10core._internal.os\x93.",
        "in numpy": b"cnumpy.f2py.diagnose\nrun\n)R.",
        "in two lines": b"cnumpy\ncore.multiarray._reconstruct\n)R.",
        "ndarray": b"cnumpy\nndarray\n(K\1tR.",
        "extension": b"\x82\1.",
        "persistent": b"P" + name.encode() + b"\n.",
        "persistent value": text + b"Q.",
        "buffer": b"\x97.",
        "set": pickle.dumps({1}),
        "frozenset": pickle.dumps(frozenset([1])),
        "complex": pickle.dumps(1j),
        "data of a state": b"]}b.",
        "dtype of a call": b"cnumpy\ndtype\n(cos\nmkdir\ntR.",
    }


def grown(data, read=unpickle):
    """`(value or error, most bytes)` that reading took."""
    tracemalloc.reset_peak()
    start, _ = tracemalloc.get_traced_memory()
    try:
        value = read(data)
    except ValueError as error:
        value = error
    return value, tracemalloc.get_traced_memory()[1] - start


def most_of(data):
    return 2**20 + 21 * len(data) + 10_000


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_hostile_pickles_run_nothing_and_take_little(tmp_path, traced):
    canary = tmp_path / "canary"
    for name, data in calls(canary).items():
        value, most = grown(data)
        assert isinstance(value, ValueError), name
        assert str(value).startswith("byte ")
        assert not canary.exists()
        assert most < most_of(data)
    for name, data in bombs(1_000).items():
        _, most = grown(data)
        assert most < most_of(data), name
    # Refused for the memory that they ask for.
    for name in ("lists", "encoded", "swapped"):
        value, most = grown(bombs(40_000)[name])
        assert "more than 20 times the memory" in str(value), name
        assert most < most_of(bombs(40_000)[name]), name


@pytest.mark.soak
def test_a_thousand_hostile_pickles_run_nothing_and_take_little(
    tmp_path, traced
):
    canary = tmp_path / "canary"
    sound = [pickle.dumps(VALUES, protocol) for protocol in range(6)]
    sound += [path.read_bytes() for path in write_tacos(tmp_path)[1:3]]
    made = [*calls(canary).values(), *bombs(10_000).values()]
    made += bombs(200_000).values()
    parts = [*sound, *calls(canary).values(), *bombs(100).values()]
    rng, pickles = np.random.default_rng(0), list(made)
    while len(pickles) < 1000:
        data = bytearray(parts[rng.integers(len(parts))])
        for _ in range(rng.integers(1, 4)):
            place, other = rng.integers(len(data) + 1), rng.integers(len(parts))
            first = rng.integers(len(parts[other]))
            some = parts[other][first : first + rng.integers(1, 40)]
            kind = rng.integers(4)
            if kind == 0:
                data[place:place] = some
            elif kind == 1:
                data[place : place + len(some)] = some
            elif kind == 2:
                del data[place : place + rng.integers(1, 9)]
            elif place < len(data):
                data[place] ^= 1 << rng.integers(8)
        pickles.append(bytes(data))
    told, path = 0, tmp_path / "x.pkl"
    for data in pickles:
        value, most = grown(data)
        told += isinstance(value, ValueError)
        assert most < most_of(data), (most, len(data), data[:99])
        # What is sound may still be no file of vectors, or of numbers.
        path.write_bytes(data)
        for read in (read_all_vectors, read_all_numbers):
            _, most = grown(path, read)
            assert most < 2 * most_of(data), (most, len(data), data[:99])
        assert not canary.exists()
    assert told > 500


def read_all_vectors(path):
    arrays = open_arrays(path)
    return [arrays.read(name).shape for name in arrays.names]


def read_all_numbers(path):
    problems = []
    read_numbers(path, problems)
    return problems
