"""The client and its command, against `export.server`."""

import json
import os
import re
import sys

import h5py
import numpy as np
import pytest
import tensorflow as tf

from export import client as client_module
from export.client import Client, FoundMoment, ServingError
from tests.processes import run_script, start_script
from tests.server_process import Server

PROTOCOLS = ["grpc", "http"]
SIGNATURES = ("search", "localize", "encode_queries")


class Toy(tf.Module):
    """The signatures of an export, with moments one computes in the head.

    To a sentence of L bytes `search` answers (first, 0, L) and (second, 1, 3);
    `localize` answers (0, duration) with the sum of all clips as its score.
    """

    def __init__(self, version):
        super().__init__()
        self.version = tf.constant(float(version))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "query")])
    def search(self, query):
        length = tf.cast(tf.strings.length(query), tf.float32)
        zeros, ones = tf.zeros_like(length), tf.ones_like(length)
        names = tf.constant(["first", "second", ""])
        return {
            "video_id": tf.tile(names[None], [tf.size(query), 1]),
            "start": tf.stack([zeros, ones, zeros], 1),
            "end": tf.stack([length, 3 * ones, zeros], 1),
            "score": tf.stack([self.version * ones, -ones / 2, zeros], 1),
        }

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, 2], tf.float32, "clip"),
            tf.TensorSpec([None], tf.int32, "num_clips"),
            tf.TensorSpec([None], tf.float64, "duration"),
            tf.TensorSpec([None], tf.string, "query"),
        ]
    )
    def localize(self, clip, num_clips, duration, query):
        # A clip lasts two seconds.
        seconds = 2 * tf.cast(num_clips, tf.float64)
        end = tf.where(duration > 0, duration, seconds)
        end = tf.cast(end, tf.float32)
        score = tf.reduce_sum(clip, [1, 2])
        zeros = tf.zeros_like(end)
        return {
            "start": tf.stack([zeros, zeros], 1),
            "end": tf.stack([end, zeros], 1),
            "score": tf.stack([score, zeros], 1),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "query")])
    def encode_queries(self, query):
        return {"query": tf.strings.length(query)[:, None]}


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """Protocol -> address of a server that serves version 2 of two."""
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        toy = Toy(version)
        signatures = {name: getattr(toy, name) for name in SIGNATURES}
        signatures["serving_default"] = toy.search
        tf.saved_model.save(toy, folder / str(version), signatures)
    server = Server(folder)
    yield {"grpc": f"grpc://{server.grpc}", "http": server.rest}
    server.close()


@pytest.fixture(params=PROTOCOLS)
def address(request, addresses):
    return addresses[request.param]


@pytest.fixture
def client(address):
    with Client(address) as client:
        yield client


def test_search_gives_each_query_its_moments(client):
    # What fills a row up is dropped: two moments are left of three.
    assert client.search(["a door", "Tür"]) == [
        [FoundMoment("first", 0, 6, 2), FoundMoment("second", 1, 3, -0.5)],
        [FoundMoment("first", 0, 4, 2), FoundMoment("second", 1, 3, -0.5)],
    ]
    assert client.search([]) == []


def test_localize_pads_clips_and_says_how_many_are_real(client):
    clips = [[[1, 2]], [[0.5, 0], [0, 0], [0, 0.25]]]
    # One clip is two seconds long, three are six.
    assert client.localize(clips, ["a", "b"]) == [
        [FoundMoment("", 0, 2, 3)],
        [FoundMoment("", 0, 6, 0.75)],
    ]
    assert client.localize(clips, ["a", "b"], [5.5, 0]) == [
        [FoundMoment("", 0, 5.5, 3)],
        [FoundMoment("", 0, 6, 0.75)],
    ]


def test_predict_returns_arrays_of_the_signature(client):
    outputs = client.predict({"query": np.array(["door"])})
    assert outputs["score"].dtype == np.float32
    np.testing.assert_array_equal(outputs["score"], [[2, -0.5, 0]])
    assert outputs["video_id"].tolist() == [[b"first", b"second", b""]]
    # Of a single output, REST does not send the name.
    outputs = client.predict({"query": ["door", "x"]}, "encode_queries")
    assert outputs.keys() == {"query"}
    np.testing.assert_array_equal(
        outputs["query"], np.int32([[4], [1]]), strict=True
    )


def test_metadata_and_status_tell_versions_and_signatures(client):
    assert client.status()[2] == "AVAILABLE"
    found = client.metadata()
    assert found["version"] == 2
    assert found["signatures"].keys() == {"serving_default", *SIGNATURES}
    localize = found["signatures"]["localize"]
    assert localize["inputs"] == {
        "clip": {"dtype": "float32", "shape": [None, None, 2]},
        "num_clips": {"dtype": "int32", "shape": [None]},
        "duration": {"dtype": "float64", "shape": [None]},
        "query": {"dtype": "string", "shape": [None]},
    }
    assert localize["outputs"].keys() == {"start", "end", "score"}


def test_an_export_of_before_cannot_tell_what_it_takes(client):
    assert client.describe() == {}
    made_by = {"encoder": "mine", "name": "mine"}
    assert client.localize([[[1, 2]]], ["a"], encoder=made_by)


def test_version_is_pinned(address):
    with Client(address, version=2) as client:
        assert client.search(["door"])[0][0].score == 2
        assert client.metadata()["version"] == 2


def test_the_url_of_a_model_is_an_address(addresses, refused):
    url = f"{addresses['http']}/v1/models/acnn"
    for end in ("", "/", ":predict", "/metadata", "/versions/2:predict"):
        with Client(url + end) as client:
            assert client.metadata()["version"] == 2, end
    with (
        Client(f"{url}/versions/7") as seventh,
        Client(f"{url[:-4]}other:predict") as other,
    ):
        for client in (seventh, other):
            with refused(ServingError, "^NOT_FOUND"):
                client.metadata()
    for settings in ({"model": "other"}, {"version": 1}):
        with refused(ValueError, "names a model: leave out `model`"):
            Client(f"{url}/versions/2", **settings)


def test_errors_of_the_server_are_typed(refused, address):
    with (
        Client(address) as client,
        Client(address, model="other") as other,
        Client(address, version=7) as seventh,
    ):
        for call, *arguments, message in (
            (seventh.metadata, "^NOT_FOUND"),
            (seventh.status, "^NOT_FOUND"),
            (seventh.search, ["door"], "^NOT_FOUND"),
            (other.search, ["door"], "^NOT_FOUND: .*other"),
            (client.predict, {"a": 1}, "^INVALID_ARGUMENT: .*'a'"),
            (client.localize, [[[0.0] * 3]], ["a"], "^INVALID_ARGUMENT"),
        ):
            with refused(ServingError, message):
                call(*arguments)


def run_command(*arguments):
    """Runs the command in this process; returns its exit code."""
    try:
        client_module.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def test_command_prints_a_table(address, capsys):
    code = run_command(f"--server={address}", "--query=a door", "--query=Tür")
    assert code == 0
    assert capsys.readouterr().out == (
        "a door\n"
        "  video       start      end    score\n"
        "  first        0.00     6.00    2.000\n"
        "  second       1.00     3.00   -0.500\n"
        "Tür\n"
        "  video       start      end    score\n"
        "  first        0.00     4.00    2.000\n"
        "  second       1.00     3.00   -0.500\n"
    )


def test_command_localizes_in_files(address, tmp_path, capsys):
    np.save(tmp_path / "clips.npy", np.ones((2, 2), np.float32))
    with h5py.File(tmp_path / "clips.hdf5", "w") as file:
        file["3MSZA"] = np.ones((3, 2), np.float32)
        file["GROUP/c3d"] = np.ones((1, 2), np.float32)
    for name, video, seconds in (
        ("clips.npy", "mine", 4),
        ("clips.hdf5", "3MSZA", 6),
        ("clips.hdf5", "GROUP", 2),
    ):
        code = run_command(
            f"--server={address}",
            "--query=door",
            f"--features={tmp_path / name}",
            f"--video={video}",
            "--json",
        )
        assert code == 0
        # Each clip adds its two ones to the score, and two seconds.
        moment = FoundMoment(video, 0, seconds, seconds)
        assert json.loads(capsys.readouterr().out) == {
            "query": "door",
            "unknown_words": [],
            "moments": [moment._asdict()],
        }


def test_command_tells_status_and_metadata(address, capsys):
    assert run_command(f"--server={address}", "--status") == 0
    assert "version 2: AVAILABLE\n" in capsys.readouterr().out
    assert run_command(f"--server={address}", "--metadata") == 0
    assert json.loads(capsys.readouterr().out)["version"] == 2


def test_command_fails_with_one_line(address, capsys):
    for arguments, message in (
        (["--query=a", "--model=other"], "ServingError: NOT_FOUND: .*other"),
        (["--query=a", "--features=no.npy"], "FileNotFoundError: .*no.npy"),
        ([], "ValueError: give --query"),
        (["--query= "], "ValueError: Type a sentence that says what happens"),
        (["--status", f"--version={2**63}"], r"usage: (.|\n)*below 2\*\*63"),
        (["--status", "--version=007"], r"usage: (.|\n)*leading zeros"),
    ):
        assert run_command(f"--server={address}", *arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert re.fullmatch(message + ".*\n", captured.err)


def test_a_package_that_is_missing_is_named(address, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "export.protocol.rest_client", None)
    assert run_command("--server=http://127.0.0.1:1", "--query=a") == 2
    assert 'pip install -e ".[serving]"' in capsys.readouterr().err


def test_a_sentence_without_moments_is_an_error_after_the_others(
    address, capsys, monkeypatch
):
    found = client_module.FoundMoments([FoundMoment("v", 0.0, 1.0, 2.0)])
    nothing = client_module.FoundMoments([], ["xx"])
    monkeypatch.setattr(
        client_module.MergingClient, "search", lambda *_: [found, nothing]
    )
    code = run_command(f"--server={address}", "--query=a", "--query=xx")
    captured = capsys.readouterr()
    assert code == 2
    assert "no moments" in captured.out
    assert captured.err.startswith(
        "ValueError: The model knows no word of 'xx'"
    )


def test_command_may_be_interrupted(address, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "status", interrupt)
    assert run_command(f"--server={address}", "--status") == 130
    assert capsys.readouterr().err == "Interrupted.\n"


@pytest.mark.slow
def test_command_over_rest_needs_no_tensorflow(addresses):
    script = (
        "import sys, warnings; warnings.simplefilter('error');"
        "import export.client as c; c.main(sys.argv[1:]);"
        "print(sorted({'acnn_tf', 'keras', 'tensorflow'} & set(sys.modules)))"
    )
    printed = run_script(script, f"--server={addresses['http']}", "--status")
    assert printed.endswith("AVAILABLE\n[]\n")


@pytest.mark.slow
def test_command_over_grpc_keeps_tensorflow_quiet(addresses):
    server = f"--server={addresses['grpc']}"
    script = "import sys, export.client as c; c.main(sys.argv[1:])"
    words = ("--query=door", "--model=other", server)
    process = start_script(script, *words)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (2, "")
    assert re.fullmatch("ServingError: NOT_FOUND: .*other.*\n", stderr)


@pytest.mark.parametrize(
    "protocol, variable", [("grpc", "TFS_ADDR"), ("http", "TFS_REST")]
)
def test_a_stock_tensorflow_serving_is_understood(protocol, variable):
    place = os.environ.get(variable)
    if not place:
        pytest.skip(
            f"{variable} is not set: HOST:PORT of a TensorFlow Serving's "
            f"{protocol} interface, with an export as its model `acnn`"
        )
    address = f"{protocol}://{place.removeprefix('http://')}"
    with Client(address, timeout=60) as client:
        version = client.metadata()["version"]
        assert client.status()[version] == "AVAILABLE"
        signatures = client.metadata()["signatures"]
        inputs = signatures["localize"]["inputs"]
        dim = inputs["clip"]["shape"][-1]
        queries = ["a person opens the door", "Tür"]
        if inputs["query"]["dtype"] != "string":
            queries = np.zeros((2, inputs["query"]["shape"][-1]))
        clips = np.random.default_rng(0).normal(size=(12, dim))

        together = client.localize([clips, clips[:7]], queries)
        alone = client.localize([clips[:7]], queries[1:])
        # Neither padding nor company changes an answer.
        np.testing.assert_allclose(
            [moment[1:] for moment in together[1]],
            [moment[1:] for moment in alone[0]],
            rtol=1e-4,
            atol=1e-4,
        )
        for moments in together:
            scores = [moment.score for moment in moments]
            assert moments
            assert scores == sorted(scores, reverse=True)
        if "search" in signatures:
            for moments in client.search(queries):
                assert moments
                assert all(moment.video_id for moment in moments)
        with pytest.raises(ServingError, match=r"^INVALID_ARGUMENT"):
            client.localize([clips[:, :-1]], queries[:1])
    with Client(address, version=version + 1000) as client:
        with pytest.raises(ServingError, match=r"^NOT_FOUND"):
            client.metadata()
