"""One process, several replicas and several workers train the same model."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def start(name, out, batch_size, **environment):
    """Starts a fit of its own process."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.distributed_fit", name, out, batch_size],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes, outs):
    try:
        printed = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, printed):
        assert process.returncode == 0, text[-3000:]
    return [dict(np.load(out, allow_pickle=False)) for out in outs]


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(count)
        ]
        return [one.getsockname()[1] for one in sockets]


def fit(folder, name, batch_size):
    out = str(folder / f"{name}.npz")
    return finish([start(name, out, str(batch_size))], [out])[0]


def fit_workers(folder, batch_size, count=2):
    workers = [f"127.0.0.1:{port}" for port in free_ports(count)]
    outs = [str(folder / f"worker{i}.npz") for i in range(count)]
    processes = []
    for index, out in enumerate(outs):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": workers}, "task": task})
        processes.append(
            start("multi_worker", out, str(batch_size), TF_CONFIG=config)
        )
    return finish(processes, outs)


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
    for worker in fit_workers(tmp_path, 7):
        assert_same(one, worker)


def test_a_replica_without_any_row_of_a_batch_changes_nothing(tmp_path):
    assert_same(fit(tmp_path, "none", 43), fit(tmp_path, "mirrored2", 43))
