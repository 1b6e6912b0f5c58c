"""Search through the server, beside the same search within this process.

The model and the videos of `search` are exported and served by `export.server`
on the same machine, which the load generator shares. First one client asks
one sentence after another; then requests come at fixed times, whether or not
earlier ones are answered, as from many users, at shares of what the server
can answer at most.
"""

import asyncio
import collections
import contextlib
import pathlib
import subprocess
import sys
import tempfile
import time

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_service_pb2_grpc,
)

from acnn_tf import servable
from experiments.benchmarks import measure
from experiments.benchmarks.search import WORDS, make_index
from export.protocol.tensors import from_proto, to_proto

ROOT = pathlib.Path(__file__).resolve().parents[2]
SENTENCES = [" ".join(WORDS[i : i + 4]) for i in range(len(WORDS) - 3)]
# Shares of the capacity, and seconds of each.
LOADS = (0.25, 0.5, 0.75, 1.0, 2.0, 5.0, 0.25)
SECONDS = 8.0
CLIENTS = 8  # that find out the capacity
TIMEOUT = 30.0


def rows(smoke, rounds):
    """Latency of one client, then of a rising load.

    `seconds` is the median, `p95` and `p99` stand beside it. One client is
    held against the same sentences searched within this process, by
    `MomentIndex` and by the signature of the SavedModel itself. Rows of load
    have the requests sent and answered per second, how many were answered
    with which code, and the resident memory of the server every second. Loads
    last a fixed time, whatever `rounds` says.
    """
    num_windows = 1_340 if smoke else 102_400
    seconds = 0.5 if smoke else SECONDS
    measure.progress(f"serve: {num_windows:,} windows")
    index = make_index(num_windows)
    case = f"N={index.num_windows},Q=1"
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "acnn", "1")
        servable.export(index.model, path, index=index)
        with _server(path.parent) as (process, address):
            found = _one_client(
                f"{case}, one client",
                path,
                index,
                address,
                20 if smoke else 200,
            )
            capacity = asyncio.run(_capacity(address, seconds))
            measure.progress(f"serve: {capacity:.0f} requests/s at most")
            for share in LOADS:
                measure.progress(f"serve: {share:g} of that")
                latencies, entries = asyncio.run(
                    _load(address, share * capacity, seconds, process.pid)
                )
                what = f"{case}, {share:g} x capacity"
                found.append(_row(what, "", latencies, **entries))
    return found


def _one_client(case, path, index, address, count):
    """Rows of the server against each way within this process."""
    signature = tf.saved_model.load(path).signatures["search"]
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        ways = {
            "server": lambda sentence: from_proto(
                stub.Predict(_request(sentence), TIMEOUT).outputs["score"]
            )[0],
            "signature": lambda sentence: signature(
                query=tf.constant([sentence])
            )["score"].numpy()[0],
            "moment_index": lambda sentence: [
                moment.score for moment in index.search([sentence], top_n=10)[0]
            ],
        }
        latencies = {name: [] for name in ways}
        for number in range(count + 5):
            # In turn, since the speed of a machine drifts.
            sentence, scores = SENTENCES[number % len(SENTENCES)], {}
            for name, way in ways.items():
                time.sleep(measure.PAUSE / 3)
                start = time.perf_counter()
                scores[name] = way(sentence)
                latencies[name].append(time.perf_counter() - start)
    return [
        _row(
            case,
            name,
            latencies["server"][5:],
            latencies[name][5:],
            max_relative_error=measure.max_relative_error(
                [scores["server"]], [scores[name]]
            ),
        )
        for name in ("signature", "moment_index")
    ]


def _row(case, against, latencies, others=(), **more):
    """A row of latencies, and of others to hold them against."""
    percentiles = {
        f"{name}p{percent}": _percentile(some, percent)
        for name, some in {"": latencies, "other_": others}.items()
        for percent in (50, 95, 99)
    }
    return measure.row(
        "serve",
        case,
        against,
        percentiles.pop("p50"),
        percentiles.pop("other_p50"),
        **percentiles,
        **more,
    )


def _percentile(latencies, percent):
    """`None` where nothing was answered: JSON has no NaN."""
    return float(np.percentile(latencies, percent)) if latencies else None


@contextlib.contextmanager
def _server(folder):
    """The server in a process of its own, and its gRPC address."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "export.server", "--model_name=acnn"),
            *(f"--model_base_path={folder}", "--port=0"),
            *("--rest_api_port=0", "--max_queue=16"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        line = process.stdout.readline()
        yield process, line.partition("gRPC ")[2].partition(",")[0]
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def _request(sentence):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "acnn"
    request.model_spec.signature_name = "search"
    request.inputs["query"].CopyFrom(to_proto(np.array([sentence], object)))
    return request


async def _ask(stub, number, latencies, codes):
    start = time.perf_counter()
    request = _request(SENTENCES[number % len(SENTENCES)])
    try:
        await stub.Predict(request, timeout=TIMEOUT)
        latencies.append(time.perf_counter() - start)
        codes["OK"] += 1
    except grpc.aio.AioRpcError as error:
        codes[error.code().name] += 1


async def _capacity(address, seconds):
    """Requests a second that some clients get answered, without a pause."""
    latencies, codes = [], collections.Counter()
    async with grpc.aio.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        start = time.perf_counter()

        async def client(number):
            while time.perf_counter() < start + seconds:
                await _ask(stub, number, latencies, codes)

        await asyncio.gather(*map(client, range(CLIENTS)))
    return codes["OK"] / (time.perf_counter() - start)


async def _load(address, rate, seconds, pid):
    """Sends requests at a rate, whatever becomes of them.

    Returns:
        Latencies of those that were answered, and entries of a row.
    """
    latencies, codes, memory = [], collections.Counter(), []
    count = max(1, round(rate * seconds))
    async with grpc.aio.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        start = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                due = start + number / rate
                await asyncio.sleep(max(0, due - time.perf_counter()))
                tasks.create_task(_ask(stub, number, latencies, codes))
                if time.perf_counter() - start > len(memory):
                    memory.append(_resident_mb(pid))
            sent = time.perf_counter() - start
        memory.append(_resident_mb(pid))
    return latencies, {
        "sent_per_second": count / max(sent, 1 / rate),
        "answered_per_second": codes["OK"] / (time.perf_counter() - start),
        "codes": dict(codes),
        "server_rss_mb": memory,
    }


def _resident_mb(pid):
    """Resident memory of a process, `None` on a system without `/proc`."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096 / 1e6
    except OSError:
        return None
