"""The folder of an index: what is damaged, and what cannot be written.

`NUM_MUTATIONS=10000` damages more often than a test run has time for.
"""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from acnn_tf.data.windows import WindowGrid
from acnn_tf.search import EncodedVideo, IndexFileError, index_list
from acnn_tf.search.index_files import IndexFiles

ROOT = Path(__file__).resolve().parents[1]
NUM_MUTATIONS = int(os.environ.get("NUM_MUTATIONS", "100"))
GRID = WindowGrid((2.0, 4.0), overlap=0.5)
MODEL = types.SimpleNamespace(grid=GRID, weights=[])
SHARD = {"number": 1, "num_shards": 4, "corpus": "0" * 64}
# What a list may be made to say.
HOSTILE = [
    *(-1, 0, 1, 2, 7, 2**31, 2**48, 2**63, 10**30, 10**4000),
    *(0.0, -0.5, 1.5, 1e11, 1e308, float("nan"), float("inf"), True, None),
    *("", "\ud800", "../../../etc/passwd", "/dev/zero", "float64", "O", "a\0b"),
    *("0" * 64, "g" * 64, "F" * 64, "__import__('os').abort()"),
    *([], {}, [[]], [[1, 2, 3]], {"__class__": "os.system"}),
]


def encoded(names, seed=0, width=5):
    rng = np.random.default_rng(seed)
    for place, name in enumerate(names):
        duration = 3.0 + place
        windows = GRID.windows(duration)
        rows = rng.normal(size=(len(windows), width)).astype(np.float32)
        yield EncodedVideo(name, duration, windows, rows)


def append(files, names, seed=0):
    total = sum(len(video.windows) for video in encoded(names))
    files.append(encoded(names, seed), total)


def make_index(path, dtype="float32", shard=None):
    files = IndexFiles(path, MODEL, dtype, shard)
    for seed, names in enumerate(["abc", "d", "efgh", "ij"]):
        append(files, names, seed)


def contents(path):
    files = IndexFiles(path, MODEL)
    return [
        (
            v.video_id,
            files.windows(v).tobytes(),
            files.encoding(v).tobytes(),
        )
        for v in files.videos
    ]


def signed(text):
    """A list whose digest is right, whatever else it says."""
    rest = text[1:]
    digest = hashlib.sha256(rest).hexdigest().encode()
    return b'{"digest": "' + digest + b'", ' + rest


def hostile_list(rng, original):
    """A list with one value replaced, anywhere in it."""
    listed = json.loads(original)
    del listed["digest"]
    changed = copy.deepcopy(listed)
    kind = rng.integers(12)
    if kind == 0:
        nested = b'{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
        return signed(nested)
    if kind == 1:
        return signed(json.dumps(changed).encode() + b"\xff\xfe")
    if kind == 2:
        return signed(b'{"format": 2, "model": "\xff"}')
    place = changed
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = keys[rng.integers(len(keys))]
        if not isinstance(place[key], (dict, list)) or not place[key]:
            break
        if rng.integers(4) == 0:
            break
        place = place[key]
    value = HOSTILE[rng.integers(len(HOSTILE))]
    if rng.integers(8) == 0:
        del place[key]
    elif rng.integers(8) == 0 and isinstance(place, list):
        place.append(copy.deepcopy(place[key]))
    else:
        place[key] = value
    sys.set_int_max_str_digits(0)
    try:
        return signed(json.dumps(changed).encode())
    finally:
        sys.set_int_max_str_digits(4300)


def flipped(rng, content):
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(content)


def mutate(rng, path):
    """Damages one file, or two, and says how."""
    files = sorted(path.iterdir())
    lists = path / "index.json"
    file = files[rng.integers(len(files))]
    content = file.read_bytes()
    kind = rng.integers(10)
    if kind < 2:
        file.write_bytes(flipped(rng, content))
    elif kind == 2:
        file.write_bytes(content[: rng.integers(len(content))])
    elif kind == 3:
        file.write_bytes(content + bytes(rng.integers(1, 200)))
    elif kind == 4:
        file.write_bytes(b"")
    elif kind == 5:
        file.unlink()
    elif kind == 6:
        file.unlink()
        file.mkdir() if rng.integers(2) else os.mkfifo(file)
    elif kind == 7:
        one, other = rng.permutation(files[:-1])[:2]
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    else:
        lists.write_bytes(hostile_list(rng, lists.read_bytes()))
    return kind


def test_whatever_is_damaged_is_told_or_makes_no_difference(tmp_path):
    rng = np.random.default_rng(0)
    originals = []
    for number, shard in enumerate([None, SHARD]):
        original = tmp_path / f"original{number}"
        make_index(original, ("float32", "bfloat16")[number], shard)
        originals.append((original, contents(original)))
    path, told = tmp_path / "index", 0
    for number in range(NUM_MUTATIONS):
        original, expected = originals[number % 2]
        shutil.copytree(original, path)
        kind = mutate(rng, path)
        there = sorted(p.name for p in tmp_path.rglob("*"))
        try:
            found = contents(path)
        except IndexFileError as error:
            told += 1
            message = str(error)
            assert str(path) in message, number
            assert len(message) < 700, number
            assert any(
                remedy in message
                for remedy in ("again", "choose", "another", "remove")
            ), message
        else:
            # A signed list may give a video another name, nothing else.
            rest = [video[1:] for video in found]
            assert rest == [video[1:] for video in expected], (number, kind)
            assert kind > 7 or found == expected, (number, kind)
        assert sorted(p.name for p in tmp_path.rglob("*")) == there
        shutil.rmtree(path)
    assert told > 0.8 * NUM_MUTATIONS


@pytest.mark.parametrize("position", [0, 12, 40, 77, 300, -1])
def test_a_flipped_bit_of_the_list_is_told(position, tmp_path):
    path = tmp_path / "index"
    make_index(path)
    content = bytearray((path / "index.json").read_bytes())
    content[position] ^= 1
    (path / "index.json").write_bytes(content)
    with pytest.raises(IndexFileError, match=r"index\.json is damaged"):
        IndexFiles(path, MODEL)


def test_two_files_of_one_shape_cannot_be_swapped(tmp_path):
    path = tmp_path / "index"
    files = IndexFiles(path, MODEL)
    append(files, "abc", seed=0)
    append(files, "def", seed=1)
    one, other = sorted(path.glob("*.npy"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    with pytest.raises(IndexFileError, match=r"00000\.npy has the SHA-256"):
        IndexFiles(path, MODEL)
    # Where nobody asks for more, sizes alone are compared.
    assert len(IndexFiles(path, MODEL, verify=False).videos) == 6


def test_an_older_format_is_told_from_a_damaged_one(tmp_path):
    (tmp_path / "index").mkdir()
    listed = {"format": 1, "model": "0", "grid": {}, "parts": [], "videos": []}
    (tmp_path / "index" / "index.json").write_text(json.dumps(listed))
    with pytest.raises(IndexFileError, match="another version"):
        IndexFiles(tmp_path / "index", MODEL)


def test_numpy_reads_the_encodings_by_itself(tmp_path):
    make_index(tmp_path / "index")
    part = np.load(tmp_path / "index" / "encodings-00000.npy")
    rows = np.concatenate([video.encoding for video in encoded("abc")])
    np.testing.assert_array_equal(part, rows)
    assert index_list.FORMAT == 2


FULL_DISK = """
import os, pathlib, resource, signal, sys
from acnn_tf.search.index_files import IndexFiles
from tests.test_index_files import MODEL, append, contents, make_index

folder = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
path = folder / "index"
make_index(path)
before = contents(path)
memory, index = IndexFiles(None, MODEL), IndexFiles(path, MODEL)
append(memory, "abcdefgh")
acts = [
    lambda: append(index, "opqrstuvwxy"),
    lambda: append(index, "z"),  # a list that is longer than the encodings
    lambda: append(IndexFiles(folder / "new", MODEL), "abcdefgh"),
    lambda: memory.save(folder / "saved"),
]
for limit in range(0, 4000, 90):
    for act in list(acts):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            act()
            acts.remove(act)
        except OSError as error:
            print(error)
            now = contents(path)
            assert now[: len(before)] == before
            assert len(os.listdir(path)) == 1 + len(index._listed)
            assert (memory.path is None) != (folder / "saved").exists()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert not list(folder.rglob("*.partial"))
        # A folder that holds no index yet is not left behind.
        for name in ("new", "saved"):
            if (folder / name).exists():
                assert len(contents(folder / name)) == 8
assert not acts
assert len(contents(path)) == len(before) + 12
"""


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_there_and_says_so(tmp_path):
    # A file that may not grow fails like a disk that is full.
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    failures = [line for line in lines if "could not be written" in line]
    assert len(failures) > 10
    assert any("encodings-00000.npy could not" in line for line in failures)
    assert any("index.json could not" in line for line in failures)
    assert any("after 180 of " in line for line in failures)
    assert all("before is as it was" in line for line in failures)
