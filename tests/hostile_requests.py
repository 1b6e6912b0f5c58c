"""Malformed requests to a server of `tests.small_model`, by seed."""

import collections
import http.client
import json
import time

import grpc
import numpy as np

from tests.small_model import X, request

PREDICT = "/tensorflow.serving.PredictionService/Predict"
# Of both protocols, for y = 2 x.
GOOD = {
    "http": json.dumps({"instances": X.tolist()}).encode(),
    "grpc": request(x=X).SerializeToString(),
}


def spoiled(chance, protocol):
    """A request with some bytes changed or lost, or bytes of no meaning."""
    if chance.random() < 0.2:
        return chance.randbytes(99)
    body = bytearray(GOOD[protocol])
    for _ in range(chance.randrange(1, 9)):
        place = chance.randrange(len(body))
        if chance.random() < 0.5:
            body[place] = chance.randrange(256)
        else:
            body[place : place + chance.randrange(5)] = b""
    return bytes(body) or b"0"


def costly(chance, protocol):
    """A request that asks for more than it is, or than it may."""
    if protocol == "http":
        count = chance.randrange(1_000, 6_000)
        numbers = b"0.12345," * count
        return chance.choice(
            [
                b'{"instances": [' + b"[1, 2, 3]," * count + b"[1]]}",
                b'{"instances": ' + b"[" * count,
                b'{"inputs": [' + b"{}," * count + b"1]}",
                b'{"inputs": [[' + numbers + b'"a"]]}',
                b'{"inputs": [[1, 2, ' + b"9" * count + b"]]}",
                b'{"signature_name": "' + b"a" * count + b'", "inputs": 1}',
                b'{"signature_name": "text", "inputs": ["'
                + b'","' * count
                + b'"]}',
            ]
        )
    name, array = chance.choice(
        [
            ("text", {"s": np.array([b"a"], object)}),
            ("text", {"s": np.array([b""] * 60_000, object)}),
            ("norm", {"x": np.ones([1, 1], np.float32)}),
            ("add", {"a": np.ones(100_000, np.int32), "b": X[:, :2]}),
            ("", {"x": X[:1, :1]}),
        ]
    )
    message = request(name, **array)
    for tensor in message.inputs.values():
        for dim in tensor.tensor_shape.dim:
            dim.size = 2 ** chance.randrange(63) - chance.randrange(2)
        if chance.random() < 0.2:
            for _ in range(chance.randrange(300)):
                tensor.tensor_shape.dim.add(size=2 ** chance.randrange(63))
        if chance.random() < 0.2:
            tensor.tensor_content = chance.randbytes(1000)
    return message.SerializeToString()


class Connection:
    """One connection to a server, for one request after the other."""

    def __init__(self, protocol, address):
        self._protocol = protocol
        if protocol == "http":
            self._http = http.client.HTTPConnection(address, timeout=60)
        else:
            self._channel = grpc.insecure_channel(
                address, [("grpc.use_local_subchannel_pool", 1)]
            )
            self._predict = self._channel.unary_unary(PREDICT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        (self._http if self._protocol == "http" else self._channel).close()

    def ask(self, body):
        """The status of the answer, of HTTP or a gRPC code's name."""
        if self._protocol == "http":
            self._http.request("POST", "/v1/models/acnn:predict", body)
            response = self._http.getresponse()
            response.read()
            return response.status
        try:
            self._predict(body, timeout=60)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"


def load(protocol, address, seconds):
    """Sends good requests for so long; returns how many of each status."""
    statuses, end = collections.Counter(), time.monotonic() + seconds
    with Connection(protocol, address) as connection:
        while time.monotonic() < end:
            statuses[connection.ask(GOOD[protocol])] += 1
    return statuses


def attack(protocol, address, chance, num_cheap, num_costly):
    """Sends malformed requests, shuffled; returns how many of each status."""
    statuses = collections.Counter()
    kinds = [spoiled] * num_cheap + [costly] * num_costly
    chance.shuffle(kinds)
    with Connection(protocol, address) as connection:
        for kind in kinds:
            statuses[connection.ask(kind(chance, protocol))] += 1
    return statuses
