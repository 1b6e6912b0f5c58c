"""One process, several replicas and several workers train the same model."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.keras_faults import Line, NoBuild, X

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def start(*arguments, module="distributed_fit", **environment):
    """Starts a fit, or another module of tests, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.{module}", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes):
    """What they printed."""
    try:
        printed = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, printed):
        assert process.returncode == 0, text[-3000:]
    return printed


def start_workers(arguments, module):
    """Two, each with arguments of its own."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    configs = [
        {
            "cluster": {"worker": workers},
            "task": {"type": "worker", "index": index},
        }
        for index in range(2)
    ]
    return [
        start(*own, module=module, TF_CONFIG=json.dumps(config))
        for own, config in zip(arguments, configs)
    ]


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(count)
        ]
        return [one.getsockname()[1] for one in sockets]


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
        finish([start(name, outs[name], *alone, module=module)])
    workers = [("multi_worker", outs[name], *on_workers) for name in names[2:]]
    finish(start_workers(workers, module))
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
        processes, expected = [start(name, module="keras_faults")], FAULTS
    else:
        processes = start_workers([(name,), (name,)], "keras_faults")
        expected = FAULTS | {"logs"}
    for text in finish(processes):
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
