"""One process, several replicas and several workers train the same model."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.keras_faults import Line, NoBuild, X
from tests.processes import Started, start_workers

pytestmark = pytest.mark.slow


def finish(*started):
    """What they printed, once all have ended well."""
    printed = []
    for process in started:
        done = process.finish()
        printed.append(done.stdout + done.stderr)
        assert done.returncode == 0, printed[-1][-3000:]
    return printed


def run_everywhere(module, folder, alone, on_workers):
    """What a module finds in one process, on replicas and on workers.

    Args:
        module: Of `tests`.
        folder: For its output.
        alone: Its arguments in one process.
        on_workers: Its arguments on workers.

    Returns:
        Dictionaries of what it wrote.
    """
    names = ["none", "mirrored2", "worker0", "worker1"]
    outs = {name: str(folder / f"{name}.json") for name in names}
    for name in names[:2]:
        finish(Started(f"tests.{module}", name, outs[name], *alone))
    workers = [("multi_worker", outs[name], *on_workers) for name in names[2:]]
    finish(*start_workers(f"tests.{module}", *workers))
    return {
        name: json.loads(Path(out).read_text(encoding="utf-8"))
        for name, out in outs.items()
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return run_everywhere("distributed_fit", folder, ["7", "43"], ["7"])


# 44 examples: an epoch's last batch has 2 of 7, and 1 of 43, which leaves a
# replica without any row.
@pytest.mark.parametrize(
    "name, batch_size, steps",
    [
        ("mirrored2", "7", 14),
        ("mirrored2", "43", 4),
        ("worker0", "7", 14),
        ("worker1", "7", 14),
    ],
)
def test_replicas_that_do_not_divide_the_batch_train_the_same_model(
    trained, name, batch_size, steps
):
    one, other = trained["none"][batch_size], trained[name][batch_size]
    losses = np.asarray(one["losses"])
    assert len(losses) == steps
    assert np.abs(losses[0] - losses[-1]).max() > 0.1
    # float32 sums in another order.
    np.testing.assert_allclose(losses, other["losses"], atol=1e-5)
    np.testing.assert_allclose(one["weights"], other["weights"], atol=1e-5)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    return run_everywhere("sharded_evaluation", folder, ["5", "1"], ["5", "1"])


# One video leaves a replica without any.
@pytest.mark.parametrize("num_videos", ["5", "1"])
@pytest.mark.parametrize("name", ["mirrored2", "worker0", "worker1"])
def test_replicas_that_share_the_videos_find_the_same(
    evaluated, name, num_videos
):
    results, found = evaluated["none"][num_videos]
    other_results, other_found = evaluated[name][num_videos]
    assert results["num_queries"] == len(found)
    assert other_results == results
    for one, other in zip(found, other_found, strict=True):
        # Videos that were encoded in another company.
        np.testing.assert_allclose(one, other, atol=1e-4)


FAULTS = {"build", "weighting", "clipping"}


def told_faults(text):
    return set(re.findall("FAULT (.+)", text))


@pytest.mark.parametrize("name", ["mirrored2", "multi_worker"])
def test_keras_still_needs_each_workaround(name):
    """If this fails, a method of `MomentModel` can go."""
    if name == "mirrored2":
        started, expected = [Started("tests.keras_faults", name)], FAULTS
    else:
        started = start_workers("tests.keras_faults", [name], [name])
        expected = FAULTS | {"logs"}
    for text in finish(*started):
        assert told_faults(text) == expected, text[-3000:]


@pytest.mark.parametrize("base, traces", [(Line, 1), (NoBuild, 2)])
def test_a_step_is_traced_once_and_by_keras_still_twice(base, traces):
    class Counted(base):
        traces = 0

        def train_step(self, data):
            Counted.traces += 1
            return super().train_step(data)

    model = Counted()
    model(X)  # builds it
    model.compile("adam", "mse")
    model.fit(X, X + 1, epochs=2, verbose=0)
    assert Counted.traces == traces


def test_a_strategy_of_one_replica_makes_its_own_variables():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = Line()
        model(X)  # builds it
        model.compile("adam", "mse")
    model.fit(X, X + 1, epochs=2, verbose=0)
    for variable in model.optimizer.variables:
        assert isinstance(variable.value, tf.distribute.DistributedValues)
