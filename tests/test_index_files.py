"""The folder of an index: what is hostile, killed, or cannot be written.

Files that change by chance are a case of `test_mutations`.
"""

import copy
import json
import os
import re
import shutil
import sys
import types

import numpy as np
import pytest

from acnn_tf.data.windows import WindowGrid
from acnn_tf.files.manifests import save_manifest
from acnn_tf.search import EncodedVideo, IndexFileError
from acnn_tf.search.index_files import IndexFiles
from tests.disks import full_disk
from tests.processes import run_module

GRID = WindowGrid((2.0, 4.0), overlap=0.5)
MODEL = types.SimpleNamespace(grid=GRID, weights=[])
SHARD = {"number": 1, "num_shards": 4, "corpus": "0" * 64}
MADE_BY = {"encoder": "mine", "name": "mine", "weights": "1", "size": [2, 2]}
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


def append(files, names, seed=0, **placed):
    total = sum(len(video.windows) for video in encoded(names))
    with files.updating():
        made_by = MADE_BY if files.shard else None
        files.append(encoded(names, seed), total, made_by, **placed)


def make_index(path, dtype="float32", shard=None):
    files = IndexFiles(path, MODEL, dtype, shard)
    for seed, names in enumerate(["abc", "d", "efgh", "ij"]):
        append(files, names, seed)


def contents(path):
    files = IndexFiles(path, MODEL).contents
    return [
        (v.video_id, files.windows(v).tobytes(), files.encoding(v).tobytes())
        for v in files.videos
    ]


def write_list(path, number, text):
    """Gives an index another list, with a manifest that agrees."""
    listed = path / f"videos-{number:05d}.json"
    listed.write_bytes(text)
    files = json.loads((path / "manifest.json").read_text())["files"]
    save_manifest(path, {listed: files[listed.name]["records"]}, files)


def hostile(rng, content):
    """JSON with one value replaced, anywhere in it."""
    kind = rng.integers(12)
    if kind == 0:
        return b'{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    if kind == 1:
        return content + b"\xff\xfe"
    if kind == 2:
        return b'{"format": 3, "model": "\xff"}'
    changed = json.loads(content)
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
        return json.dumps(changed).encode()
    finally:
        sys.set_int_max_str_digits(4300)


@pytest.mark.parametrize(
    "count", [100, pytest.param(10_000, marks=pytest.mark.soak)]
)
def test_whatever_files_say_is_told_or_makes_no_difference(tmp_path, count):
    rng = np.random.default_rng(0)
    originals = []
    for number, shard in enumerate([None, SHARD]):
        original = tmp_path / f"original{number}"
        make_index(original, ("float32", "bfloat16")[number], shard)
        originals.append((original, contents(original)))
    path, told = tmp_path / "index", 0
    for number in range(count):
        original, expected = originals[number % 2]
        shutil.copytree(original, path)
        name = ("videos-00002", "manifest")[number % 3 == 0]
        content = hostile(rng, (path / f"{name}.json").read_bytes())
        if name == "manifest":
            (path / "manifest.json").write_bytes(content)
        else:
            write_list(path, 2, content)
        there = sorted(p.name for p in tmp_path.rglob("*"))
        try:
            found = contents(path)
        except IndexFileError as error:
            told += 1
            message = str(error)
            assert str(path) in message, number
            assert len(message) < 700, number
            assert re.search("again|choose|another|remove", message), message
        else:
            # A sound manifest may leave out the last files, and a list that
            # it names may rename a video. Nothing else.
            if name == "manifest":
                assert found == expected[: len(found)], number
            rest = [video[1:] for video in found]
            assert rest == [v[1:] for v in expected[: len(found)]], number
        assert sorted(p.name for p in tmp_path.rglob("*")) == there
        shutil.rmtree(path)
    assert told > 0.7 * count


def test_what_is_no_file_is_told_at_once(tmp_path):
    make_index(tmp_path / "index")
    for name in ("manifest.json", "videos-00000.json", "encodings-00000.npy"):
        path = tmp_path / "index" / name
        path.rename(tmp_path / "kept")
        for make, remove in ((os.mkfifo, os.unlink), (os.mkdir, os.rmdir)):
            make(path)
            with pytest.raises(IndexFileError, match=str(path)):
                IndexFiles(tmp_path / "index", MODEL)
            remove(path)
        (tmp_path / "kept").rename(path)


def test_sizes_alone_are_compared_where_nobody_asks_for_more(tmp_path):
    append(IndexFiles(tmp_path, MODEL), "abc")
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(file.read_bytes()[:-4] + b"1234")
    with pytest.raises(IndexFileError, match=r"00000\.npy: has other bytes"):
        IndexFiles(tmp_path, MODEL)
    quick = IndexFiles(None, MODEL)
    quick.add_folder(tmp_path, verify=False)
    assert len(quick.contents.videos) == 3


def test_only_its_own_format_is_read(tmp_path):
    path = tmp_path / "index"
    path.mkdir()
    (path / "index.json").write_text('{"digest": "0"}')
    with pytest.raises(IndexFileError, match=r"earlier version.*build the ind"):
        IndexFiles(path, MODEL)
    (path / "index.json").unlink()
    make_index(path)
    listed = json.loads((path / "videos-00000.json").read_text())
    write_list(path, 0, json.dumps(listed | {"format": 4}).encode())
    with pytest.raises(IndexFileError, match="another version"):
        IndexFiles(path, MODEL)


def test_another_folder_is_not_taken_for_an_index(tmp_path):
    (tmp_path / "notes.txt").touch()
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(IndexFileError, match="choose the folder of an"):
            IndexFiles(path, MODEL)
    save_manifest(tmp_path, {tmp_path / "notes.txt": 1})
    with pytest.raises(IndexFileError, match="leaves out, 'notes"):
        IndexFiles(tmp_path, MODEL)


def test_numpy_and_json_read_the_files_by_themselves(tmp_path):
    make_index(tmp_path / "index")
    part = np.load(tmp_path / "index" / "encodings-00000.npy")
    rows = np.concatenate([video.encoding for video in encoded("abc")])
    np.testing.assert_array_equal(part, rows)
    listed = json.loads((tmp_path / "index" / "videos-00001.json").read_text())
    assert listed["videos"] == [
        # Of 2 s, at 0 and at 1; 4 s are longer than the video.
        {"video_id": "d", "duration": 3.0, "num_windows": 2}
    ]


def test_two_objects_add_to_one_folder(tmp_path):
    one, other = (IndexFiles(tmp_path / "index", MODEL) for _ in range(2))
    append(one, "abc", 0)
    append(other, "de", 1)
    append(one, "f", 2)
    names = [video[0] for video in contents(one.path)]
    assert names == list("abcdef")
    assert one.contents.video_ids == names
    assert other.contents.video_ids == names[:-1]


def test_videos_that_come_one_by_one_leave_few_files(tmp_path):
    path, memory = tmp_path / "index", IndexFiles(None, MODEL)
    one, other = IndexFiles(path, MODEL), IndexFiles(path, MODEL)
    names = [f"v{number:02d}" for number in range(40)]
    for number, name in enumerate(names):
        append(memory, [name], number)
        append(other if number % 5 else one, [name], number)
        assert len(list(path.glob("*.npy"))) <= 16
    append(one, [])
    found = [
        [(v.video_id, files.encoding(v).tobytes()) for v in files.videos]
        for files in (one.contents, other.contents, memory.contents)
    ]
    assert found[0] == found[1] == found[2]
    assert [name for name, _ in found[0]] == names
    assert found[0] == [(name, rows) for name, _, rows in contents(path)]


def test_an_index_that_took_the_place_of_another_is_read_anew(tmp_path):
    path = tmp_path / "index"
    files = IndexFiles(path, MODEL)
    append(files, "abc", 0)
    shutil.rmtree(path)
    append(IndexFiles(path, MODEL), "xy", 1)
    append(files, "z", 2)
    assert files.contents.video_ids == list("xyz")
    assert [v[0] for v in contents(path)] == list("xyz")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_videos_are_removed_and_replaced_and_others_stay(tmp_path, dtype):
    make_index(tmp_path / "index", dtype)
    folder = IndexFiles(tmp_path / "index", MODEL)
    memory = IndexFiles(None, MODEL, dtype)
    for seed, names in enumerate(["abc", "d", "efgh", "ij"]):
        append(memory, names, seed)
    before = {video[0]: video for video in contents(folder.path)}
    for files in (folder, memory):
        append(files, "fx", 9, without=set("fdb"), sources={"x": "5 bytes"})
    new = IndexFiles(None, MODEL, dtype)
    append(new, "fx", 9)
    new = new.contents
    (f, x) = (new.encoding(video).tobytes() for video in new.videos)
    for one in (folder, memory, IndexFiles(folder.path, MODEL)):
        files = one.contents
        found = {v.video_id: files.encoding(v).tobytes() for v in files.videos}
        assert list(found) == list("ijaceghfx")
        assert found.pop("f") == f
        assert found.pop("x") == x
        assert found == {name: before[name][2] for name in "ijacegh"}
        sources = {v.video_id: v.source for v in files.videos}
        assert sources == dict.fromkeys("ijaceghf") | {"x": "5 bytes"}
        assert files.num_windows == sum(v.num_windows for v in files.videos)
        chunks = [rows for rows, _ in files.chunks(10**6)]
        assert sum(map(len, chunks)) == files.num_windows
    # Files 0 to 2 went into file 4, at once.
    names = sorted(path.name for path in (tmp_path / "index").glob("*.npy"))
    assert names == ["encodings-00003.npy", "encodings-00004.npy"]
    for files in (folder, memory):
        append(files, "", without=set("ijaceghfx"))
        append(files, "k")
        assert files.contents.video_ids == ["k"]
    assert [video[0] for video in contents(folder.path)] == ["k"]


def test_a_folder_is_read_while_videos_are_removed(tmp_path, monkeypatch):
    make_index(tmp_path / "index")
    expected = [v for v in contents(tmp_path / "index") if v[0] != "a"]
    other = IndexFiles(tmp_path / "index", MODEL)
    opened = IndexFiles._open

    def remove_meanwhile(self, *arguments):
        monkeypatch.undo()
        append(other, "", without={"a"})
        opened(self, *arguments)

    monkeypatch.setattr(IndexFiles, "_open", remove_meanwhile)
    found = contents(tmp_path / "index")
    assert sorted(found) == sorted(expected)


KILLED = """
import json, os, pathlib, shutil, sys
from acnn_tf.search.index_files import IndexFiles
from tests.disks import kill_everywhere
from tests.test_index_files import MODEL, append, contents

path = pathlib.Path(sys.argv[1], "index")
abc = ["a", "b", "c"]
for before, without, after in (
    ([], "", ["d", "e"]),
    (abc, "", [*abc, "d", "e"]),
    (abc, "ac", ["b", "d", "e"]),
):
    def prepare():
        shutil.rmtree(path, ignore_errors=True)
        if before:
            append(IndexFiles(path, MODEL), before)

    def look():
        found = [video[0] for video in contents(path)]
        # Nothing is in the way of the next, and nothing is left over.
        append(IndexFiles(path, MODEL), "x", 2)
        assert [video[0] for video in contents(path)] == [*found, "x"]
        listed = json.loads((path / "manifest.json").read_text())["files"]
        assert {*os.listdir(path)} == {*listed, "manifest.json"}
        return found

    def act():
        append(IndexFiles(path, MODEL), "de", 1, without=without)

    found = kill_everywhere(prepare, act, look)
    old = found.count(before)
    assert 20 < old < len(found) - 1
    assert found == old * [before] + (len(found) - old) * [after]
"""


@pytest.mark.slow
@pytest.mark.soak
def test_kill_at_any_moment_leaves_the_old_index_or_the_new(tmp_path):
    run_module("-c", KILLED, tmp_path)


def test_a_full_disk_leaves_what_was_there_and_says_so(tmp_path):
    path, failures = tmp_path / "index", []
    make_index(path)
    before = contents(path)
    other = tmp_path / "other"
    append(IndexFiles(other, MODEL), "abcdefgh")
    memory, index = IndexFiles(None, MODEL), IndexFiles(path, MODEL)
    append(memory, "abcdefgh")
    acts = [
        lambda: append(index, "opqrstuvwxy"),
        lambda: append(index, "z"),  # a list longer than the encodings
        lambda: append(IndexFiles(other, MODEL), "", without="c"),
        lambda: append(IndexFiles(tmp_path / "new", MODEL), "abcdefgh"),
        lambda: memory.save(tmp_path / "saved"),
    ]
    for limit in range(0, 4000, 90):
        for act in list(acts):
            try:
                with full_disk(limit):
                    act()
                acts.remove(act)
            except OSError as error:
                failures.append(str(error))
                assert contents(path)[: len(before)] == before
                assert len(os.listdir(path)) == 1 + len(index._stated)
                assert len(contents(other)) in (7, 8)
                assert len(os.listdir(other)) == 3
                assert (memory.path is None) != (tmp_path / "saved").exists()
            assert not list(tmp_path.rglob("*.partial"))
            # A folder that holds no index yet is not left behind.
            for name in ("new", "saved"):
                if (tmp_path / name).exists():
                    assert len(contents(tmp_path / name)) == 8
    assert not acts
    assert len(contents(path)) == len(before) + 12
    assert [video[0] for video in contents(other)] == list("abdefgh")
    assert len(failures) > 10
    for name in (
        r"encodings-0000\d\.npy",
        r"videos-0000\d\.json",
        "manifest.json",
    ):
        assert any(re.search(f"{name} could not", line) for line in failures)
    assert any("bytes were wanted, 180 were" in line for line in failures)
    assert all("there before is unchanged" in line for line in failures)
