"""A training that is stopped goes on as if it had not been."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from acnn_tf import callbacks
from acnn_tf.files.locks import FolderInUseError, locked
from acnn_tf.models import ACNN
from acnn_tf.training import TERMINATED, ResumableTraining
from tests import test_callbacks as small
from tests.processes import Started, start_workers

ROOT = Path(__file__).resolve().parents[1]
EPOCHS, STEPS = 3, 3  # of `small.data`


class Stopped(Exception):
    pass


class StopAt(keras.callbacks.Callback):
    """Breaks off a training after so many of its steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if not self.steps:
            raise Stopped


def train(folder, every=None, stop=0, data=small.data, callbacks=()):
    """Trains in one go, or until stopped: model, history, best."""
    keras.utils.set_random_seed(stop)  # must not matter
    model, validation = small.make_model(), small.validation()
    resume = ResumableTraining(
        model, folder, every, history_path=folder / "history.csv"
    )
    stopping = [StopAt(stop)] if stop else []
    history = resume.fit(
        lambda epoch: data(model, epoch),
        epochs=EPOCHS,
        callbacks=[validation, *stopping, *callbacks],
        verbose=0,
    )
    return model.get_weights(), history, validation.best


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return (*train(folder), (folder / "history.csv").read_text())


@pytest.mark.parametrize(
    ("every", "stops"),
    [(None, [STEPS]), (1, [4]), (2, [3, 2, 3])],
)
def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    whole, tmp_path, every, stops
):
    for stop in stops:
        with pytest.raises(Stopped):
            train(tmp_path, every, stop)
    weights, history, best = train(tmp_path, every)
    for one, other in zip(whole[0], weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert history == whole[1]
    assert best == whole[2] == max(history["val_mIoU"])
    assert (tmp_path / "history.csv").read_text() == whole[3]


def test_a_training_that_is_done_is_not_done_again(whole, tmp_path):
    train(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("ckpt*")}
    weights, history, _ = train(tmp_path, stop=1)
    assert history == whole[1]
    np.testing.assert_array_equal(whole[0][0], weights[0])
    assert before == {
        path: path.stat().st_mtime_ns for path in tmp_path.glob("ckpt*")
    }


@pytest.mark.parametrize("damage", [b"", "flip"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(
    whole, tmp_path, caplog, damage
):
    with pytest.raises(Stopped):
        train(tmp_path, 1, 5)
    newest = max(tmp_path.glob("*.index"))
    data = newest.with_suffix(".data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content if damage == "flip" else damage)
    weights, history, _ = train(tmp_path)
    assert f"{newest.stem} is damaged" in caplog.text
    assert "Going on from" in caplog.text
    assert history == whole[1]
    np.testing.assert_array_equal(whole[0][0], weights[0])


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    with pytest.raises(Stopped):
        train(tmp_path, 1, 1)
    for path in tmp_path.glob("*.data*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"No checkpoint in .* is whole"):
        train(tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    with pytest.raises(Stopped):
        train(tmp_path, 1, 1)
    other = ACNN(window_lengths=(3.0,), filters=8, kernel_sizes=(1,))
    other.compile("adam")
    other.build({"clip": (None, None, 3), "query": (None, 4)})
    with pytest.raises(ValueError, match="does not fit this model"):
        ResumableTraining(other, tmp_path).fit(lambda epoch: None, epochs=1)


def test_checkpoints_of_other_data_are_refused(tmp_path):
    with pytest.raises(Stopped):
        train(tmp_path, 1, 1)

    def longer(model, epoch):
        made = small.data(model, epoch)
        return dataclasses.replace(
            made, steps_per_epoch=made.steps_per_epoch + 1
        )

    with pytest.raises(ValueError, match=r"3 steps in an epoch; now .* 4"):
        train(tmp_path, data=longer)


class SpoilLoss(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if batch == 2:
            weight = self.model.trainable_variables[0]
            weight.assign(weight * np.nan)


class SpoilUpdate(keras.callbacks.Callback):
    """The loss of the step is finite, and what it makes of the weights not."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 2:
            self.model.optimizer.learning_rate.assign(np.inf)


@pytest.mark.parametrize(
    ("spoil", "what"), [(SpoilLoss, "the loss"), (SpoilUpdate, "a weight")]
)
def test_what_is_not_finite_is_not_saved(tmp_path, spoil, what):
    model = small.make_model()
    expected = f"{what} is not finite after step 3 of epoch 1"
    with pytest.raises(ValueError, match=expected):
        ResumableTraining(model, tmp_path, 1).fit(
            lambda epoch: small.data(model, epoch),
            epochs=1,
            callbacks=[spoil()],
            verbose=0,
        )
    again = small.make_model()
    resumed = ResumableTraining(again, tmp_path, 1)
    with pytest.raises(Stopped):
        resumed.fit(
            lambda epoch: small.data(again, epoch),
            epochs=1,
            callbacks=[StopAt(1)],
            verbose=0,
        )
    assert all(np.isfinite(weight).all() for weight in again.get_weights())


def test_a_second_training_is_refused_and_the_first_unharmed(whole, tmp_path):
    class Second(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            second = ResumableTraining(small.make_model(), tmp_path)
            with pytest.raises(
                FolderInUseError, match=f"{tmp_path} is in use by process"
            ):
                second.fit(lambda epoch: None, epochs=1)

    weights, history, best = train(tmp_path, 1, callbacks=[Second()])
    for one, other in zip(whole[0], weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (history, best) == whole[1:3]
    assert (tmp_path / "history.csv").read_text() == whole[3]
    with locked(tmp_path):
        pass  # it is free again


def test_what_is_asked_of_every_is_checked(tmp_path):
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        ResumableTraining(small.make_model(), tmp_path, 0)


def test_sigterm_during_validation_loses_nothing(whole, tmp_path):
    class Terminate(callbacks.Validation):
        def on_epoch_end(self, epoch, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    model = small.make_model()
    with pytest.raises(SystemExit) as ended:
        ResumableTraining(model, tmp_path, grace=1e6).fit(
            lambda epoch: small.data(model, epoch),
            epochs=EPOCHS,
            callbacks=[Terminate(small.MOMENTS, small.FEATURES)],
            verbose=0,
        )
    assert ended.value.code == TERMINATED
    weights, history, best = train(tmp_path)
    assert history == whole[1]
    assert best == whole[2]
    np.testing.assert_array_equal(whole[0][0], weights[0])


# What follows ends processes.


def end(process, code=0):
    """What a process printed: hash of its weights, and how many steps."""
    done = process.finish()
    text = done.stdout + done.stderr
    assert done.returncode == code, text[-3000:]
    return text


def told(text):
    weights = re.search(r"WEIGHTS (\w+)", text)[1]
    return weights, int(re.search(r"STEPS (\d+)", text)[1])


def fit(folder, every, *how, code=0):
    folder.mkdir(exist_ok=True)
    return end(Started("tests.resumed_fit", folder, every, *how), code)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return told(fit(tmp_path_factory.mktemp("unbroken"), 5))


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_kills", [1, pytest.param(20, marks=pytest.mark.soak)]
)
def test_kill_9_at_any_step(unbroken, tmp_path, num_kills):
    weights, steps = unbroken
    random = np.random.default_rng(num_kills)
    for number in range(num_kills):
        folder, every = tmp_path / str(number), int(random.integers(1, 8))
        step = int(random.integers(1, steps))
        fit(folder, every, "kill", step, code=-signal.SIGKILL)
        again, done = told(fit(folder, every))
        said = f"every {every}: killed at {step}, {done} of {steps} done"
        print(said)  # noqa: T201 -- shown by -rP
        assert again == weights
        assert done <= steps - step + every


@pytest.mark.slow
def test_kill_9_in_the_middle_of_a_save(unbroken, tmp_path):
    weights, steps = unbroken
    fit(tmp_path / "f", 5, "save", 8, code=-signal.SIGKILL)
    again, done = told(fit(tmp_path / "f", 5))
    assert again == weights
    assert done <= steps - 5  # the one before it counts
    left = os.listdir(tmp_path / "f")
    assert not [name for name in left if "temp" in name]
    assert len(left) == 5  # two checkpoints of two files, and `checkpoint`


@pytest.mark.slow
def test_sigterm_saves_and_ends_with_143(unbroken, tmp_path):
    weights, steps = unbroken
    started = time.monotonic()
    text = fit(tmp_path / "f", 100, "term", 4, code=TERMINATED)
    # Of the step at whose end it came, or of the next.
    saved = re.search(r"Saved after step (4|5) of epoch 1; run again", text)
    assert saved, text
    assert time.monotonic() - started < 120
    again, done = told(fit(tmp_path / "f", 100))
    assert again == weights
    assert done == steps - int(saved[1])


def fit_on_workers(folder, every, *how):
    """Two workers, the second of which may be killed on the way."""
    own = (folder, every)
    return start_workers("tests.resumed_fit", own, (*own, *how))


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed(tmp_path):
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    with contextlib.ExitStack() as stack:
        workers = fit_on_workers(folders[1], 4, "kill", "10")
        for worker in workers:
            stack.callback(worker.kill)
        end(workers[1], -signal.SIGKILL)
        left = workers[0].finish()
    assert left.returncode != 0
    left = left.stdout + left.stderr
    assert "Another worker has stopped" in left or "UNAVAILABLE" in left
    results = []
    for folder in folders:
        with contextlib.ExitStack() as stack:
            workers = fit_on_workers(folder, 4)
            for worker in workers:
                stack.callback(worker.kill)
            results.append([told(end(worker)) for worker in workers])
    (whole, steps), (again, done) = results[0][0], results[1][0]
    assert results[0][0] == results[0][1]
    assert again == whole
    assert done == steps - 8


@pytest.mark.slow
def test_all_workers_are_refused_where_the_first_is(tmp_path):
    with locked(tmp_path), contextlib.ExitStack() as stack:
        workers = fit_on_workers(tmp_path, 4)
        for worker in workers:
            stack.callback(worker.kill)
        texts = [end(worker, 1) for worker in workers]
    assert f"in use by process {os.getpid()} on" in texts[0]
    # The first may be gone before what it says arrives.
    assert re.search(
        "is in use, as the first worker says|Another worker has stopped",
        texts[1],
    )


FULL = """
import resource, sys
from acnn_tf.files.atomic import WriteError
from tests import test_training as t
folder = t.Path(sys.argv[1])
try:
    t.train(folder, 1, 2)
except t.Stopped:
    pass
size = max(path.stat().st_size for path in folder.iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
try:
    t.train(folder, 1)
except WriteError as error:
    print(f"told: {error}")
"""


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint(whole, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(
        r"told: .*a checkpoint could not be written: [\d,]+ bytes were wanted, "
        r"[\d,]+ are free there. Make room and run again: training goes on from"
        r" .*ckpt-2",
        done.stdout,
    ), done.stdout
    assert sorted(path.name for path in tmp_path.glob("ckpt*")) == [
        f"ckpt-{number}.{end}"
        for number in (1, 2)
        for end in ("data-00000-of-00001", "index")
    ]
    weights, history, _ = train(tmp_path)
    assert history == whole[1]
    np.testing.assert_array_equal(whole[0][0], weights[0])
