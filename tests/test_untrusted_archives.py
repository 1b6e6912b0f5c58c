"""What strangers may make of a model file: an error each, and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from acnn_tf.models import save_model
from tests import hostile_archives, hostile_configs
from tests.archive_canary import MAX_BYTES
from tests.hostile_archives import CONFIG, WEIGHTS
from tests.small_acnn import make_model


def write_files(folder):
    """Writes `good.keras`, `harmless.keras` and `hostile/*.keras`."""
    model = make_model()
    model.compile("adam", {"score": "mse"})
    save_model(model, folder / "good.keras")
    # Whoever opens it waits for ever, and that is noticed.
    secret = folder / "fifo"
    os.mkfifo(secret)
    members = hostile_archives.read(folder / "good.keras")
    config = json.loads(members[CONFIG])
    (folder / "hostile").mkdir()
    changes = {
        CONFIG: hostile_configs.configs(config, str(secret)),
        WEIGHTS: hostile_archives.weights(members[WEIGHTS], secret),
    }
    for name, variants in changes.items():
        for what, data in variants.items():
            path = folder / "hostile" / f"{name.split('.')[0]} {what}.keras"
            hostile_archives.pack(path, {**members, name: data}.items())
    hostile_archives.archives(members, folder / "hostile")
    # Keras would make objects of what is not looked at here.
    objects = list(hostile_configs.objects(str(secret)).values())
    compiled = {"optimizer": objects[0], "loss": objects}
    config |= {"module": "os", "compile_config": compiled}
    members |= {CONFIG: json.dumps(config), "metadata.json": b"?"}
    hostile_archives.pack(folder / "harmless.keras", members.items())


@pytest.fixture(
    scope="module", params=[100, pytest.param(10_000, marks=pytest.mark.soak)]
)
def report(request, tmp_path_factory):
    """What happened in a process that loaded the files, and damaged ones."""
    folder = tmp_path_factory.mktemp("archives")
    write_files(folder)
    before = {*folder.iterdir(), folder / "malformed.keras"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.archive_canary"),
            *(str(folder), str(request.param)),
        ],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300 + request.param,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    found["left"] = [path.name for path in {*folder.iterdir()} - before]
    assert sum(found["counts"].values()) == request.param
    return found


def test_the_canary_notices(report):
    assert len(report["noticed"]) == 2
    assert report["noticed"][0].startswith("os.system")
    assert report["noticed"][1] == "open /dev/null"


def test_every_hostile_file_is_an_error(report):
    assert len(report["hostile"]) > 150
    loaded = [
        what
        for what, found in report["hostile"].items()
        if found.startswith("LOADED")
    ]
    assert not loaded


def test_what_is_not_looked_at_changes_nothing(report):
    assert report["harmless"] == "LOADED: the same"


def test_nothing_but_model_file_errors_is_raised(report):
    assert not report["errors"]


def test_no_code_runs_and_nothing_is_written_elsewhere(report):
    assert not report["seen"]
    assert not report["left"]


def test_no_file_takes_more_memory_than_the_limit(report):
    assert 0 < report["bytes"] < MAX_BYTES, report["largest"]


def test_some_changes_of_every_kind_are_told(report):
    for kind, count in report["counts"].items():
        assert report["loaded"][kind] < count
