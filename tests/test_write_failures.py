"""A disk that is full: the old file stays, and the message says what to do.

A limit on the size of a file stands for the disk. The library that writes
sees the same: a write that fails in the middle, or when the file is closed.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from acnn_tf.data.annotations import Moment, read_moments, write_jsonl
from acnn_tf.data.features import open_features, write_features
from acnn_tf.data.predictions import read_predictions, write_predictions
from acnn_tf.files.manifests import check_file, save_manifest

ROOT = Path(__file__).resolve().parents[1]
CLIPS = np.array([[1.5, 2.0], [3.0, 4.0]], np.float32)
MOMENTS = [Moment("q", "a man runs", "v", 30.0, ((1.0, 9.0),))]
# 20 videos of 25 kB; enough moments for 100 kB.
LARGE = """
import numpy as np
from acnn_tf.data.annotations import Moment, write_jsonl
from acnn_tf.data.features import write_features
from acnn_tf.files.manifests import save_manifest
from acnn_tf.data.predictions import write_predictions
clips = {f"v{i}": np.ones((125, 50), np.float32) for i in range(20)}
moments = [
    Moment(f"{i}", "a man runs", "v", 30.0, ((1.0, 9.0),)) for i in range(1000)
]
"""

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="limits are of POSIX"
)


def run_limited(statement, limit):
    """Runs a statement under a limit; returns what it says in failing."""
    script = f"""
import resource, tempfile
from acnn_tf.files.atomic import WriteError
{LARGE}
if {"tfrecord" in statement}:
    import tensorflow
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    {statement}
except WriteError as error:
    print(f"told: {{error}}")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # No more is said when objects go, or the process ends.
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr
    assert done.stdout.startswith("told: "), done.stdout
    return done.stdout.removeprefix("told: ")


def assert_helpful(message, path):
    assert message.startswith(f"{path} could not be written: File too large")
    assert "were written" in message
    assert f"are free in {path.parent}" in message
    assert "What was there before is unchanged" in message
    assert "raise the limit on the size of a file (`ulimit -f`)" in message


# Nothing at all, a part, all but the last bytes.
@pytest.mark.parametrize(
    "kind, limit",
    [
        ("hdf5", 0),
        ("hdf5", 1000),
        ("hdf5", 60_000),
        ("hdf5", 505_000),
        ("tfrecord", 60_000),
        ("tfrecord", 500_000),
        # Here each file has 25 kB.
        ("npy", 2),
        ("npy", 2000),
        ("npy", 25_000),
    ],
)
def test_features_that_find_no_room_leave_the_old_ones(tmp_path, kind, limit):
    path = tmp_path / f"f.{kind}" if kind != "npy" else tmp_path / "npy"
    if kind != "npy":
        write_features(path, {"old": CLIPS}, 1.0)
    before = sorted(os.listdir(tmp_path))
    message = run_limited(f"write_features({str(path)!r}, clips, 1.0)", limit)
    assert_helpful(message, path)
    assert "500,000 bytes were wanted" in message
    assert sorted(os.listdir(tmp_path)) == before
    if kind != "npy":
        assert list(open_features(path)) == ["old"]


@pytest.mark.parametrize("limit", [0, 1000, 90_000])
def test_moments_that_find_no_room_leave_the_old_ones(tmp_path, limit):
    path = tmp_path / "train.jsonl"
    write_jsonl(MOMENTS, path)
    before = sorted(os.listdir(tmp_path))
    message = run_limited(f"write_jsonl(moments, {str(path)!r})", limit)
    assert_helpful(message, path)
    assert sorted(os.listdir(tmp_path)) == before
    assert len(read_moments(path, "jsonl")) == 1


def test_manifest_that_finds_no_room_leaves_file_and_manifest(tmp_path):
    path = tmp_path / "train.jsonl"
    write_jsonl(MOMENTS, path)
    before = sorted(os.listdir(tmp_path))
    # The file fits, the manifest does not.
    size = path.stat().st_size
    assert size < (tmp_path / "train.jsonl.manifest.json").stat().st_size
    statement = f"write_jsonl(moments[:1], {str(path)!r})"
    message = run_limited(statement, size + 10)
    assert_helpful(message, path)
    assert sorted(os.listdir(tmp_path)) == before
    assert read_moments(path, "jsonl")[0].query_id == "q"


def test_manifest_alone_that_finds_no_room_leaves_the_old_one(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("abc")
    manifest = Path(save_manifest(path, {path: 1}))
    before = manifest.read_bytes()
    message = run_limited(
        f"save_manifest({str(path)!r}, {{{str(path)!r}: 2}})", 50
    )
    assert_helpful(message, manifest)
    assert manifest.read_bytes() == before
    assert check_file(path, records=1) == []
    assert len(os.listdir(tmp_path)) == 2


def test_predictions_that_find_no_room_leave_the_old_ones(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, MOMENTS, [np.array([[1.0, 9.0, 0.5]])])
    message = run_limited(
        f"write_predictions({str(path)!r}, moments, [np.ones((9, 3))] * 1000)",
        1000,
    )
    assert_helpful(message, path)
    assert os.listdir(tmp_path) == ["predictions.jsonl"]
    assert len(read_predictions(path, MOMENTS)[0]) == 1


def test_folder_that_may_not_be_written_to_is_named(tmp_path):
    # A file where the folder should be.
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "f.hdf5"
    with pytest.raises(OSError, match=r"f\.hdf5 could not be written"):
        write_features(path, {"a": CLIPS}, 1.0)
