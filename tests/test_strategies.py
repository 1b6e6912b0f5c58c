"""TF_CONFIG is checked before TensorFlow waits for machines that are not."""

import json

import pytest
import tensorflow as tf

from experiments.strategies import check_cluster, make_strategy
from tests.processes import run_module

WORKERS = ["host0:2222", "host1:2222"]


def config(workers=WORKERS, index=0, kind="worker", **cluster):
    cluster = {"worker": workers, **cluster}
    task = {"type": kind, "index": index}
    return json.dumps({"cluster": cluster, "task": task})


@pytest.fixture
def check(monkeypatch):
    def check_text(text):
        monkeypatch.delenv("TF_CONFIG", raising=False)
        if text is not None:
            monkeypatch.setenv("TF_CONFIG", text)
        return check_cluster(
            tf.distribute.cluster_resolver.TFConfigClusterResolver()
        )

    return check_text


def test_workers_are_counted_from_0(check):
    assert check(config(index=1)) == dict(enumerate(WORKERS))


def test_what_tf_config_lacks_is_said_with_an_example(check):
    for text, message in (
        (None, "is not set"),
        ("{}", "has no `cluster`"),
        ("[]", "has no `cluster`"),
        ("{", r"cannot be read \(Expecting property name"),
        ("7", "cannot be read"),
        (config(workers="host0:1"), "cannot be read .* must be a list"),
        (config(workers=[7]), "cannot be read"),
        (config(index="first"), "cannot be read .*'first'"),
        ('{"cluster": {"worker": ["a:1"]}, "task": 7}', "cannot be read"),
        ('{"cluster": {"worker": ["a:1"]}}', "this is a None"),
        (config(chief=["host2:1"]), r"workers only; it has \['chief', "),
        (config(kind="chief"), "this is a 'chief'"),
        (config(workers=[]), "must list the workers"),
        (config(workers=["host0"]), r"has \['host0'\] in place of HOST:PORT"),
        (config(workers=["host0:x"]), "in place of HOST:PORT"),
        (config(workers=["host0:65536"]), "in place of HOST:PORT"),
        (config(workers=[":1"]), "in place of HOST:PORT"),
        (config(workers=WORKERS[:1] * 2), r"has \['host0:2222'\] twice"),
        (config(index=2), "has index 2, which is not one of the 2 workers"),
        (config(index=-1), "has index -1"),
        (config(index=None), "cannot be read"),
    ):
        with pytest.raises(ValueError, match=f"^TF_CONFIG .*{message}") as told:
            check(text)
        assert '"worker": ["host0:2222", "host1:2222"]' in str(told.value)


def test_replicas_are_those_of_one_machine():
    with pytest.raises(ValueError, match="is for --strategy=mirrored"):
        make_strategy("multi_worker", num_replicas=2)


def test_a_main_ends_with_code_2_and_writes_nothing(tmp_path):
    folder = tmp_path / "run"
    flags = "--dataset=synthetic", f"--workdir={folder}"
    done = run_module(
        "experiments.train", *flags, "--strategy=multi_worker", code=2
    )
    assert "TF_CONFIG is not set" in done.stderr
    assert not folder.exists()
