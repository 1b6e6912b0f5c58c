"""The commands on Apache Beam: killed, started again, other processes."""

import functools
import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from acnn_tf import evaluation, models, search
from acnn_tf.data import annotations, predictions, synthetic
from acnn_tf.data.annotations import Moment
from acnn_tf.data.features import open_features, write_features
from acnn_tf.files.locks import FolderInUseError, locked
from acnn_tf.files.problems import DataError
from acnn_tf.search.index_files import fingerprint
from experiments import shard_files, shard_work
from tests import small_acnn
from tests.processes import ROOT, Started, run_module

pytest.importorskip(
    "apache_beam", reason="Apache Beam is not installed: acnn_tf[beam]"
)
pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
# Another process for the work, which gets it pickled.
ELSEWHERE = (
    "--runner=DirectRunner",
    "--direct_num_workers=1",
    "--direct_running_mode=multi_processing",
)
SHARD = {}, {"number": 0}


def files_of(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def test_flags_that_nobody_knows_are_told():
    with pytest.raises(ValueError, match=r"Beam's: \['--num_shard=3'\]"):
        shard_work.beam_options(["--num_shard=3", "--direct_num_workers=2"])
    shard_work.beam_options([])


def test_workers_find_the_checkout_or_are_told_to(monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    shard_work.beam_options(["--direct_running_mode=multi_processing"])
    assert os.environ["PYTHONPATH"] == f"{ROOT}{os.pathsep}elsewhere"
    assert capsys.readouterr().err == ""
    shard_work.beam_options(["--runner=FlinkRunner"])
    told = capsys.readouterr().err
    assert f"a checkout such as {ROOT} must be on PYTHONPATH" in told


def test_a_worker_that_fails_is_told_in_one_line(tmp_path):
    out = str(tmp_path / "out")
    work = functools.partial(
        shard_work.encode, workdir=str(tmp_path), features="no.hdf5", out=out
    )
    options = shard_work.beam_options([])
    with pytest.raises(ValueError, match=r"A worker failed.*model\.keras"):
        shard_work.run_shards(work, [SHARD], set, "Nothing", out, options)


def test_shards_of_others_and_on_other_disks_are_told(tmp_path):
    work = (lambda _: None), [SHARD], set, "Nothing", tmp_path
    options = shard_work.beam_options([])
    with pytest.raises(ValueError, match="only 0 of 1 shards are here"):
        shard_work.run_shards(*work, options)
    with locked(tmp_path), pytest.raises(FolderInUseError, match="in use by"):
        shard_work.run_shards(*work, options)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A run, clips that take a moment to encode, and all shards of them."""
    path = tmp_path_factory.mktemp("run")
    model = small_acnn.make_model()
    models.save_model(model, path / "model.keras")
    clips = {
        f"v{number:02d}": RNG.normal(1, 2, (300 + number, small_acnn.CLIP_DIM))
        for number in range(48)
    }
    write_features(path / "clips.hdf5", clips, 1.0)
    durations = {video: float(len(clip)) for video, clip in clips.items()}
    shards = search.assign_videos(durations, 16, model.grid)
    features = open_features(path / "clips.hdf5")
    small_acnn.encode_shards(model, features, shards, path / "whole")
    return path


def encode_into(path, corpus, num_shards):
    """The command that encodes the clips of a corpus."""
    return (
        "experiments.encode_corpus",
        *(f"--workdir={corpus}", f"--features={corpus / 'clips.hdf5'}"),
        *(f"--out={path}", f"--num_shards={num_shards}"),
    )


@pytest.mark.soak
def test_a_killed_run_goes_on_with_what_is_missing(corpus, tmp_path):
    path = tmp_path / "corpus"
    command = encode_into(path, corpus, 16)
    process = Started(*command)
    while process.returncode is None:
        if len(list(path.glob("shard-*-of-00016"))) >= 4:
            process.kill()
            break
        time.sleep(0.001)
    assert process.finish().returncode == -signal.SIGKILL
    before = {
        file: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in path.glob("shard-*-of-00016/*")
    }
    done = len(list(path.glob("shard-*-of-00016")))
    assert 4 <= done < 16
    model = models.load_model(corpus / "model.keras")
    with pytest.raises(
        search.IndexFileError, match=f"{16 - done} of 16 shards are missing"
    ):
        search.MomentIndex(model, path)
    # What is cut off in the middle of a shard counts for nothing, and goes.
    cut = f"shard-00000-of-00016.1f______.{socket.gethostname()}.partial"
    (path / cut).mkdir()
    (path / cut / "encodings-00000.npy").write_bytes(b"half")

    told = run_module(*command, *ELSEWHERE).stderr
    assert f"16 shards, {done} of them found done" in told
    assert "16 of 16 shards" in told
    for file, stat in before.items():
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == stat
    # As by a run without a break, and without Beam.
    assert files_of(path) == files_of(corpus / "whole")
    assert len(list(path.iterdir())) == 16
    assert len(search.MomentIndex(model, path)) == 48


def test_what_cannot_be_encoded_ends_with_one_line(corpus):
    command = encode_into(corpus / "whole", corpus, 12)
    told = run_module(*command, code=2).stderr
    last = told.splitlines()[-1]
    assert last.startswith("IndexFileError: ")
    assert "shards of 12 in all" in last
    assert "--num_shards=16" in last


@pytest.mark.soak
def test_an_evaluation_in_shards_prints_the_same_table(tmp_path):
    scenes = synthetic.make_scenes(4, split="val")
    # None of those of the first sentence, which is a miss.
    known = {w for m in scenes.moments for w in m.query.split()}
    words = sorted(known - set(scenes.moments[0].query.split()))
    dim = next(iter(scenes.features.values())).shape[1]
    model = small_acnn.make_model(
        clip_dim=dim, vocabulary=words, clip_seconds=scenes.clip_seconds
    )
    models.save_model(model, tmp_path / "model.keras")
    data = (
        f"--workdir={tmp_path}",
        "--dataset=synthetic",
        "--num_scenes=20",
        "--suppression=per_threshold",
    )
    whole = run_module("experiments.evaluate", *data, "--timelines=0").stdout
    assert "model on built-in scenes, val" in whole
    assert "queries, of which the model knows no word" in whole
    out = tmp_path / "val"
    command = ("experiments.evaluate_shards", *data, "--num_shards=3")
    command += (f"--out={out}",)
    assert run_module(*command).stdout == whole
    # One shard lost its counts, and so is not complete.
    counts = out / "shard-00001-of-00003.counts.json"
    content = counts.read_bytes()
    counts.unlink()
    kept = (out / "shard-00000-of-00003.counts.json").stat().st_mtime_ns
    again = run_module(*command)
    assert again.stdout == whole
    assert "3 shards, 2 of them found done" in again.stderr
    assert (out / "shard-00000-of-00003.counts.json").stat().st_mtime_ns == kept
    assert counts.read_bytes() == content
    assert len(list(out.iterdir())) == 9
    # Their predictions are anybody's.
    together = tmp_path / "predictions.jsonl"
    parts = sorted(out.glob("*.predictions.jsonl"))
    together.write_text("".join(part.read_text() for part in parts))
    found = predictions.read_predictions(together, scenes.moments)
    results = evaluation.score_predictions(
        scenes.moments, found, suppression="per_threshold"
    )
    table = evaluation.format_table(
        results, title="model on built-in scenes, val"
    )
    assert whole.startswith(f"{table}\n")


@pytest.mark.soak
def test_a_worker_that_stays_takes_the_models_and_data_of_each_command(
    tmp_path,
):
    model_path, data = tmp_path / "model.keras", tmp_path / "data"
    data.mkdir()
    tables, seen = {}, set()
    for name, seed in (("first", 0), ("other model", 1), ("other data", 1)):
        model = small_acnn.make_model()
        rng = np.random.default_rng(seed)
        for weight in model.head.weights:
            weight.assign(rng.normal(size=weight.shape))
        models.save_model(model, model_path)
        scenes = np.random.default_rng(len(name) % 3)
        clips = {"v": scenes.normal(size=(20, small_acnn.CLIP_DIM))}
        start = 5.0 if name == "other data" else 0.0
        moments = [
            Moment(str(n), query, "v", 20.0, ((start, start + 15.0),))
            for n, query in enumerate(["the door", "a person", "opens"])
        ]
        write_features(data / "features.hdf5", clips, 1.0)
        annotations.write_jsonl(moments, data / "val.jsonl")
        work = functools.partial(
            shard_work.evaluate,
            workdir=str(tmp_path),
            window_lengths=None,
            split="val",
            data={"dataset": "jsonl", "data_dir": str(data)},
            protocol={},
            out=str(tmp_path / name),
            model=fingerprint(model),
        )
        (about,) = shard_files.describe([name], [moments])
        work(({"v": 20.0}, about))
        tables[name] = shard_files.read_counts(tmp_path / name, about)
        _, found = evaluation.evaluate(model, moments, clips)
        assert tables[name] == evaluation.count_hits(moments, found)
        (path,) = (tmp_path / name).glob("*.predictions.jsonl")
        for one, other in zip(
            predictions.read_predictions(path, moments), found, strict=True
        ):
            np.testing.assert_array_equal(one, other)
        seen.add(np.concatenate(found).tobytes())
    assert len(seen) == 3
    # One that is changed between a command and its work is refused.
    with pytest.raises(ValueError, match="holds another model here"):
        work(({"v": 20.0}, about), model="0", out=str(tmp_path / "new"))


def test_counts_are_told_apart_and_damaged_ones_named(tmp_path):
    moments = synthetic.make_scenes(1, split="val").moments[:2]
    (shard,) = shard_files.describe(["model a"], [moments])
    assert shard_files.read_counts(tmp_path, shard) is None
    empty = [np.zeros((0, 3))] * 2
    counts = evaluation.count_hits(moments, empty)
    shard_files.write_shard(tmp_path, shard, moments, empty, counts)
    assert shard_files.read_counts(tmp_path, shard) == counts
    (other,) = shard_files.describe(["model b"], [moments])
    with pytest.raises(ValueError, match=r"counts\.json counts hits of anoth"):
        shard_files.read_counts(tmp_path, other)
    stem = tmp_path / "shard-00000-of-00001"
    for end in ("counts.json", "predictions.jsonl", "manifest.json"):
        path = Path(f"{stem}.{end}")
        before = path.read_bytes()
        flipped = before[:-3] + bytes([before[-3] ^ 1]) + before[-2:]
        for damaged in (flipped, b"[]", b"", before[:-5]):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=rf"{path}: .*; remove it, and"):
                shard_files.read_counts(tmp_path, shard)
        path.write_bytes(before)
    assert shard_files.read_counts(tmp_path, shard) == counts
    # Counts of predictions that are gone are not complete.
    Path(f"{stem}.predictions.jsonl").unlink()
    assert shard_files.read_counts(tmp_path, shard) is None
