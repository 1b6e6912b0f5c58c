import concurrent.futures
import json
import os
import shutil
import signal
import time

import grpc
import numpy as np
import pytest
import requests

from export.protocol.tensors import from_proto
from tests.processes import run_module
from tests.server_process import Server, send_and_stay
from tests.small_model import X, request, save


@pytest.fixture(scope="module")
def server(small_models):
    flags = ("--num_threads=1", "--max_batch_size=8", "--max_queue=8")
    found = Server(small_models, *flags)
    yield found
    found.close()


def slow(steps=150_000):
    """A request of half a second or more."""
    return request("slow", steps=np.array(steps, np.int32))


def start_slow(server, steps=150_000):
    """Keeps the server's only thread busy."""
    call = server.stub.Predict.future(slow(steps), timeout=20)
    server.wait_until(
        lambda: (
            server.metric("serving_in_flight") == 1
            and server.metric("serving_waiting") == 0
        )
    )
    return call


def test_what_queues_up_runs_together(server):
    blocker = start_slow(server)
    calls = [
        server.stub.Predict.future(
            request("root", x=np.array([number], np.float32)), timeout=20
        )
        for number in (1, 4, 9)
    ]
    for number, call in zip((1, 2, 3), calls):
        outputs = call.result().outputs
        assert from_proto(outputs["y"]).tolist() == [number]
        assert from_proto(outputs["rows"]).tolist() == [3]
    blocker.result()


def test_what_nobody_waits_for_does_not_run(server):
    blocker = start_slow(server)
    runs = server.metric("serving_batch_rows_count")
    late = server.stub.Predict.future(request(x=X), timeout=0.05)
    given_up = server.stub.Predict.future(request(x=X), timeout=20)
    body = json.dumps({"instances": X.tolist()}).encode()
    left = [send_and_stay(server, body) for _ in range(4)]
    server.wait_until(lambda: server.metric("serving_waiting") >= 5)
    given_up.cancel()
    for connection in left:
        connection.close()
    assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_until(lambda: server.metric("serving_waiting") == 0)
    assert not blocker.done()
    blocker.result()
    assert server.metric("serving_batch_rows_count") == runs


@pytest.mark.slow
def test_overload_is_shed_at_once_and_passes(server):
    blocker = start_slow(server, steps=400_000)
    body = {"signature_name": "slow", "inputs": 10}
    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        posts = [threads.submit(server.post, body) for _ in range(10)]
        calls = [
            server.stub.Predict.future(slow(10), timeout=20) for _ in range(40)
        ]
        # 8 wait in the queue, the other 42 are told.
        server.wait_until(
            lambda: sum(call.done() for call in calls + posts) == 42
        )
        assert not blocker.done()
        codes = [call.code().name for call in calls]
        codes += [post.result().status_code for post in posts]
    assert set(codes) <= {"OK", 200, "RESOURCE_EXHAUSTED", 429}
    assert codes.count("OK") + codes.count(200) == 8
    assert server.predict(x=X)["y"].tolist() == (2 * X).tolist()
    assert server.metric("serving_waiting") == 0


@pytest.mark.slow
def test_versions_swap_and_the_end_comes_without_loss(small_models, tmp_path):
    """From load on version 1 over a swap to version 3 to SIGTERM."""
    folder = tmp_path / "acnn"
    folder.mkdir()
    shutil.copytree(small_models / "1", folder / "1")
    server = Server(folder)
    stop = False

    def load_grpc():
        answers = []
        while not stop:
            answers.append(server.predict(x=X)["y"][0, 0])
        return answers

    def load_rest():
        answers = []
        with requests.Session() as session:
            while not stop:
                answer = session.post(
                    server.url + ":predict",
                    json={"instances": X.tolist()},
                    timeout=20,
                )
                answers.append(answer.json()["predictions"][0][0])
        return answers

    try:
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            users = [
                threads.submit(load)
                for load in (load_grpc, load_grpc, load_rest, load_rest)
            ]
            try:
                # Not a version, not a model, and then one that does not load.
                (folder / "99.tmp").mkdir()
                (folder / "98").mkdir()
                for name in ("0001", str(2**63)):
                    shutil.copytree(small_models / "1", folder / name)
                server.wait_until(lambda: server.log.count("no version") == 2)
                shutil.copytree(small_models / "1", folder / "97")
                (variables,) = (folder / "97").glob("variables/*.data-*")
                os.truncate(variables, 5)  # half written
                server.wait_for(97, "END")
                (folder / "2").mkdir()
                (folder / "2" / "saved_model.pb").write_bytes(b"no model")
                server.wait_for(2, "END")
                status = server.get("/versions/2").json()
                (status,) = status["model_version_status"]
                assert "not a SavedModel" in status["status"]["error_message"]
                assert server.states() == {97: "END", 2: "END", 1: "AVAILABLE"}
                save(folder, 3, 5, warm_up=request(x=X))
                server.wait_for(3, "AVAILABLE")
                server.wait_for(1, "END")
                # A folder that goes does not take its version with it.
                shutil.rmtree(folder / "3")
                time.sleep(0.2)
            finally:
                stop = True
            for user in users:
                answers = user.result()
                swap = answers.index(5)
                assert set(answers[:swap]) == {2}
                assert set(answers[swap:]) == {5}
        assert "1 warm-ups" in server.log
        code, _ = server.refusal(server.stub.Predict, version_1())
        assert code == "NOT_FOUND"
        begun = [server.stub.Predict.future(slow(), timeout=20) for _ in "123"]
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            body = {"signature_name": "slow", "inputs": 150_000}
            post = threads.submit(
                requests.post, server.url + ":predict", json=body, timeout=20
            )
            server.wait_until(lambda: server.metric("serving_in_flight") == 4)
            os.kill(server.process.pid, signal.SIGTERM)
            assert post.result().status_code == 200
        assert {call.code().name for call in begun} == {"OK"}
        assert server.process.finish(20).returncode == 0
        code, _ = server.refusal(server.stub.Predict, request(x=X))
        assert code == "UNAVAILABLE"
    finally:
        server.close()


def version_1():
    message = request(x=X)
    message.model_spec.version.value = 1
    return message


def test_a_server_that_cannot_start_says_why(tmp_path):
    found = run_module(
        "export.server", "--port=0", f"--model_base_path={tmp_path}", code=2
    )
    assert "INTEGER/saved_model.pb" in found.stderr
