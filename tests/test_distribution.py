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
        printed = [process.communicate(timeout=240)[0] for process in processes]
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


def read(out):
    if out.endswith(".json"):
        return json.loads(Path(out).read_text(encoding="utf-8"))
    return dict(np.load(out, allow_pickle=False))


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(count)
        ]
        return [one.getsockname()[1] for one in sockets]


def fit(folder, name, batch_size):
    out = str(folder / f"{name}.npz")
    finish([start(name, out, str(batch_size))])
    return read(out)


def on_workers(folder, argument, module="distributed_fit", end="npz"):
    outs = [str(folder / f"worker{i}.{end}") for i in range(2)]
    arguments = [("multi_worker", out, str(argument)) for out in outs]
    finish(start_workers(arguments, module))
    return [read(out) for out in outs]


def assert_same(one, other):
    # float32 sums in another order.
    np.testing.assert_allclose(one["losses"], other["losses"], atol=1e-5)
    np.testing.assert_allclose(one["weights"], other["weights"], atol=1e-5)


# 44 examples: an epoch's last batch has 2 of 7 and 1 of 43.
def test_replicas_that_do_not_divide_the_batch_train_the_same_model(tmp_path):
    one = fit(tmp_path, "none", 7)
    assert len(one["losses"]) == 14
    assert np.abs(one["losses"][0] - one["losses"][-1]).max() > 0.1
    assert_same(one, fit(tmp_path, "mirrored2", 7))
    for worker in on_workers(tmp_path, 7):
        assert_same(one, worker)


def test_a_replica_without_any_row_of_a_batch_changes_nothing(tmp_path):
    assert_same(fit(tmp_path, "none", 43), fit(tmp_path, "mirrored2", 43))


def evaluate(folder, name, num_videos):
    out = str(folder / f"{name}.json")
    finish([start(name, out, str(num_videos), module="sharded_evaluation")])
    return read(out)


# One video leaves a replica without any.
@pytest.mark.parametrize("num_videos", [5, 1])
def test_replicas_that_share_the_videos_find_the_same(tmp_path, num_videos):
    results, found = evaluate(tmp_path, "none", num_videos)
    assert results["num_queries"] == len(found)
    others = [evaluate(tmp_path, "mirrored2", num_videos)]
    others += on_workers(tmp_path, num_videos, "sharded_evaluation", "json")
    for other_results, other_found in others:
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
