"""Scoring of a model, or of a file of predictions, over a split."""

import json

import numpy as np
import pytest

from acnn_tf import evaluation, segments
from acnn_tf.data.annotations import Moment, read_moments
from acnn_tf.data.predictions import read_predictions, write_predictions
from acnn_tf.data.windows import WindowGrid
from tests import slow_ranking
from tests.test_search import BrightnessModel

PROTOCOLS = ("none", "fixed", "per_threshold")


def _moment(query_id, segments, video_id="v", duration=60.0, query="a man"):
    return Moment(query_id, query, video_id, duration, tuple(segments))


def _random_split(rng, num_queries=60, num_found=40):
    """Whole and half seconds, so that many IoUs lie on a boundary."""
    moments, predictions = [], []
    for number in range(num_queries):
        times = np.sort(rng.integers(0, 60, (rng.integers(1, 4), 2)), axis=1)
        times[:, 1] += 1
        moments.append(_moment(f"q{number}", map(tuple, times.tolist())))
        found = np.sort(rng.integers(0, 80, (rng.integers(num_found), 2)) / 2)
        scores = rng.integers(0, 30, len(found)) / 8  # with ties
        predictions.append(np.column_stack([found, scores]))
    return moments, predictions


def _plain_results(moments, predictions, protocol, nms_threshold):
    """R@n, IoU=m and mIoU, the slow way."""
    limits = {
        "none": lambda m: 1.0,
        "fixed": lambda m: nms_threshold,
        "per_threshold": lambda m: round(m - 0.05, 2),
    }
    results = {}
    for m in (0.1, 0.2, 0.3, 0.4, 0.5, 0.7):
        for n in (1, 5, 10):
            hits = 0
            for moment, found in zip(moments, predictions, strict=True):
                kept = slow_ranking.nms(
                    found[:, :2], found[:, 2], limits[protocol](m), n
                )
                hits += any(
                    segments.iou(found[place, :2], segment) >= m
                    for place in kept
                    for segment in moment.segments
                )
            results[f"R@{n},IoU={m}"] = hits / len(moments)
    total = 0.0
    for moment, found in zip(moments, predictions, strict=True):
        if len(found):
            best = found[np.argmax(found[:, 2]), :2]
            total += max(segments.iou(best, s) for s in moment.segments)
    results["mIoU"] = total / len(moments)
    return results


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_results_equal_a_plain_loop_on_random_predictions(protocol):
    moments, predictions = _random_split(np.random.default_rng(0), 120)
    results = evaluation.score_predictions(
        moments, predictions, suppression=protocol, nms_threshold=0.4
    )
    expected = _plain_results(moments, predictions, protocol, 0.4)
    assert results.pop("num_queries") == len(moments)
    assert results.pop("protocol").startswith(protocol + ":")
    # See tests/test_qvhighlights.py.
    for key in ("mAP", "mAP,IoU=0.5", "mAP,IoU=0.75"):
        assert 0.0 < results.pop(key) < 1.0
    assert results == pytest.approx(expected, abs=1e-12)
    assert 0.0 < results["R@5,IoU=0.5"] < results["R@10,IoU=0.1"] < 1.0


def test_protocols_worked_by_hand():
    # True: 0..10. By score: A 20..30, B 21..30 (.9 with A), C 0..6 (.6 with
    # the truth), D 0..8 (.75 with C, .8 with the truth), E 2..10 (.8; .4 with
    # C, .6 with D).
    moment = _moment("q", [(0.0, 10.0)])
    found = np.array(
        [[20, 30, 5], [21, 30, 4], [0, 6, 3], [0, 8, 2], [2, 10, 1]], float
    )
    results = {
        protocol: evaluation.score_predictions(
            [moment],
            [found],
            suppression=protocol,
            ns=(1, 2, 3, 4, 5),
            ious=(0.5, 0.7, 0.9),
        )
        for protocol in PROTOCOLS
    }

    def first_hit(protocol, m):
        hits = (n for n in range(1, 6) if results[protocol][f"R@{n},IoU={m}"])
        return next(hits, None)

    # All five stay: C is third, D fourth.
    assert [first_hit("none", m) for m in (0.5, 0.7, 0.9)] == [3, 4, None]
    # B and D go: A, C, E.
    assert [first_hit("fixed", m) for m in (0.5, 0.7, 0.9)] == [2, 3, None]
    # At .5: limit .45, A, C, E; at .7: limit .65, A, C, E as well.
    assert [first_hit("per_threshold", m) for m in (0.5, 0.7)] == [2, 3]
    assert all(result["mIoU"] == 0.0 for result in results.values())


def test_each_query_by_hand():
    one = [(0.0, 10.0)]
    moments = [
        _moment("hit", one),
        _moment("second", one),
        _moment("nothing found", one),
        _moment("either", [(0.0, 4.0), (10.0, 20.0)]),
    ]
    predictions = [
        [[0, 8, 0.9]],  # IoU 8 / 10
        [[0, 10, 0.1], [10, 20, 0.9]],  # ranked: 0, then 1
        [],
        [[10, 16, 0.5]],  # 6 / 10 of the second segment
    ]
    found = evaluation.query_hits(
        moments, predictions, ns=(1, 2), ious=(0.5, 0.7)
    )
    assert {name: values.tolist() for name, values in found.items()} == {
        "R@1,IoU=0.5": [True, False, False, True],
        "R@2,IoU=0.5": [True, True, False, True],
        "R@1,IoU=0.7": [True, False, False, False],
        "R@2,IoU=0.7": [True, True, False, False],
        "iou": [0.8, 0.0, 0.0, 0.6],
    }


def test_counts_of_any_parts_add_up_to_the_whole_to_the_last_bit():
    rng = np.random.default_rng(0)
    moments, predictions = _random_split(rng)
    protocol = {"suppression": "per_threshold"}
    whole = evaluation.score_predictions(moments, predictions, **protocol)
    for num_parts in (1, 2, 7, 20):
        part_of = rng.integers(num_parts, size=len(moments))
        # One of them empty.
        parts = [np.flatnonzero(part_of == n) for n in range(num_parts + 1)]
        counts = [
            evaluation.count_hits(
                [moments[row] for row in rows],
                [predictions[row] for row in rows],
                **protocol,
            )
            for rows in parts
        ]
        assert len({tuple(part) for part in counts}) == 1  # the same order
        # As they come back from a file.
        total = evaluation.add_counts(json.loads(json.dumps(counts)))
        again = evaluation.fractions(total, **protocol)
        assert again == whole, num_parts
        assert list(again) == list(whole)


def test_counts_of_different_things_do_not_add_up():
    some = evaluation.count_hits([], [], ns=(1, 5))
    with pytest.raises(ValueError, match=r"`parts`.*R@5"):
        evaluation.add_counts([some, evaluation.count_hits([], [], ns=(1,))])


def test_no_queries_are_an_error():
    with pytest.raises(ValueError, match="no queries"):
        evaluation.score_predictions([], [])


class PlantedModel(BrightnessModel):
    """Finds the stretch of a video that shows what the query asks for.

    A clip shows one of several things (one-hot), a query asks for one. Scores
    have some noise, and offsets are off by a bit: what the protocols rank is
    not trivial.
    """

    def __init__(self, noise=0.0):
        super().__init__(grid=WindowGrid((4.0, 8.0), overlap=0.8))
        self.noise, self.rng = noise, np.random.default_rng(7)

    def match(self, query, window):
        return {
            name: exact + self.noise * self.rng.normal(size=exact.shape)
            for name, exact in super().match(query, window).items()
        }


@pytest.fixture
def planted():
    """Twelve videos of 32 s that show four things for eight seconds each."""
    rng = np.random.default_rng(0)
    features, moments, sentences = {}, [], {}
    for video in range(12):
        order = rng.permutation(4)
        features[f"v{video}"] = np.eye(4, dtype=np.float32)[order.repeat(8)]
        for place, thing in enumerate(order):
            query_id = f"{video}_{thing}"
            moments.append(
                _moment(
                    query_id,
                    [(8.0 * place, 8.0 * place + 8)],
                    f"v{video}",
                    32.0,
                )
            )
            sentences[query_id] = np.eye(4)[thing]
    return {
        "moments": moments,
        "features": features,
        "sentence_vectors": sentences,
    }


def test_a_model_that_knows_the_answer_gets_it_right(planted):
    results, predictions = evaluation.evaluate(PlantedModel(), **planted)
    assert results["num_queries"] == 48
    # A window of 4 s within the moment scores no less than the moment.
    assert results["R@1,IoU=0.5"] == 1.0
    for moment, found in zip(planted["moments"], predictions, strict=True):
        assert len(found) == 10
        assert found[0, 2] == 1.0
        assert (np.diff(found[:, 2]) <= 0).all()
        assert moment.segments[0][0] <= found[0, 0] < found[0, 1]
        assert found[0, 1] <= moment.segments[0][1]


def test_shuffled_sentences_take_the_answer_away(planted):
    results, _ = evaluation.evaluate(PlantedModel(), **planted, shuffle_seed=0)
    # Four places: about a quarter by chance.
    assert results["R@1,IoU=0.5"] < 0.4


def test_shuffling_gives_no_query_its_own_sentence_and_repeats_itself():
    for count in (2, 3, 10):
        order = evaluation.derangement(count, seed=1)
        assert sorted(order) == list(range(count))
        assert (order != np.arange(count)).all()
        assert order.tolist() == evaluation.derangement(count, 1).tolist()


def test_written_predictions_score_the_same_under_their_protocol(
    planted, tmp_path
):
    path, moments, found = tmp_path / "p.jsonl", planted["moments"], {}
    for protocol in PROTOCOLS:
        found[protocol], predictions = evaluation.evaluate(
            PlantedModel(noise=0.7), **planted, suppression=protocol
        )
        write_predictions(path, moments, predictions)
        again = evaluation.score_predictions(
            moments, read_predictions(path, moments), suppression=protocol
        )
        assert found[protocol].pop("num_unknown") == 0
        assert again == found[protocol]
        for line in path.read_text().splitlines():
            record = json.loads(line)
            windows = record.pop("pred_relevant_windows")
            assert set(record) == {"qid", "query", "vid"}
            for start, end, _ in windows:
                assert 0 <= start < end <= 32
    none, fixed, per_threshold = found.values()
    assert 0.0 < none["R@1,IoU=0.3"] < 1.0
    # A protocol changes nothing at one result.
    for key in ("mIoU", "R@1,IoU=0.1", "R@1,IoU=0.7"):
        assert none[key] == fixed[key] == per_threshold[key]
    assert none["R@5,IoU=0.5"] != per_threshold["R@5,IoU=0.5"]


def test_evaluation_takes_another_grid(planted):
    _, predictions = evaluation.evaluate(
        PlantedModel(), **planted, grid=WindowGrid((8.0,), overlap=0.0)
    )
    expected = [(0.0, 8.0), (8.0, 16.0), (16.0, 24.0), (24.0, 32.0)]
    assert all(
        sorted(map(tuple, found[:, :2].tolist())) == expected
        for found in predictions
    )


def test_a_model_of_sentence_vectors_asks_for_them(planted):
    del planted["sentence_vectors"]
    with pytest.raises(ValueError, match="sentence_vectors"):
        evaluation.evaluate(PlantedModel(), **planted)


def test_chance_worked_by_hand():
    # Windows 0..4, 2..6, 4..8 against 0..4: IoU 1, 2/6 and 0.
    grid = WindowGrid((4.0,), overlap=0.5)
    moment = _moment("q", [(0.0, 4.0)], duration=8.0)
    results = evaluation.chance([moment], grid, ns=(1, 2, 5), ious=(0.3, 0.5))
    assert results["R@1,IoU=0.3"] == pytest.approx(2 / 3)
    assert results["R@2,IoU=0.3"] == pytest.approx(1.0)
    assert results["R@1,IoU=0.5"] == pytest.approx(1 / 3)
    assert results["R@2,IoU=0.5"] == pytest.approx(2 / 3)
    assert results["R@5,IoU=0.5"] == pytest.approx(1.0)  # only three windows
    assert results["mIoU"] == pytest.approx((1 + 1 / 3) / 3)


@pytest.mark.slow
def test_chance_on_tacos_is_what_public_code_finds(shared_data):
    # R@1, R@5, R@10 of random scores: .041, .183, .331 at IoU .1, with the
    # family's suppression per threshold.
    moments = read_moments(
        shared_data / "tacos" / "TACoS_test_samples.txt",
        "tacos",
        num_frames=shared_data / "tacos" / "num_frames.json",
        problems=[],
    )
    grid = WindowGrid((128, 256), overlap=0.8, frame_rate=29.4)
    exact = evaluation.chance(moments, grid, ious=(0.1, 0.5))
    assert exact["R@1,IoU=0.1"] == pytest.approx(0.041, abs=0.001)
    assert exact["R@1,IoU=0.5"] == pytest.approx(0.009, abs=0.0015)
    rng = np.random.default_rng(0)
    drawn = [grid.windows(moment.duration) for moment in moments]
    drawn = [np.column_stack([w, rng.random(len(w))]) for w in drawn]
    for protocol, expected in [
        ("none", [exact[f"R@{n},IoU=0.1"] for n in (1, 5, 10)]),
        ("per_threshold", [0.041, 0.183, 0.331]),
    ]:
        hits = evaluation.query_hits(
            moments, drawn, ns=(1, 5, 10), ious=(0.1,), suppression=protocol
        )
        found = [hits[f"R@{n},IoU=0.1"].mean() for n in (1, 5, 10)]
        # A standard deviation is .003 for R@1, .007 for R@10.
        assert found == pytest.approx(expected, abs=0.012)


def test_table_is_printed_with_its_protocol_and_r_at_1_first():
    moment = _moment("q", [(0.0, 10.0)])
    results = evaluation.score_predictions(
        [moment], [np.array([[0, 4, 1.0]])], suppression="fixed"
    )
    table = evaluation.format_table(results, title="val")
    assert table.splitlines() == [
        "val: 1 queries, fixed: NMS keeps results of IoU <= 0.5",
        "        IoU=0.1  IoU=0.2  IoU=0.3  IoU=0.4  IoU=0.5  IoU=0.7",
        "R@1       1.000    1.000    1.000    1.000    0.000    0.000",
        "R@5       1.000    1.000    1.000    1.000    0.000    0.000",
        "R@10      1.000    1.000    1.000    1.000    0.000    0.000",
        "mIoU      0.400",
        "mAP       0.000   IoU=0.5: 0.000   IoU=0.75: 0.000",
    ]
