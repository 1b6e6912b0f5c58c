"""Model files that a stranger might send, built by hand."""

import hashlib
import io
import json
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


def pack(path, members, compression=zipfile.ZIP_STORED, seal=True):
    """Writes pairs of a name or `ZipInfo` and bytes, with a right digest."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            with warnings.catch_warnings():  # of names that are there already
                warnings.simplefilter("ignore")
                archive.writestr(name, data)
    if seal:
        reseal(path)


def reseal(path):
    """Gives an archive the digest that it should have."""
    data = path.read_bytes()
    data = data[: data.rindex(b"PK\5\6") + 20] + b"\x47\0"
    digest = hashlib.sha256(data).hexdigest().encode()
    path.write_bytes(data + b"sha256:" + digest)


class Spy:
    """What runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def weights(data, other):
    """Bytes of `model.weights.h5` by what is wrong with them.

    Args:
        data: Bytes of good ones.
        other: File that nothing may open.
    """
    other = os.fspath(other)
    name = "head/vars/3"

    def virtual(file):
        layout = h5py.VirtualLayout((16,), "f4")
        layout[:] = h5py.VirtualSource(other, "x", (16,))
        file.create_virtual_dataset(name, layout)

    def growing(file):
        layout = h5py.VirtualLayout((16,), "f4", maxshape=(None,))
        source = h5py.VirtualSource(other, "x", (16,), maxshape=(None,))
        unlimited = h5py.h5s.UNLIMITED
        layout[0:unlimited] = source[0:unlimited]
        file.create_virtual_dataset(name, layout)

    def attributes(file):
        for number in range(20):
            file["head"].attrs[str(number)] = "x"

    def nested(file):
        group = file["head"]
        for _ in range(200):
            group = group.create_group("g")

    def many(file):
        for number in range(11_000):
            file.create_group(f"many/{number}")

    def twice(file):
        for number in range(100):
            file[f"again/{number}"] = file["head/vars/0"]

    def put(value):
        return lambda file: file.__setitem__(name, value)

    def create(**arguments):
        return lambda file: file.create_dataset(name, **arguments)

    changes = {
        "soft link": put(h5py.SoftLink("/head/vars/5")),
        "external link": put(h5py.ExternalLink(other, "/x")),
        "external storage": create(
            shape=(16,), dtype="f4", external=[(other, 0, h5py.h5f.UNLIMITED)]
        ),
        "virtual": virtual,
        "growing virtual": growing,
        "declared": create(shape=(10**12,), dtype="f4"),
        "declared rank": create(shape=(10**5,) * 3, dtype="f8"),
        "declared chunks": create(
            shape=(10**12,), dtype="f4", chunks=(1024,), compression="gzip"
        ),
        "deflated": create(data=np.zeros(50_000_000, "i1"), compression=9),
        "circle": put(None),
        "twice": twice,
        "text": create(data=["x"] * 16, dtype=h5py.string_dtype()),
        "references": create(shape=(16,), dtype=h5py.ref_dtype),
        "compound": create(shape=(16,), dtype=[("a", "f4"), ("b", "O")][:1]),
        "type": lambda file: file.__setitem__(name, np.dtype("f4")),
        "group": lambda file: file.create_group(name),
        "shape": create(data=np.zeros(17, "f4")),
        "missing": lambda file: None,
        "large attribute": lambda file: file["head"].attrs.__setitem__(
            "x", np.zeros(4000)
        ),
        "long attribute": lambda file: file["head"].attrs.__setitem__(
            "x", np.bytes_(b"x" * 4000)
        ),
        "attributes": attributes,
        "nested": nested,
        "many": many,
    }
    changes["circle"] = lambda file: file.__setitem__(
        "head/vars/head", file["head"]
    )
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
    found["block before"] = b"\0" * 512 + data
    return found


def archives(members, folder):
    """Writes archives that are wrong as such; returns their names."""
    good = list(members.items())

    def pack_(what, members, **arguments):
        pack(folder / f"archive {what}.keras", members, **arguments)

    def info(name, mode=None, flags=0):
        found = zipfile.ZipInfo("x")
        found.filename = name
        found.external_attr = (mode or 0) << 16
        found.flag_bits |= flags
        return found

    names = {
        "above": "../x",
        "absolute": "/x",
        "backslash": "..\\x",
        "zero": "model.weights.h5\0x",
        "asset": "assets/x",
        "slip": "assets/../../x",
        "folder": "assets/",
        "empty name": "",
        "code": "__init__.py",
        "weights of another kind": "model.weights.npz",
    }
    for what, name in names.items():
        pack_(what, [*good, (info(name), b"pwned")])
        pack_(f"{what} only", [*good[:2], (info(name), good[2][1])])
    link = info(WEIGHTS, stat.S_IFLNK | 0o777)
    pack_("symbolic link", [*good[:2], (link, b"/dev/zero")])
    device = info(WEIGHTS, stat.S_IFCHR | 0o666)
    pack_("device", [*good[:2], (device, b"")])
    for place, (name, data) in enumerate(good):
        pack_(f"twice {place}", [*good, (name, data)])
        pack_(f"missing {place}", good[:place] + good[place + 1 :])
    pack_("nothing", [])
    pack_("many", [(f"assets/{i}", b"") for i in range(20_000)])
    for place, (name, _) in enumerate(good):
        bomb = list(good)
        bomb[place] = (name, bytes(200 * 2**20))
        pack_(f"bomb {place}", bomb, compression=zipfile.ZIP_DEFLATED)
    pack_("compressed", good, compression=zipfile.ZIP_DEFLATED)
    pack_("lzma", good, compression=zipfile.ZIP_LZMA)
    metadata = {"x" * 5000: "x"}
    for what, value in {
        "long": metadata,
        "number": {"keras_version": 3},
    }.items():
        changed = {**members, "metadata.json": json.dumps(value)}
        pack_(f"metadata {what}", changed.items())
    _edited(good, folder)


def _edited(good, folder):
    """Archives whose bytes are edited after they were written."""

    def write(what, edit, seal=True):
        path = folder / f"archive {what}.keras"
        pack(path, good)
        data = bytearray(path.read_bytes())
        path.write_bytes(edit(data, data.rfind(b"PK\1\2"), len(data) - 93))
        if seal:
            reseal(path)

    def put(offset, value):
        def edit(data, last, end):
            data[last + offset : last + offset + len(value)] = value
            return data

        return edit

    largest = b"\xff\xff\xff\x7f"
    write("encrypted", put(8, b"\1\0"))
    write("size", put(20, largest * 2))
    write("packed size", put(20, largest))
    write("place", put(42, largest))
    write("overlap", put(42, bytes(4)))
    write("checksum", put(16, b"abcd"))
    write(
        "zip64",
        lambda data, _, end: data[:end] + b"PK\6\7" + bytes(16) + data[end:],
    )
    write("other digest", lambda data, *_: data[:-1] + b"!", seal=False)
    write("no digest", lambda data, *_: data[:-71], seal=False)
    write(
        "other comment",
        lambda data, *_: data[:-73] + b"\5\0hello",
        seal=False,
    )
    write("half", lambda data, *_: data[: len(data) // 2], seal=False)
    write("empty", lambda data, *_: b"", seal=False)
    write("text", lambda data, *_: b"a model", seal=False)
    write("pickle", lambda data, *_: pickle.dumps(Spy()), seal=False)
