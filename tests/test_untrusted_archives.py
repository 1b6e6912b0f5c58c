"""What strangers may make of a model file: an error each, and nothing else."""

import json
import os

import pytest

from acnn_tf.models import save_model
from tests import hostile_archives
from tests.archive_canary import MAX_BYTES
from tests.hostile_archives import CONFIG, WEIGHTS
from tests.processes import Started
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
        CONFIG: hostile_archives.configs(config, str(secret)),
        WEIGHTS: hostile_archives.weights(members[WEIGHTS], secret),
    }
    for name, variants in changes.items():
        for what, data in variants.items():
            path = folder / "hostile" / f"{name.split('.')[0]} {what}.keras"
            hostile_archives.pack(path, {**members, name: data}.items())
    hostile_archives.archives(members, folder / "hostile")
    # Keras would make objects of what is not looked at here.
    objects = list(hostile_archives.objects(str(secret)).values())
    compiled = {"optimizer": objects[0], "loss": objects}
    config |= {"module": "os", "compile_config": compiled}
    members |= {CONFIG: json.dumps(config), "metadata.json": b"?"}
    hostile_archives.pack(folder / "harmless.keras", members.items())


@pytest.fixture(
    scope="module", params=[40, pytest.param(3000, marks=pytest.mark.soak)]
)
def report(request, tmp_path_factory):
    """What happened in a process that loaded the files, and damaged ones."""
    folder = tmp_path_factory.mktemp("archives")
    write_files(folder)
    before = {*folder.iterdir(), folder / "malformed.keras"}
    started = Started("tests.archive_canary", folder, request.param)
    done = started.finish(timeout=300 + request.param)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    found["left"] = [path.name for path in {*folder.iterdir()} - before]
    assert sum(found["counts"].values()) == request.param
    return found


def test_every_hostile_file_is_a_model_file_error(report):
    assert len(report["hostile"]) > 150
    loaded = [
        what
        for what, found in report["hostile"].items()
        if found.startswith("LOADED")
    ]
    assert not loaded
    assert not report["errors"]
    # Some changes of every kind are told.
    for kind, count in report["counts"].items():
        assert report["loaded"][kind] < count
    # What is not looked at changes nothing.
    assert report["harmless"] == "LOADED: the same"


def test_no_code_runs_and_nothing_is_written_elsewhere(report):
    assert len(report["noticed"]) == 2  # which it was made to
    assert report["noticed"][0].startswith("os.system")
    assert report["noticed"][1] == "open /dev/null"
    assert not report["seen"]
    assert not report["left"]


def test_no_file_takes_more_memory_than_the_limit(report):
    assert 0 < report["bytes"] < MAX_BYTES, report["largest"]
