"""One process, several replicas and several workers train the same model."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.keras_faults import Line, NoBuild, X
from tests.processes import Started, run_module, start_workers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def find(tmp_path_factory):
    """What is found in one process, on replicas or on workers, by name."""
    folder = tmp_path_factory.mktemp("found")

    def by_name(name):
        if not (folder / name).exists():
            main = "tests.distributed_fit"
            if name in WORKERS:
                own = [("multi_worker", folder / one, "7") for one in WORKERS]
                for worker in start_workers(main, *own):
                    worker.end()
            else:
                run_module(main, name, folder / name, "7", "43")
        return json.loads((folder / name).read_text(encoding="utf-8"))

    return by_name


WORKERS = ["worker0", "worker1"]
OTHERS = [
    "mirrored2",
    *(pytest.param(name, marks=pytest.mark.soak) for name in WORKERS),
]


# 44 examples: an epoch's last batch has 2 of 7, and 1 of 43, which leaves a
# replica without any row.
@pytest.mark.parametrize("name", OTHERS)
def test_replicas_that_do_not_divide_the_batch_train_the_same_model(find, name):
    for batch_size, other in find(name)["fitted"].items():
        one = find("none")["fitted"][batch_size]
        losses = np.asarray(one["losses"])
        assert len(losses) == {"7": 14, "43": 4}[batch_size]
        assert np.abs(losses[0] - losses[-1]).max() > 0.1
        # float32 sums in another order.
        np.testing.assert_allclose(losses, other["losses"], atol=1e-5)
        np.testing.assert_allclose(one["weights"], other["weights"], atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_replicas_that_share_the_videos_find_the_same(find, name):
    found = find(name)["evaluated"]
    for num_videos, (results, predicted) in find("none")["evaluated"].items():
        other_results, other = found[num_videos]
        assert results["num_queries"] == len(predicted)
        assert other_results == results
        for one, two in zip(predicted, other, strict=True):
            # Videos that were encoded in another company.
            np.testing.assert_allclose(one, two, atol=1e-4)


FAULTS = {"build", "weighting", "clipping"}


# Of Keras, and of no use to anybody before a new version of it.
@pytest.mark.soak
@pytest.mark.parametrize("name", ["mirrored2", "multi_worker"])
def test_keras_still_needs_each_workaround(name):
    """If this fails, a method of `MomentModel` can go."""
    if name == "mirrored2":
        started, expected = [Started("tests.keras_faults", name)], FAULTS
    else:
        started = start_workers("tests.keras_faults", [name], [name])
        expected = FAULTS | {"logs"}
    for text in [process.end().stdout for process in started]:
        assert set(re.findall("FAULT (.+)", text)) == expected, text[-3000:]


def test_a_step_is_traced_once_and_by_keras_still_twice():
    for base, traces in ((Line, 1), (NoBuild, 2)):

        class Counted(base):
            traces = 0

            def train_step(self, data):
                type(self).traces += 1
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
