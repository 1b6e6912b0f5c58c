"""Trainings as processes: resumed, timed, and never done twice."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from experiments.sweeps import runs
from tests.processes import ROOT

# In place of a training: `begun` at its start, `done` at its end.
SCRIPT = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / "begun").touch()
print("epoch 1, threads:", os.environ.get("TF_NUM_INTRAOP_THREADS"))
if (folder / "fail").exists():
    sys.exit("ValueError: no such luck")
while (folder / "wait").exists():
    time.sleep(0.02)
with open(folder / "done", "a") as file:
    file.write("x")
"""


class StubRun(runs.Run):
    @property
    def words(self):
        return ["-c", SCRIPT, self.folder]


@pytest.fixture
def run(tmp_path):
    return StubRun("row, seed 0", str(tmp_path / "run"), ("--dropout=0",))


def train(run):
    with runs.Processes(threads=3) as processes:
        run.train(processes)


def begin(run):
    """The record of a run that has begun, which is written."""
    record = run.read()
    os.makedirs(run.folder)
    run.write(record)
    return record


def wait_for(path):
    deadline = time.monotonic() + 20
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_done_is_not_done_again_and_other_flags_are_refused(run):
    train(run)
    train(run)
    with open(run.path("done")) as file:
        assert file.read() == "x"
    with open(run.path(runs.TRAIN_LOG)) as file:
        assert "epoch 1, threads: 3" in file.read()
    assert set(os.listdir(run.folder)) == {
        "begun", "done", runs.RECORD, runs.TRAIN_LOG,
    }  # fmt: skip
    other = StubRun(run.name, run.folder, ("--dropout=1",))
    with pytest.raises(
        ValueError, match=r"Expected: --dropout=1. Found: --dropout=0. Remove"
    ):
        other.read()


def test_a_failure_keeps_its_log_and_is_tried_again(run):
    begin(run)
    fail = run.path("fail")
    open(fail, "w").close()
    with pytest.raises(
        runs.RunError, match=r"exit code 1, .*train.log: ValueError: no such"
    ):
        train(run)
    assert not run.read()["trained"]
    os.remove(fail)
    train(run)
    assert run.read()["trained"]
    assert len(run.read()["times"]) == 2


def test_a_folder_of_something_else_is_refused(run):
    os.makedirs(run.folder)
    open(run.path("thesis.txt"), "w").close()
    with pytest.raises(ValueError, match="files of something else"):
        run.read()


def test_stopping_ends_what_runs_and_it_goes_on_later(run):
    begin(run)
    open(run.path("wait"), "w").close()
    found = []

    def work():
        try:
            run.train(processes)
        except runs.RunError as error:
            found.append(error)

    with runs.Processes() as processes:
        thread = threading.Thread(target=work)
        thread.start()
        wait_for(run.path("begun"))
    thread.join()
    assert "exit code -15" in str(found[0])
    with pytest.raises(runs.RunError, match="stopped"):
        run.train(processes)
    os.remove(run.path("wait"))
    train(run)
    assert run.read()["trained"]


def test_told_to_end_while_it_waits_it_leaves_no_process_behind(tmp_path):
    waiting = "import os, time; print(os.getpid()); time.sleep(60)"
    ours = f"""
from experiments.sweeps import runs
from tests.processes import ROOT
with runs.Processes() as processes, open("log", "wb") as log:
    processes.run(["-uc", {waiting!r}], log)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", ours],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 20
    lines = []
    while len(lines) < 2:  # the command, then what it prints
        assert time.monotonic() < deadline
        time.sleep(0.02)
        if (tmp_path / "log").exists():
            lines = (tmp_path / "log").read_text().splitlines()
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines[1]), 0)


def test_minutes_leave_out_the_time_between_processes(run):
    record = begin(run)
    # Two minutes, an hour of nothing, three minutes.
    run.write(record | {"times": [[1000.0, 1120.0], [4720.0, 4900.0]]})
    assert run.minutes() == 5
    best = run.path("model.keras")
    open(best, "w").close()
    for written, minutes in ((1060, 1), (4780, 3), (4900, 5)):
        os.utime(best, (written, written))
        assert run.minutes(best) == minutes


def test_a_killed_process_ran_until_its_log_says(run):
    run.write(begin(run) | {"times": [[1000.0, None]]})
    open(run.path(runs.TRAIN_LOG), "w").close()
    os.utime(run.path(runs.TRAIN_LOG), (1090, 1090))
    train(run)
    assert run.read()["times"][0] == [1000.0, 1090.0]
