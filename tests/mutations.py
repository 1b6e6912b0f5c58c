"""What may happen to files: `(files, rng)` -> those that change.

`files` is a dictionary from path to bytes; in what comes back `None` is a file
that goes.
"""

import itertools
import os
import struct

import h5py


def flip(files, rng):
    path = pick(files, rng)
    data = bytearray(files[path])
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return {path: bytes(data)}


def truncate(files, rng):
    path = pick(files, rng)
    return {path: files[path][: rng.integers(len(files[path]))]}


def cut_between_records(files, rng):
    path = pick(files, rng)
    records = records_of(path, files[path])
    return {path: b"".join(records[: rng.integers(len(records))])}


def empty(files, rng):
    return {pick(files, rng): b""}


def remove(files, rng):
    return {pick(files, rng): None}


def grow(files, rng):
    path = pick(files, rng)
    return {path: files[path] + rng.bytes(rng.integers(1, 50))}


def swap_files(files, rng):
    one = pick(files, rng)
    suffix = os.path.splitext(one)[1]
    alike = [p for p in files if p.endswith(suffix) and p != one]
    other = alike[rng.integers(len(alike))] if alike else one
    return {one: files[other], other: files[one]}


def swap_records(files, rng):
    path = pick(files, rng)
    records = records_of(path, files[path])
    one, other = rng.integers(len(records), size=2)
    records[one], records[other] = records[other], records[one]
    return {path: b"".join(records)}


def repeat_record(files, rng):
    path = pick(files, rng)
    records = records_of(path, files[path])
    one, other = rng.integers(len(records), size=2)
    records[one] = records[other]
    return {path: b"".join(records)}


def swap_blocks(files, rng):
    path = pick(files, rng)
    data = files[path]
    size = int(rng.choice([1, 4, 16, 64]))
    one, other = sorted(rng.integers(max(1, len(data) // size), size=2) * size)
    if one == other:
        return {path: data}
    blocks = data[one : one + size], data[other : other + size]
    data = bytearray(data)
    data[one : one + size], data[other : other + size] = reversed(blocks)
    return {path: bytes(data)}


MUTATIONS = (
    *(flip, flip, flip, truncate, cut_between_records, empty, remove, grow),
    *(swap_files, swap_records, repeat_record, swap_blocks),
)


def pick(files, rng):
    paths = sorted(files)
    return paths[rng.integers(len(paths))]


def records_of(path, data):
    """The parts that a program might write, or lose, as one."""
    if path.endswith(".hdf5"):
        with h5py.File(path) as file:
            # The numbers of a video with their checksum.
            chunks = [d.id.get_chunk_info(0) for d in file.values()]
        places = sorted((c.byte_offset, c.byte_offset + c.size) for c in chunks)
        ends = sorted({0, *sum(places, ()), len(data)})
        return [data[a:b] for a, b in itertools.pairwise(ends)]
    if path.endswith(".tfrecord"):
        records, start = [], 0
        while start < len(data):
            (size,) = struct.unpack("<Q", data[start : start + 8])
            records.append(data[start : start + size + 16])
            start += size + 16
        return records
    if path.endswith(".npy"):
        rows = range(len(data) % 16 or 16, len(data) + 1, 16)
        return [data[: rows[0]], *(data[a : a + 16] for a in rows[:-1])]
    return data.splitlines(keepends=True)
