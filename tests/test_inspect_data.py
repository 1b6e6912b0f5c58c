"""The command that counts and validates a dataset."""

import json

import h5py
import numpy as np
import pytest

from acnn_tf.data.annotations import Moment
from acnn_tf.data.features import open_features, write_features
from acnn_tf.data.inspection import count_pairs, with_usable_features
from acnn_tf.data.windows import WindowGrid
from tests.processes import run_module


def inspect(*arguments):
    """Runs the command: `(exit code, output, errors)`."""
    done = run_module("experiments.inspect_data", *arguments, code=None)
    return done.returncode, done.stdout, done.stderr


def inspect_json(*arguments):
    code, output, errors = inspect(*arguments, "--json")
    assert errors == ""
    return code, json.loads(output)


@pytest.fixture
def charades(tmp_path):
    """Flags of three good queries, two of one moment, of two videos."""
    (tmp_path / "a.txt").write_text(
        "v 0.0 4.0##a man runs\nv 0.0 4.0##he runs\nw 6.0 12.0##a dog sits\n"
    )
    (tmp_path / "d.json").write_text('{"v": 8.0, "w": 20.0}')
    return [
        "--dataset=charades_sta",
        f"--annotations={tmp_path / 'a.txt'}",
        f"--durations={tmp_path / 'd.json'}",
    ]


def test_counts_of_a_small_dataset(charades):
    flags = [*charades, "--window_seconds=4", "--overlap=0.5"]
    code, found = inspect_json(*flags)
    assert code == 0
    # Windows of 4 s every 2 s: 3 in 8 s, 9 in 20 s. [0, 4) shows the moment
    # of both sentences; [6, 10) and [8, 12) lie within [6, 12), IoU 2/3.
    assert found == {
        "videos": 2,
        "queries": 3,
        "windows": 12,
        "pairs": 4,
        "paired_windows": 3,
        "dropped": 0,
        # Of 4, 4 and 6 s. No window shows more than 4 s of 6: IoU 2/3.
        "moment_seconds": {
            **{"0%": 4.0, "10%": 4.0, "25%": 4.0, "50%": 4.0},
            **{"75%": 5.0, "90%": 5.6, "100%": 6.0},
        },
        "reached": {"IoU=0.5": 1.0, "IoU=0.7": pytest.approx(2 / 3)},
        # [7.5, 12.5) is little better: 4.5/6.5, or 0.0085 in the mean of three.
        "suggested": {
            "window_seconds": [4.0],
            "reached": {"IoU=0.5": 1.0, "IoU=0.7": pytest.approx(2 / 3)},
        },
        "problems": [],
        "notes": [],
    }
    assert inspect_json(*flags, "--min_iou=0.7")[1]["pairs"] == 2
    # [4, 8) and [10, 14) are half outside of [6, 12), at an IoU of 1/4.
    loose = ["--min_iou=0.2", "--max_niol=0.6"]
    assert inspect_json(*flags, *loose)[1]["paired_windows"] == 6
    # As a table.
    code, output, _ = inspect(*charades)
    assert code == 0
    assert [line.split() for line in output.splitlines()][:3] == [
        ["videos", "2"],
        ["queries", "3"],
        ["windows", "not", "counted"],
    ]
    # With an overlap of 0.8 there is [6, 11), IoU 5/6.
    assert (
        "moment seconds      0% 4, 10% 4, 25% 4, 50% 4, 75% 5, 90% 5.6, "
        "100% 6\n"
        "suggested           --window_seconds=4,5\n"
        "which can reach     IoU=0.5 100.0%, IoU=0.7 100.0%\n"
    ) in output


def test_every_problem_is_listed_with_file_and_line(tmp_path):
    annotations = tmp_path / "a.txt"
    annotations.write_text(
        "v 0 4##good\n"
        "v 4 4##no length\n"
        "v 5 4##reversed\n"
        "v 0 99##longer than its video\n"
        "u 0 4##unknown video\n"
        "v 0 4##good\n"
        "v 6 9##ends late\n"
        "w 0 4##without features\n"
        "x 0 4##features with a NaN\n"
        "v 0 4\n"
    )
    durations = tmp_path / "d.json"
    durations.write_text('{"v": 8, "w": 8, "x": 8}')
    features = tmp_path / "f.hdf5"
    clips = np.arange(16, dtype=np.float32).reshape(8, 2)
    with h5py.File(features, "w") as file:
        file.attrs["clip_seconds"] = 1.0
        file["v"] = clips
        file["x"] = clips
        file["x"][3, 1] = np.nan
    flags = [
        "--dataset=charades_sta",
        f"--annotations={annotations}",
        f"--durations={durations}",
        f"--features={features}",
        "--window_seconds=4",
    ]
    code, found = inspect_json(*flags)
    assert code == 2
    a = str(annotations)
    places = [(p["path"], p["line"]) for p in found["problems"]]
    assert sorted(places[:-2]) == [(a, n) for n in (2, 3, 4, 5, 6, 10)]
    assert [(p["path"], p["line"]) for p in found["notes"]] == [(a, 7)]
    assert places[-2:] == [(str(features), None), (a, 8)]
    assert "clip 3, number 1 is nan" in found["problems"][-2]["message"]
    assert (found["videos"], found["queries"], found["dropped"]) == (1, 2, 8)

    code, output, _ = inspect(*flags)
    assert code == 2
    assert f"{a}:3: " in output
    assert inspect_json(*flags, "--skip_bad") == (0, found)


def test_nothing_left_is_a_failure_even_with_skip_bad(tmp_path, charades):
    features = tmp_path / "f.hdf5"
    features.write_bytes(b"not HDF5")
    flags = [*charades, f"--features={features}", "--skip_bad"]
    code, found = inspect_json(*flags)
    assert code == 2
    assert found["queries"] == 0
    assert [p["path"] for p in found["problems"]] == [str(features)]


def test_missing_or_wrong_flags_say_what_to_give():
    for flags, words in (
        ("--dataset=jsonl", "--annotations"),
        ("--dataset=jsonl --annotations=none.jsonl", "none.jsonl"),
        ("--dataset=jsonl --data_dir=.", "looked for train.jsonl"),
        ("--window_frames=4 --window_seconds=4", "not both"),
        ("--window_frames=4", "--frame_rate"),
        ("--window_seconds=four", "four"),
    ):
        code, output, errors = inspect(*flags.split())
        assert (code, output) == (2, ""), flags
        assert words in errors
        assert "Traceback" not in errors


def test_data_dir_finds_the_files(tmp_path):
    record = {
        "qid": 1,
        "query": "a man runs",
        "vid": "v",
        "duration": 8,
        "relevant_windows": [[0, 4], [4, 8]],
    }
    (tmp_path / "val.jsonl").write_text(json.dumps(record))
    code, found = inspect_json(
        "--dataset=jsonl",
        f"--data_dir={tmp_path}",
        "--split=val",
        "--window_frames=40",
        "--frame_rate=10",
        "--overlap=0",
    )
    assert code == 0
    # Two windows, each of which shows one of the two segments.
    assert (found["windows"], found["pairs"]) == (2, 2)


def test_moments_of_bad_or_missing_videos_are_left_out(tmp_path):
    clips = np.arange(4, dtype=np.float32).reshape(2, 2)
    write_features(tmp_path / "f.hdf5", {"v": clips}, 1.0)
    moments = [
        Moment(query, query, video, 2.0, ((0.0, 1.0),), None, source)
        for query, video, source in [("a", "v", "x:1"), ("b", "w", "x:2")]
    ]
    with open_features(tmp_path / "f.hdf5") as features:
        sound, (problem,) = with_usable_features(moments, features)
    assert sound == moments[:1]
    assert (problem.path, problem.line) == ("x", 2)


def test_pairs_are_counted_in_frames_where_moments_have_them():
    # One window [1, 65) of 64 frames against frames 1 to 64.
    moment = Moment("q", "a", "v", 64 / 29.4, ((0.0, 1.0),), ((1, 64),))
    grid = WindowGrid((64,), frame_rate=29.4)
    assert count_pairs([moment], grid) == {
        "windows": 1,
        "pairs": 1,
        "paired_windows": 1,
    }


@pytest.mark.slow
def test_tacos_gives_the_pairs_of_the_paper(shared_data):
    data = shared_data / "tacos"
    for split, flags, expected in (
        ("train", ["64,128,256,512"], (74111, 26963, 3820)),
        ("train", ["64,128,256,512", "--max_niol=0.2"], (74111, 30928, 4430)),
        ("test", ["128,256"], (15881, 5599, 910)),
    ):
        code, found = inspect_json(
            "--dataset=tacos",
            f"--annotations={data / f'TACoS_{split}_samples.txt'}",
            f"--num_frames={data / 'num_frames.json'}",
            f"--window_frames={flags[0]}",
            "--overlap=0.8",
            *flags[1:],
        )
        assert (code, found["problems"]) == (0, [])
        counts = found["windows"], found["pairs"], found["paired_windows"]
        assert counts == expected


def test_manifests_of_sound_files_are_written_and_obeyed(charades, tmp_path):
    clips = np.arange(40, dtype=np.float32).reshape(20, 2)
    write_features(tmp_path / "f", {"v": clips[:8], "w": clips}, 1.0)
    (tmp_path / "f" / "manifest.json").unlink()
    flags = [*charades, f"--features={tmp_path / 'f'}", "--write_manifests"]
    code, found = inspect_json(*flags)
    assert (code, found["manifests"]) == (0, 3)
    for name in ("a.txt.manifest.json", "d.json.manifest.json"):
        assert (tmp_path / name).exists()
    assert (tmp_path / "f" / "manifest.json").exists()
    code, found = inspect_json(*flags)
    assert (code, found["manifests"]) == (0, 0)

    text = (tmp_path / "a.txt").read_text()
    (tmp_path / "a.txt").write_text(text.replace("12.0", "13.0"))
    code, found = inspect_json(*flags, "--skip_bad")
    assert (code, found["queries"], found["manifests"]) == (2, 0, 0)
    assert "has other bytes than when" in found["problems"][0]["message"]


def test_files_with_problems_get_a_manifest_only_if_asked(charades, tmp_path):
    with (tmp_path / "a.txt").open("a") as file:
        file.write("v 4 4##no length\n")
    code, found = inspect_json(*charades, "--write_manifests")
    assert (code, found["manifests"]) == (2, 1)
    assert not (tmp_path / "a.txt.manifest.json").exists()
    flags = [*charades, "--write_manifests", "--skip_bad"]
    code, found = inspect_json(*flags)
    assert (code, found["manifests"]) == (0, 1)
    assert (tmp_path / "a.txt.manifest.json").exists()
    assert inspect_json(*flags)[0] == 0
    # Features with problems get none.
    (tmp_path / "f").mkdir()
    np.save(tmp_path / "f" / "v.npy", np.ones((8, 2), np.float32))
    np.save(tmp_path / "f" / "w.npy", np.full((8, 2), np.nan, np.float32))
    flags += [f"--features={tmp_path / 'f'}", "--clip_seconds=1"]
    code, found = inspect_json(*flags)
    assert (code, found["manifests"]) == (0, 0)
    assert not (tmp_path / "f" / "manifest.json").exists()
