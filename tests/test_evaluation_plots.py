"""The pictures of an evaluation, and where they are."""

import dataclasses

import numpy as np
import pytest

from acnn_tf import evaluation, plots
from acnn_tf.data.annotations import Moment
from experiments import evaluation_plots, frames, splits
from tests import small_acnn, video_files

FOUND = np.array([[0.0, 4.0, 1.0], [5.0, 9.0, 0.5]])


def moments(*sentences, video_id="v"):
    return [
        Moment(str(number), sentence, video_id, 9.0, ((0.0, 3.0),))
        for number, sentence in enumerate(sentences)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """What the pictures were asked to show."""
    shown = []
    monkeypatch.setattr(
        plots,
        "recall_table",
        lambda path, _, title: shown.append(title) or path,
    )
    monkeypatch.setattr(
        plots, "timeline", lambda path, **given: shown.append(given) or path
    )
    monkeypatch.setattr(evaluation, "attention", lambda *_: None)
    monkeypatch.setattr(evaluation, "score_curve", lambda *_: "the curve")
    return shown


def draw(folder, asked, title="Charades-STA, test", **given):
    return evaluation_plots.draw_evaluation(
        str(folder),
        None,
        splits.Split(asked, {}, None),
        {"protocol": "none"},
        [FOUND] * len(asked),
        title=title,
        **given,
    )


def test_pictures_say_what_they_are_of(tmp_path, drawn):
    draw(tmp_path, moments("a door"), frames_of=lambda moment: moment.video_id)
    heading, timeline = drawn
    assert heading == "Charades-STA, test, 1 queries; none"
    assert timeline["source"] == "Charades-STA, test, video v"
    assert timeline["iou"] == 0.75  # of [0, 4) and [0, 3)
    assert timeline["curve"] == "the curve"
    assert timeline["frames"] == "v"


def test_pictures_of_other_queries_leave_the_first_ones(tmp_path, drawn):
    first = draw(tmp_path, moments("a door"))
    assert draw(tmp_path, moments("a door")) == first
    others = [
        draw(tmp_path, moments("a door"), title="Charades-STA, val"),
        draw(tmp_path, moments("a door"), title="TACoS, test"),
        # Other data that happen to be called the same.
        draw(tmp_path, moments("a window")),
        draw(tmp_path, moments("a door", video_id="w")),
    ]
    everything = sum(others, first)
    assert len(set(everything)) == len(everything) == 10


def test_titles_name_dataset_and_split(subtests):
    for expected, given in {
        "built-in scenes, test": {"dataset": "synthetic"},
        "Charades-STA, test": {"dataset": "charades_sta", "data_dir": "x"},
        "own, test": {"dataset": "jsonl", "data_dir": "data/own/"},
        "ten, test": {"dataset": "jsonl", "annotations": "data/ten.jsonl"},
        "trip, test": {"dataset": "jsonl", "annotations": "trip/test.jsonl"},
    }.items():
        with subtests.test(expected):
            assert splits.title("test", **given) == expected


def test_frames_of_files_are_found_by_their_names(tmp_path):
    video_files.write(tmp_path / "v.mp4")  # 60 numbered pictures, 2.4 s
    frames_of = frames.of_split("jsonl", [str(tmp_path)])
    (moment,) = moments("a door")
    moment = dataclasses.replace(moment, duration=2.4)
    found = frames_of(moment)
    assert found.shape == (24, 48, 64, 3)
    # From one to the next, 2.5.
    assert set(np.diff(video_files.numbers(found))) == {2, 3}
    (other,) = moments("a door", video_id="w")
    assert frames_of(other) is None
    assert frames.of_split("jsonl")(moment) is None


def test_the_best_of_the_curve_is_the_best_prediction():
    model = small_acnn.make_model()
    features = small_acnn.make_features(2)
    video_id, clips = max(features.items(), key=lambda item: len(item[1]))
    moment = Moment("1", "the door", video_id, len(clips), ((0.0, 3.0),))
    times, scores = evaluation.score_curve(model, moment, features)
    _, (found,) = evaluation.evaluate(model, [moment], features)
    np.testing.assert_allclose(times, np.arange(len(clips)) + 0.5)
    start, end, best = found[0]
    assert scores.max() == pytest.approx(best)
    inside = (start <= times) & (times < end)
    np.testing.assert_allclose(scores[inside], best)
