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
SOFT = h5py.SoftLink("/good")
TERA = 1 << 40
LZF, BLOSC = 32000, 32001


def hdf5(write, **options):
    """A builder of an HDF5 file."""

    def build(path):
        with h5py.File(path, "w", **options) as file:
            file["good"] = CLIPS
            write(file)

    return build


def dataset(*arguments, **options):
    return hdf5(lambda f: f.create_dataset("bad", *arguments, **options))


def holding(value, *names):
    """A builder of an HDF5 file with a value as "bad", or under other names."""
    return hdf5(lambda f: f.update(dict.fromkeys(names or ["bad"], value)))


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
    first, block = (
        deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
        for _ in range(2)
    )
    return first + size * block


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


def cut(build):
    def cut_build(path):
        build(path)
        os.truncate(path, os.path.getsize(path) - 1)

    return cut_build


def flipped(build):
    def flipped_build(path):
        build(path)
        data = bytearray(Path(path).read_bytes())
        data[-10] ^= 1
        Path(path).write_bytes(data)

    return flipped_build


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
                    if value is None:
                        continue
                    value = value if isinstance(value, list) else [value]
                    feature = example.features.feature[name]
                    kind = kinds[type(value[0])]
                    getattr(feature, kind).value.extend(value)
                writer.write(example.SerializeToString())

    return build


def second(**values):
    """A builder of a TFRecord file whose second record is bad."""
    sound = {
        "video_id": b"good",
        "clip_seconds": 1.0,
        "shape": [1, 2],
        "features": CLIPS.tobytes(),
    }
    return examples(sound, {**sound, "video_id": b"bad", **values})


def sparse_record(path):
    Path(path).write_bytes(start_of_record(1 << 31))
    os.truncate(path, (1 << 31) + 16)


def device(path):
    os.symlink("/dev/zero", path)


def socket(path):
    os.mknod(path, stat.S_IFSOCK | 0o600)


PLAIN = r".*make one plain file of it: python -c .*plain\.h5"
NPY = "is not a whole .npy file of numbers: .*"
UNWRITTEN = "'bad' was not written in whole, .* zeros "
# What writes a file, and what is said of it.
HDF5 = {
    "pipe": (os.mkfifo, "regular file, found a pipe"),
    "device": (device, "regular file, found a device"),
    "socket": (socket, "regular file, found a socket"),
    "folder": (os.mkdir, "regular file, found a folder"),
    # The file as a whole.
    "empty": (content(b""), "not a whole HDF5 file"),
    "text": (content(b"clips" * 99), "not a whole HDF5 file"),
    "cut": (cut(holding(CLIPS)), "not a whole HDF5 file: .*truncated"),
    "locked": (locked, "being written by another program"),
    "not closed": (not_closed, "not closed by the program that wrote it"),
    "name": (holding(CLIPS, b"v\xff"), r"not UTF-8: 'v\\udcff'"),
    "no names": (hdf5(lambda f: f.pop("good")), "holds no arrays"),
    "names in a circle": (circle(0), "x.h5: has names that are damaged"),
    "names of a group": (circle(1), "x.h5: has names that are damaged"),
    # Numbers that are not in the file.
    "soft": (holding(SOFT), f"'bad' is a soft link{PLAIN}"),
    "soft in group": (holding(SOFT, "bad/c3d"), f"is a soft link{PLAIN}"),
    "external": (
        holding(h5py.ExternalLink("y.h5", "/a")),
        f"'bad' is an external link{PLAIN}",
    ),
    "virtual": (hdf5(virtual), rf"'bad' .* `virtual_sources\(\)`{PLAIN}"),
    "external storage": (
        dataset((1, 2), "f4", external=[("raw", 0, 8)]),
        f"'bad' is stored in another file{PLAIN}",
    ),
    "never written": (dataset((1, 2), "f4"), UNWRITTEN),
    "no chunk": (dataset((1, 2), "f4", chunks=(1, 1)), UNWRITTEN),
    "not all chunks": (hdf5(part_written), UNWRITTEN),
    "terabytes": (
        dataset((TERA, 2), "f4", chunks=(1024, 2), compression="gzip"),
        UNWRITTEN,
    ),
    # More numbers than there can be.
    "gigabytes of zeros": (
        packed(1 << 29, deflated(1)),
        "'bad' declares 2,147,483,648 bytes and stores 2,0",
    ),
    "chunk that goes on": (
        packed(1 << 20, deflated(1000)),
        "'bad' has a chunk that is not the 4,194,304 bytes ",
    ),
    "chunk too long": (
        packed(1024, bytes(9000), filters=(LZF,)),
        "'bad' has a chunk that is not the 4,096 bytes ",
    ),
    "packed twice": (
        packed(2, zlib.compress(bytes(8)), filters=(1, 1)),
        f"'bad' is packed 2 times over{PLAIN}",
    ),
    "shape": (changed((5, 7), (TERA, 7)), "'bad' cannot be read"),
    "address": (
        changed(("address", 140), ("end", 140)),
        "'bad' (cannot be read|declares)",
    ),
    # Numbers that cannot be read.
    "filter": (
        packed(2, bytes(8), filters=(BLOSC,)),
        rf"'bad' is packed with filter 32001 .*hdf5plugin{PLAIN}",
    ),
    "group in group": (
        holding(CLIPS, "bad/c3d/fc6"),
        rf"'bad' must be .* found a group that holds c3d\. {PLAIN}",
    ),
    "group of two": (
        holding(CLIPS, "bad/fc6", "bad/fc7"),
        rf"'bad' must be .* group that holds fc6, fc7\. {PLAIN}",
    ),
    "empty group": (
        hdf5(lambda f: f.create_group("bad")),
        rf"'bad' must be .* group that holds nothing\. {PLAIN}",
    ),
    "type": (holding(np.dtype("f4")), "'bad' must be a dataset"),
    "words": (holding("clips"), "'bad' .* found text"),
    "records": (holding(np.ones(2, [("x", "f4")])), "'bad' .* records"),
    "lists": (dataset(3, h5py.vlen_dtype("f4")), "'bad' .* found lists"),
    "booleans": (holding(np.ones((1, 2), bool)), "'bad' .* booleans"),
    "no shape": (holding(h5py.Empty("f4")), "'bad' has no shape"),
    "large": (holding([1.0, 1e300]), "'bad': number 1 is inf"),
    "scalar": (holding(np.inf), "'bad': is inf"),
}
FOLDERS = {
    "no files": (os.mkdir, "holds no arrays"),
    "npy pipe": (npy(os.mkfifo), "bad.npy: .* found a pipe"),
    "npy folder": (npy(os.mkdir), "bad.npy: .* found a folder"),
    "npy name": (
        npy(lambda path: np.save(f"{path[:-7]}v\udcff", CLIPS)),
        r"not UTF-8: 'v\\udcff'",
    ),
    "npy shape": (header(shape=(TERA, TERA)), f"{NPY}bytes, and 8 follow"),
    "npy sign": (header(shape=(-1, -2)), NPY),
    "npy cut": (header(data=bytes(7)), f"{NPY}8 bytes, and 7 follow"),
    "npy goes on": (header(data=bytes(9)), f"{NPY}8 bytes, and 9 follow"),
    "npy header": (npy(content(b"\x93NUMPY\2\0\xff\xff\xff\xff{")), NPY),
    "npy long header": (header(2, descr="<f4" * 9999), NPY),
    "npy deep header": (
        npy(content(b"\x93NUMPY\1\0\0\x20" + b"(" * 8192)),
        NPY,
    ),
    "npy version": (header(3), rf"{NPY}found \(3, 0\)"),
    "npy empty": (npy(content(b"")), NPY),
    "npy objects": (
        npy(lambda path: np.save(path, np.array([{}]), allow_pickle=True)),
        f"{NPY}expected numbers, found object",
    ),
    "npy text": (header(descr="<U1"), f"{NPY}found <U1"),
    "pickle": (npy(content(pickle.dumps([1]))), NPY),
    "npz": (npy(archive), NPY),
}
TFRECORD = {
    "tfrecord pipe": (os.mkfifo, "found a pipe"),
    "no records": (content(b""), "holds no records"),
    "terabyte": (
        content(start_of_record(TERA) + b"abc"),
        ":1: is damaged or cut short: it ends after 15 bytes",
    ),
    "2 GiB": (sparse_record, ":1: must have at most .* 2,147,483,647 bytes"),
    "a million records": (
        content(record(b"") * 1_000_001),
        ":1000001: must have at most 1,000,000 records",
    ),
    "tfrecord cut": (cut(second()), ":2: is damaged or cut short"),
    "flipped": (flipped(second()), ":2: is damaged: .*corrupted"),
    "no examples": (
        content(record(b"\xff\xff") * 10_000),
        "(?s):1: is not a tf.train.Example.*and 99 more",
    ),
    "id as bytes": (second(video_id=b"\xff"), ":2: .* is not UTF-8"),
    "id again": (
        second(video_id=b"good"),
        ":2: video 'good' is already at .*:1; remove",
    ),
    "no id": (second(video_id=None), ":2: `video_id` must be one"),
    "id as number": (second(video_id=1), ":2: `video_id` must be one"),
    "other clips": (second(clip_seconds=2.0), "`clip_seconds` 2 is not the 1"),
    "videos missing": (second(num_videos=3), ":2: is cut .* 2 of its 3 vid"),
    "no array": (second(features=None), ":2: `features` must be one"),
    "no tfrecord shape": (second(shape=None), r":2: .* 8 bytes, .* \[\]"),
    "huge": (second(shape=[1 << 62, 1 << 62]), ":2: .* 8 bytes, .* .4611"),
    "sign": (second(shape=[-1, -2]), r":2: .* 8 bytes, .* \[-1, -2\]"),
    "long shape": (second(shape=[1] * 3_000_000), ":2: .* 8 bytes, .* .1, 1"),
}
CASES = {"x.h5": HDF5, "x": FOLDERS, "x.tfrecord": TFRECORD}
FILES = {name: file for file, cases in CASES.items() for name in cases}
REMEDY = (
    "extract|restore|copy|rename|write it again|write several files|wait|"
    "python -c|remove one"
)


def expected(name):
    return CASES[FILES[name]][name][1]


def path_of(folder, name):
    return os.path.join(folder, name, FILES[name])


def build_all(folder):
    """Writes all files; returns what is to be kept until they were read."""
    kept = []
    for name, file in FILES.items():
        os.mkdir(os.path.join(folder, name))
        build, _ = CASES[file][name]
        kept.append(build(path_of(folder, name)))
    return kept


def told(path, reader):
    from acnn_tf.data.features import open_features
    from acnn_tf.data.sentences import read_sentence_vectors
    from acnn_tf.files.problems import FeatureError

    try:
        if reader == "vectors":
            return str(read_sentence_vectors(path)["bad"])
        with open_features(path, clip_seconds=1.0, reader=reader) as features:
            return "\n".join(map(str, features.problems().values()))
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
    second()(sound)
    told(sound, "auto")
    # Should one of them ask for all memory, it is not to get it.
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (4 << 30),) * 2)
    for name in FILES:
        path, readers = path_of(folder, name), ["auto", "vectors"]
        if path.endswith(".h5"):
            readers.append("tfio")
        most_memory()
        start = most_memory()
        messages = {reader: told(path, reader) for reader in readers}
        growth = most_memory() - start
        sys.stdout.write(json.dumps([name, messages, growth]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
