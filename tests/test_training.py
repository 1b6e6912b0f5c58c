"""A training that is stopped goes on as if it had not been."""

import contextlib
import os
import re
import signal
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from acnn_tf.files.locks import FolderInUseError, locked
from acnn_tf.training import TERMINATED, ResumableTraining
from tests.processes import Started, start_workers
from tests.resumed_fit import EPOCHS, STEPS, make_batches, make_model


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


class Best(keras.callbacks.Callback):
    """Logs a figure after each epoch, and has to know the best of them."""

    best = -1.0

    def get_state(self):
        return {"best": self.best}

    def set_state(self, state):
        self.best = state["best"]

    def on_epoch_end(self, epoch, logs=None):
        logs["val_x"] = float(np.abs(self.model.get_weights()[0]).sum()) % 1
        self.best = max(self.best, logs["val_x"])


def train(folder, every=None, stop=0, data=make_batches, callbacks=()):
    """Trains in one go, or until stopped: weights, history, best and CSV."""
    # The seed of one that goes on must not matter.
    keras.utils.set_random_seed(int(any(folder.glob("ckpt*"))))
    model, best = make_model(), Best()
    table = folder / "history.csv"
    resume = ResumableTraining(model, folder, every, history_path=table)
    history = resume.fit(
        data,
        epochs=EPOCHS,
        callbacks=[best, *([StopAt(stop)] if stop else ()), *callbacks],
        verbose=0,
    )
    return model.get_weights(), history, best.best, table.read_text()


def train_until(folder, every, stop):
    with pytest.raises(Stopped):
        train(folder, every, stop)


def assert_same(one, other):
    for weight, twin in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(weight, twin)
    assert one[1:] == other[1:]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def begun(whole, tmp_path):
    """The folder of a training that was stopped in its second epoch."""
    train_until(tmp_path, 1, STEPS + 2)
    return tmp_path


def test_a_training_that_was_stopped_ends_as_one_that_was_not(whole, tmp_path):
    _, history, best, _ = whole
    assert best == max(history["val_x"])
    for number, (every, stops) in enumerate(
        [(None, [STEPS]), (1, [4]), (2, [3, 2, 3])]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for stop in stops:
            train_until(folder, every, stop)
        assert_same(train(folder, every), whole)


def test_a_training_that_is_done_is_not_done_again(whole, tmp_path):
    train(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("ckpt*")}
    assert_same(train(tmp_path, stop=1), whole)
    assert before == {
        path: path.stat().st_mtime_ns for path in tmp_path.glob("ckpt*")
    }


@pytest.mark.parametrize("damage", [b"", "flip"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(
    whole, begun, caplog, damage
):
    newest = max(begun.glob("*.index"))
    data = newest.with_suffix(".data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content if damage == "flip" else damage)
    assert_same(train(begun), whole)
    assert f"{newest.stem} is damaged" in caplog.text
    assert "Going on from" in caplog.text


def test_checkpoints_that_do_not_fit_are_refused(begun):
    other = ResumableTraining(make_model(width=7), begun)
    with pytest.raises(ValueError, match="does not fit this model"):
        other.fit(make_batches, epochs=1)
    with pytest.raises(ValueError, match=r"3 steps in an epoch; now .* 4"):
        train(begun, data=lambda epoch: make_batches(epoch, steps=4))
    for path in begun.glob("*.data*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"No checkpoint in .* is whole"):
        train(begun)


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
def test_what_is_not_finite_is_not_saved(whole, tmp_path, spoil, what):
    expected = f"{what} is not finite after step 3 of epoch 1"
    with pytest.raises(ValueError, match=expected):
        train(tmp_path, 1, callbacks=[spoil()])
    assert_same(train(tmp_path), whole)


def test_a_second_training_is_refused_and_the_first_unharmed(whole, tmp_path):
    class Second(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            second = ResumableTraining(make_model(), tmp_path)
            with pytest.raises(
                FolderInUseError, match=f"{tmp_path} is in use by process"
            ):
                second.fit(make_batches, epochs=1)

    assert_same(train(tmp_path, 1, callbacks=[Second()]), whole)
    with locked(tmp_path):
        pass  # it is free again


def test_what_is_asked_of_every_is_checked(tmp_path):
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        ResumableTraining(make_model(), tmp_path, 0)


def test_sigterm_during_validation_loses_nothing(whole, tmp_path):
    class Terminate(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    keras.utils.set_random_seed(0)
    model = make_model()
    with pytest.raises(SystemExit) as ended:
        ResumableTraining(model, tmp_path, grace=1e6).fit(
            make_batches,
            epochs=EPOCHS,
            callbacks=[Best(), Terminate()],
            verbose=0,
        )
    assert ended.value.code == TERMINATED
    assert_same(train(tmp_path), whole)


# What follows ends processes.


def end(process, code=0):
    """What a process printed."""
    done = process.end(code)
    return done.stdout + done.stderr


def told(text):
    """The hash of its weights, and how many steps it did."""
    weights = re.search(r"WEIGHTS (\w+)", text)[1]
    return weights, int(re.search(r"STEPS (\d+)", text)[1])


def fit(folder, every, *how, code=0):
    folder.mkdir(exist_ok=True)
    return end(Started("tests.resumed_fit", folder, every, *how), code)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return told(fit(tmp_path_factory.mktemp("unbroken"), 5))


# One that comes at the worst of times is the next test's.
@pytest.mark.soak
def test_kill_9_at_any_step(unbroken, tmp_path):
    weights, steps = unbroken
    random = np.random.default_rng(20)
    for number in range(20):
        folder, every = tmp_path / str(number), int(random.integers(1, 5))
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
    fit(tmp_path / "f", 2, "save", 4, code=-signal.SIGKILL)
    # What a kill in the write of the file `checkpoint` leaves.
    (tmp_path / "f" / "checkpoint.tmp0123").write_text("model_che")
    again, done = told(fit(tmp_path / "f", 2))
    assert again == weights
    assert done <= steps - 2  # the one before it counts
    left = os.listdir(tmp_path / "f")
    assert not [name for name in left if re.search("te?mp", name)]
    assert len(left) == 5  # two checkpoints of two files, and `checkpoint`


@pytest.mark.slow
def test_sigterm_saves_and_ends_with_143(unbroken, tmp_path):
    weights, steps = unbroken
    started = time.monotonic()
    text = fit(tmp_path / "f", 100, "term", 1, code=TERMINATED)
    # Of the step at whose end it came, or of the next.
    saved = re.search(r"Saved after step (1|2) of epoch 1; run again", text)
    assert saved, text
    assert time.monotonic() - started < 120
    again, done = told(fit(tmp_path / "f", 100))
    assert again == weights
    assert done == steps - int(saved[1])


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint(unbroken, tmp_path):
    text = fit(tmp_path, 1, "full", 2, code=1)
    assert re.search(
        r"WriteError: .*a checkpoint could not be written: [\d,]+ bytes were "
        r"wanted, [\d,]+ are free there. Make room and run again: training "
        r"goes on from .*ckpt-2",
        text,
    ), text
    assert sorted(path.name for path in tmp_path.glob("ckpt*")) == [
        f"ckpt-{number}.{end}"
        for number in (1, 2)
        for end in ("data-00000-of-00001", "index")
    ]
    weights, steps = unbroken
    assert told(fit(tmp_path, 1)) == (weights, steps - 2)


@contextlib.contextmanager
def fit_on_workers(folder, every, *how):
    """Two workers, the second of which may be killed on the way."""
    folder.mkdir(exist_ok=True)
    own = (folder, every)
    workers = start_workers("tests.resumed_fit", own, (*own, *how))
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()


def test_a_worker_that_is_gone_is_told(tmp_path):
    training = ResumableTraining(make_model(), tmp_path)
    for replicas, error in ((1, tf.errors.OpError), (2, ConnectionError)):
        training._strategy = types.SimpleNamespace(
            num_replicas_in_sync=replicas
        )
        with pytest.raises(error, match="gone"), training._with_others():
            raise tf.errors.UnavailableError(None, None, "gone")


@pytest.mark.soak
def test_two_workers_of_which_one_is_killed(tmp_path):
    with fit_on_workers(tmp_path / "killed", 2, "kill", "5") as workers:
        end(workers[1], -signal.SIGKILL)
        left = workers[0].finish()
    assert left.returncode != 0
    left = left.stdout + left.stderr
    assert "Another worker has stopped" in left or "UNAVAILABLE" in left
    results = []
    for name in ("whole", "killed"):
        with fit_on_workers(tmp_path / name, 2) as workers:
            results.append([told(end(worker)) for worker in workers])
    (whole, steps), (again, done) = results[0][0], results[1][0]
    assert results[0][0] == results[0][1]
    assert again == whole
    assert done == steps - 4


@pytest.mark.slow
def test_all_workers_are_refused_where_the_first_is(tmp_path):
    with locked(tmp_path), fit_on_workers(tmp_path, 4) as workers:
        texts = [end(worker, 1) for worker in workers]
    assert f"in use by process {os.getpid()} on" in texts[0]
    # The first may be gone before what it says arrives.
    assert re.search(
        "is in use, as the first worker says|Another worker has stopped",
        texts[1],
    )
