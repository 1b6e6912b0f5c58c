"""A disk that is full: the old file stays, and the message says what to do.

A limit on the size of a file stands for the disk. The library that writes
sees the same: a write that fails in the middle, or when the file is closed.
"""

import os

import numpy as np
import pytest

from acnn_tf.data.features import write_features
from tests.processes import run_script

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="limits are of POSIX"
)

FULL_DISK = """
import os, resource, sys, warnings
from pathlib import Path
import numpy as np
import tensorflow
from acnn_tf.data.annotations import Moment, write_jsonl
from acnn_tf.data.features import write_features
from acnn_tf.data.predictions import write_predictions
from acnn_tf.files.atomic import WriteError
from acnn_tf.files.manifests import save_manifest

warnings.simplefilter("error")
os.chdir(sys.argv[1])
# 20 videos of 25 kB; enough moments for 100 kB.
clips = {f"v{i}": np.ones((125, 50), np.float32) for i in range(20)}
moments = [
    Moment(f"{i}", "a man runs", "v", 30.0, ((1.0, 9.0),)) for i in range(1000)
]
rows = [np.ones((9, 3))] * 1000
Path("notes.txt").write_text("abc")
write = {
    "f.hdf5": lambda n: write_features("f.hdf5", dict([*clips.items()][:n]), 1),
    "f.tfrecord": lambda n: write_features(
        "f.tfrecord", dict([*clips.items()][:n]), 1
    ),
    "npy": lambda n: write_features("npy", clips, 1.0),
    "train.jsonl": lambda n: write_jsonl(moments[:n], "train.jsonl"),
    "one.jsonl": lambda n: write_jsonl(moments[:1], "one.jsonl"),
    "notes.txt.manifest.json": lambda n: save_manifest(
        "notes.txt", {"notes.txt": n or 1000}
    ),
    "predictions.jsonl": lambda n: write_predictions(
        "predictions.jsonl", moments[:n], rows[:n]
    ),
}
for name in write:
    if name != "npy":  # which stays if it is there
        write[name](1)
limits = {
    # Nothing at all, a part, all but the last bytes.
    "f.hdf5": [0, 1000, 60_000, 505_000],
    "f.tfrecord": [60_000, 500_000],
    "npy": [2, 2000, 25_000],  # each file has 25 kB
    "train.jsonl": [0, 1000, 90_000],
    # The file fits, its manifest does not.
    "one.jsonl": [os.path.getsize("one.jsonl") + 10],
    "notes.txt.manifest.json": [50],
    "predictions.jsonl": [1000],
}

def contents():
    return {p: p.is_file() and p.read_bytes() for p in Path().rglob("*")}

before = contents()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for name, sizes in limits.items():
    for limit in sizes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            write[name](None)
            told = "was written"
        except WriteError as error:
            told = str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert contents() == before, (name, limit)
        print(name, told, sep="|")
"""


def test_what_finds_no_room_leaves_the_old_files_and_says_what_to_do(tmp_path):
    lines = run_script(FULL_DISK, tmp_path).splitlines()
    assert len(lines) == 15
    for name, message in (line.split("|") for line in lines):
        start = f"{name} could not be written: File too large ("
        assert message.startswith(start)
        if name in ("f.hdf5", "f.tfrecord", "npy"):
            assert "500,000 bytes were wanted" in message
        assert "were written" in message
        assert f"are free in {tmp_path}" in message
        assert "What was there before is unchanged" in message
        assert "raise the limit on the size of a file (`ulimit -f`)" in message


def test_folder_that_may_not_be_written_to_is_named(tmp_path):
    # A file where the folder should be.
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "f.hdf5"
    with pytest.raises(OSError, match=r"f\.hdf5 could not be written"):
        write_features(path, {"a": np.ones((2, 2), np.float32)}, 1.0)
