"""HDF5 files with random damage, and a process that reads them.

`python -m tests.damaged_arrays KIND FIRST LAST` reads copies of one file
without a manifest, each damaged in another way, and prints what came of it.
Damage that is found is told by a `FeatureError`, other damage does no harm or
changes numbers; anything else, such as a crash, ends the process.
"""

import collections
import os
import sys
import tempfile

import h5py
import numpy as np

from acnn_tf.files.arrays import Arrays
from acnn_tf.files.hdf5 import HDF5File, TensorFlowIOFile, write_hdf5
from acnn_tf.files.problems import FeatureError

# So many that the newer formats keep their names in a tree.
CLIPS = {
    f"v{number:02d}": np.full((3, 4), 1.5 + number, np.float32)
    for number in range(30)
}
MADE_BY = '{"encoder": "mine", "name": "mine"}'
NUMBERS = [0, 1, 8, 1 << 32, 1 << 40, *((1 << n) - 1 for n in (8, 16, 63, 64))]


def stranger(libver, group="", **options):
    """A writer of another program's file, in any of HDF5's layouts."""

    def write(path, clips, clip_seconds):
        with h5py.File(path, "w", libver=libver) as file:
            file.attrs["clip_seconds"] = clip_seconds
            file.attrs["encoder"] = np.bytes_(MADE_BY)
            for name, array in clips.items():
                file.create_dataset(name + group, data=array, **options)

    return write


def ours(path, clips, clip_seconds):
    write_hdf5(path, clips, clip_seconds, MADE_BY)


KINDS = {
    "written here": ours,
    "earliest": stranger("earliest"),
    "earliest packed": stranger("earliest", compression="gzip", chunks=(2, 2)),
    "earliest groups": stranger("earliest", group="/c3d"),
    "latest": stranger("latest"),
    "latest packed": stranger(
        "latest", compression="lzf", chunks=(1, 4), maxshape=(None, 4)
    ),
}


def damaged(data, rng):
    """A few bytes, or numbers of a few bytes, that are others."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        width = int(rng.choice([1, 1, 2, 4, 8]))
        place, other = rng.integers(len(data) - width, size=2)
        old = int.from_bytes(data[place : place + width], "little")
        new = (
            old ^ (1 << int(rng.integers(8 * width))),
            old + int(rng.integers(-9, 10)),
            NUMBERS[rng.integers(len(NUMBERS))],
            int(rng.integers(len(data))),
            int.from_bytes(data[other : other + width], "little"),
        )[rng.integers(5)]
        new %= 1 << 8 * width
        data[place : place + width] = new.to_bytes(width, "little")
    return bytes(data)


def swaps_zeros_and_ones(data, changed):
    """Whether all bits of bytes changed: HDF5's checksum cannot tell 16."""
    pairs = {(old, new) for old, new in zip(data, changed) if old != new}
    return pairs <= {(0x00, 0xFF), (0xFF, 0x00)}


def read_all(reader, path):
    arrays = Arrays(reader(path))
    try:
        found = {name: arrays.read(name).tobytes() for name in arrays.names}
        return found, arrays.clip_seconds, list(arrays.encoders)
    finally:
        arrays.close()


def main(kind, first, last, reader=HDF5File):
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "features.h5")
        KINDS[kind](path, CLIPS, 1.0)
        with open(path, "rb") as file:
            data = file.read()
        expected = read_all(reader, path)
        for seed in range(first, last):
            changed = damaged(data, np.random.default_rng(seed))
            with open(path, "wb") as file:
                file.write(changed)
            try:
                if read_all(reader, path) == expected:
                    counts["harmless"] += 1
                elif swaps_zeros_and_ones(data, changed):
                    counts["swapped"] += 1
                else:
                    counts["changed"] += 1
            except FeatureError as error:
                counts["told" if path in str(error) else "not named"] += 1
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
    sys.stdout.write(f"{dict(counts)}\n")


if __name__ == "__main__":
    readers = {"h5py": HDF5File, "tfio": TensorFlowIOFile}
    kind, first, last, *reader = sys.argv[1:]
    main(kind, int(first), int(last), *(readers[name] for name in reader))
