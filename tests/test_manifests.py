"""Manifests: what files held when they were written."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from acnn_tf.data.annotations import Moment, read_moments, write_jsonl
from acnn_tf.data.features import open_features, write_features
from acnn_tf.files.manifests import check_file, manifest_path, save_manifest
from acnn_tf.files.problems import DataError, FeatureError
from tests.processes import run_script

CLIPS = np.array([[1.5, 2.0], [3.0, 4.0]], np.float32)
MOMENTS = [
    Moment(f"q{number}", "a man runs", "v", 30.0, ((number, number + 9.0),))
    for number in range(3)
]


@pytest.fixture
def notes(tmp_path):
    """A file with its manifest."""
    path = tmp_path / "notes.txt"
    path.write_text("abc\n")
    save_manifest(path, {path: 1})
    return path


def told(path):
    return "\n".join(map(str, check_file(path)))


def test_manifest_has_bytes_records_and_digest(notes):
    content = json.loads(Path(manifest_path(notes)).read_text())
    assert content["files"] == {
        "notes.txt": {
            "bytes": 4,
            "records": 1,
            # printf 'abc\n' | sha256sum
            "sha256": "edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb"
            "34982ddf0efd18cb",
        }
    }
    assert check_file(notes) == []
    assert check_file(notes, records=1) == []
    # Its layout is free.
    Path(manifest_path(notes)).write_text(json.dumps(content))
    assert check_file(notes) == []


def test_change_is_told_with_expectation_and_remedy(notes):
    (problem,) = check_file(notes, records=2)
    assert "holds 2 records, but 1 in" in problem.message
    for content, words in {
        "ab\n": "has 3 bytes, but 4 in .*notes.txt.manifest.json",
        "abd\n": "has other bytes than when .*notes.txt.manifest.json was",
        "": "has 0 bytes, but 4",
    }.items():
        notes.write_text(content)
        (problem,) = check_file(notes)
        assert problem.path == str(notes)
        assert re.search(words, problem.message)
        assert "restore it, or, if that is meant, remove the" in told(notes)
        assert "inspect_data --write_manifests" in told(notes)
    os.remove(manifest_path(notes))  # without which a file is as it is
    assert check_file(notes) == []


def test_manifest_under_another_name_is_told(notes, tmp_path):
    other = tmp_path / "other.txt"
    notes.rename(other)
    Path(manifest_path(notes)).rename(manifest_path(other))
    assert "is not in" in told(other)
    assert "speaks of notes.txt" in told(other)


def test_damaged_manifest_says_to_remove_it_or_write_it_again(notes):
    manifest = Path(manifest_path(notes))
    sound = manifest.read_text()
    for text in (
        "",
        "[]",
        "null",
        "[" * 100_000,
        "\udcff",
        sound[:-5],
        sound.replace("files", "fires"),
        sound.replace("records", "chords"),
        sound.replace('"bytes": 4', '"bytes": "4"'),
    ):
        manifest.write_bytes(text.encode(errors="surrogateescape"))
        (problem,) = check_file(notes)
        assert problem.path == str(manifest)
        assert re.search(
            "is a damaged manifest.*remove it.*write it again", problem.message
        ), text[:50]


def test_any_flipped_bit_of_a_manifest_is_told(notes):
    manifest = Path(manifest_path(notes))
    before = manifest.read_bytes()
    for place in range(0, 8 * len(before), 7):
        data = bytearray(before)
        data[place // 8] ^= 1 << place % 8
        manifest.write_bytes(data)
        assert check_file(notes, records=1)


def test_pipe_in_place_of_a_file_or_manifest_is_told(notes):
    notes.unlink()
    os.mkfifo(notes)
    with pytest.raises(OSError, match="not a regular file"):
        check_file(notes)
    os.remove(manifest_path(notes))
    os.mkfifo(manifest_path(notes))
    assert "is a damaged manifest" in told(notes)


def test_changed_annotations_are_not_read(tmp_path):
    path = tmp_path / "train.jsonl"
    write_jsonl(MOMENTS, path)
    assert len(read_moments(path, "jsonl")) == 3
    text = path.read_text()
    # Another time, as sound as the one before.
    path.write_text(text.replace("[[1, 10.0]]", "[[1, 11.0]]"))
    assert path.read_text() != text
    with pytest.raises(DataError, match=r"train\.jsonl: has other bytes"):
        read_moments(path, "jsonl")
    problems = []
    assert read_moments(path, "jsonl", problems=problems) == []
    assert [problem.path for problem in problems] == [str(path)]


def test_tfrecord_that_changes_after_it_was_opened_is_told(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_features(path, {"a": CLIPS}, 1.0)
    with open_features(path) as features:
        data = bytearray(path.read_bytes())
        data[data.index(CLIPS.tobytes())] ^= 1
        path.write_bytes(data)
        with pytest.raises(FeatureError, match=r"a\.tfrecord:1: has changed"):
            features["a"]


@pytest.fixture
def tfrecord_set(tmp_path):
    """Two TFRecord files and a manifest of both."""
    for name in ("a", "b"):
        write_features(tmp_path / f"{name}.tfrecord", {name: CLIPS}, 1.0)
        os.remove(tmp_path / f"{name}.tfrecord.manifest.json")
    with open_features(tmp_path) as features:
        assert features.save_manifest() == str(tmp_path / "manifest.json")
        assert features.save_manifest() is None
    return tmp_path


def test_file_too_many_in_a_set_is_named(tfrecord_set):
    # Not by `write_features`, which keeps the manifest up to date.
    with tfrecord_set.joinpath("c.tfrecord").open("wb") as file:
        file.write(tfrecord_set.joinpath("a.tfrecord").read_bytes())
    with pytest.raises(FeatureError, match=r"c\.tfrecord: is there, but not"):
        open_features(tfrecord_set)


def test_writing_into_a_set_keeps_its_manifest_true(tfrecord_set):
    write_features(tfrecord_set / "b.tfrecord", {"x": CLIPS}, 1.0)
    write_features(tfrecord_set / "c.tfrecord", {"c": CLIPS}, 1.0)
    write_jsonl(MOMENTS, tfrecord_set / "train.jsonl")
    with open_features(tfrecord_set) as features:
        assert list(features) == ["a", "c", "x"]
    os.remove(tfrecord_set / "c.tfrecord")
    with pytest.raises(FeatureError, match=r"c\.tfrecord: is missing"):
        open_features(tfrecord_set)


def test_npy_too_many_is_told_at_once(tmp_path):
    write_features(tmp_path / "npy", {"a": CLIPS, "b": CLIPS + 1}, 1.0)
    shutil.copy(tmp_path / "npy" / "a.npy", tmp_path / "npy" / "c.npy")
    with pytest.raises(FeatureError, match=r"c\.npy: is there, but not in"):
        open_features(tmp_path / "npy")


KILLED = """
import os, shutil, sys
from acnn_tf.data.annotations import Moment, read_moments, write_jsonl
from tests.disks import kill_everywhere

folder = sys.argv[1]
path = os.path.join(folder, "train.jsonl")

def moments(number):
    span = ((0.0, 1.0),)
    return [Moment(f"q{n}", "a", "v", 9.0, span) for n in range(number)]

def prepare():
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    write_jsonl(moments(3), path)

def look():
    found = len(read_moments(path, "jsonl"))
    # Nothing is in the way of the next, and nothing is left over.
    write_jsonl(moments(4), path)
    assert len(read_moments(path, "jsonl")) == 4
    assert len(os.listdir(folder)) == 2
    return found

found = kill_everywhere(prepare, lambda: write_jsonl(moments(1), path), look)
old = found.count(3)
assert 4 < old < len(found) - 1
assert found == old * [3] + (len(found) - old) * [1]
"""


@pytest.mark.skipif(os.name != "posix", reason="processes are of POSIX")
def test_kill_leaves_no_sound_file_that_cannot_be_read(tmp_path):
    run_script(KILLED, tmp_path / "data")
