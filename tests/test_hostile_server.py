"""Attackers, and clients that leave, do not keep a server from others."""

import collections
import concurrent.futures
import itertools
import json
import multiprocessing
import random
import re
import socket
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests import hostile_requests
from tests.hostile_requests import GOOD, PREDICT, Connection
from tests.server_process import Server, send_and_stay
from tests.small_model import request

pytestmark = pytest.mark.soak


@pytest.fixture
def server(small_models):
    found = Server(small_models, "--num_threads=1", "--max_seconds=30")
    yield found
    found.close()


def megabytes(server, name):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024


def ask_once_a_second(server, others):
    """Seconds of a good request by each protocol, until others are done."""
    address = server.rest.removeprefix("http://")
    seconds = []
    with (
        Connection("http", address) as http,
        Connection("grpc", server.grpc) as rpc,
    ):
        while not all(other.done() for other in others):
            for connection, protocol in ((http, "http"), (rpc, "grpc")):
                start = time.perf_counter()
                status = connection.ask(GOOD[protocol])
                seconds.append(time.perf_counter() - start)
                assert status in (200, "OK")
            time.sleep(1)
    return seconds[2:]  # the first had to connect


def test_attackers_cost_no_more_than_other_users(server):
    address = server.rest.removeprefix("http://")
    addresses = [("http", address), ("grpc", server.grpc)] * 2
    context = multiprocessing.get_context("forkserver")
    with concurrent.futures.ProcessPoolExecutor(4, context) as processes:

        def beside(function, arguments):
            """Our seconds while four call it, and the statuses they got."""
            others = [
                processes.submit(function, *where, *arguments())
                for where in addresses
            ]
            seconds = ask_once_a_second(server, others)
            statuses = sum((o.result() for o in others), collections.Counter())
            return seconds, statuses

        beside(hostile_requests.load, lambda: [1])
        rest = megabytes(server, "VmRSS")
        # The highest is from now on.
        Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
        seeds = itertools.count()
        honest, attacked, statuses = [], [], collections.Counter()
        for _ in range(10):  # for the machine has moods
            honest += beside(hostile_requests.load, lambda: [5])[0]
            seconds, found = beside(
                hostile_requests.attack,
                lambda: [random.Random(next(seeds)), 2_475, 25],
            )
            attacked += seconds
            statuses += found
    p99 = [np.quantile(seconds, 0.99) for seconds in (honest, attacked)]
    print(  # noqa: T201
        f"\n{statuses.total():,} attacks; honest p99 {1e3 * p99[0]:.0f} -> "
        f"{1e3 * p99[1]:.0f} ms of {len(honest)} and {len(attacked)}; "
        f"{rest:.0f} -> {megabytes(server, 'VmHWM'):.0f} MB"
    )
    assert p99[1] <= 2 * p99[0], p99
    assert megabytes(server, "VmHWM") < 1.5 * rest
    assert statuses.total() == 100_000
    assert statuses.keys() <= {200, 400, "OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert server.metric("serving_in_flight") == 0
    assert server.metric("serving_waiting") == 0
    assert "Traceback" not in server.log


def slow_body():
    return {"signature_name": "slow", "inputs": 150_000}


def leave_rest(server):
    """60 clients that ask for half a second each, and close their sockets."""
    body = json.dumps(slow_body()).encode()
    connections = [send_and_stay(server, body) for _ in range(60)]
    return [connection.close for connection in connections], connections


def leave_grpc(server):
    """The same by gRPC."""
    body = request("slow", steps=np.array(150_000, np.int32))
    calls = []  # which are cancelled where nobody keeps them
    for _ in range(60):
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(server.grpc, options)
        predict = channel.unary_unary(PREDICT)
        calls.append((channel, predict.future(body.SerializeToString())))
    return [channel.close for channel, _ in calls], calls


@pytest.mark.parametrize("leave", [leave_rest, leave_grpc])
def test_clients_that_leave_keep_nobody_waiting(server, leave):
    start = time.perf_counter()
    server.post(slow_body())
    alone = time.perf_counter() - start
    close, _calls = leave(server)
    server.wait_until(lambda: server.metric("serving_in_flight") == 60)
    for close_one in close:
        close_one()
    for protocol, address in (
        ("http", server.rest.removeprefix("http://")),
        ("grpc", server.grpc),
    ):
        with Connection(protocol, address) as connection:
            start = time.perf_counter()
            assert connection.ask(GOOD[protocol]) in (200, "OK")
            seconds = time.perf_counter() - start
            print(  # noqa: T201
                f"\n60 left; {protocol} {seconds:.3f} s, {alone:.3f} s alone"
            )
            assert seconds < 3 * alone  # one of them was running
    # That one, the first of ours and the two good ones.
    assert server.metric("serving_batch_rows_count") <= 5


def test_connections_that_ask_for_nothing_are_closed(small_models):
    server = Server(small_models, "--max_seconds=0.5")
    host, port = server.rest.removeprefix("http://").split(":")
    try:
        head = b"POST /v1/models/acnn:predict HTTP/1.1\r\nHost: a\r\n"
        for sent in (b"", head, head + b"Content-Length: 9\r\n\r\n{"):
            with socket.create_connection((host, int(port)), 20) as connection:
                connection.sendall(sent)
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
                assert answer[:12] in (b"", b"HTTP/1.1 504")
    finally:
        server.close()
