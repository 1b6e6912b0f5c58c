"""A corpus in shards, against one index; killed, started again and evaluated."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acnn_tf import models, search
from acnn_tf.data import synthetic
from acnn_tf.data.features import write_features
from acnn_tf.data.windows import WindowGrid
from acnn_tf.search.shard_names import shard_name
from tests import small_acnn

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(0)
FEATURES = {
    f"v{number:02d}": RNG.normal(1, 2, size=(length, small_acnn.CLIP_DIM))
    for number, length in enumerate(RNG.integers(1, 25, 30))
}
DURATIONS = {video: float(len(clip)) for video, clip in FEATURES.items()}
with_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="Apache Beam takes a newer protobuf than TensorFlow 2.17",
)


def encode(model, path, num_shards=4, only=None, durations=None, dtype=None):
    durations = durations or DURATIONS
    shards = search.assign_videos(durations, num_shards, model.grid)
    described = search.describe_shards(shards)
    for number in range(num_shards) if only is None else only:
        search.encode_shard(
            model, FEATURES, shards[number], described[number], path, dtype
        )
    return shards


@pytest.fixture(scope="module")
def model():
    return small_acnn.make_model()


@pytest.fixture(scope="module")
def corpus(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus")
    encode(model, path)
    return path


@given(
    st.dictionaries(st.text(max_size=3), st.floats(0.5, 99), min_size=1),
    st.integers(1, 9),
    st.randoms(use_true_random=False),
)
def test_videos_are_divided_once_evenly_and_whatever_their_order(
    durations, num_shards, random
):
    num_shards = min(num_shards, len(durations))
    grid = WindowGrid((2.0, 5.0), overlap=0.5)
    shards = search.assign_videos(durations, num_shards, grid)
    assert sorted(v for shard in shards for v in shard) == sorted(durations)
    loads = [
        sum(len(grid.windows(seconds)) for seconds in shard.values())
        for shard in shards
    ]
    most = max(len(grid.windows(seconds)) for seconds in durations.values())
    assert max(loads) - min(loads) <= most
    shuffled = list(durations.items())
    random.shuffle(shuffled)
    again = search.assign_videos(dict(shuffled), num_shards, grid)
    assert [list(shard.items()) for shard in again] == [
        list(shard.items()) for shard in shards
    ]


def test_more_shards_than_videos_are_refused():
    with pytest.raises(ValueError, match=r"`num_shards`.*1.*Received: 2"):
        search.assign_videos({"v": 3.0}, 2, WindowGrid((2.0,)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_find_what_one_index_finds(model, dtype, tmp_path):
    encode(model, tmp_path / "corpus", dtype=dtype)
    whole = search.MomentIndex(model, dtype=dtype)
    whole.append(FEATURES)
    sharded = search.MomentIndex(model, tmp_path / "corpus")
    assert len(sharded) == len(whole)
    assert sharded.num_windows == whole.num_windows
    assert sharded.dtype == dtype
    expected = {video.video_id: video for video in whole.videos()}
    for video in sharded.videos():
        other = expected[video.video_id]
        np.testing.assert_array_equal(video.windows, other.windows)
        np.testing.assert_allclose(video.encoding, other.encoding, atol=1e-5)
    ids = np.arange(1, 9).reshape(4, 2)
    for top_n in (1, 7, 200):
        found = sharded.search(ids, top_n=top_n)
        for row, other in zip(
            found, whole.search(ids, top_n=top_n), strict=True
        ):
            assert [m.video_id for m in row] == [m.video_id for m in other]
            np.testing.assert_allclose(
                [m[1:] for m in row], [m[1:] for m in other], atol=1e-4
            )


def test_a_shard_alone_is_an_index_of_its_videos(model, corpus):
    shards = search.assign_videos(DURATIONS, 4, model.grid)
    one = search.MomentIndex(model, corpus / shard_name(2, 4))
    assert set(one.video_ids) == set(shards[2])
    (found,) = one.search(np.array([[2, 3]]), top_n=1)
    assert found[0].video_id in shards[2]


def test_nothing_is_added_to_a_corpus_or_a_shard(model, corpus):
    for path in (corpus, corpus / shard_name(0, 4)):
        index = search.MomentIndex(model, path)
        index.append({})
        with pytest.raises(ValueError, match="nothing is added"):
            index.append({"new": FEATURES["v00"]})


def test_missing_shards_are_named_with_the_command_that_makes_them(
    model, tmp_path
):
    path = tmp_path / "corpus"
    encode(model, path, only=[0, 3])
    with pytest.raises(
        search.IndexFileError,
        match=r"2 of 4 shards are missing \(shard-00001-of-00004, shard-0000"
        rf"2-of-00004\).*experiments\.encode_corpus --out={path} --num_sha",
    ):
        search.MomentIndex(model, path)
    # Nor is a corpus complete of which nothing is.
    for number in (0, 3):
        (path / shard_name(number, 4)).rename(
            path / f"{shard_name(number, 4)}.0a.partial"
        )
    with pytest.raises(search.IndexFileError, match="4 of 4 shards are miss"):
        search.MomentIndex(model, path)


def test_shards_of_two_corpora_are_told(model, corpus, tmp_path):
    path = tmp_path / "corpus"
    shutil.copytree(corpus, path)
    shutil.rmtree(path / shard_name(1, 4))
    fewer = {video: DURATIONS[video] for video in list(DURATIONS)[:-1]}
    encode(model, path, only=[1], durations=fewer)
    with pytest.raises(search.IndexFileError, match="00001-of-00004 belongs"):
        search.MomentIndex(model, path)
    shutil.rmtree(path / shard_name(1, 4))
    shutil.copytree(path / shard_name(2, 4), path / shard_name(1, 4))
    with pytest.raises(search.IndexFileError, match="00001-of-00004 belongs"):
        search.MomentIndex(model, path)
    encode(model, path, num_shards=2, only=[0])
    with pytest.raises(search.IndexFileError, match="00004, but also shards"):
        search.MomentIndex(model, path)


def test_a_damaged_shard_is_named(model, corpus, tmp_path):
    path = tmp_path / "corpus"
    shutil.copytree(corpus, path)
    file = path / shard_name(3, 4) / "encodings-00000.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(search.IndexFileError, match=f"{file} has the SHA-256"):
        search.MomentIndex(model, path)
    (path / shard_name(1, 4) / "index.json").unlink()
    with pytest.raises(search.IndexFileError, match=r"holds no index\.json"):
        search.MomentIndex(model, path)


def test_what_is_done_must_be_the_same_work(model, corpus, tmp_path):
    shards = search.assign_videos(DURATIONS, 4, model.grid)
    assert search.done_shards(corpus, model, shards) == {0, 1, 2, 3}
    assert search.done_shards(tmp_path / "new", model, shards) == set()
    with pytest.raises(search.IndexFileError, match="not float16"):
        search.done_shards(corpus, model, shards, "float16")
    longer = {video: 1.5 * seconds for video, seconds in DURATIONS.items()}
    others = search.assign_videos(longer, 4, model.grid)
    with pytest.raises(search.IndexFileError, match="of other videos"):
        search.done_shards(corpus, model, others)
    others = search.assign_videos(DURATIONS, 3, model.grid)
    with pytest.raises(search.IndexFileError, match="3 in all"):
        search.done_shards(corpus, model, others)
    coarse = small_acnn.make_model(window_overlap=0.0)
    with pytest.raises(search.IndexFileError, match="other weights|grid"):
        search.done_shards(corpus, coarse, shards)


def test_of_two_that_encode_one_shard_the_first_stays(model, tmp_path):
    encode(model, tmp_path, only=[1])
    inode = (tmp_path / shard_name(1, 4)).stat().st_ino
    encode(model, tmp_path, only=[1])
    assert (tmp_path / shard_name(1, 4)).stat().st_ino == inode
    assert [path.name for path in tmp_path.iterdir()] == [shard_name(1, 4)]


def run(module, *arguments, check=True):
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def files_of(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


@pytest.fixture(scope="module")
def workdir(model, tmp_path_factory):
    """A run, and clips that take a moment to encode."""
    path = tmp_path_factory.mktemp("run")
    models.save_model(model, path / "model.keras")
    clips = {
        f"v{number:02d}": RNG.normal(1, 2, (300 + number, small_acnn.CLIP_DIM))
        for number in range(64)
    }
    write_features(path / "clips.hdf5", clips, 1.0)
    return path


@pytest.mark.slow
@with_beam
def test_a_killed_run_goes_on_with_what_is_missing(workdir, tmp_path):
    command = (
        "experiments.encode_corpus",
        f"--workdir={workdir}",
        f"--features={workdir / 'clips.hdf5'}",
        "--num_shards=16",
    )
    whole, path = tmp_path / "whole", tmp_path / "corpus"
    run(*command, f"--out={whole}")
    with subprocess.Popen(
        [sys.executable, "-m", *command, f"--out={path}"],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while process.poll() is None:
            if len(list(path.glob("shard-*-of-00016"))) >= 4:
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.001)
    before = {
        file: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in path.glob("shard-*-of-00016/*")
    }
    done = len(list(path.glob("shard-*-of-00016")))
    assert 4 <= done < 16
    search_command = (
        "experiments.search",
        f"--workdir={workdir}",
        f"--index={path}",
        "--query=a person opens the door",
        "--json",
    )
    refused = run(*search_command, check=False)
    assert refused.returncode == 2
    assert f"{16 - done} of 16 shards are missing" in refused.stderr
    # What is cut off in the middle of a shard is removed.
    (path / "shard-00000-of-00016.1f.partial").mkdir()
    # By other means, the same.
    restarted = run(
        *command,
        f"--out={path}",
        "--runner=DirectRunner",
        "--direct_num_workers=2",
        "--direct_running_mode=multi_processing",
    )
    assert f"16 shards, {done} of them found done" in restarted.stderr
    assert "16 of 16 shards" in restarted.stderr
    for file, stat in before.items():
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == stat
    assert files_of(path) == files_of(whole)
    assert len(list(path.iterdir())) == 16
    found = json.loads(run(*search_command).stdout)["moments"]
    assert len(found) == 5
    # With all there, nothing is left to do; with other flags, it is told.
    again = run(*command, f"--out={path}")
    assert "16 of them found done" in again.stderr
    refused = run(
        *command, f"--out={path}", "--index_dtype=bfloat16", check=False
    )
    assert refused.returncode == 2
    assert "holds float32, not bfloat16" in refused.stderr
    refused = run(*command, f"--out={path}", "--num_shard=3", check=False)
    assert refused.returncode == 2
    assert "Neither flags of this command nor Beam's" in refused.stderr


@pytest.mark.slow
@with_beam
def test_an_evaluation_in_shards_prints_the_same_table(tmp_path):
    scenes = synthetic.make_scenes(8, split="val")
    words = sorted({w for m in scenes.moments for w in m.query.split()})
    dim = next(iter(scenes.features.values())).shape[1]
    model = small_acnn.make_model(
        clip_dim=dim, vocabulary=words, clip_seconds=scenes.clip_seconds
    )
    models.save_model(model, tmp_path / "model.keras")
    data = (
        f"--workdir={tmp_path}",
        "--dataset=synthetic",
        "--num_scenes=40",
        "--suppression=per_threshold",
    )
    whole = run("experiments.evaluate", *data).stdout
    out = tmp_path / "val"
    command = ("experiments.evaluate_shards", *data, "--num_shards=3")
    assert run(*command, f"--out={out}").stdout == whole
    # One shard lost its counts, and so is not complete.
    counts = out / "shard-00001-of-00003.counts.json"
    content = counts.read_bytes()
    counts.unlink()
    kept = (out / "shard-00000-of-00003.counts.json").stat()
    again = run(*command, f"--out={out}")
    assert again.stdout == whole
    assert "3 shards, 2 of them found done" in again.stderr
    assert (out / "shard-00000-of-00003.counts.json").stat() == kept
    assert counts.read_bytes() == content
    assert not list(out.glob("*.partial"))
    # Their predictions are anybody's.
    together = tmp_path / "predictions.jsonl"
    parts = sorted(out.glob("*.predictions.jsonl"))
    together.write_text("".join(part.read_text() for part in parts))
    scored = run(
        "experiments.evaluate",
        f"--predictions={together}",
        *data[1:],
    ).stdout
    assert scored.splitlines()[1:] == whole.split("\n\n")[0].splitlines()[1:]
    refused = run(*command[:-2], "--num_shards=3", f"--out={out}", check=False)
    assert refused.returncode == 2
    assert "counts hits of another" in refused.stderr
