"""The client's connections, against servers that fail as they are told."""

import contextlib
import http.server
import json
import socket
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export import client as client_module
from export.client import Client, ServingError
from export.protocol import tensors

PROTOCOLS = ["grpc", "http"]


class Script:
    """HTTP statuses to answer with, one after the other; then 200."""

    def __init__(self, *statuses):
        self.statuses = list(statuses)
        self.num_calls = 0

    def next(self):
        self.num_calls += 1
        return self.statuses.pop(0) if self.statuses else 200


GRPC_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


@contextlib.contextmanager
def scripted_grpc(script, port=0):
    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            status = script.next()
            if status != 200:
                context.abort(GRPC_CODES[status], f"number {status}")
            response = predict_pb2.PredictResponse()
            response.outputs["y"].CopyFrom(tensors.to_proto(np.float32([1])))
            return response

        def GetModelMetadata(self, request, context):
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            signatures = get_model_metadata_pb2.SignatureDefMap()
            signatures.signature_def["serving_default"].outputs["y"].dtype = 1
            response.metadata["signature_def"].Pack(signatures)
            return response

    with futures.ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            Servicer(), server
        )
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


@contextlib.contextmanager
def scripted_http(script, port=0):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            default = {"outputs": {"y": {"dtype": "DT_FLOAT"}}}
            definitions = {"signature_def": {"serving_default": default}}
            metadata = {"signature_def": definitions}
            spec = {"version": "1"}
            self.answer(200, {"model_spec": spec, "metadata": metadata})

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            status = script.next()
            if status == 200:
                self.answer(status, {"outputs": [1.0]})
            else:
                self.answer(status, {"error": f"number {status}"})

        def answer(self, status, value):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


SCRIPTED = {"grpc": scripted_grpc, "http": scripted_http}


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "_FIRST_PAUSE", 0.0)
    monkeypatch.setattr(client_module.random, "uniform", lambda low, high: 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_unavailable_is_asked_again(protocol, no_pauses):
    script = Script(503, 503)
    with SCRIPTED[protocol](script) as address, Client(address) as client:
        assert client.predict({})["y"] == [1]
        assert script.num_calls == 3

        script.statuses = [503] * 9
        script.num_calls = 0
        with pytest.raises(ServingError, match="UNAVAILABLE: number 503"):
            client.predict({})
        assert script.num_calls == 1 + client.retries


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_errors_come_at_once(protocol):
    script = Script()
    with SCRIPTED[protocol](script) as address, Client(address) as client:
        for number, status in enumerate([400, 413, 429, 504], start=1):
            script.statuses = [status]
            with pytest.raises(ServingError) as caught:
                client.predict({})
            assert caught.value.code == GRPC_CODES[status].name
            assert caught.value.message == f"number {status}"
            assert script.num_calls == number


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_starts_late_is_waited_for(protocol):
    port = free_port()
    is_done = threading.Event()

    def start_late():
        time.sleep(0.5)
        with SCRIPTED[protocol](Script(), port):
            is_done.wait(20)

    thread = threading.Thread(target=start_late)
    thread.start()
    try:
        address = f"{protocol}://127.0.0.1:{port}"
        with Client(address, timeout=15, retries=20) as client:
            assert client.predict({})["y"] == [1]
    finally:
        is_done.set()
        thread.join()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_server_is_unavailable(protocol, no_pauses):
    address = f"{protocol}://127.0.0.1:{free_port()}"
    with Client(address) as client:
        with pytest.raises(ServingError, match=r"^UNAVAILABLE"):
            client.search(["door"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_silent_server_meets_the_deadline(protocol):
    # Connections are taken up by the system; nobody ever answers them.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"{protocol}://127.0.0.1:{listener.getsockname()[1]}"
        with Client(address, timeout=0.3) as client:
            with pytest.raises(ServingError, match=r"^DEADLINE_EXCEEDED"):
                client.search(["door"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_retries_end_with_the_deadline(protocol):
    script = Script(*[503] * 1000)
    with SCRIPTED[protocol](script) as address:
        with Client(address, timeout=1, retries=1000) as client:
            with pytest.raises(ServingError, match="UNAVAILABLE"):
                client.predict({})
    # Pauses of at least 0.05, 0.1, 0.2, 0.4 and 0.4 seconds do not fit.
    assert script.num_calls <= 5


def test_strange_answers_are_typed():
    with scripted_http(Script()) as address:
        with Client(address) as client:
            with pytest.raises(ServingError, match="model_version_status"):
                client.status()
        with Client(address) as client:
            client._signatures = {
                "serving_default": {"inputs": {}, "outputs": {}}
            }
            with pytest.raises(ServingError, match=r"^INTERNAL"):
                client.predict({})
            # It has read the signatures anew.
            assert client.predict({})["y"] == [1]


def test_what_does_not_go_together_is_not_sent(refused):
    one = np.zeros((3, 2))
    with Client("grpc://127.0.0.1:1") as client:
        for *arguments, message in (
            ([one], ["a", "b"], None, "Received: 1, 2 and 1"),
            ([one], ["a"], [1, 2], "Received: 1, 1 and 2"),
            ([one[0]], ["a"], None, r"Received.*\(2,\)"),
            ([one, one[:, :1]], ["a", "b"], None, r"Received.*\(3, 2\)"),
            ([one], "a", None, "Received: 'a'"),
        ):
            with refused(ValueError, message):
                client.localize(*arguments)


def test_inputs_are_converted_to_what_the_signature_takes(refused):
    def convert(value, dtype):
        return client_module._as_input("x", value, {"dtype": dtype})

    np.testing.assert_array_equal(
        convert([0.5, 1], "float32"), np.float32([0.5, 1]), strict=True
    )
    np.testing.assert_array_equal(
        convert(np.array([3, 4]), "int32"), np.int32([3, 4]), strict=True
    )
    assert convert(["a\0"], "string").tolist() == ["a\0"]
    for *case, message in (
        ([0.5], "int32", "Input `x` must be int32"),
        ([2**31], "int32", "Input `x` must be int32"),
        ([2**24 + 1], "float32", "Input `x` must be float32"),
        (["a"], "float32", "Input `x` must be float32"),
    ):
        with refused(ValueError, message):
            convert(*case)


def test_settings_are_checked(refused):
    for settings, message in (
        ({"server": "127.0.0.1:8500"}, r"grpc://.*127\.0\.0\.1:8500"),
        ({"server": "ftp://127.0.0.1"}, "ftp"),
        ({"timeout": 0}, "timeout.*0"),
        ({"retries": -1}, "retries.*-1"),
        ({"version": 2**63}, "`version` must be an integer from 0"),
        ({"version": -1}, "`version` must be an integer from 0"),
    ):
        with refused(ValueError, message):
            Client(**{"server": "http://127.0.0.1:1"} | settings)
