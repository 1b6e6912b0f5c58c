"""The exported folder: complete, or not there; and what reads it."""

import contextlib
import json
import os
import re
import shlex
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
import yaml

from acnn_tf import servable
from acnn_tf.data.features import open_features, write_features
from acnn_tf.files.atomic import WriteError
from acnn_tf.files.locks import locked
from acnn_tf.models import ZeroShot
from export.client import Client, main
from tests import c_runner, small_acnn
from tests.disks import full_disk
from tests.processes import run_module
from tests.server_process import Server
from tests.test_servable import assert_outputs

ROOT = Path(__file__).resolve().parents[1]
SIGNATURES = {"search", "localize", "encode_windows", "encode_queries"}
SIGNATURES.add("describe")
MADE_BY = {"encoder": "mine", "name": "mine", "frame_rate": 1.0, "dim": 6}
NO_VERSIONS = ["11.partial", "0012", str(2**63), "9" * 99]
TOLD = {"encoder": MADE_BY, "clip_seconds": 1.0}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model, its index, and the folder that the main exported it to."""
    folder = tmp_path_factory.mktemp("run")
    model = small_acnn.make_model(encoder=MADE_BY)
    model.save(folder / "model.keras")
    write_features(folder / "clips", small_acnn.make_features(), 1.0, MADE_BY)
    index = small_acnn.make_index(model)
    (folder / "models" / "acnn" / "9").mkdir(parents=True)
    for name in NO_VERSIONS:
        (folder / "models" / "acnn" / name).mkdir()
    # What a run keeps, of which the sentence is an example.
    own = folder / "own.jsonl"
    line = {"qid": 1, "vid": "v", "query": "the person opens the door"}
    own.write_text(json.dumps(line | {"relevant_windows": [[0, 1]]}))
    flags = f"--dataset=jsonl\n--seed=0\n--annotations={own}\n"
    (folder / "flags.txt").write_text(flags)
    first = run_export(folder)
    path = folder / "models" / "acnn" / "10"
    assert f"{path}: the same numbers as" in first.stdout
    return model, index, path


def run_export(folder, *flags, code=0):
    return run_module(
        "export.saved_model",
        *(f"--workdir={folder}", f"--export_dir={folder / 'models'}"),
        *(f"--corpus={folder / 'clips'}", "--top_n=4", *flags),
        code=code,
    )


@pytest.fixture(scope="module")
def without_videos(tmp_path_factory):
    """What an export returns where there is no index, and its folder."""
    model = small_acnn.make_model(**small_acnn.MODELS["paper"])
    path = tmp_path_factory.mktemp("models") / "1"
    return servable.export(model, path), path


def test_export_says_how_near_its_numbers_are(without_videos):
    errors, _ = without_videos
    assert set(errors) == {"localize", "encode_windows", "encode_queries"}
    assert max(errors.values()) < 1e-5


def test_the_folder_is_complete_and_describes_itself(exported):
    _, index, path = exported
    assert {"saved_model.pb", "variables", "README.md"} <= set(os.listdir(path))
    text = (path / "README.md").read_text(encoding="utf-8")
    assert f"{len(index):,} videos with {index.num_windows:,} windows" in text
    for name in SIGNATURES:
        assert f"| `{name}` |" in text
    assert "numbers for every\n  1 seconds" in text
    assert f"    {json.dumps(TOLD)}\n" in text
    assert "were made by the encoder `mine`" in text
    assert "the 9 words" in text
    assert 'example "the person opens the door".' in " ".join(text.split())


def test_the_default_is_localize_where_there_are_no_videos(without_videos):
    signatures = tf.saved_model.load(without_videos[1]).signatures
    assert "search" not in signatures
    _, inputs = signatures["serving_default"].structured_input_signature
    assert set(inputs) == {"clip", "num_clips", "duration", "query"}


@pytest.fixture(scope="module")
def quickest():
    """A model whose export takes the least of time."""
    model = ZeroShot((2.0, 4.0), clip_seconds=1.0)
    model.build({"clip": (None, None, 6), "query": (None, 6)})
    return model


def test_nothing_stays_of_an_export_that_fails(quickest, tmp_path, monkeypatch):
    monkeypatch.setitem(servable.verification._TOLERANCES, "float32", -1.0)
    with pytest.raises(servable.ExportError, match="is off by"):
        servable.export(quickest, tmp_path / "acnn" / "1")
    assert os.listdir(tmp_path / "acnn") == []


def test_nothing_stays_of_an_export_that_finds_no_room(quickest, tmp_path):
    told = r"/1 could not be written: .* bytes were wanted"
    for room in (100, 20_000):
        with full_disk(room), pytest.raises(WriteError, match=told):
            servable.export(quickest, tmp_path / "acnn" / "1")
        assert os.listdir(tmp_path / "acnn") == []


def test_operations_that_a_stock_server_lacks_are_refused(tmp_path):
    class WithPython(type(small_acnn.make_model())):
        def encode_queries(self, query, training=None):
            query = super().encode_queries(query, training)
            own = tf.numpy_function(np.copy, [query], tf.float32)
            return tf.ensure_shape(own, query.shape)

    model = WithPython(query_encoder="mean", window_lengths=(2.0,))
    model.build({"clip": (None, None, 4), "query": (None, 9)})
    with pytest.raises(servable.ExportError, match="PyFunc"):
        servable.export(model, tmp_path / "1")
    assert os.listdir(tmp_path) == []


@pytest.mark.soak
def test_the_c_api_gets_the_numbers_of_keras(exported):
    # All that TensorFlow Serving stands on is the C++ behind this.
    model, index, path = exported
    requests, expected = [], []
    for num_clips in [(9, 5), (60,)]:
        inputs = servable.example_inputs(model, num_clips)
        outputs = servable.expected_outputs(model, inputs, index, top_n=4)
        for signature in (*outputs, "serving_default"):
            name = "search" if signature == "serving_default" else signature
            requests.append((signature, inputs[name]))
            expected.append(outputs[name])
    answers = c_runner.run(path, requests)
    for (signature, _), answer, outputs in zip(requests, answers, expected):
        assert_outputs(answer, outputs, signature)


def test_the_command_numbers_versions_and_touches_none_that_is_there(exported):
    model, _, path = exported
    folder = path.parent
    assert sorted(os.listdir(folder)) == sorted(["9", "10", *NO_VERSIONS])
    before = (path / "saved_model.pb").read_bytes()
    with pytest.raises(FileExistsError, match="is there already"):
        servable.export(model, path)
    again = run_export(folder.parent.parent, "--version=10", code=2)
    assert "is there already" in again.stderr
    assert "Traceback" not in again.stderr
    assert (path / "saved_model.pb").read_bytes() == before
    # While another export may choose the same number.
    with locked(folder):
        again = run_export(folder.parent.parent, code=2)
    assert f"{folder} is in use by process {os.getpid()} on" in again.stderr


@pytest.fixture(scope="module")
def addresses(exported):
    """Protocol -> address of a server of what was exported."""
    server = Server(exported[2].parent)
    yield {"grpc": f"grpc://{server.grpc}", "http": server.rest}
    server.close()


def test_the_servable_answers_its_warm_up_requests(exported, addresses):
    from tensorflow_serving.apis import (
        prediction_log_pb2,
        prediction_service_pb2_grpc,
    )

    path = exported[2] / "assets.extra" / "tf_serving_warmup_requests"
    seen = set()
    with grpc.insecure_channel(addresses["grpc"][len("grpc://") :]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for record in tf.data.TFRecordDataset(str(path)):
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            request = log.predict_log.request
            assert request.model_spec.name == "acnn"
            seen.add(request.model_spec.signature_name)
            assert stub.Predict(request, timeout=20).outputs
    assert seen == SIGNATURES


def test_requests_of_its_readme_run_as_they_stand(exported, addresses, capsys):
    text = (exported[2] / "README.md").read_text(encoding="utf-8")
    text = text.replace("http://localhost:8501", addresses["http"])
    text = text.replace("localhost:8500", addresses["grpc"][len("grpc://") :])
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, "README.md", "exec"), {})
    localized, *searched = capsys.readouterr().out.splitlines()
    assert len(json.loads(localized)) == 4
    assert any(line.startswith("video_id [[b'v") for line in searched)
    answers = []
    for line in re.findall(r"    (curl .*\n.*)\n", text):
        _, url, _, body = shlex.split(line.replace("\\\n", " "))
        with urllib.request.urlopen(url, body.encode()) as answer:
            answers.append(json.load(answer))
    (row,), columns = answers[0]["predictions"], answers[1]["outputs"]
    assert {name: [value] for name, value in row.items()} == columns
    assert row["unknown_words"] == ""


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_clips_that_were_made_otherwise_are_not_sent(
    addresses, protocol, tmp_path, capsys
):
    path, other = tmp_path / "own.hdf5", tmp_path / "other.hdf5"
    faster = MADE_BY | {"frame_rate": 2.0}
    clips = small_acnn.make_features(3)
    write_features(path, clips, 1.0, MADE_BY)
    write_features(other, clips, 1.0, faster)
    write_features(tmp_path / "other", clips, 1.0, faster)
    write_features(tmp_path / "slow.hdf5", clips, 2.0, MADE_BY)
    write_features(tmp_path / "unknown.hdf5", clips, 1.0)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "encoder.json").write_text("[]")
    np.save(tmp_path / "bad" / "v00.npy", clips["v00"])
    with Client(addresses[protocol]) as client, open_features(path) as features:
        assert client.describe() == TOLD
        # As many rows as are asked for, which a batch may have.
        rows = client.predict({"row": [7, -1]}, "describe")["description"]
        assert [json.loads(text) for text in rows] == [TOLD, TOLD]
        request = [features["v00"]], ["a person opens the door"]
        (found,) = client.localize(*request, encoder=features.encoder)
        assert found
        with pytest.raises(ValueError, match="made by mine at 2 fps, the mod"):
            client.localize(*request, encoder=faster)

    def run(name):
        words = f"--server={addresses[protocol]}", "--query=a person"
        with contextlib.suppress(SystemExit):
            main([*words, f"--features={tmp_path / name}", "--video=v00"])
        return capsys.readouterr()

    assert run("own.hdf5").err == ""
    for name, told in (
        ("other.hdf5", "other.hdf5: made by mine at 2 fps, the model learned"),
        ("other/v00.npy", "v00.npy: made by mine at 2 fps, the model learned"),
        (
            "slow.hdf5",
            "slow.hdf5 last 2 s, those that the model learned from 1",
        ),
        ("bad/v00.npy", "v00.npy: `encoder`, which describes"),
    ):
        printed = run(name)
        assert told in printed.err
        assert len(printed.err.splitlines()) == 1
        assert printed.out == ""
    printed = run("unknown.hdf5")
    assert "unknown.hdf5 does not say what made its features" in printed.err
    assert "v00" in printed.out


def test_the_configuration_of_models_parses():
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    text = (ROOT / "export" / "tf_serving" / "models.config").read_text()
    config = text_format.Parse(
        text, model_server_config_pb2.ModelServerConfig()
    )
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("acnn", "/models/acnn")


def test_all_ways_to_start_a_stock_server_say_the_same():
    folder = ROOT / "export" / "tf_serving"
    compose, manifest, kustomization = (
        list(yaml.safe_load_all((folder / f"{name}.yaml").read_text()))
        for name in ("compose", "kubernetes", "kustomization")
    )
    served = compose[0]["services"]["acnn"]
    deployment, service = manifest
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert served["image"] == container["image"] == "tensorflow/serving"
    # The flags are those of the line in BUILD.md.
    line = (ROOT / "BUILD.md").read_text(encoding="utf-8")
    line = line.split("    tensorflow/serving \\\n")[1].split("\ncurl")[0]
    flags = line.replace("\\\n", " ").split()
    assert served["command"] == container["args"] == flags
    # Each file that they name is mounted, and is there.
    (generated,) = kustomization[0]["configMapGenerator"]
    names = {flag.split("=/config/")[1] for flag in flags if "=" in flag}
    assert set(generated["files"]) == names
    assert all((folder / name).is_file() for name in names)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == generated["name"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/models", "/config"}
    assert {volume.split(":")[-2] for volume in served["volumes"]} == mounts
    # The service finds the pods, and its ports are theirs.
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    for port in service["spec"]["ports"]:
        assert port["port"] == ports[port["targetPort"]]
    assert [p.split(":")[-1] for p in served["ports"]] == ["8500", "8501"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/v1/models/acnn"


def test_a_model_name_that_leaves_the_folder_is_told(tmp_path):
    for name in ("../acnn", ""):
        done = run_module(
            "export.saved_model",
            f"--workdir={tmp_path}",
            f"--export_dir={tmp_path / 'models'}",
            f"--name={name}",
            code=2,
        )
        assert "cannot be the name of a file" in done.stderr
        assert not list(tmp_path.iterdir())
