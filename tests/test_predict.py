"""A video and a sentence, on the command line."""

import csv
import io
import json
import re
import types

import pytest

from acnn_tf.data import open_video
from acnn_tf.models import save_model
from acnn_tf.search.moment_index import FoundMoment, FoundMoments
from experiments import moment_lists
from tests import small_acnn
from tests.processes import run_module
from tests.test_encoders import save_clip
from tests.test_retriever import write_scene
from tests.video_files import write

ANSWERS = [
    FoundMoments(
        [
            FoundMoment("v", 12.4, 19.84, 0.91),
            FoundMoment("v", 0.0, 3661.48, 0.123),
        ],
        'a "dog", wet',
        [],
    ),
    FoundMoments([], "a zebra", ["zebra"]),
    FoundMoments([FoundMoment("v", 5.0, 5.01, -1.5)], "a cat", []),
]


def test_lists_for_other_programs():
    rows = list(csv.reader(io.StringIO(moment_lists.as_csv(ANSWERS))))
    assert rows == [
        ["query", "video_id", "start", "end", "score"],
        ['a "dog", wet', "v", "12.4", "19.84", "0.91"],
        ['a "dog", wet', "v", "0.0", "3661.48", "0.123"],
        ["a cat", "v", "5.0", "5.01", "-1.5"],
    ]
    assert moment_lists.as_srt(ANSWERS, ["v"]).split("\n") == [
        "1",
        "00:00:00,000 --> 01:01:01,480",
        'a "dog", wet (0.12)',
        "",
        "2",
        "00:00:05,000 --> 00:00:05,010",
        "a cat (-1.50)",
        "",
        "3",
        "00:00:12,400 --> 00:00:19,840",
        'a "dog", wet (0.91)',
        "",
    ]
    with pytest.raises(ValueError, match=r"are of one video.*Received: v, w"):
        moment_lists.as_srt(ANSWERS, ["v", "w"])


def test_words_that_are_mostly_unknown_have_no_likelihood():
    known, vague = (
        FoundMoments(
            [FoundMoment("v", 12.4, 3719.84, 0.02)],
            "a dog jumps",
            ["dog", "jumps"],
            is_mostly_known=is_mostly_known,
        )
        for is_mostly_known in (True, False)
    )
    line = "v  0:12.4 - 1:01:59.8  "
    assert moment_lists.as_lines(known, True, with_names=True) == [
        "no such moment, most likely",
        f"{line}0.02",
    ]
    assert moment_lists.as_lines(vague, True, with_names=True) == [
        "no likelihoods: the model knows no more than half of the words",
        f"{line}-",
    ]
    assert moment_lists.as_lines(vague, False, True) == [f"{line}0.02"]


def test_an_edit_list_counts_the_frames_of_the_video(tmp_path):
    # 12.4 and 19.84 s are frames 310 and 496 of 25 a second; of less than a
    # frame it has one.
    path = write(tmp_path / "v.mp4")
    videos = {"v": open_video(path)}
    assert moment_lists.as_edl(ANSWERS, videos).split("\n") == [
        "TITLE: acnn_tf",
        "FCM: NON-DROP FRAME",
        "001  AX       V     C        "
        "00:00:12:10 00:00:19:21 00:00:00:00 00:00:07:11",
        f"* FROM CLIP NAME: {path}",
        '* COMMENT: 0.91 a "dog", wet',
        "002  AX       V     C        "
        "00:00:00:00 01:01:01:12 00:00:07:11 01:01:08:23",
        f"* FROM CLIP NAME: {path}",
        '* COMMENT: 0.12 a "dog", wet',
        "003  AX       V     C        "
        "00:00:05:00 00:00:05:01 01:01:08:23 01:01:08:24",
        f"* FROM CLIP NAME: {path}",
        "* COMMENT: -1.50 a cat",
        "",
    ]
    videos["w"] = open_video(write(tmp_path / "w.mp4", rate=30))
    with pytest.raises(ValueError, match=r"one rate.*v 25\.0, w 30\.0"):
        moment_lists.as_edl(ANSWERS, videos)
    # Of a picture each ten seconds, in a folder whose name has two lines.
    slow = types.SimpleNamespace(frame_rate=0.1, path="a\nb/v.mp4")
    text = moment_lists.as_edl(ANSWERS, {"v": slow})
    assert "00:00:01:00 00:00:02:00" in text
    assert "\n* FROM CLIP NAME: a b/v.mp4\n" in text
    with pytest.raises(ValueError, match="999 events at most"):
        moment_lists.as_edl(500 * ANSWERS, {"v": videos["v"]})


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A model, and a folder of two videos."""
    folder = tmp_path_factory.mktemp("run")
    model = small_acnn.make_model(clip_dim=130, clip_seconds=0.5)
    save_model(model, folder / "model.keras")
    (folder / "videos").mkdir()
    for seed, name in enumerate(("one", "two")):
        write_scene(folder / "videos" / f"{name}.mp4", seed)
    return folder


def predict(folder, *arguments, code=0):
    return run_module(
        "experiments.predict",
        f"--workdir={folder}",
        "--encoder=pixels",
        *arguments,
        code=code,
    )


def test_moments_are_printed_cut_and_drawn(run_folder, tmp_path):
    (run_folder / "videos" / "bad.mp4").write_text("not a video")
    done = predict(
        run_folder,
        f"--video={run_folder / 'videos'}",
        "--query=a person opens a zebra",
        "--query=zebras",
        "--top=3",
        f"--index={tmp_path / 'index'}",
        f"--clip_out={tmp_path / 'clips'}",
        f"--picture={tmp_path / 'picture.png'}",
        code=2,  # for a sentence without a known word
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["a person opens a zebra", "unknown words: zebra"]
    assert lines[5:] == ["zebras", "unknown words: zebras"]
    for line in lines[2:5]:
        assert re.fullmatch(
            r"(one|two)  0:\d\d\.\d - 0:\d\d\.\d  -?\d\.\d\d", line
        )
    assert "Without calibration scores compare moments of" in done.stderr
    assert f"left out: {run_folder / 'videos' / 'bad.mp4'}: is" in done.stderr
    assert "DataError" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("ValueError: The model")
    clips = list((tmp_path / "clips").iterdir())
    assert len(clips) == 3
    for path in clips:
        start, end = map(float, re.findall(r"\d+\.\d\d", path.stem))
        assert open_video(path).duration == pytest.approx(end - start, abs=0.05)
    assert (tmp_path / "picture-1.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "picture-2.png").exists()
    (run_folder / "videos" / "bad.mp4").unlink()
    # What was encoded is there, and a score below the least is left out.
    done = predict(
        run_folder,
        f"--index={tmp_path / 'index'}",
        "--query=a person opens a zebra",
        "--json",
        "--min_score=99",
    )
    assert json.loads(done.stdout) == {
        "query": "a person opens a zebra",
        "unknown_words": ["zebra"],
        "moments": [],
    }


@pytest.mark.slow
def test_zero_shot_answers_without_a_run_or_a_bad_file(run_folder, tmp_path):
    save_clip(tmp_path)
    (tmp_path / "bad.mp4").write_text("not a video")
    done = run_module(
        "experiments.predict",
        "--model=zero_shot",
        f"--encoder=clip:{tmp_path}",
        f"--video={run_folder / 'videos' / 'one.mp4'}",
        f"--video={tmp_path / 'bad.mp4'}",
        "--query=a cat",
        "--top=2",
        "--json",
    )
    answer = json.loads(done.stdout)
    assert answer["query"] == "a cat"
    assert [m["video_id"] for m in answer["moments"]] == ["one", "one"]
    assert "Without calibration" in done.stderr
    assert f"left out: {tmp_path / 'bad.mp4'}: is text" in done.stderr
