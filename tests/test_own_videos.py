"""Training on a folder of videos and a file of sentences."""

import json

import pytest

from acnn_tf.data import annotations, open_features, synthetic
from acnn_tf.files.problems import DataError
from experiments import own_videos
from tests.processes import run_module

pytest.importorskip("av")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six videos, of which five have sentences, without durations."""
    folder = tmp_path_factory.mktemp("own")
    moments = synthetic.write_videos(folder / "videos", 6)
    moments = [m for m in moments if m.video_id != "scene_000005"]
    annotations.write_jsonl(moments, folder / "own.jsonl")
    lines = map(json.loads, (folder / "own.jsonl").read_text().splitlines())
    lines = [
        {k: v for k, v in line.items() if k != "duration"} for line in lines
    ]
    (folder / "own.jsonl.manifest.json").unlink()
    write_lines(folder / "own.jsonl", lines)
    return folder


def write_lines(path, lines):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def prepare(data, workdir, annotations="own.jsonl", **arguments):
    return own_videos.prepare(
        workdir, [data / "videos"], data / annotations, **arguments
    )


def train(data, workdir):
    """A command that trains as little as possible."""
    return (
        "experiments.train",
        *(f"--videos={data / 'videos'}", f"--annotations={data / 'own.jsonl'}"),
        *(f"--workdir={workdir}", "--smoke", "--window_seconds=3,6"),
        *("--filters=4", "--embedding_dim=4", "--word_dim=4"),
        "--query_encoder=mean",
    )


@pytest.mark.soak
def test_a_run_repeats_and_keeps_its_encoder(data, tmp_path):
    workdir = tmp_path / "run"
    command = train(data, workdir)
    run_module(*command)
    done = run_module(*command, "--fps=2", code=2)
    assert "made by pixels at 4 fps, --encoder and --fps now say" in done.stderr
    again = run_module(
        "experiments.train",
        f"--flagfile={workdir / 'flags.txt'}",
        f"--workdir={tmp_path / 'again'}",
        "--smoke",
    )
    assert "Best val_mIoU" in again.stdout


@pytest.mark.slow
@pytest.mark.soak
def test_a_folder_and_a_file_are_enough(data, tmp_path):
    workdir = tmp_path / "run"
    command = train(data, workdir)
    done = run_module(*command)
    assert "Held out for validation: 1 of 5 videos, " in done.stderr
    assert "note: without --encoder, features are made by" in done.stderr
    assert "too few to choose the best epoch by" in done.stderr
    assert "There is no calibration: " in done.stderr
    assert "Best val_mIoU" in done.stdout
    # Its features and its division stay.
    before = (workdir / "features.hdf5").stat().st_mtime_ns
    assert "All 1 epochs were done before" in run_module(*command).stdout
    assert (workdir / "features.hdf5").stat().st_mtime_ns == before
    # All that follows needs no more than the run.
    flags = f"--workdir={workdir}", "--json", "--timelines=0"
    results = json.loads(run_module("experiments.evaluate", *flags).stdout)
    assert 0 <= results["mIoU"] <= 1


def test_whole_videos_are_held_out(data, tmp_path):
    files = prepare(data, tmp_path)
    parts = {
        flag: annotations.read_moments(files[flag], files["dataset"])
        for flag in ("annotations", "val_annotations")
    }
    videos = {f: {m.video_id for m in part} for f, part in parts.items()}
    assert [len(videos[flag]) for flag in parts] == [4, 1]
    assert not set.intersection(*videos.values())
    expected = [
        json.loads(line)["query"]
        for line in (data / "own.jsonl").read_text().splitlines()
    ]
    together = [m.query for part in parts.values() for m in part]
    assert sorted(together) == sorted(expected)
    with open_features(files["features"]) as features:
        assert len(features) == 6
    # As long as their files are.
    for moment in parts["annotations"]:
        duration, _ = synthetic.plan(moment.video_id)
        assert moment.duration == pytest.approx(duration)
    # Always the same.
    other = prepare(data, tmp_path / "other")
    for name in ("train.jsonl", "val.jsonl", "features.hdf5"):
        first = (tmp_path / name).read_bytes()
        assert first == (tmp_path / "other" / name).read_bytes()
    assert other.keys() == files.keys()


def test_files_for_validation_are_taken(data, tmp_path):
    files = prepare(data, tmp_path, val_annotations=data / "own.jsonl")
    assert files["annotations"] == files["val_annotations"]
    assert files["features"] == files["val_features"]
    assert not (tmp_path / "val.jsonl").exists()


def test_what_does_not_fit_is_told(refused, data, tmp_path):
    lines = [
        json.loads(x) for x in (data / "own.jsonl").read_text().splitlines()
    ]
    other = [{**lines[0], "vid": "door"}]
    named = {**lines[0], "vid": f"{lines[0]['vid']}.mp4"}
    write_lines(data / "named.jsonl", [named])
    write_lines(data / "other.jsonl", [*lines, {**other[0], "qid": "z"}, 7])
    write_lines(data / "none.jsonl", other)
    write_lines(data / "single.jsonl", lines[:1])
    (data / "text.jsonl").write_text("hello")
    (data / "empty").mkdir(exist_ok=True)
    line = len(lines) + 1
    for name, arguments, error, message in (
        (
            *("other.jsonl", {}, DataError),
            rf"other\.jsonl:{line + 1}: expected an object(.|\n)*"
            rf"other\.jsonl:{line}: video 'door' is not among the 6 of",
        ),
        (
            *("none.jsonl", {"skip_bad": True}, ValueError),
            r"no sentence about any of --videos \(scene_000000, scene_000001",
        ),
        (
            *("named.jsonl", {}, DataError),
            f"; write {lines[0]['vid']!r}, without the ending",
        ),
        ("text.jsonl", {}, DataError, r"text\.jsonl:1: is not JSON"),
        ("single.jsonl", {}, ValueError, "there must be two at least"),
    ):
        with refused(error, message):
            prepare(data, tmp_path / name, name, **arguments)
    with refused(DataError, "empty: is a folder without videos"):
        own_videos.prepare(tmp_path, [data / "empty"], data / "own.jsonl")
    with refused(ValueError, "--videos needs --annotations"):
        own_videos.prepare(tmp_path, [data / "videos"], None)
    done = run_module(
        "experiments.train",
        *(f"--videos={data}", f"--workdir={tmp_path / 'x'}", "--data_dir=a"),
        code=2,
    )
    assert "--videos goes without --data_dir" in done.stderr


def test_sentences_that_change_after_a_run_began_are_told(data, tmp_path):
    prepare(data, tmp_path)
    (tmp_path / "flags.txt").touch()
    prepare(data, tmp_path)
    lines = (data / "own.jsonl").read_text().splitlines()
    (data / "fewer.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ValueError, match="is no more what the run in"):
        prepare(data, tmp_path, "fewer.jsonl")


def test_a_video_that_cannot_be_read_ends_it_unless_left_out(
    data, tmp_path, capsys
):
    lines = [
        json.loads(x) for x in (data / "own.jsonl").read_text().splitlines()
    ]
    (data / "videos" / "empty.mp4").touch()
    write_lines(
        data / "bad.jsonl", [*lines, {**lines[0], "qid": 9, "vid": "empty"}]
    )
    with pytest.raises(DataError, match=r"'empty\.mp4' is empty, 0 bytes"):
        prepare(data, tmp_path, "bad.jsonl")
    files = prepare(data, tmp_path, "bad.jsonl", skip_bad=True)
    with open_features(files["features"]) as features:
        assert len(features) == 6
    # One of which nothing is said is left out.
    capsys.readouterr()
    prepare(data, tmp_path / "new")
    assert "left out: " in capsys.readouterr().err
    (data / "videos" / "empty.mp4").unlink()
