"""Model files and settings that a stranger might send, built by hand."""

import base64
import copy
import io
import json
import marshal
import os
import pickle
import stat
import warnings
import zipfile

import h5py
import numpy as np

CONFIG, WEIGHTS = "config.json", "model.weights.h5"


def read(path):
    """The members of an archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path, members, compression=zipfile.ZIP_STORED):
    """Writes pairs of a name or `ZipInfo` and bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            with warnings.catch_warnings():  # of names that are there already
                warnings.simplefilter("ignore")
                archive.writestr(name, data)


class Spy:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def weights(data, other):
    """Bytes of `model.weights.h5` by what is wrong with them.

    Links, and what else arrays may be, are in `tests/hostile_arrays.py`.

    Args:
        data: Bytes of good ones.
        other: File that nothing may open.
    """
    other = os.fspath(other)
    name = "head/vars/3"

    def growing(file):
        layout = h5py.VirtualLayout((16,), "f4", maxshape=(None,))
        source = h5py.VirtualSource(other, "x", (16,), maxshape=(None,))
        unlimited = h5py.h5s.UNLIMITED
        layout[0:unlimited] = source[0:unlimited]
        file.create_virtual_dataset(name, layout)

    def nested(file):
        group = file["head"]
        for _ in range(200):
            group = group.create_group("g")

    def many(file):
        for number in range(11_000):
            file.create_group(f"many/{number}")

    def attribute(value, **arguments):
        return lambda file: file["head"].attrs.create("x", value, **arguments)

    def create(**arguments):
        return lambda file: file.create_dataset(name, **arguments)

    changes = {
        "external link": lambda file: file.__setitem__(
            name, h5py.ExternalLink(other, "/x")
        ),
        "growing virtual": growing,
        "deflated": create(data=np.zeros(50_000_000, "i1"), compression=9),
        "text": create(data=["x"] * 16, dtype=h5py.string_dtype()),
        "group": lambda file: file.create_group(name),
        "shape": create(data=np.zeros(17, "f4")),
        "missing": lambda file: None,
        "numbers as attribute": attribute(np.zeros(4000)),
        "texts as attribute": attribute(["x"] * 100, dtype=h5py.string_dtype()),
        "nested": nested,
        "many": many,
    }
    found = {}
    for what, change in changes.items():
        buffer = io.BytesIO(data)
        with h5py.File(buffer, "r+") as file:
            del file[name]
            change(file)
        found[what] = buffer.getvalue()
    array = io.BytesIO()
    np.save(array, np.array([Spy()]), allow_pickle=True)
    found["pickle"] = pickle.dumps(Spy())
    found["pickled npy"] = array.getvalue()
    found["empty"] = b""
    found["cut"] = data[: len(data) // 2]
    return found


def archives(members, folder):
    """Writes archives that are wrong as such."""
    good = list(members.items())

    def pack_(what, members, **arguments):
        pack(folder / f"archive {what}.keras", members, **arguments)

    def info(name, mode=0):
        found = zipfile.ZipInfo("x")
        found.filename = name
        found.external_attr = mode << 16
        return found

    names = {
        "above": "../x",
        "absolute": "/x",
        "backslash": "..\\x",
        "zero": "model.weights.h5\0x",
        "asset": "assets/x",
        "empty name": "",
        "code": "__init__.py",
        "weights of another kind": "model.weights.npz",
    }
    for what, name in names.items():
        pack_(what, [*good, (info(name), b"pwned")])
        pack_(f"{what} only", [*good[:2], (info(name), good[2][1])])
    link = info(WEIGHTS, stat.S_IFLNK | 0o777)
    pack_("symbolic link", [*good[:2], (link, good[2][1])])
    device = info(WEIGHTS, stat.S_IFCHR | 0o666)
    pack_("device", [*good[:2], (device, good[2][1])])
    for place, (name, data) in enumerate(good):
        pack_(f"twice {place}", [*good, (name, data)])
        pack_(f"missing {place}", good[:place] + good[place + 1 :])
        bomb = [*good[:place], (name, bytes(80 * 2**20)), *good[place + 1 :]]
        pack_(f"bomb {place}", bomb, compression=zipfile.ZIP_DEFLATED)
    pack_("nothing", [])
    pack_("many", [(f"assets/{i}", b"") for i in range(2000)])
    pack_("compressed", good, compression=zipfile.ZIP_DEFLATED)
    pack_("lzma", good, compression=zipfile.ZIP_LZMA)
    _edited(good, folder)


def _edited(good, folder):
    """Archives whose bytes are edited after they were written."""
    path = folder / "archive encrypted.keras"
    pack(path, good)
    whole = path.read_bytes()
    last, end = whole.rfind(b"PK\1\2"), whole.rfind(b"PK\5\6")

    def put(place, value):
        return whole[:place] + value + whole[place + len(value) :]

    largest = b"\xff\xff\xff\x7f"
    edited = {
        "encrypted": put(last + 8, b"\1\0"),
        "size": put(last + 20, largest * 2),
        "place": put(last + 42, largest),
        "overlap": put(last + 42, bytes(4)),
        "checksum": put(last + 16, b"abcd"),
        "list": put(end + 12, largest),
        "zip64": whole[:end] + b"PK\6\7" + bytes(16) + whole[end:],
        "half": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"a model",
        "pickle": pickle.dumps(Spy()),
    }
    for what, data in edited.items():
        (folder / f"archive {what}.keras").write_bytes(data)


def _object(module, name, registered=None, **config):
    return {
        "module": module,
        "class_name": name,
        "config": config,
        "registered_name": registered,
    }


def _function(module, name):
    return _object(module, "function", name) | {"config": name}


def objects(secret):
    """Objects that Keras would make, by what they are."""
    code = compile("__import__('os').system('touch pwned')", "x", "eval")
    text = base64.b64encode(marshal.dumps(code)).decode()
    function = {
        "class_name": "__lambda__",
        "config": {"value": [text, None, None], "code": text},
    }
    layers = "keras.layers"
    return {
        "lambda": function,
        "lambda layer": _object(layers, "Lambda", function=function),
        "os.system": _function("os", "system"),
        "load_model": _function("keras.saving", "load_model"),
        "class of os": _object("os", "system", command="touch pwned"),
        "get_file": _object(
            "keras.utils", "get_file", fname="x", origin=f"file://{secret}"
        ),
        "lookup": _object(layers, "StringLookup", vocabulary=secret),
        "saved model": _object(layers, "TFSMLayer", filepath=secret),
        "dense": _object(layers, "Dense", units=2**40),
        "quantized": _object("keras", "QuantizedDTypePolicy", mode="int8"),
        "typespec": _object("os", "__typespec__") | {"spec_name": "system"},
        "registered for ours": _object("os", "system", "acnn_tf>ACNN"),
        "large layer of ours": _object(
            "acnn_tf.layers", "LocalizationHead", "acnn_tf>LocalizationHead"
        ),
        "layer with an object": _object(
            "acnn_tf.layers",
            "AttentionPooling",
            "acnn_tf>AttentionPooling",
            activation=_function("os", "system"),
        ),
        "no name": {"config": {}},
        "list of names": {"module": ["os"], "class_name": ["system"]},
    }


def configs(config, secret):
    """Bytes of `config.json` by what is wrong with them."""
    found = {}

    def add(what, part, name, value):
        changed = copy.deepcopy(config)
        changed[part][name] = value
        found[what] = changed

    for what, hostile in objects(secret).items():
        found[f"{what} for the model"] = hostile
        for name in (
            "scorer_activation",
            "context_pooling",
            "dtype",
            "encoder",
        ):
            add(f"{what} as {name}", "config", name, hostile)
        add(f"{what} as encoder", "config", "encoder", hostile)
    settings = {
        "filters": [2**40, 2**52, 10**6, 10**9, -1, "8", None, [8], 1e300],
        "word_dim": [10**9],
        "embedding_dim": [10**6, 2**31],
        "query_units": [10**7],
        "hidden_dim": [10**8],
        "kernel_sizes": [[1] * 10**5, [10**12 + 1], [2], 1, "abc"],
        "context_size": [3],
        "window_lengths": ["abc", []],
        "vocabulary": [["a", "a"], [f"w{i}" for i in range(150_000)], "x"],
        "context_pooling": ["max", ["mean"]],
        "layers": [[]],
        "name": [["x"], {"a": 1}],
        "encoder": [
            *([], "clip", {"name": "a"}, {"encoder": ["a"], "name": "a"}),
            {"encoder": "a", "name": "a", "more": "a" * 10**5},
        ],
        "dtype": ["float13"],
    }
    for name, values in settings.items():
        for number, value in enumerate(values):
            add(f"setting {name} {number}", "config", name, value)
    for number, shape in enumerate(
        [
            {"clip": [None, None, 10**12], "query": [None, None]},
            {"clip": [None, None, 10**7], "query": [None, None]},
            [2**62],
        ]
    ):
        add(f"shape {number}", "build_config", "input_shape", shape)
    found = {what: json.dumps(one).encode() for what, one in found.items()}
    text = json.dumps(config)
    texts = {
        "nested": "[" * 100_000 + "]" * 100_000,
        "nested objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
        "nan": text.replace('"dropout": 0.3', '"dropout": NaN'),
        "infinity": text.replace('"dropout": 0.3', '"dropout": -Infinity'),
        "overflow": text.replace('"dropout": 0.3', '"dropout": 1e999'),
        "huge integer": text.replace('"filters": 5', '"filters": 1' + "0" * 30),
        "digits": text.replace('"filters": 5', '"filters": ' + "9" * 10**6),
        "empty": "",
        "list": f"[{text}]",
        "string": '"acnn_tf>ACNN"',
        "object": "{}",
        "null": "null",
        "cut": text[:-1],
        "more": text + text,
        "large": text + " " * (20 * 2**20),
        "lists": '{"a": [' + "[]," * 600_000 + "[]]}",
        "pickle": pickle.dumps(Spy()).decode("latin-1"),
    }
    assert text not in texts.values()
    return found | {what: one.encode() for what, one in texts.items()}
