"""TF_CONFIG is checked before TensorFlow waits for machines that are not."""

import json

import pytest

from experiments.strategies import read_tf_config
from tests.test_experiments import run

WORKERS = ["host0:2222", "host1:2222"]


def config(workers=WORKERS, index=0, kind="worker", **cluster):
    return json.dumps(
        {
            "cluster": {"worker": workers, **cluster},
            "task": {"type": kind, "index": index},
        }
    )


def test_workers_and_the_own_number_are_read():
    assert read_tf_config(config(index=1)) == (WORKERS, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not set"),
        ("", "is not set"),
        ("{", "is not JSON"),
        ("[]", "must have `cluster` with `worker`, and `task`"),
        ("{}", "must have `cluster` with `worker`, and `task`"),
        ('{"cluster": {"worker": []}}', "and `task`"),
        (config(chief=["host2:1"]), r"workers only; it has \['chief', "),
        (config(kind="chief"), "this is a 'chief'"),
        (config(workers=[]), r"must list the workers; it has \[\]"),
        (config(workers="host0:1"), "must list the workers"),
        (config(workers=["host0"]), "has 'host0' in place of HOST:PORT"),
        (config(workers=["host0:x"]), "in place of HOST:PORT"),
        (config(workers=["host0:65536"]), "in place of HOST:PORT"),
        (config(workers=[":1"]), "in place of HOST:PORT"),
        (config(workers=[7]), "has 7 in place of HOST:PORT"),
        (config(workers=WORKERS[:1] * 2), "has 'host0:2222' twice"),
        (config(index=2), "has index 2, which is not one of the 2 workers"),
        (config(index=-1), "has index -1"),
        (config(index="0"), "has index '0'"),
        (config(index=True), "has index True"),
    ],
)
def test_what_tf_config_lacks_is_said_with_an_example(text, message):
    with pytest.raises(ValueError, match=f"^TF_CONFIG .*{message}") as told:
        read_tf_config(text)
    assert '"worker": ["host0:2222", "host1:2222"]' in str(told.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--strategy=multi_worker", "TF_CONFIG is not set"),
        ("--num_replicas=2", "is for --strategy=mirrored"),
    ],
)
def test_a_main_ends_with_code_2_and_writes_nothing(
    tmp_path, argument, message
):
    folder = tmp_path / "run"
    done = run(
        "train", "--dataset=synthetic", f"--workdir={folder}", argument, code=2
    )
    assert message in done.stderr
    assert not folder.exists()
