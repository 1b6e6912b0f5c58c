"""The server in a process of its own, and ways to ask it."""

import json
import re
import socket
import time

import grpc
import pytest
import requests
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from export.protocol.tensors import from_proto
from tests.processes import Started
from tests.small_model import request


class Server:
    """A server of the models in `folder`, named acnn, on free ports."""

    def __init__(self, folder, *flags):
        self.process = Started(
            "export.server",
            "--model_name=acnn",
            f"--model_base_path={folder}",
            "--port=0",
            "--rest_api_port=0",
            "--file_system_poll_wait_seconds=0.05",
            *flags,
        )
        line = self.process.first_line()
        found = re.fullmatch(
            r"Serving acnn, gRPC (\S+), REST (http://\S+)", line
        )
        assert found, self.process.printed
        self.grpc, self.rest = found.groups()
        self.url = f"{self.rest}/v1/models/acnn"
        self.channel = grpc.insecure_channel(self.grpc)
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(
            self.channel
        )
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.session = requests.Session()

    @property
    def log(self):
        """What the server has written to stderr."""
        return self.process.printed[1]

    def predict(self, signature="", timeout=20, **inputs):
        response = self.stub.Predict(
            request(signature, **inputs), timeout=timeout
        )
        return {k: from_proto(v) for k, v in response.outputs.items()}

    def refusal(self, call, *args):
        with pytest.raises(grpc.RpcError) as error:
            call(*args, timeout=20)
        return error.value.code().name, error.value.details()

    def post(self, body, path=":predict"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.session.post(self.url + path, data=body, timeout=20)

    def get(self, path=""):
        return self.session.get(self.url + path, timeout=20)

    def states(self):
        found = self.get().json()["model_version_status"]
        return {int(v["version"]): v["state"] for v in found}

    def wait_until(self, condition):
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, self.log
            time.sleep(0.01)

    def wait_for(self, version, state):
        self.wait_until(lambda: self.states().get(version) == state)

    def metric(self, name):
        text = requests.get(
            f"{self.rest}/monitoring/prometheus/metrics", timeout=20
        ).text
        return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])

    def close(self):
        self.channel.close()
        self.session.close()
        self.process.kill()
        self.process.finish()


def send_and_stay(server, body, headers=""):
    """Sends a request over REST; returns its connection."""
    host, port = server.rest.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), 20)
    connection.sendall(
        f"POST /v1/models/acnn:predict HTTP/1.1\r\nHost: {host}\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n".encode()
        + body
    )
    return connection
