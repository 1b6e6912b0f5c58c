"""Files of arrays that are hostile or broken, and a process that opens them.

Each is written by a function of its path and has an array "bad", next to a
sound one, "good", where the file can be opened. `python -m
tests.hostile_arrays FOLDER` opens all of them and prints, for each, what is
said of it and by how many megabytes memory grew.
"""

import json
import os
import pickle
import re
import resource
import shutil
import stat
import struct
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z

CLIPS = np.array([[1.5, 2.0]], np.float32)
TERA = 1 << 40


def hdf5(write, **options):
    """A builder of an HDF5 file."""

    def build(path):
        with h5py.File(path, "w", **options) as file:
            file["good"] = CLIPS
            write(file)

    return build


def dataset(*arguments, **options):
    return hdf5(lambda f: f.create_dataset("bad", *arguments, **options))


def virtual(file):
    layout = h5py.VirtualLayout((1, 2), np.float32)
    layout[:] = h5py.VirtualSource("none.h5", "good", (1, 2))
    file.create_virtual_dataset("bad", layout)


def part_written(file):
    file.create_dataset("bad", (4, 2), "f4", chunks=(1, 2))[:3] = 1.0


def packed(size, stored, filters=(1,)):
    """A chunk that declares `size` floats and stores the bytes given."""

    def write(file):
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((size // 2, 2))
        for code in filters:
            plist.set_filter(code, h5z.FLAG_OPTIONAL, (6,))
        space = h5s.create_simple((size // 2, 2))
        made = h5d.create(file.id, b"bad", h5t.IEEE_F32LE, space, plist)
        made.write_direct_chunk((0, 0), stored)

    return hdf5(write)


def deflated(size):
    """`size` megabytes of zeros, in a thousandth of it, without an end."""
    deflater = zlib.compressobj(9)
    block = deflater.compress(bytes(1 << 20))
    return (
        block
        + deflater.flush(zlib.Z_FULL_FLUSH)
        + size
        * (
            deflater.compress(bytes(1 << 20))
            + deflater.flush(zlib.Z_FULL_FLUSH)
        )
    )


def changed(old, new):
    """Contiguous clips of which 8-byte numbers were changed in the file."""

    def build(path):
        with h5py.File(path, "w") as file:
            file["bad"] = np.ones((5, 7), np.float32)
            file["good"] = CLIPS
            places = {"address": file["bad"].id.get_offset()}
        data = Path(path).read_bytes()
        places["end"] = len(data) - 8
        old_data, new_data = (
            struct.pack(f"<{len(n)}Q", *(places.get(v, v) for v in n))
            for n in (old, new)
        )
        assert old_data in data
        Path(path).write_bytes(data.replace(old_data, new_data))

    return build


def circle(group):
    """Of the older format; its list of free places for names has no end."""

    def build(path):
        with h5py.File(path, "w") as file:
            file["bad/c3d"] = CLIPS
            file["good"] = CLIPS
        data = bytearray(Path(path).read_bytes())
        heaps = [match.start() for match in re.finditer(b"HEAP", data)]
        assert len(heaps) == 2  # of the root, and of the group
        _, free, names = struct.unpack_from("<QQQ", data, heaps[group] + 8)
        struct.pack_into("<Q", data, names + free, free)
        Path(path).write_bytes(data)

    return build


def locked(path):
    file = h5py.File(path, "w")
    file["bad"] = CLIPS
    file.flush()
    return file


def not_closed(path):
    with h5py.File(f"{path}.open", "w", libver="latest") as file:
        file["bad"] = CLIPS
        file.flush()
        shutil.copy(f"{path}.open", path)


def cut(build, size):
    def cut_build(path):
        build(path)
        data = Path(path).read_bytes()
        Path(path).write_bytes(data[:size])

    return cut_build


def content(data):
    return lambda path: Path(path).write_bytes(data)


def npy(write):
    """A builder of a folder with the file `bad.npy`."""

    def build(path):
        os.mkdir(path)
        np.save(os.path.join(path, "good.npy"), CLIPS)
        write(os.path.join(path, "bad.npy"))

    return build


def header(version=1, data=b"\0" * 8, **values):
    """An `.npy` file of 8 bytes, whatever its header says."""

    def write(path):
        values.setdefault("shape", (1, 2))
        values.setdefault("descr", "<f4")
        text = repr({"fortran_order": False, **values}).encode() + b"\n"
        size = struct.pack("<H" if version == 1 else "<I", len(text))
        start = b"\x93NUMPY" + bytes([version, 0])
        Path(path).write_bytes(start + size + text + data)

    return npy(write)


def archive(path):
    with open(path, "wb") as file:
        np.savez(file, CLIPS)


def crc32c(data):
    """The checksum of TFRecord, masked."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack(
        "<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    )


def start_of_record(length):
    size = struct.pack("<Q", length)
    return size + crc32c(size)


def record(data):
    return start_of_record(len(data)) + data + crc32c(data)


def examples(*all_values):
    """A builder of a TFRecord file of examples made of `name=value`."""
    kinds = {bytes: "bytes_list", float: "float_list", int: "int64_list"}

    def build(path):
        import tensorflow as tf

        with tf.io.TFRecordWriter(str(path)) as writer:
            for values in all_values:
                example = tf.train.Example()
                for name, value in values.items():
                    value = value if isinstance(value, list) else [value]
                    feature = example.features.feature[name]
                    kind = kinds[type(value[0])]
                    getattr(feature, kind).value.extend(value)
                writer.write(example.SerializeToString())

    return build


def example(video=b"bad", without=(), **values):
    values = {
        "video_id": video,
        "clip_seconds": 1.0,
        "shape": [1, 2],
        "features": CLIPS.tobytes(),
        **values,
    }
    return {k: v for k, v in values.items() if k not in without}


def second(**values):
    """A builder of a TFRecord file whose second record is bad."""
    return examples(example(b"good"), example(**values))


def sparse_record(path):
    Path(path).write_bytes(start_of_record(1 << 31))
    os.truncate(path, (1 << 31) + 16)


def device(path):
    os.symlink("/dev/zero", path)


def socket(path):
    os.mknod(path, stat.S_IFSOCK | 0o600)


PLAIN = r"make one plain file of it: python -c .*plain\.h5"
EXTRACT = "restore the file, or extract its features again"
NPY = "is not a whole .npy file of numbers: .*"
# Name: the file's name, what writes it, what is said of it.
CASES = {
    # Not files with an end.
    "pipe": ("x.h5", os.mkfifo, "regular file, found a pipe; copy"),
    "pipe of records": ("x.tfrecord", os.mkfifo, "found a pipe; copy"),
    "pipe as array": ("x", npy(os.mkfifo), "bad.npy: .* found a pipe; copy"),
    "device": ("x.h5", device, "found a device; copy"),
    "socket": ("x.h5", socket, "found a socket; copy"),
    "folder": ("x.h5", os.mkdir, "found a folder; copy"),
    "folder as array": ("x", npy(os.mkdir), "bad.npy: .* found a folder; copy"),
    # HDF5 files as a whole.
    "empty": ("x.h5", content(b""), f"not a whole HDF5 file: .*{EXTRACT}"),
    "text": ("x.h5", content(b"clips" * 99), f"not a whole HDF5.*{EXTRACT}"),
    "cut": ("x.h5", cut(dataset(data=CLIPS), -1), f"truncated.*{EXTRACT}"),
    "locked": ("x.h5", locked, "being written by another program.*wait"),
    "not closed": ("x.h5", not_closed, "was not closed by the program.*wait"),
    # Numbers that are not in the file.
    "soft link": (
        "x.h5",
        hdf5(lambda f: f.update(bad=h5py.SoftLink("/good"))),
        f"'bad' is a soft link; {PLAIN}",
    ),
    "external link": (
        "x.h5",
        hdf5(lambda f: f.update(bad=h5py.ExternalLink("y.h5", "/a"))),
        f"'bad' is an external link; {PLAIN}",
    ),
    "soft link in a group": (
        "x.h5",
        hdf5(lambda f: f.update({"bad/c3d": h5py.SoftLink("/good")})),
        f"'c3d' is a soft link; {PLAIN}",
    ),
    "virtual": (
        "x.h5",
        hdf5(virtual),
        rf"'bad' is a virtual .*`virtual_sources\(\)` are there, then {PLAIN}",
    ),
    "external storage": (
        "x.h5",
        dataset((1, 2), "f4", external=[("raw", 0, 8)]),
        f"'bad' is stored in another file; {PLAIN}",
    ),
    "never written": (
        "x.h5",
        dataset((1, 2), "f4"),
        f"'bad' was not written in whole, .* zeros .*; {EXTRACT}",
    ),
    "chunks never written": (
        "x.h5",
        dataset((1, 2), "f4", chunks=(1, 1)),
        f"'bad' was not written in whole.*{EXTRACT}",
    ),
    "a chunk never written": (
        "x.h5",
        hdf5(part_written),
        f"'bad' was not written in whole.*{EXTRACT}",
    ),
    # More numbers than there can be.
    "terabytes, none written": (
        "x.h5",
        dataset((TERA, 2), "f4", chunks=(1024, 2), compression="gzip"),
        f"'bad' was not written in whole.*{EXTRACT}",
    ),
    "gigabytes of zeros": (
        "x.h5",
        packed(1 << 29, deflated(1)),
        "'bad' declares 2,147,483,648 bytes and stores .* without compression",
    ),
    "chunk that goes on": (
        "x.h5",
        packed(1 << 20, deflated(1000)),
        f"'bad' has a chunk that is not the 4,194,304 bytes .*{EXTRACT}",
    ),
    "chunk that is too long": (
        "x.h5",
        packed(1024, bytes(9000), filters=(32000,)),
        f"'bad' has a chunk that is not the 4,096 bytes .*{EXTRACT}",
    ),
    "packed twice": (
        "x.h5",
        packed(2, zlib.compress(bytes(8)), filters=(1, 1)),
        f"'bad' is packed 2 times over; {PLAIN}",
    ),
    "names in a circle": (
        "x.h5",
        circle(0),
        f"x.h5: has names that are damaged; {EXTRACT}",
    ),
    "names of a group in a circle": (
        "x.h5",
        circle(1),
        f"x.h5: has names that are damaged; {EXTRACT}",
    ),
    "shape": ("x.h5", changed((5, 7), (TERA, 7)), f"'bad' .*{EXTRACT}"),
    "address": (
        "x.h5",
        changed(("address", 140), ("end", 140)),
        f"'bad' .*{EXTRACT}",
    ),
    # Numbers that cannot be read.
    "filter": (
        "x.h5",
        packed(2, bytes(8), filters=(32001,)),
        rf"'bad' is packed with filter 32001 .*hdf5plugin.*{PLAIN}",
    ),
    "nested group": (
        "x.h5",
        hdf5(lambda f: f.update({"bad/c3d/fc6": CLIPS})),
        f"'bad' must be a dataset, .* found a group that holds c3d. .*{PLAIN}",
    ),
    "group of two": (
        "x.h5",
        hdf5(lambda f: f.update({"bad/fc6": CLIPS, "bad/fc7": CLIPS})),
        f"'bad' must be .* found a group that holds fc6, fc7. .*{PLAIN}",
    ),
    "empty group": (
        "x.h5",
        hdf5(lambda f: f.create_group("bad")),
        f"'bad' must be .* found a group that holds nothing. .*{PLAIN}",
    ),
    "type": (
        "x.h5",
        hdf5(lambda f: f.update(bad=np.dtype("f4"))),
        "'bad' must be a dataset",
    ),
    "words": ("x.h5", dataset(data="clips"), f"'bad' .* found text; {EXTRACT}"),
    "records": (
        "x.h5",
        dataset(data=np.zeros(2, [("x", "f4")])),
        f"'bad' .* found records; {EXTRACT}",
    ),
    "lists": (
        "x.h5",
        dataset((3,), h5py.vlen_dtype("f4")),
        f"'bad' .* found lists of any length; {EXTRACT}",
    ),
    "booleans": (
        "x.h5",
        dataset(data=np.ones((1, 2), bool)),
        f"'bad' .* found booleans or other names; {EXTRACT}",
    ),
    "no shape": (
        "x.h5",
        dataset(data=h5py.Empty("f4")),
        f"'bad' has no shape and no numbers; {EXTRACT}",
    ),
    "integers": (
        "x.h5",
        dataset(data=np.ones((1, 2), np.int64)),
        "'bad': expected float16, float32 or float64, found int64; write",
    ),
    "not a number": (
        "x.h5",
        dataset(data=np.array([[1.0, 2.0], [3.0, np.nan]])),
        "'bad': clip 1, number 1 is nan; extract it again",
    ),
    "infinite as float32": (
        "x.h5",
        dataset(data=np.array([1.0, 1e300])),
        "'bad': number 1 is inf; extract it again",
    ),
    "scalar": ("x.h5", dataset(data=np.inf), "'bad': is inf; extract it again"),
    # Names.
    "name": (
        "x.h5",
        hdf5(lambda f: f.update({b"v\xff": CLIPS})),
        r"not UTF-8: 'v\\udcff'; rename it",
    ),
    "name of a file": (
        "x",
        npy(lambda path: np.save(f"{path[:-7]}v\udcff", CLIPS)),
        r"not UTF-8: 'v\\udcff'; rename it",
    ),
    "no names": ("x.h5", hdf5(lambda f: f.pop("good")), "holds no arrays"),
    "no files": ("x", os.mkdir, "holds no arrays"),
    # .npy
    "npy shape": (
        "x",
        header(shape=(TERA, TERA)),
        f"{NPY} 8 follow; {EXTRACT}",
    ),
    "npy sign": (
        "x",
        header(shape=(-1, -2)),
        f"{NPY} takes 8 bytes.*{EXTRACT}",
    ),
    "npy cut": ("x", header(data=bytes(7)), f"{NPY} 7 follow; {EXTRACT}"),
    "npy goes on": ("x", header(data=bytes(9)), f"{NPY} 9 follow; {EXTRACT}"),
    "npy header": (
        "x",
        npy(content(b"\x93NUMPY\2\0\xff\xff\xff\xff{'descr'")),
        f"{NPY}{EXTRACT}",
    ),
    "npy long header": ("x", header(2, descr="<f4" * 9999), f"{NPY}{EXTRACT}"),
    "npy deep header": (
        "x",
        npy(content(b"\x93NUMPY\1\0\0\x20" + b"(" * 8192)),
        f"{NPY}{EXTRACT}",
    ),
    "npy version": (
        "x",
        header(3),
        rf"{NPY}expected version 1.0 or 2.0, found \(3, 0\)",
    ),
    "npy empty": ("x", npy(content(b"")), f"{NPY}{EXTRACT}"),
    "npy objects": (
        "x",
        npy(lambda path: np.save(path, np.array([{}]), allow_pickle=True)),
        f"{NPY}expected numbers, found object; {EXTRACT}",
    ),
    "npy text": (
        "x",
        header(descr="<U1"),
        f"{NPY}expected numbers, found <U1",
    ),
    "pickle": ("x", npy(content(pickle.dumps([1]))), f"{NPY}{EXTRACT}"),
    "npz": ("x", npy(archive), f"{NPY}{EXTRACT}"),
    # TFRecord files as a whole.
    "no records": ("x.tfrecord", content(b""), f"holds no records; {EXTRACT}"),
    "record of a terabyte": (
        "x.tfrecord",
        content(start_of_record(TERA) + b"abc"),
        f":1: is damaged or cut short: it ends after 15 bytes, .*{EXTRACT}",
    ),
    "record of 2 GiB": (
        "x.tfrecord",
        sparse_record,
        ":1: must have at most .* of at most 2,147,483,647 bytes; write",
    ),
    "a million records": (
        "x.tfrecord",
        content(record(b"") * 1_000_001),
        ":1000001: must have at most 1,000,000 records .* write several files",
    ),
    "records cut short": (
        "x.tfrecord",
        cut(second(video=b"bad"), -1),
        f":2: is damaged or cut short: .*{EXTRACT}",
    ),
    "no examples": (
        "x.tfrecord",
        content(record(b"\xff\xff") * 10_000),
        "(?s):2: is not a tf.train.Example.* and 81 more",
    ),
    # TFRecord files record by record.
    "id as bytes": (
        "x.tfrecord",
        second(video=b"\xff"),
        "is not UTF-8.*rename",
    ),
    "id again": (
        "x.tfrecord",
        second(video=b"good"),
        "'good' is already at .*:1; remove one of the two",
    ),
    "no id": (
        "x.tfrecord",
        second(without=["video_id"]),
        f"`video_id` must be one bytes; .*{EXTRACT}",
    ),
    "id as number": (
        "x.tfrecord",
        second(video=1),
        f"`video_id` must be one bytes; .*{EXTRACT}",
    ),
    "other clips": (
        "x.tfrecord",
        second(clip_seconds=2.0),
        "`clip_seconds` 2 is not the 1 of .* extract all of them alike",
    ),
    "videos missing": (
        "x.tfrecord",
        second(num_videos=3),
        f":2: is cut short: it holds 2 of its 3 videos; {EXTRACT}",
    ),
    "no array": (
        "x.tfrecord",
        second(without=["features"]),
        f"`features` must be one bytes; .*{EXTRACT}",
    ),
    "no record shape": (
        "x.tfrecord",
        second(without=["shape"]),
        r"has 8 bytes, .* `shape` \[\]; extract it again",
    ),
    "record shape": (
        "x.tfrecord",
        second(shape=[1 << 62, 1 << 62]),
        "has 8 bytes, .* `shape` .4611.*; extract it again",
    ),
    "record sign": (
        "x.tfrecord",
        second(shape=[-1, -2]),
        r"has 8 bytes, .* `shape` \[-1, -2\]; extract it again",
    ),
    "long shape": (
        "x.tfrecord",
        second(shape=[1] * 3_000_000),
        "has 8 bytes, .* `shape` .1, 1, .*; extract it again",
    ),
    "record not a number": (
        "x.tfrecord",
        second(features=np.array([1, np.nan], "<f4").tobytes()),
        ":2: 'bad': clip 0, number 1 is nan; extract it again",
    ),
}


def path_of(folder, name):
    return os.path.join(folder, name, CASES[name][0])


def build_all(folder):
    """Writes all files; returns what is to be kept until they were read."""
    kept = []
    for name, (_, build, _) in CASES.items():
        os.mkdir(os.path.join(folder, name))
        kept.append(build(path_of(folder, name)))
    return kept


def features_told(path, reader="auto"):
    from acnn_tf.data.features import open_features
    from acnn_tf.files.problems import FeatureError

    try:
        with open_features(path, clip_seconds=1.0, reader=reader) as features:
            return "\n".join(map(str, features.problems().values()))
    except FeatureError as error:
        return str(error)


def vectors_told(path):
    from acnn_tf.data.sentences import read_sentence_vectors
    from acnn_tf.files.problems import FeatureError

    try:
        return str(read_sentence_vectors(path)["bad"])
    except FeatureError as error:
        return str(error)


def most_memory():
    """Megabytes that the process had at most since the last call."""
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM"))
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return int(line.split()[1]) // 1000


def main(folder):
    sound = os.path.join(folder, "sound.tfrecord")
    examples(example(b"good"))(sound)
    features_told(sound)
    # Should one of them ask for all memory, it is not to get it.
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (4 << 30),) * 2)
    for name in CASES:
        path, told = path_of(folder, name), {}
        most_memory()
        start = most_memory()
        told["features"] = features_told(path)
        told["vectors"] = vectors_told(path)
        if path.endswith(".h5"):
            told["tensorflow-io"] = features_told(path, "tfio")
        growth = most_memory() - start
        sys.stdout.write(json.dumps([name, told, growth]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
