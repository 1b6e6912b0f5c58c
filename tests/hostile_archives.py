"""Model files that a stranger might send, built by hand."""

import io
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
