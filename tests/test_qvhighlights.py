"""QVHighlights: its files, its protocol, and the file for its server."""

import dataclasses
import json

import numpy as np
import pytest

from acnn_tf import evaluation, qvhighlights, segments
from acnn_tf.data import pair_batches, synthetic
from acnn_tf.data.annotations import Moment, read_moments, write_jsonl
from acnn_tf.data.batches import moment_ids, training_videos
from acnn_tf.data.features import write_features
from acnn_tf.data.predictions import (
    Predictions,
    read_predictions,
    write_predictions,
)
from acnn_tf.data.windows import video_pairs
from acnn_tf.files.problems import DataError
from acnn_tf.models import save_model
from acnn_tf.search import clip_saliency
from tests import small_acnn
from tests.processes import run_module

RECORD = {
    "qid": 8737,
    "query": "a person opens the door",
    "vid": "bP5KfdFJzC4_660.0_810.0",
    "duration": 21,
    "relevant_windows": [[0, 4], [12, 14]],
    "relevant_clip_ids": [0, 1, 6],
    "saliency_scores": [[4, 1, 1], [2, 2, 3], [3, 0, 2]],
}
HIDDEN = {k: RECORD[k] for k in ("qid", "query", "vid", "duration")}
MAP_KEYS = ("mAP,IoU=0.5", "mAP,IoU=0.75", "mAP")
KEYS = ("R1,IoU=0.5", "R1,IoU=0.7", *MAP_KEYS)
ALL_KEYS = [
    *(
        f"{length}{key}"
        for length in ("", "short,", "middle,", "long,")
        for key in KEYS
    ),
    *(
        f"highlight,{name},{key}"
        for name in ("Fair", "Good", "VeryGood")
        for key in ("mAP", "HIT@1")
    ),
]


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# Files


def test_a_record_is_read_with_its_windows_and_what_each_clip_is_worth(
    tmp_path,
):
    path = write_lines(tmp_path / "highlight_val_release.jsonl", RECORD)
    (moment,) = read_moments(path, "qvhighlights")
    assert moment.query_id == 8737  # not "8737"
    assert moment.segments == ((0, 4), (12, 14))
    # Ten whole clips of two seconds.
    assert len(moment.saliency) == 10
    scored = {0: (4, 1, 1), 1: (2, 2, 3), 6: (3, 0, 2)}
    for clip, scores in enumerate(moment.saliency):
        assert scores == scored.get(clip, (0, 0, 0))
    # Written, it is what it was.
    write_jsonl([moment], tmp_path / "again.jsonl")
    assert json.loads((tmp_path / "again.jsonl").read_text()) == RECORD


def test_a_hidden_split_is_read_but_not_scored_or_trained_on(tmp_path):
    path = write_lines(tmp_path / "test.jsonl", HIDDEN)
    moments = read_moments(path, "qvhighlights")
    assert (moments[0].segments, moments[0].saliency) == ((), None)
    write_jsonl(moments, tmp_path / "again.jsonl")
    assert json.loads((tmp_path / "again.jsonl").read_text()) == HIDDEN
    grid = small_acnn.make_model().grid
    ((_, windows, *pairs),) = video_pairs(moments, grid)
    assert len(windows) > 0
    assert [len(part) for part in pairs] == [0, 0]
    for refuse in (
        lambda: evaluation.score_predictions(moments, [[[0, 4, 1]]]),
        lambda: qvhighlights.evaluate(None, moments, {}),
        lambda: training_videos(moments, [[0.0]], {}, None),
    ):
        with pytest.raises(ValueError, match="query 8737 has none: where they"):
            refuse()


def changed(**values):
    return RECORD | values


BAD = (
    (changed(relevant_windows=[]), "expected times"),
    (changed(relevant_windows=None), "expected times"),
    (changed(relevant_windows=[[4, 2]]), "ends before it starts"),
    (changed(duration=0), "`duration` must be a number above 0"),
    (HIDDEN | {"query": 7}, "expected a sentence"),
    ({k: v for k, v in HIDDEN.items() if k != "duration"}, "no `duration`"),
    ({k: v for k, v in RECORD.items() if k != "qid"}, "object with qid"),
    (changed(qid=1.5), "`qid` must be text or a whole number"),
    (changed(relevant_clip_ids=[0, 1]), "of one length"),
    (changed(relevant_clip_ids=3), "of one length"),
    (changed(relevant_clip_ids=[0, 1, 10]), "has 10 clips of 2 s; found 10"),
    (changed(relevant_clip_ids=[0, -1, 6]), "found -1"),
    (changed(relevant_clip_ids=[0, True, 6]), "found True"),
    (changed(relevant_clip_ids=[0, 1, 1]), "has 1 twice"),
    (changed(saliency_scores=[[4, 1, 1], [2, 2], [1, 1, 1]]), "for clip 1"),
    (changed(saliency_scores=[[4, 1, 1], [2, 2, 5], [1, 1, 1]]), "for clip 1"),
    (changed(saliency_scores=[[4, 1, 1], [2, 2, 1], 3]), "for clip 6"),
    (HIDDEN | {"saliency_scores": []}, "but no `relevant_windows`"),
    ("[1]", "expected an object"),
    ("{", "is not JSON"),
)


def test_a_malformed_record_is_named_with_its_line(refused, tmp_path):
    path = tmp_path / "val.jsonl"
    for record, words in BAD:
        text = record if isinstance(record, str) else json.dumps(record)
        path.write_text(text)
        with refused(DataError, rf"val\.jsonl:1: .*{words}", record=record):
            read_moments(path, "qvhighlights")


def test_a_split_is_hidden_as_a_whole_or_not_at_all(refused, tmp_path):
    other = {"qid": 2}
    for first, second, words in (
        (RECORD, HIDDEN | other, "query 2: has no `relevant_clip_ids`, but"),
        (HIDDEN, RECORD | other, "query 2: has a `relevant_clip_ids`, but"),
    ):
        path = write_lines(tmp_path / "a.jsonl", first, second)
        with refused(DataError, rf"a\.jsonl:2: {words} line 1 has"):
            read_moments(path, "qvhighlights")


# Training


TWO = Moment(1, "a", "v", 24.0, ((0.0, 4.0), (14.0, 18.0)))


def test_all_true_windows_of_a_query_are_positives_and_none_a_negative():
    model = small_acnn.make_model(vocabulary=None, window_lengths=(4.0,))
    features = {"v": np.ones((24, small_acnn.CLIP_DIM), np.float32)}
    queries = np.zeros((1, 9), np.float32)
    # Windows of 4 s each 2 s: one fits each of the two segments.
    pairs = pair_batches.training_pairs(
        [TWO], queries, features, model, video_negatives=30
    )
    inputs, targets = next(iter(pairs.dataset))
    own = inputs["segment"][:, 0, 1].numpy().tolist()
    assert sorted(own) == [[0.0, 4.0], [14.0, 18.0]]
    assert targets["batch_score"].numpy().tolist() == [0, 0]  # one moment
    negatives = {
        tuple(w)
        for w in inputs["segment"][:, 1:, 1].numpy().reshape(-1, 2).tolist()
    }
    assert not negatives & {(0.0, 4.0), (14.0, 18.0)}
    assert np.abs(targets["offset"][:, 0, :2]).max() == 0
    # Of all windows of the video.
    videos = training_videos([TWO], queries, features, model, crop=0.0)
    inputs, targets = next(iter(videos.dataset))
    is_true = targets["score"].numpy()[0] == 1.0
    windows = inputs["segment"].numpy()[0, is_true, 1]
    assert windows.tolist() == [[0.0, 4.0], [14.0, 18.0]]
    assert (targets["offset"].numpy()[0, is_true] == [0, 0, 1]).all()


def test_the_order_of_true_windows_makes_no_other_moment():
    other = dataclasses.replace(TWO, segments=TWO.segments[::-1])
    assert moment_ids([TWO, other]).tolist() == [0, 0]


# The protocol, by hand


def moment(*segments, duration=20.0, saliency=None):
    return Moment(1, "a man runs", "v", duration, segments, saliency=saliency)


def scored(moments, predictions, saliency=None, **protocol):
    return qvhighlights.score_predictions(
        moments, Predictions(predictions, saliency), **protocol
    )


def test_average_precision_worked_by_hand(subtests):
    one, two = ((0, 10),), ((0, 10), (20, 30))
    exact, off = [0, 10], [50, 60]
    for name, true, found, expected in (
        ("right at once", one, [exact], 1),
        ("right in the second place", one, [off, exact], 1 / 2),
        ("nothing found", one, [], 0),
        ("all wrong", one, [off, off], 0),
        ("a second result takes no true window twice", one, [exact] * 2, 1),
        ("one of two", two, [exact, off], 1 / 2),
        # Precision 1 and 2/3 at the two right ones.
        ("both of two", two, [exact, off, [20, 30]], (1 + 2 / 3) / 2),
        # 1/2 and 2/3 at the right ones, of which the best from there is 2/3.
        ("interpolated", two, [off, exact, [20, 30]], 2 / 3),
        # IoU .8 takes the window that .6 would have had.
        ("greedy", one, [[0, 8], [0, 6]], 1),
        ("the eleventh does not count", one, [off] * 10 + [exact], 0),
    ):
        with subtests.test(name):
            found = [[*window, -rank] for rank, window in enumerate(found)]
            results = scored([moment(*true, duration=60.0)], [found])
            assert results["mAP,IoU=0.5"] == pytest.approx(expected, abs=1e-12)


def test_the_order_of_the_list_and_the_scores_count_each_in_their_place():
    true = moment((0, 10))
    # Listed first is the right one; by score it is the second.
    results = scored([true], [[[0, 10, 0.1], [50, 60, 0.9]]])
    assert (results["R1,IoU=0.5"], results["mAP"]) == (1.0, 0.5)
    # Equal scores stay as listed.
    results = scored([true], [[[0, 10, 0.5], [50, 60, 0.5]]])
    assert results["mAP"] == 1.0
    # The eleventh has the highest score, and is not among the first ten.
    results = scored([true], [[[50, 60, 0.0]] * 10 + [[0, 10, 1.0]]])
    assert results["mAP"] == 0.0
    # Unless suppression is asked for, which ranks by score.
    found = [[[50, 60, 0.0]] * 10 + [[0, 10, 1.0]]]
    results = scored([true], found, suppression="fixed")
    assert (results["R1,IoU=0.5"], results["mAP"]) == (1.0, 1.0)


def test_map_is_the_mean_over_ten_iou():
    # IoU .8 is enough at .5, .55, ..., .8: seven of ten.
    results = scored([moment((0, 10))], [[[0, 8, 1.0]]])
    assert [results[key] for key in KEYS] == [1, 1, 1, 1, pytest.approx(0.7)]
    # Every dataset has it.
    results = evaluation.score_predictions([moment((0, 10))], [[[0, 8, 1.0]]])
    assert [results[key] for key in MAP_KEYS] == [1, 1, pytest.approx(0.7)]
    assert "mAP       0.700   IoU=0.5: 1.000" in evaluation.format_table(
        results
    )


def test_of_true_windows_only_those_of_the_length_count():
    moments = [
        moment((0, 10), (20, 50), duration=150.0),  # short and middle
        moment((0, 30.5), duration=150.0),  # long
        moment((40, 42), duration=150.0),  # short, and not predicted
    ]
    found = [[[20, 50, 0.9], [0, 10, 0.8]], [[0, 30.5, 1.0]], []]
    results = scored(moments, found)
    assert results["mAP"] == pytest.approx(2 / 3)
    # Its first window is that of the other length; right comes second.
    assert results["short,R1,IoU=0.5"] == 0
    assert results["short,mAP"] == pytest.approx((1 / 2 + 0) / 2)
    assert results["middle,R1,IoU=0.7"] == results["middle,mAP"] == 1
    assert results["long,mAP"] == 1
    # Where there is none of a length, there is nothing to say.
    results = scored(moments[1:2], found[1:2])
    assert results["short,mAP"] is None
    assert "\nshort    " + 5 * f"{'-':>14}" in qvhighlights.format_table(
        results
    )


def highlights(scores, given, **options):
    """Of one annotator's scores, by two who see nothing."""
    saliency = tuple((score, 0, 0) for score in scores)
    true = moment((0, 2), duration=2.0 * len(scores), saliency=saliency)
    results = scored([true], [[]], [given])
    return {
        name: (
            3 * results[f"highlight,{name},mAP"],
            results[f"highlight,{name},HIT@1"],
        )
        for name in ("Fair", "Good", "VeryGood")
    }


def test_highlights_worked_by_hand(subtests):
    for name, scores, given, expected in (
        ("the best first", [0, 4, 0], [0, 1, 0], (1, 1)),
        ("the best last", [0, 0, 4], [3, 2, 1], (1 / 3, 0)),
        ("nothing is one", [0, 1, 1], [3, 2, 1], (0, 0)),
        ("all are", [4, 4, 4], [1, 2, 3], (1, 1)),
        # Precision 1/2 and 2/3: from the first on 2/3 is to be had.
        ("interpolated", [0, 4, 4], [3, 2, 1], (2 / 3, 0)),
        # Two of three equals are right, the first of them is not.
        ("equals are one step", [0, 4, 4], [1, 1, 1], (2 / 3, 0)),
        # Steps at 1/1 and 3/4, each of which counts once.
        ("steps", [4, 4, 4, 0], [2, 1, 1, 1], ((1 + 3 / 4) / 2, 1)),
        ("missing scores are 0", [4, 0, 0], [-1], (1 / 3, 0)),
        ("no scores at all", [4, 0, 0], [], (1 / 3, 1)),
        ("a surplus is cut", [0, 4], [1, 2, 9], (1, 1)),
        ("not predicted", [4, 4, 4], None, (0, 0)),
    ):
        with subtests.test(name):
            found = highlights(scores, given)
            assert found["VeryGood"] == pytest.approx(expected, abs=1e-12)
    found = highlights([2, 3, 4], [3, 2, 1])
    assert found["Fair"] == (1, 1)
    assert found["Good"] == pytest.approx((2 / 3, 0))
    assert found["VeryGood"] == pytest.approx((1 / 3, 0))


def test_a_hit_is_what_any_annotator_calls_a_highlight():
    true = moment((0, 2), saliency=((0, 0, 4), (4, 0, 0)), duration=4.0)
    results = scored([true], [[]], [[1, 0]])
    assert results["highlight,Good,HIT@1"] == 1
    # AP 1/2, 0 (nothing is positive) and 1.
    assert results["highlight,Good,mAP"] == pytest.approx(0.5)


# The protocol, by a plain loop


def plain_precision(true, found, m):
    free, right, points = list(true), 0, []
    for rank, window in enumerate(sorted(found, key=lambda w: -w[2]), 1):
        fitting = [t for t in free if segments.iou(window[:2], t) >= m]
        if fitting:
            # The last of those that it overlaps as much.
            free.remove(
                max(
                    reversed(fitting),
                    key=lambda t: segments.iou(window[:2], t),
                )
            )
            right += 1
        points.append((right / len(true), right / rank))
    total, before = 0.0, 0.0
    for recall, _ in points:
        best = max(p for r, p in points if r >= recall)
        total += (recall - before) * best
        before = recall
    return total


def plain_clip_precision(positive, scores):
    if sum(positive) in (0, len(positive)):
        return 1.0 if sum(positive) else 0.0
    points = []
    for least in sorted(set(scores)):
        kept = [p for p, s in zip(positive, scores) if s >= least]
        points.append((sum(kept) / sum(positive), sum(kept) / len(kept)))
    recalls = {recall for recall, _ in points if recall}
    best = [max(p for r, p in points if r >= recall) for recall in recalls]
    return sum(best) / len(best)


def plain_results(moments, predictions, saliency):
    results = {}
    lengths = {"": (0, 1e9), "short,": (0, 10), "middle,": (10, 30)}
    for name, (above, most) in {**lengths, "long,": (30, 150)}.items():
        found = {key: [] for key in KEYS}
        for one, windows in zip(moments, predictions):
            true = [s for s in one.segments if above < s[1] - s[0] <= most]
            if not true:
                continue
            for m in (0.5, 0.7):
                hit = len(windows) and any(
                    segments.iou(windows[0][:2], t) >= m for t in true
                )
                found[f"R1,IoU={m}"].append(float(hit))
            each = {
                m: plain_precision(true, windows[:10], m / 100)
                for m in range(50, 100, 5)
            }
            found["mAP,IoU=0.5"].append(each[50])
            found["mAP,IoU=0.75"].append(each[75])
            found["mAP"].append(sum(each.values()) / 10)
        results |= {name + k: np.mean(v) for k, v in found.items()}
    for name, least in (("Fair", 2), ("Good", 3), ("VeryGood", 4)):
        precision, hits = [], []
        for one, given in zip(moments, saliency):
            count = len(one.saliency)
            given = [*given, *[0] * count][:count]
            for annotator in range(3):
                positive = [row[annotator] >= least for row in one.saliency]
                precision.append(plain_clip_precision(positive, given))
            best = given.index(max(given))
            hits.append(float(max(one.saliency[best]) >= least))
        results[f"highlight,{name},mAP"] = np.mean(precision)
        results[f"highlight,{name},HIT@1"] = np.mean(hits)
    return results


def random_split(rng, count=60):
    """Times in steps, so that many IoU are equal or lie on a boundary."""
    moments, predictions, saliency = [], [], []
    for number in range(count):
        duration = int(rng.integers(60, 151))
        true = np.sort(rng.integers(0, duration // 2, (rng.integers(1, 6), 2)))
        true = 2 * true + [0, 2]
        clips = np.where(
            rng.random((duration // 2, 1)) < 0.3,
            rng.integers(0, 5, (duration // 2, 3)),
            0,
        )
        moments.append(
            Moment(
                number,
                "a man",
                f"v{number}",
                float(duration),
                tuple(map(tuple, true.tolist())),
                saliency=tuple(map(tuple, clips.tolist())),
            )
        )
        near = true[rng.integers(len(true), size=rng.integers(0, 14))]
        found = near + rng.integers(-3, 4, near.shape)
        found = np.sort(found, axis=1) + np.array([0, 1])
        scores = rng.integers(0, 6, len(found)) / 8  # with ties
        predictions.append(np.column_stack([found, scores]))
        num_scores = duration // 2 + rng.integers(-4, 5)
        saliency.append(rng.integers(-9, 10, num_scores) / 4)
    return moments, Predictions(predictions, saliency)


def test_results_equal_a_plain_loop_on_random_predictions():
    moments, predictions = random_split(np.random.default_rng(0))
    results = qvhighlights.score_predictions(moments, predictions)
    assert list(results) == ALL_KEYS
    expected = plain_results(moments, predictions, predictions.saliency)
    assert results == pytest.approx(expected, abs=1e-12)
    assert 0.1 < results["short,mAP"] < results["mAP,IoU=0.5"] < 0.9
    # The general evaluation has the same mAP.
    general = evaluation.score_predictions(moments, predictions)
    for key in MAP_KEYS:
        assert general[key] == pytest.approx(expected[key], abs=1e-12)


# Saliency from scores of windows


def test_a_clip_is_as_salient_as_the_windows_that_hold_it():
    # Softmax of log 1 and log 3: weights 1/4 and 3/4. The first window holds
    # clip 0, the second half of clip 1 and all of clip 2; the third clip ends
    # the video.
    windows = [[0.0, 2.0], [3.0, 6.0]]
    scores = [[0.0, np.log(3.0)], [5.0, 5.0]]
    found = clip_saliency(windows, scores, 7.9, clip_seconds=2)
    np.testing.assert_allclose(
        found, [[1 / 4, 3 / 8, 3 / 4], [1 / 2, 1 / 4, 1 / 2]], atol=1e-12
    )


def test_scenes_know_which_clips_matter():
    (marked,) = synthetic.with_saliency([moment((1.0, 6.5), duration=9.0)])
    # Shares of 1/2, 1, 1, 1/4 of clips of two seconds.
    assert [scores[0] for scores in marked.saliency] == [2, 4, 4, 1]


# The commands


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A model, clips of three videos, an open split and a hidden one."""
    folder = tmp_path_factory.mktemp("qvh")
    save_model(small_acnn.make_model(), folder / "model.keras")
    features = small_acnn.make_features(3, 40)
    write_features(folder / "features.hdf5", features, 1.0)
    records = [
        {
            **RECORD,
            "qid": number,
            "vid": video,
            "duration": len(clips),
            "relevant_windows": [[0, 2], [4, 5]],
            "relevant_clip_ids": [0, 2],
            "saliency_scores": [[4, 1, 1], [2, 2, 3]],
        }
        for number, (video, clips) in enumerate(features.items())
    ]
    records[2]["query"] = "zebras"
    write_lines(folder / "highlight_val_release.jsonl", *records)
    write_lines(
        folder / "highlight_test_release.jsonl",
        *({key: record[key] for key in HIDDEN} for record in records),
    )
    return folder


def run(folder, main, *arguments, code=0):
    return run_module(
        f"experiments.{main}",
        "--dataset=qvhighlights",
        f"--data_dir={folder}",
        *arguments,
        code=code,
    )


def test_hidden_queries_are_answered_in_the_file_that_the_server_takes(
    run_folder, tmp_path
):
    out = tmp_path / "submission.jsonl"
    workdir = f"--workdir={run_folder}"
    done = run(run_folder, "predict", workdir, f"--out={out}")
    assert "which the model knows no word: 1, the first " in done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    hidden = (run_folder / "highlight_test_release.jsonl").read_text()
    for line, record in zip(lines, map(json.loads, hidden.splitlines())):
        assert list(line) == [
            *("qid", "query", "vid"),
            *("pred_relevant_windows", "pred_saliency_scores"),
        ]
        assert {k: line[k] for k in ("qid", "query", "vid")} == {
            k: record[k] for k in ("qid", "query", "vid")
        }
        assert type(line["qid"]) is int
        windows = np.array(line["pred_relevant_windows"])
        assert 1 <= len(windows) <= 10
        assert (np.diff(windows[:, 2]) <= 0).all()
        assert (windows[:, 0] < windows[:, 1]).all()
        assert windows.min(axis=0)[0] >= 0
        assert windows[:, 1].max() <= record["duration"]
        scores = line["pred_saliency_scores"]
        assert len(scores) == record["duration"] // 2
        assert all(0 <= score <= 1 for score in scores)
    # The server would score it as we do, with the windows of the open split.
    moments = read_moments(
        run_folder / "highlight_val_release.jsonl", "qvhighlights"
    )
    printed = run(run_folder, "evaluate", f"--predictions={out}", "--json")
    results = json.loads(printed.stdout)
    assert set(ALL_KEYS) < set(results)
    predictions = read_predictions(out, moments)
    for key, value in scored(
        moments, predictions, predictions.saliency
    ).items():
        assert results[key] == value, key


@pytest.mark.soak
def test_an_evaluation_in_shards_prints_the_same_tables(run_folder, tmp_path):
    workdir = f"--workdir={run_folder}"
    whole = run(run_folder, "evaluate", workdir, "--timelines=0").stdout
    assert "QVHighlights' protocol" in whole
    shards = (workdir, f"--out={tmp_path / 'val'}", "--num_shards=2")
    assert run(run_folder, "evaluate_shards", *shards).stdout == whole
    # Which scores results as they stand, unless told otherwise.
    told = (workdir, "--timelines=0", "--suppression=none")
    assert run(run_folder, "evaluate", *told).stdout == whole


def test_a_model_is_evaluated_as_the_file_of_its_predictions(
    run_folder, tmp_path
):
    moments = read_moments(
        run_folder / "highlight_val_release.jsonl", "qvhighlights"
    )
    model = small_acnn.make_model()
    features = small_acnn.make_features(3, 40)
    results, predictions = qvhighlights.evaluate(model, moments, features)
    assert set(ALL_KEYS) < set(results)
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, moments, predictions)
    again = read_predictions(path, moments)
    assert scored(moments, again, again.saliency) == {
        key: results[key] for key in ALL_KEYS
    }
    table = qvhighlights.format_table(results, title="model")
    assert table.splitlines()[0] == "model: QVHighlights' protocol"
