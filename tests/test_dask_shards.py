"""The commands on Dask: a scheduler and workers, each a process of its own."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from acnn_tf import models, search
from acnn_tf.data import annotations
from acnn_tf.data.annotations import Moment
from acnn_tf.data.features import open_features, write_features
from experiments import shard_files, shard_work
from tests import small_acnn
from tests.processes import Started, run_module

pytest.importorskip(
    "apache_beam", reason="Apache Beam is not installed: acnn_tf[beam]"
)
distributed = pytest.importorskip(
    "distributed", reason="Dask is not installed: acnn_tf[dask]"
)
pytestmark = pytest.mark.slow
RUNNER = "--runner=DaskRunner"
NUM_SHARDS = 10
SHARD = {}, {"number": 0}


class Cluster:
    """A scheduler and workers on free ports; they end if they are forgotten."""

    def __init__(self, folder, num_workers=2, scheme="tcp", **environment):
        self.file = folder / "scheduler.json"
        self.scheduler = Started(
            "distributed.cli.dask_scheduler",
            *(f"--host={scheme}://127.0.0.1", "--port=0"),
            *(f"--scheduler-file={self.file}", "--idle-timeout=120"),
            "--dashboard-address=127.0.0.1:0",
            **environment,
        )
        self.workers = {
            number: Started(
                "distributed.cli.dask_worker",
                *(f"--scheduler-file={self.file}", f"--name={number}"),
                *("--nthreads=1", "--no-nanny", "--no-dashboard"),
                *("--death-timeout=60", f"--local-directory={folder}"),
                **environment,
            )
            for number in range(num_workers)
        }
        wait_for(self.file.exists, self.scheduler)
        wait_for(lambda: self.file.read_text().endswith("}"), self.scheduler)
        self.address = json.loads(self.file.read_text())["address"]
        self.flags = RUNNER, f"--dask_client_address={self.address}"

    def client(self):
        return distributed.Client(self.address, set_as_default=False)

    def end(self):
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.finish()


def wait_for(condition, *processes, seconds=120):
    """Until it holds; fails if one of the processes ends before."""
    end = time.monotonic() + seconds
    while not condition():
        for process in processes:
            assert process.returncode is None, process.printed
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("dask"))
    yield cluster
    cluster.end()


def save_model(path, seed):
    models.save_model(small_acnn.make_model(seed=seed), path / "model.keras")


@pytest.fixture
def corpus(tmp_path):
    """A run, and clips that take a moment to encode."""
    rng = np.random.default_rng(0)
    save_model(tmp_path, seed=0)
    clips = {
        f"v{number:02d}": rng.normal(1, 2, (200 + number, small_acnn.CLIP_DIM))
        for number in range(30)
    }
    write_features(tmp_path / "clips.hdf5", clips, 1.0)
    return tmp_path


def encode_into(path, corpus):
    return (
        "experiments.encode_corpus",
        *(f"--workdir={corpus}", f"--features={corpus / 'clips.hdf5'}"),
        *(f"--out={path}", f"--num_shards={NUM_SHARDS}"),
    )


def files_of(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def encoded_here(corpus, name):
    """What one process without Beam makes of a corpus: bytes by file."""
    model = models.load_model(corpus / "model.keras")
    features = open_features(corpus / "clips.hdf5")
    durations = {v: float(len(features[v])) for v in features}
    shards = search.assign_videos(durations, NUM_SHARDS, model.grid)
    small_acnn.encode_shards(model, features, shards, corpus / name)
    return files_of(corpus / name)


def done(path):
    return len(list(path.glob(f"shard-*-of-{NUM_SHARDS:05d}")))


def num_results(client):
    """How many results each worker holds, by name."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {
        workers[address]["name"]: len(keys)
        for address, keys in client.has_what().items()
    }


def shares(told):
    """How many shards each worker did, by name, as the last line tells."""
    line = told.splitlines()[-1].removeprefix("Shards done: ")
    found = {int(n): int(m) for m, n in re.findall(r"(\d+) by (\d+)", line)}
    assert sum(found.values()) == NUM_SHARDS
    return found


def test_a_lost_worker_changes_nothing(corpus, cluster, tmp_path):
    path = tmp_path / "out"
    command = Started(*encode_into(path, corpus), *cluster.flags)
    with cluster.client() as client:
        wait_for(lambda: done(path) >= 3, command)
        held = num_results(client)
    lost = max(held, key=held.get)
    cluster.workers.pop(lost).kill()
    assert done(path) < NUM_SHARDS
    told = command.end().stderr
    assert f"Workers at {cluster.address}: 2" in told
    assert f"{NUM_SHARDS} of {NUM_SHARDS} shards" in told
    # The shards of the one that is lost are told, too.
    assert shares(told).keys() == {0, 1}
    # No log of Beam's or Dask's among it.
    assert "distributed" not in told
    assert "WARNING:root" not in told
    assert files_of(path) == encoded_here(corpus, "whole")
    (left,) = cluster.workers.values()
    assert left.returncode is None


def test_a_process_that_stays_loads_what_has_changed_and_nothing_else(tmp_path):
    # Each command may have another model; those on workers: `make soak`.
    loaded = []
    for seed in (0, 1):
        save_model(tmp_path, seed)
        loaded += [shard_work.load_model(str(tmp_path)) for _ in range(2)]
    assert loaded[0] is loaded[1]
    assert loaded[2] is loaded[3]
    one, other = (
        np.concatenate([w.ravel() for w in loaded[place].get_weights()])
        for place in (0, 2)
    )
    assert not np.array_equal(one, other)


def test_shards_that_are_there_are_not_worked_on_again(tmp_path):
    # What Dask asks for when it has lost a worker with its results.
    model = small_acnn.make_model()
    features = small_acnn.make_features(4)
    durations = {video: float(len(clip)) for video, clip in features.items()}
    (shard,) = search.describe_shards([durations])
    for clips in (features, {}):
        search.encode_shard(model, clips, durations, shard, tmp_path / "corpus")
    (about,) = shard_files.describe(["model"], [[]])
    shard_files.write_shard(tmp_path / "val", about, [], [], [])
    shard_work.evaluate(
        ({}, about),
        workdir="nowhere",
        window_lengths=None,
        split="val",
        data={},
        protocol={},
        out=str(tmp_path / "val"),
        model="",
    )


def test_flags_of_dask_are_known_and_each_shard_is_a_task_of_its_own():
    given = [RUNNER, "--dask_client_address=tcp://127.0.0.1:1"]
    options = shard_work.beam_options(given).get_all_options()
    assert options["address"] == "tcp://127.0.0.1:1"
    assert options["partition_size"] == 1
    fewer = shard_work.beam_options([*given, "--dask_npartitions=2"])
    assert fewer.get_all_options()["partition_size"] is None
    with pytest.raises(ValueError, match=r"nor Beam's: \['--dask_client=1'\]"):
        shard_work.beam_options([RUNNER, "--dask_client=1"])
    with pytest.raises(ValueError, match=r"--runner=no\.such\.Runner: No "):
        shard_work.beam_options(["--runner=no.such.Runner"])


def test_no_scheduler_or_one_without_the_code_is_told_in_one_line(
    tmp_path, refused
):
    def run(*flags):
        options = shard_work.beam_options([RUNNER, *flags])
        out = tmp_path / "out"
        shard_work.run_shards(print, [SHARD], set, "Nothing", out, options)

    nobody = "tcp://127.0.0.1:9"
    with refused(ValueError, rf"^No scheduler of Dask answers at {nobody}: "):
        run(f"--dask_client_address={nobody}", "--dask_connection_timeout=1")
    # The scheduler finds another module of that name.
    (tmp_path / "experiments.py").touch()
    cluster = Cluster(tmp_path, 0, cwd=tmp_path)
    with refused(ValueError, r"cannot import what it needs.*'experiments' is"):
        run(*cluster.flags[1:])
    cluster.end()
    assert not (tmp_path / "out").exists()


def test_a_shard_that_no_worker_survives_is_told_in_one_line(tmp_path):
    cluster = Cluster(
        tmp_path, 1, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0"
    )
    options = shard_work.beam_options([*cluster.flags])
    with pytest.raises(ValueError, match=r"^1 workers died .* Started again"):
        # As where the memory is too little.
        shard_work.run_shards(
            lambda _: os._exit(1), [SHARD], set, "Nothing", tmp_path, options
        )
    cluster.end()


@pytest.mark.soak
def test_a_scheduler_that_is_lost_is_told_in_one_line(
    corpus, cluster, tmp_path
):
    path = tmp_path / "out"
    command = Started(*encode_into(path, corpus), *cluster.flags)
    wait_for(lambda: done(path) >= 2, command)
    cluster.scheduler.kill()
    told = command.end(2).stderr
    assert told.splitlines()[-1].startswith(
        "ValueError: The scheduler of Dask was lost. "
    )
    assert "Traceback" not in told


@pytest.mark.soak
def test_a_killed_command_goes_on_with_what_is_missing(
    corpus, cluster, tmp_path
):
    path = tmp_path / "out"
    command = Started(*encode_into(path, corpus), *cluster.flags)
    wait_for(lambda: done(path) >= 3, command)
    command.kill()
    assert command.finish().returncode == -signal.SIGKILL
    assert 3 <= done(path) < NUM_SHARDS
    before = {
        file: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in path.glob("shard-*-of-*[0-9]/*")
    }
    told = run_module(*encode_into(path, corpus), *cluster.flags).stderr
    assert "0 of them found done" not in told
    for file, stat in before.items():
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == stat
    assert files_of(path) == encoded_here(corpus, "whole")


@pytest.mark.soak
def test_workers_that_stay_make_the_tables_of_each_model_and_data_set(
    cluster, tmp_path
):
    data, tables = tmp_path / "data", []
    data.mkdir()
    for name, seed in (("first", 0), ("other model", 1), ("other data", 1)):
        save_model(tmp_path, seed)
        rng = np.random.default_rng(len(name) % 3)
        clips = {
            f"v{number}": rng.normal(size=(20, small_acnn.CLIP_DIM))
            for number in range(40)
        }
        moments = [
            Moment(f"{video} {n}", query, video, 20.0, ((n, n + 7.0),))
            for video in clips
            for n, query in enumerate(["the door", "a person", "opens"])
        ]
        write_features(data / "features.hdf5", clips, 1.0)
        annotations.write_jsonl(moments, data / "val.jsonl")
        flags = (
            *(f"--workdir={tmp_path}", "--dataset=jsonl"),
            f"--data_dir={data}",
        )
        whole = run_module("experiments.evaluate", *flags, "--timelines=0")
        table = run_module(
            "experiments.evaluate_shards",
            *(*flags, "--num_shards=8", f"--out={tmp_path / name}"),
            *cluster.flags,
        ).stdout
        assert table == whole.stdout
        tables.append(table)
    assert len(set(tables)) == 3


@pytest.mark.soak
def test_features_of_videos_are_those_of_one_process(cluster, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed: acnn_tf[video]")
    from tests.video_files import draw, write

    folder, outs = tmp_path / "videos", [tmp_path / "a", tmp_path / "b"]
    for path in (folder, *outs):
        path.mkdir()
    for number in range(24):
        write(folder / f"v{number}.mp4", pictures=map(draw, range(number, 200)))
    command = "experiments.extract_features", f"--videos={folder}", "--fps=5"
    many = Started(*command, f"--out={outs[0] / 'a.hdf5'}", *cluster.flags)
    parts = outs[0] / "a.hdf5.parts"
    wait_for(lambda: len(list(parts.glob("*.npz"))) >= 4, many)
    cluster.workers.pop(0).kill()
    assert "24 of 24 shards" in many.end().stderr
    run_module(*command, f"--out={outs[1] / 'a.hdf5'}")
    assert files_of(outs[0]) == files_of(outs[1])
    assert "a.hdf5" in files_of(outs[0])


@pytest.mark.soak
def test_both_workers_take_their_share(corpus, cluster, tmp_path):
    command = encode_into(tmp_path / "out", corpus)
    told = run_module(*command, *cluster.flags).stderr
    # Neither waits for the other: what one does more is a matter of luck.
    assert min(shares(told).values()) >= NUM_SHARDS // 4


@pytest.mark.soak
@pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl makes the certificates"
)
def test_with_tls_only_who_has_a_certificate_gets_in(corpus, tmp_path):
    def openssl(*arguments):
        subprocess.run(
            ["openssl", *arguments],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=acnn", "-keyout", "key.pem", "-out", "cert.pem"),
    )
    files = {name: str(tmp_path / f"{name}.pem") for name in ("cert", "key")}
    tls = dict.fromkeys(["scheduler", "worker", "client"], files)
    comm = {
        "require-encryption": True,
        "tls": {"ca-file": files["cert"], **tls},
    }
    config = tmp_path / "dask.yaml"
    config.write_text(json.dumps({"distributed": {"comm": comm}}))
    tls = {"DASK_CONFIG": str(config)}
    cluster = Cluster(tmp_path, scheme="tls", **tls)
    path = tmp_path / "out"
    assert cluster.address.startswith("tls://")
    refused = run_module(*encode_into(path, corpus), *cluster.flags, code=2)
    assert "No scheduler of Dask answers at tls://" in refused.stderr
    plain = cluster.address.replace("tls", "tcp")
    refused = run_module(
        *(*encode_into(path, corpus), RUNNER),
        *(f"--dask_client_address={plain}", "--dask_connection_timeout=3"),
        code=2,
    )
    assert "No scheduler of Dask answers at tcp://" in refused.stderr
    run_module(*encode_into(path, corpus), *cluster.flags, **tls)
    assert files_of(path) == encoded_here(corpus, "whole")
    cluster.end()
