"""What strangers may make of a model file: an error each, and nothing else.

`NUM_MALFORMED=10000` damages more files than a test run has time for.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from acnn_tf.models import save_model
from tests import hostile_archives, hostile_configs
from tests.small_acnn import make_model

NUM_MALFORMED = int(os.environ.get("NUM_MALFORMED", "400"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    model = make_model()
    model.compile("adam", {"score": "mse"})
    model.save(folder / "plain.keras")
    save_model(model, folder / "good.keras")
    hostile = folder / "hostile"
    hostile.mkdir()
    # Whoever opens it waits for ever, and that is noticed.
    secret = folder / "fifo"
    os.mkfifo(secret)
    members = hostile_archives.read(folder / "good.keras")
    config = json.loads(members[hostile_archives.CONFIG])
    changes = {
        hostile_archives.CONFIG: hostile_configs.configs(config, str(secret)),
        hostile_archives.WEIGHTS: hostile_archives.weights(
            members[hostile_archives.WEIGHTS], secret
        ),
    }
    for name, variants in changes.items():
        for what, data in variants.items():
            hostile_archives.pack(
                hostile / f"{name.split('.')[0]} {what}.keras",
                {**members, name: data}.items(),
            )
    hostile_archives.archives(members, hostile)
    return folder


@pytest.fixture(scope="module")
def report(folder):
    before = sorted(folder.iterdir())
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.archive_canary",
            str(folder),
            str(NUM_MALFORMED),
        ],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60 + NUM_MALFORMED,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    found["left"] = sorted(
        path.name
        for path in set(folder.iterdir()) - set(before)
        if path.name not in ("malformed.keras", "last.keras")
    )
    return found


def test_the_canary_notices(report):
    assert len(report["noticed"]) == 2
    assert report["noticed"][0].startswith("os.system")
    assert report["noticed"][1] == "open /dev/null"


def test_every_hostile_file_is_an_error(report):
    assert len(report["hostile"]) > 250
    loaded = {
        what: found
        for what, found in report["hostile"].items()
        if found.startswith("LOADED")
    }
    assert not loaded


def test_nothing_but_model_file_errors_is_raised(report):
    assert not report["errors"]


def test_no_code_runs_and_nothing_is_written_elsewhere(report):
    assert not report["seen"]
    assert not report["left"]


def test_no_file_takes_more_memory_than_the_limit(report):
    from tests.archive_canary import MAX_BYTES

    assert 0 < report["bytes"] < MAX_BYTES, report["largest"]


def test_every_kind_of_damage_was_tried(report):
    counts = report["counts"]
    assert counts["sealed"] + counts["unsealed"] + counts["resealed"] == (
        NUM_MALFORMED
    )
    assert counts["resealed_loaded"] < counts["resealed"]
