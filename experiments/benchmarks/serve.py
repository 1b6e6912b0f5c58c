"""Search through the server, beside the same search within this process.

A model whose encodings are 128 wide and whose hidden layer has 256 units is
exported with videos of 30 s, 134 windows each, and served by `export.server`
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
import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_service_pb2_grpc,
)

from acnn_tf import servable
from acnn_tf.data.sentences import Vocabulary
from acnn_tf.models import ACNN
from acnn_tf.search import MomentIndex, encode_videos
from experiments.benchmarks import measure
from export.protocol.tensors import from_proto, to_proto

WORDS = ["a", "person", "opens", "closes", "the", "door", "window", "and"]
CLIP_DIM = 16
# Shares of the capacity, and seconds of each.
LOADS = (0.25, 0.5, 0.75, 1.0, 2.0, 5.0, 0.25)
SECONDS = 8.0
CLIENTS = 8  # that find out the capacity
TIMEOUT = 30.0


def rows(smoke=False, rounds=5):
    """Latency of one client, then of a rising load.

    `seconds` is the median, `p95` and `p99` stand beside it. One client is
    held against the same sentences searched within this process, by
    `MomentIndex` and by the signature of the SavedModel itself. Rows of load
    have the requests sent and answered per second, how many were answered
    with which code, and the resident memory of the server every second.

    Args:
        smoke: A tiny index and a second of each load.
        rounds: Not used: loads last a fixed time.

    Returns:
        List of rows.
    """
    num_windows = 1_340 if smoke else 102_400
    measure.progress(f"serve: {num_windows:,} windows")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model, index = _make_index(num_windows)
        servable.export(model, folder / "acnn" / "1", index=index)
        with _server(folder) as (process, address):
            return _measure(
                folder / "acnn" / "1", model, index, process, address, smoke
            )


def _measure(path, model, index, process, address, smoke):
    count, seconds = (20, 0.5) if smoke else (200, SECONDS)
    case = f"N={index.num_windows},Q=1"
    encode = Vocabulary(model.vocabulary).encode
    sentences = [" ".join(WORDS[i : i + 4]) for i in range(len(WORDS) - 3)]
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
                moment.score
                for moment in index.search(encode([sentence]), top_n=10)[0]
            ],
        }
        latencies = {name: [] for name in ways}
        for number in range(count + 5):
            # In turn, since the speed of a machine drifts.
            sentence, scores = sentences[number % len(sentences)], {}
            for name, way in ways.items():
                time.sleep(0 if smoke else 0.05)
                start = time.perf_counter()
                scores[name] = way(sentence)
                latencies[name].append(time.perf_counter() - start)
    found = [
        _row(
            f"{case}, one client",
            name,
            latencies["server"][5:],
            latencies[name][5:],
            measure.max_relative_error([scores["server"]], [scores[name]]),
        )
        for name in ("signature", "moment_index")
    ]
    capacity = asyncio.run(_capacity(address, sentences, seconds))
    measure.progress(f"serve: {capacity:.0f} requests/s at most")
    for share in LOADS:
        measure.progress(f"serve: {share:g} of that")
        rate = share * capacity
        latencies, entries = asyncio.run(
            _load(address, sentences, rate, seconds, process)
        )
        what = f"{case}, {share:g} x capacity"
        found.append(_row(what, "", latencies, **entries))
    return found


def _row(case, against, latencies, alone=(), error=None, **more):
    """A row of latencies, and of others to hold them against."""
    latencies, alone = latencies or [np.nan], list(alone) or [np.nan]
    medians = [float(np.median(some)) for some in (latencies, alone)]
    row = measure.row(
        "serve",
        case,
        against,
        *(measure.Measured(median, rounds=1) for median in medians),
        max_relative_error=error,
        **more,
    )
    for name, some in {"": latencies, "other_": alone}.items():
        for percentile in (95, 99):
            value = float(np.percentile(some, percentile))
            row[f"{name}p{percentile}"] = value
    # JSON has no NaN.
    return {
        key: None if isinstance(value, float) and np.isnan(value) else value
        for key, value in row.items()
    }


def _make_index(num_windows):
    keras.utils.set_random_seed(0)
    model = ACNN(
        kernel_sizes=(1, 3),
        filters=64,
        embedding_dim=128,
        hidden_dim=256,
        vocabulary=WORDS,
        query_encoder="gru",
        position_features=False,
    )
    model.build({"clip": (None, None, CLIP_DIM), "query": (None, None)})
    rng = np.random.default_rng(0)
    for weight in model.head.weights:
        scale = 2 * weight.shape[0] ** -0.5
        weight.assign(scale * rng.normal(size=weight.shape))
    # Encodings, and with them scores, as far apart as those of a trained model.
    features = {"v": rng.normal(size=(30, CLIP_DIM))}
    (video,) = encode_videos(model, features, {"v": 30.0})
    _spread(model.window_projection, video.encoding)
    _spread(model.query_projection, model.encode_queries(_all_words(model)))
    count = round(num_windows / len(video.windows))
    index = MomentIndex(model)
    index.append(
        {f"v{i:04d}": rng.normal(size=(30, CLIP_DIM)) for i in range(count)}
    )
    return model, index


def _all_words(model):
    return Vocabulary(model.vocabulary).encode(model.vocabulary)


def _spread(layer, outputs):
    """Scales a dense layer to outputs of mean 0 and deviation 1."""
    outputs = np.asarray(outputs)
    scale = 1 / outputs.std(axis=0)
    layer.kernel.assign(layer.kernel * scale)
    layer.bias.assign(-outputs.mean(axis=0) * scale)


@contextlib.contextmanager
def _server(folder):
    """The server in a process of its own, and its gRPC address."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "export.server", "--model_name=acnn"),
            *(f"--model_base_path={folder / 'acnn'}", "--port=0"),
            *("--rest_api_port=0", "--max_queue=16"),
        ],
        cwd=measure.ROOT,
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


async def _ask(stub, sentence, latencies, codes):
    start = time.perf_counter()
    try:
        await stub.Predict(_request(sentence), timeout=TIMEOUT)
        latencies.append(time.perf_counter() - start)
        codes["OK"] += 1
    except grpc.aio.AioRpcError as error:
        codes[error.code().name] += 1


async def _capacity(address, sentences, seconds):
    """Requests a second that some clients get answered, without a pause."""
    latencies, codes = [], collections.Counter()
    async with grpc.aio.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        end = time.perf_counter() + seconds

        async def client(number):
            while time.perf_counter() < end:
                sentence = sentences[number % len(sentences)]
                await _ask(stub, sentence, latencies, codes)

        start = time.perf_counter()
        await asyncio.gather(*map(client, range(CLIENTS)))
    return codes["OK"] / (time.perf_counter() - start)


async def _load(address, sentences, rate, seconds, process):
    """Sends requests at a rate, whatever becomes of them.

    Returns:
        Latencies of those that were answered, and entries of a row.
    """
    latencies, codes, memory = [], collections.Counter(), []
    count = max(1, round(rate * seconds))
    async with grpc.aio.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        tasks, start = [], time.perf_counter()
        for number in range(count):
            due = start + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            sentence = sentences[number % len(sentences)]
            tasks.append(
                asyncio.create_task(_ask(stub, sentence, latencies, codes))
            )
            if time.perf_counter() - start > len(memory):
                memory.append(_resident_mb(process.pid))
        sent = time.perf_counter() - start
        await asyncio.gather(*tasks)
        memory.append(_resident_mb(process.pid))
    took = time.perf_counter() - start
    entries = {
        "sent_per_second": count / max(sent, 1 / rate),
        "answered_per_second": codes["OK"] / took,
        "codes": dict(codes),
        "server_rss_mb": memory,
    }
    return latencies, entries


def _resident_mb(pid):
    """Resident memory of a process, `None` on a system without `/proc`."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096 / 1e6
    except OSError:
        return None
