"""A disk that is full: the old file stays, and the message says what to do.

A limit on the size of a file stands for the disk. The library that writes
sees the same: a write that fails in the middle, or when the file is closed.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from acnn_tf.data.annotations import Moment, write_jsonl
from acnn_tf.data.features import write_features
from acnn_tf.data.predictions import write_predictions
from acnn_tf.files.atomic import WriteError
from acnn_tf.files.manifests import save_manifest
from tests.disks import full_disk

# 20 videos of 25 kB; enough moments for 100 kB.
CLIPS = {f"v{i}": np.ones((125, 50), np.float32) for i in range(20)}
MOMENTS = [
    Moment(f"{i}", "a man runs", "v", 30.0, ((1.0, 9.0),)) for i in range(1000)
]
ROWS = [np.ones((9, 3))] * 1000


def write(name, count=None):
    """Writes a file: as many videos or moments, or all of them."""
    if name in ("f.hdf5", "f.tfrecord", "npy"):
        write_features(name, dict([*CLIPS.items()][:count]), 1.0)
    elif name == "predictions.jsonl":
        write_predictions(name, MOMENTS[:count], ROWS[:count])
    elif name == "notes.txt.manifest.json":
        save_manifest("notes.txt", {"notes.txt": count or 1000})
    else:
        write_jsonl(MOMENTS[: 1 if name == "one.jsonl" else count], name)


def contents():
    return {p: p.is_file() and p.read_bytes() for p in Path().rglob("*")}


def test_what_finds_no_room_leaves_the_old_files_and_says_what_to_do(
    subtests, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("abc")
    limits = {
        # Nothing at all, a part, all but the last bytes.
        "f.hdf5": [0, 1000, 60_000, 505_000],
        "f.tfrecord": [60_000, 500_000],
        "train.jsonl": [0, 1000, 90_000],
        "notes.txt.manifest.json": [50],
        "predictions.jsonl": [1000],
        "one.jsonl": [],
    }
    for name in limits:
        write(name, 1)
    # The file fits, its manifest does not; a folder, which stays if it is
    # there, of files of 25 kB.
    limits["one.jsonl"] = [os.path.getsize("one.jsonl") + 10]
    limits["npy"] = [2, 2000, 25_000]
    before = contents()
    cases = [(name, size) for name, sizes in limits.items() for size in sizes]
    for name, size in cases:
        with subtests.test(name, size=size):
            with full_disk(size), pytest.raises(WriteError) as error:
                write(name)
            assert contents() == before
            told = str(error.value)
            start = f"{name} could not be written: File too large ("
            assert told.startswith(start)
            if name in ("f.hdf5", "f.tfrecord", "npy"):
                assert "500,000 bytes were wanted" in told
            assert "were written" in told
            assert f"are free in {tmp_path}" in told
            assert "What was there before is unchanged" in told
            assert "raise the limit on the size of a file (`ulimit" in told
