import random
import socket

import grpc
import numpy as np
import pytest
import requests
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
)

from tests.hostile_requests import PREDICT, spoiled
from tests.processes import run_module
from tests.server_process import Server
from tests.small_model import X, request


@pytest.fixture(scope="module")
def server(small_models):
    flags = ("--max_body_mb=1", "--max_rows=5000", "--max_seconds=2")
    found = Server(small_models, *flags)
    yield found
    found.close()


def test_grpc_and_rest_answer_alike(server):
    expected = (2 * X).tolist()
    assert server.predict(x=X)["y"].tolist() == expected
    rows = server.post({"instances": X.tolist()})
    assert rows.headers["content-type"] == "application/json"
    written = [[2, 4, 6], [0.2, -10, 14]]
    assert rows.json() == {"predictions": written}
    assert server.post({"inputs": X.tolist()}).json() == {"outputs": written}
    named = {"instances": [{"x": row} for row in X.tolist()]}
    path = "/versions/1:predict"
    assert server.post(named, path).json() == {"predictions": written}


def test_several_inputs_strings_and_numbers_that_are_none(server):
    body = {"signature_name": "add"}
    rows = [{"a": 1, "b": [float("nan"), float("inf")]}, {"a": 2, "b": [3, 4]}]
    answer = server.post(body | {"instances": rows})
    assert '{"sum": [NaN, Infinity], "a": 1}' in answer.text or (
        '{"a": 1, "sum": [NaN, Infinity]}' in answer.text
    )
    assert answer.json()["predictions"][1] == {"a": 2, "sum": [5, 6]}
    text = {"signature_name": "text", "instances": ["ä", {"b64": "YWI="}]}
    assert server.post(text).json()["predictions"] == [
        {"twice": "ää", "s_bytes": {"b64": "w6Q="}},
        {"twice": "abab", "s_bytes": {"b64": "YWI="}},
    ]
    bytes_ = np.array([b"\xff\x00"], object)
    assert server.predict("text", s=bytes_)["s_bytes"].tolist() == [b"\xff\x00"]
    text["instances"] = [{"b64": "YW\r\nI=\n"}]  # as MIME wraps it
    assert server.post(text).json()["predictions"][0]["twice"] == "abab"
    text["instances"] = [{"b64": "/w=="}]
    answer = server.post(text)
    assert answer.status_code == 400
    assert "Output `twice` is not UTF-8" in answer.json()["error"]
    # Bytes, which are of no row, are no object of inputs.
    text = {"signature_name": "text", "inputs": {"b64": "YQ=="}}
    assert "`s` must have shape [?]" in server.post(text).json()["error"]
    columns = {"a": [1, 2], "b": [[3, 4], [5, 6]]}
    answer = server.post(body | {"inputs": columns}).json()
    assert answer == {"outputs": {"a": [1, 2], "sum": [[4, 5], [7, 8]]}}
    total = {"signature_name": "total", "inputs": [1, 2]}
    assert server.post(total).json() == {"outputs": 3}


def test_metadata_and_status(server):
    message = get_model_metadata_pb2.GetModelMetadataRequest()
    message.model_spec.name = "acnn"
    message.metadata_field.append("signature_def")
    found = server.stub.GetModelMetadata(message, timeout=20)
    assert found.model_spec.version.value == 1
    definitions = get_model_metadata_pb2.SignatureDefMap()
    assert found.metadata["signature_def"].Unpack(definitions)
    info = definitions.signature_def["serving_default"].inputs["x"]
    assert [dim.size for dim in info.tensor_shape.dim] == [-1, 3]
    rest = server.get("/metadata").json()
    assert rest["model_spec"]["version"] == "1"
    definitions = rest["metadata"]["signature_def"]["signature_def"]
    x = definitions["serving_default"]["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in x["tensor_shape"]["dim"]] == ["-1", "3"]

    message = get_model_status_pb2.GetModelStatusRequest()
    message.model_spec.name = "acnn"
    (status,) = server.models.GetModelStatus(message).model_version_status
    assert (status.version, status.state) == (1, status.AVAILABLE)
    assert server.get("/versions/1").json() == {
        "model_version_status": [
            {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    message.model_spec.version.value = 2
    code, _ = server.refusal(server.models.GetModelStatus, message)
    assert code == "NOT_FOUND"
    message = model_management_pb2.ReloadConfigRequest()
    code, _ = server.refusal(server.models.HandleReloadConfigRequest, message)
    assert code == "UNIMPLEMENTED"
    message = classification_pb2.ClassificationRequest()
    code, _ = server.refusal(server.stub.Classify, message)
    assert code == "UNIMPLEMENTED"


@pytest.mark.slow
def test_a_port_in_use_is_told_with_its_flag(server, small_models):
    port = server.rest.rpartition(":")[2]
    done = run_module(
        "export.server",
        f"--model_base_path={small_models}",
        *("--port=0", f"--rest_api_port={port}"),
        code=2,
    )
    (line,) = [x for x in done.stderr.splitlines() if "Error" in x]
    told = f"127.0.0.1:{port} is not free, or not of this machine: choose"
    assert f"{told} another --rest_api_port or --host" in line


def test_version_0_means_none_in_particular(server):
    # ovmsclient writes it, always.
    status = get_model_status_pb2.GetModelStatusRequest()
    one = request(x=X)
    for spec in (status.model_spec, one.model_spec):
        spec.name = "acnn"
        spec.version.value = 0
    states = server.models.GetModelStatus(status, timeout=20)
    assert [v.version for v in states.model_version_status] == [1]
    answer = server.stub.Predict(one, timeout=20)
    assert answer.model_spec.version.value == 1


def test_output_filter_and_versions_over_grpc(server):
    message = request("text", s=np.array([b"a"], object))
    message.output_filter.append("twice")
    message.model_spec.version.value = 1
    response = server.stub.Predict(message, timeout=20)
    assert list(response.outputs) == ["twice"]
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "text"
    message.output_filter.append("what")
    code, details = server.refusal(server.stub.Predict, message)
    assert code == "INVALID_ARGUMENT"
    assert "no output `what`" in details
    for field, value in [("name", "other"), ("version_label", "stable")]:
        message = request(x=X)
        setattr(message.model_spec, field, value)
        code, _ = server.refusal(server.stub.Predict, message)
        assert code == "NOT_FOUND"


def test_what_is_wrong_with_a_request_is_said(server):
    for message, code, details in [
        (
            request("what", x=X),
            "INVALID_ARGUMENT",
            "one of ['add', 'norm', 'root'",
        ),
        (request(z=X), "INVALID_ARGUMENT", "Missing: ['x']. Unknown: ['z']"),
        (request(x=X.astype(int)), "INVALID_ARGUMENT", "float32, but is int64"),
        (request(x=X[:, :2]), "INVALID_ARGUMENT", "[?, 3], with any size"),
        (request(x=X[0]), "INVALID_ARGUMENT", "but has [3]"),
        (request("root", x=-X[0]), "INVALID_ARGUMENT", "not be negative"),
        (request(x=X[:0]), "INVALID_ARGUMENT", "`x` has 0 rows, where 1 to"),
        (request("root", x=np.ones(5001, np.float32)), "INVALID_", "5001 rows"),
    ]:
        found, text = server.refusal(server.stub.Predict, message)
        assert found.startswith(code)
        assert details in text
        assert "{{node" not in text
        assert "File" not in text
    huge = request("norm", x=X)
    huge.inputs["x"].tensor_shape.dim[1].size = 2**40
    _, text = server.refusal(server.stub.Predict, huge)
    assert "Input `x` is of shape" in text
    # What a request asks for is looked at before any of it is made.
    fill = request("text", s=np.array([b"a"], object))
    fill.inputs["s"].tensor_shape.dim[0].size = 40_000_000
    _, text = server.refusal(server.stub.Predict, fill)
    assert "40000000 rows, where 1 to 5000 may be, --max_rows" in text
    for name in ("x", "s" * 500_000):
        long = request(name, **{name: X})
        for call in (server.stub.Predict, server.stub.Classify):
            _, text = server.refusal(call, long)
            assert len(text) < 1000
        body = {"signature_name": name, "inputs": {name: 1}}
        assert len(server.post(body).content) < 1000
    raw = server.channel.unary_unary(PREDICT)
    code, text = server.refusal(raw, b"\xff\xff")
    assert (code, "PredictRequest" in text) == ("INVALID_ARGUMENT", True)

    for body, status, words in [
        (b"", 400, "empty"),
        (b"\xff", 400, "UTF-8"),
        ({"instances": [[1, 2, 3], [4]]}, 400, "Input `x` is ragged"),
        ({"instances": [[1, 2]]}, 400, "[?, 3]"),
        ({"instances": [["1", 2, 3]]}, 400, 'has "1"'),
        ({"inputs": {"z": 1}}, 400, "Missing: ['x']"),
        ({"signature_name": "what", "inputs": 1}, 400, "one of ['add'"),
        ({"signature_name": 1, "inputs": 1}, 400, "must be a string"),
        ({"signature_name": "\ud800", "inputs": 1}, 400, "no signature"),
        ({"signature_name": "root", "inputs": [-1]}, 400, "not be negative"),
        ({"signature_name": "total", "instances": [1]}, 400, "no rows"),
        ({"inputs": []}, 400, "`x` must have shape [?, 3]"),
        ({"signature_name": "root", "inputs": []}, 400, "`x` has 0 rows"),
        ({"inputs": [[1, 2, 3]] * 5001}, 400, "5001 rows, where 1 to 5000"),
        (b'{"inputs": [' + b"{}," * 5000 + b"1]}", 400, "so many values"),
    ]:
        answer = server.post(body)
        assert answer.status_code == status
        assert words in answer.json()["error"]
    for path, status in [
        ("/versions/7:predict", 404),
        (f"/versions/{2**63}:predict", 400),
        (f"/versions/{'9' * 5000}:predict", 400),
        ("/versions/01:predict", 400),
        ("/labels/stable:predict", 404),
        (":classify", 501),
        ("", 405),
        ("/what", 404),
    ]:
        answer = server.post({"instances": X.tolist()}, path)
        assert answer.status_code == status
        assert answer.json()["error"]
    for path in (":predict", "/versions/1:predict", ":classify"):
        answer = server.get(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    answer = requests.post(
        server.url + ":predict",
        b"zipped",
        headers={"Content-Encoding": "gzip"},
        timeout=20,
    )
    assert answer.status_code == 415
    assert "Content-Encoding: gzip" in answer.json()["error"]
    assert "Traceback" not in server.log


def test_large_bodies(server):
    large = {"instances": [[1.125, 2.25, 3.375]] * 4_000}  # some 90 KB
    assert len(server.post(large).json()["predictions"]) == 4_000
    rows = np.ones([5_000, 3], np.float32)  # 60 KB
    assert server.predict(x=rows)["y"].sum() == 30_000
    square = np.ones([100, 2_000], np.float32)  # 800 KB
    assert server.predict("norm", x=square)["y"].sum() == 200_000
    answer = server.post(b" " * (2**20 + 1))
    assert answer.status_code == 413
    assert "--max_body_mb" in answer.json()["error"]

    def chunks():
        for _ in range(40):
            yield b" " * 2**16

    try:
        answer = requests.post(server.url + ":predict", chunks(), timeout=20)
        assert answer.status_code == 413
    except requests.ConnectionError:
        pass  # the server had answered before all was sent
    code, _ = server.refusal(server.stub.Predict, request(x=np.ones(2**18)))
    assert code == "RESOURCE_EXHAUSTED"
    assert server.predict(x=X)["y"].tolist() == (2 * X).tolist()


def test_noise_changes_nothing(server):
    before = server.stub.Predict(request(x=X)).SerializeToString(
        deterministic=True
    )
    chance = random.Random(0)
    raw = server.channel.unary_unary(PREDICT)
    codes = set()
    for _ in range(150):
        body = spoiled(chance, "http")
        assert server.post(body).status_code in (200, 400)
        try:
            raw(spoiled(chance, "grpc"), timeout=20)
        except grpc.RpcError as error:
            codes.add(error.code().name)
    assert codes <= {"INVALID_ARGUMENT", "NOT_FOUND"}
    host, port = server.rest.removeprefix("http://").split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port)), 20) as connection:
            connection.sendall(chance.randbytes(200) + b"\r\n\r\n")
    after = server.stub.Predict(request(x=X)).SerializeToString(
        deterministic=True
    )
    assert after == before
    assert server.process.returncode is None
    assert "Traceback" not in server.log
