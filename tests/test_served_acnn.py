"""An exported ACNN behind the server: load, nonsense and a newer version."""

import base64
import concurrent.futures
import json
import os
import shutil
import threading
import time

import grpc
import numpy as np
import pytest
import requests
from tensorflow_serving.apis import predict_pb2

from acnn_tf import servable
from export.client import Client
from export.protocol.tensors import to_proto
from tests import small_acnn
from tests.server_process import Server
from tests.small_model import request

pytestmark = pytest.mark.slow
QUERY = np.array(["a person opens the door", "the caf\u00e9's door"], object)


@pytest.fixture(scope="module")
def model():
    return small_acnn.make_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    index = small_acnn.make_index(model)
    servable.export(model, folder / "1", index=index)
    return folder


@pytest.fixture
def server(folder):
    server = Server(folder, "--max_body_mb=1", "--max_queue=8")
    yield server
    server.close()


def test_both_protocols_and_the_client_find_what_the_library_finds(
    model, server
):
    clips = [np.full((n, small_acnn.CLIP_DIM), 0.1 * n) for n in (3, 8)]
    expected = server.predict("search", query=QUERY)
    localized = None
    for address in (f"grpc://{server.grpc}", server.rest):
        with Client(address) as client:
            assert client.status() == {1: "AVAILABLE"}
            found = client.search(list(QUERY))
            for row, moments in enumerate(found):
                for place, moment in enumerate(moments):
                    video_id = expected["video_id"][row, place].decode()
                    assert moment.video_id == video_id
                    np.testing.assert_allclose(
                        moment[1:],
                        [
                            expected[key][row, place]
                            for key in ("start", "end", "score")
                        ],
                        rtol=1e-6,
                    )
            moments = client.localize(clips, list(QUERY))
            localized = localized or moments
            np.testing.assert_allclose(
                [moment[1:] for row in moments for moment in row],
                [moment[1:] for row in localized for moment in row],
                rtol=1e-6,
            )


def malformed(rng, good):
    """A request that must be refused: REST's body, or gRPC's proto."""

    def body(**changed):
        return json.dumps({**good, **changed}).encode()

    def inputs(**changed):
        return body(inputs={**good["inputs"], **changed})

    def proto(**changed):
        found = predict_pb2.PredictRequest()
        found.model_spec.name = "acnn"
        found.model_spec.signature_name = "localize"
        for name, value in {**good["inputs"], **changed}.items():
            dtype = {"num_clips": np.int32, "query": object}.get(name)
            array = np.asarray(value, dtype or np.float64)
            if name == "clip" and name not in changed:
                array = array.astype(np.float32)
            found.inputs[name].CopyFrom(to_proto(array))
        return found

    dim = int(rng.integers(1, 40))
    clip = rng.normal(size=(1, int(rng.integers(1, 4)), dim))
    noise = rng.bytes(int(rng.integers(1, 200)))
    nan = [[[float("nan")] * small_acnn.CLIP_DIM] * 3]
    kinds = [
        lambda: noise,
        lambda: b"{" + noise,
        lambda: body()[: int(rng.integers(1, 40))],
        lambda: b"\xff\xfe" + body(),
        lambda: body(signature_name=f"none{dim}"),
        lambda: body(inputs={}),
        lambda: body(inputs=[clip.tolist()]),
        lambda: body(instances=[{"query": "a"}]),
        lambda: inputs(clip=clip[..., :0].tolist()),
        lambda: inputs(clip=[[[1.0] * (small_acnn.CLIP_DIM + dim)]]),
        lambda: inputs(clip=[[[1.0, 2.0], [1.0]]]),
        lambda: inputs(clip="text"),
        lambda: inputs(clip=None),
        lambda: inputs(num_clips=[dim + 3]),
        lambda: inputs(num_clips=[0]),
        lambda: inputs(num_clips=[2**40]),
        lambda: inputs(num_clips=["3"]),
        lambda: inputs(num_clips=[1.5]),
        lambda: inputs(duration=[-1.0]),
        lambda: inputs(duration=[1e300]),
        lambda: inputs(duration=[1.0, 2.0]),
        lambda: inputs(query=[{"b64": "???"}]),
        lambda: inputs(query=[{"b64": base64.b64encode(b"\xff\xfe").decode()}]),
        lambda: inputs(query=[dim]),
        lambda: inputs(query=[["a"], ["b"]]),
        lambda: inputs(more=[1.0]),
        lambda: proto(clip=np.asarray(nan, np.float32)),
        lambda: proto(clip=clip.astype(np.float32)[..., None]),
        lambda: proto(clip=np.ones((1, 3, small_acnn.CLIP_DIM))),  # float64
        lambda: proto(query=[b"\xff\xfe door"]),
        lambda: proto(query=[b"a", b"b", b"c"], num_clips=[3, 3]),
        lambda: proto(num_clips=[-dim]),
        lambda: proto(duration=[float("nan")]),
        lambda: proto(duration=[float("inf")]),
        lambda: proto(other=[1.0]),
    ]
    return kinds[int(rng.integers(len(kinds)))]()


@pytest.mark.parametrize(
    "num_requests", [400, pytest.param(100_000, marks=pytest.mark.soak)]
)
def test_nonsense_is_refused_with_a_reason_and_changes_nothing(
    server, num_requests
):
    good = {
        "signature_name": "localize",
        "inputs": {
            "clip": [[[0.5] * small_acnn.CLIP_DIM] * 3],
            "num_clips": [3],
            "duration": [3.0],
            "query": ["a person"],
        },
    }
    assert server.post(good).status_code == 200
    before = server.predict("search", query=QUERY)

    def send(seed):
        rng = np.random.default_rng(seed)
        with requests.Session() as session:
            for _ in range(num_requests // 4):
                what = malformed(rng, good)
                if isinstance(what, bytes):
                    answer = session.post(
                        server.url + ":predict", data=what, timeout=20
                    )
                    code, words = answer.status_code, answer.json()["error"]
                    assert 400 <= code < 500, (what, code, words)
                else:
                    with pytest.raises(grpc.RpcError) as error:
                        server.stub.Predict(what, timeout=20)
                    code, words = error.value.code(), error.value.details()
                    assert code == grpc.StatusCode.INVALID_ARGUMENT, words
                assert len(words) > 10, what

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(send, range(4)))
    huge = json.dumps({"instances": ["a" * 2**21]})
    assert server.post(huge.encode()).status_code == 413
    many = request("search", query=np.array(["a" * 2**21], object))
    code, words = server.refusal(server.stub.Predict, many)
    assert code == "RESOURCE_EXHAUSTED", words
    assert server.process.returncode is None
    after = server.predict("search", query=QUERY)
    for key, value in before.items():
        np.testing.assert_array_equal(value, after[key])


def test_a_newer_version_takes_over_under_load_and_no_request_fails(
    folder, server
):
    stop = threading.Event()

    def user(address):
        answers = 0
        with Client(address, retries=0) as client:
            while not stop.is_set():
                assert len(client.search(["a person opens the door"])[0]) == 10
                answers += 1
        return answers

    try:
        with concurrent.futures.ThreadPoolExecutor(3) as threads:
            addresses = [f"grpc://{server.grpc}", server.rest, server.rest]
            users = [threads.submit(user, address) for address in addresses]
            try:
                time.sleep(0.5)
                shutil.copytree(folder / "1", folder / "partial-2")
                os.rename(folder / "partial-2", folder / "2")
                server.wait_for(2, "AVAILABLE")
                server.wait_for(1, "END")
                time.sleep(0.5)
            finally:
                stop.set()
            assert all(user.result() > 0 for user in users)
    finally:
        shutil.rmtree(folder / "2")
