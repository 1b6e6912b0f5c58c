"""A corpus of two servers, asked as one."""

import json
import random
import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from acnn_tf import search, servable
from acnn_tf.search.shards import shard_name
from acnn_tf.servable.signatures import Signatures
from export import client as client_module
from export.client import Client, ServingError
from export.protocol.merging import (
    FoundMoment,
    MergingClient,
    merge,
    read_moments,
)
from tests import small_acnn
from tests.server_process import Server

QUERIES = ["a person opens the door", "the café's door"]
MOMENTS = st.builds(
    FoundMoment,
    st.text("ab", max_size=2),
    st.integers(0, 2).map(float),
    st.just(9.0),
    st.integers(-2, 2).map(float),
)


class FakeClient:
    """Answers each query with the same moments, padded to `top_n`."""

    def __init__(self, server, moments, top_n):
        self.server, self.moments, self.top_n = server, moments, top_n
        self.closed = False

    def predict(self, inputs, signature):
        assert signature == "search"
        padding = [FoundMoment("", 0.0, 0.0, -np.inf)] * self.top_n
        names, *numbers = zip(*[*self.moments, *padding][: self.top_n])
        rows = [np.array([[name.encode() for name in names]], object)]
        rows += [np.array([number]) for number in numbers]
        keys = ("video_id", "start", "end", "score")
        queries = len(inputs["query"])
        return {k: np.repeat(row, queries, 0) for k, row in zip(keys, rows)}

    def close(self):
        self.closed = True


@given(st.lists(MOMENTS), st.integers(1, 4), st.integers(1, 5))
def test_any_division_merges_to_the_same(moments, num_shards, top_n):
    whole = merge([moments], len(moments))
    assert [m.score for m in whole] == sorted(
        (m.score for m in moments), reverse=True
    )
    shards = [[] for _ in range(num_shards)]
    for moment in moments:
        random.Random(str(moment)).choice(shards).append(moment)
    best = [merge([shard], top_n) for shard in shards]
    assert merge(best, top_n) == whole[:top_n]


def test_the_best_of_all_are_kept_without_what_fills_up():
    a, b = FoundMoment("a", 0.0, 2.0, 1.0), FoundMoment("b", 1.0, 4.0, 5.0)
    clients = [FakeClient("x", [a], 3), FakeClient("y", [b], 2)]
    with MergingClient(clients) as client:
        # The second server has no room for a third.
        assert client.search(["one", "two"]) == [[b, a], [b, a]]
        assert client.search([]) == []
        with pytest.raises(ValueError, match="list of sentences"):
            client.search("one")
    assert all(client.closed for client in clients)


def test_one_shard_on_two_servers_is_told():
    a = FoundMoment("a", 0.0, 2.0, 1.0)
    clients = [FakeClient("x", [a], 3), FakeClient("y", [a], 3)]
    with MergingClient(clients) as client:
        with pytest.raises(ValueError, match="x and y both have video 'a'"):
            client.search(["one"])
    with pytest.raises(ValueError, match="`clients` must be one at least"):
        MergingClient([])


def save(model, index, path, names):
    """Of an export only what these tests ask for, which takes a third."""
    signatures = Signatures(model, index, 7, 0.5)
    functions = {
        name: tf.function(
            getattr(signatures, name), autograph=False
        ).get_concrete_function(**signatures.inputs()[name])
        for name in names
    }
    tf.saved_model.save(signatures, path, signatures=functions)


@pytest.mark.soak
def test_two_servers_of_shards_answer_as_one_index(tmp_path, capsys):
    model = small_acnn.make_model(query_encoder="mean")
    features = small_acnn.make_features()
    durations = {video: float(len(clip)) for video, clip in features.items()}
    shards = search.assign_videos(durations, 2, model.grid)
    servers = []
    try:
        small_acnn.encode_shards(model, features, shards, tmp_path / "corpus")
        for number in range(2):
            path = tmp_path / "corpus" / shard_name(number, 2)
            folder = tmp_path / f"models-{number}"
            index = search.MomentIndex(model, path)
            names = ("search",) if number else ("search", "localize")
            save(model, index, folder / "1", names)
            servers.append(Server(folder))
        whole = small_acnn.make_index(model)
        expected = whole.search(QUERIES, top_n=7)
        addresses = [f"grpc://{servers[0].grpc}", servers[1].rest]
        with MergingClient([Client(a) for a in addresses]) as client:
            found = client.search(QUERIES)
        for row, moments in zip(expected, found, strict=True):
            assert {m.video_id for m in row} & set(shards[0])
            assert {m.video_id for m in row} & set(shards[1])
            assert [m.video_id for m in moments] == [m.video_id for m in row]
            # As graphs of a servable, in float32.
            np.testing.assert_allclose(
                [m[1:] for m in moments], [m[1:] for m in row], rtol=1e-5
            )
        inputs = servable.example_inputs(model)
        expected = servable.expected_outputs(model, inputs, top_n=7)
        del expected["localize"]["unknown_words"]
        video = inputs["localize"]
        clips = [c[:n] for c, n in zip(video["clip"], video["num_clips"])]
        with Client(addresses[0]) as client:
            localized = client.localize(
                clips, list(video["query"]), video["duration"]
            )
            with pytest.raises(ServingError, match=r"ARGUMENT: .*least 1"):
                client.predict({**video, "num_clips": [0, 0]}, "localize")
        for row, moments in zip(
            read_moments(expected["localize"]), localized, strict=True
        ):
            np.testing.assert_allclose(
                [m[1:] for m in moments], [m[1:] for m in row], rtol=1e-4
            )
        asked = [f"--server={address}" for address in addresses]
        asked += [f"--query={query}" for query in QUERIES]
        client_module.main([*asked, "--json"])
        told = map(json.loads, capsys.readouterr().out.splitlines())
        assert [answer["moments"] for answer in told] == [
            [moment._asdict() for moment in moments] for moments in found
        ]
        client_module.main([*asked[:2], "--status"])
        assert capsys.readouterr().out == "".join(
            f"{address}\nversion 1: AVAILABLE\n" for address in addresses
        )
        servers[1].process.kill()
        with pytest.raises(SystemExit):
            client_module.main([*asked, "--retries=0"])
        captured = capsys.readouterr()
        assert captured.out == ""
        assert re.match(
            f"ServingError: UNAVAILABLE: {addresses[1]}: ", captured.err
        )
    finally:
        for server in servers:
            server.close()
