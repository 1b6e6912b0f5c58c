"""What scores are worth, worked by hand and by a model."""

import numpy as np
import pytest

from acnn_tf import calibration
from acnn_tf.calibration import Calibration, fit, reliability
from acnn_tf.data.annotations import Moment
from acnn_tf.models import save_model
from tests import small_acnn
from tests.test_search import BrightnessModel


def test_the_curve_goes_through_what_was_seen():
    # At score 0 one of four is right, at 3 three of four. The targets are
    # (4 + 1) / (4 + 2) and 1 / (4 + 2), whose means there are 1/3 and 2/3:
    # odds of 1/2 and 2, which two numbers can meet.
    scores = [0] * 4 + [3] * 4
    curve = fit(scores, [0, 1, 0, 0, 1, 0, 1, 1])
    assert curve.intercept == pytest.approx(-np.log(2))
    assert curve.slope == pytest.approx(2 * np.log(2) / 3)
    assert curve.likelihood(1.5) == pytest.approx(0.5)
    # A weight of 2 is as two of them: odds at 0 of (1/7 + 3 * 2/7) ...
    twice = fit([*scores, *scores], [0, 1, 0, 0, 1, 0, 1, 1] * 2)
    weighted = fit(scores, [0, 1, 0, 0, 1, 0, 1, 1], 2 * np.ones(8))
    assert weighted.slope == pytest.approx(twice.slope)
    assert weighted.intercept == pytest.approx(twice.intercept)


def test_there_is_a_curve_whatever_was_seen(subtests):
    for name, scores, right, level in (
        # Of one kind only: (2 + 1) / (2 + 2) and 1 / (2 + 2).
        ("all right", [1.0, 2.0], [1, 1], 0.75),
        ("all wrong", [1.0, 2.0], [0, 0], 0.25),
        ("one score", [5.0] * 4, [1, 0, 1, 0], 0.5),
        ("worse is better", [0.0, 1.0, 2.0, 3.0], [1, 1, 0, 0], 0.5),
    ):
        with subtests.test(name):
            curve = fit(scores, right)
            assert curve.slope == pytest.approx(0, abs=1e-9)
            assert curve.likelihood(-3) == pytest.approx(level)
    apart = fit([-1e6, -1e6, 1e6, 1e6], [0, 0, 1, 1])
    np.testing.assert_allclose(
        apart.likelihood(np.array([-1e6, 1e6])), [0.25, 0.75]
    )
    assert Calibration(1.0, 0.0).likelihood(-1e9) == 0


def test_reliability_by_hand():
    # Likelihoods 0.25 and 0.75, each twice in own videos and once in another,
    # which counts as two: of three at 0.25 ...
    curve = Calibration(slope=np.log(9) / 2, intercept=0.0)
    scores = np.array([-1.0, -1, 1, 1, -1, 1])
    is_own = np.array([1, 1, 1, 1, 0, 0], bool)
    is_right = np.array([0, 1, 1, 1, 0, 0], bool)
    found = reliability(curve, scores, is_own, is_right)
    # 1 of 4 is right at 0.25, 2 of 4 at 0.75: apart by 0 and by 0.25.
    assert found["calibration_error"] == pytest.approx(0.125)
    # Of eight pairs of an own video and another: 2 above, 4 ties, 2 below.
    assert found["auc_own"] == pytest.approx(0.5)
    # Of six pairs: 2 above, 3 ties, 1 below.
    assert found["auc_right"] == pytest.approx(3.5 / 6)
    assert (found["num_searches"], found["num_sentences"]) == (6, 4)


def test_a_sentence_is_searched_for_in_its_own_video_and_in_others():
    # The best windows of 4 s have a mean of 9, 5, and 2.
    features = {
        "a": np.array([[0], [0], [0], [0], [9], [9], [9], [9]], np.float32),
        "b": np.array([[5], [5], [5], [5]], np.float32),
        "c": np.array([[0], [0], [2], [2], [2], [2]], np.float32),
    }
    moments = [
        Moment("1", "q", "a", 8.0, ((4.0, 8.0),)),
        Moment("2", "q", "c", 6.0, ((0.0, 2.0),)),  # found at 2 to 6
        Moment("3", "q", "b", 4.0, ((1.0, 4.0),)),  # IoU 3/4
    ]
    vectors = {moment.query_id: np.ones(1, np.float32) for moment in moments}
    found = calibration.best_scores(
        BrightnessModel(), moments, features, vectors
    )
    rows = sorted(zip(*(array.tolist() for array in found)))
    assert rows == [
        *[(2, False, False)] * 2,
        (2, True, False),
        *[(5, False, False)] * 2,
        (5, True, True),
        *[(9, False, False)] * 2,
        (9, True, True),
    ]


def test_a_run_keeps_the_curve_of_its_own_model(tmp_path, monkeypatch):
    model = small_acnn.make_model()
    save_model(model, tmp_path / "model.keras")
    features = small_acnn.make_features(6)
    moments = [
        Moment(str(n), query, video, float(len(clips)), ((0.0, len(clips)),))
        for video, clips in features.items()
        for n, query in enumerate(["a person opens the door", "zebras"])
    ]
    assert calibration.read_calibration(tmp_path, model) is None
    with pytest.raises(ValueError, match=r"6 of the 12 .* At least 30"):
        calibration.calibrate_run(tmp_path, moments, features)
    assert calibration.read_calibration(tmp_path, model) is None
    monkeypatch.setattr(calibration, "FEWEST", 6)
    report = calibration.calibrate_run(tmp_path, moments, features)
    # The sentence that it knows, in 5 of 6 videos each.
    assert report["num_searches"] == 30
    assert "30 searches" in calibration.in_words(report)
    curve = calibration.read_calibration(tmp_path, model)
    assert curve == calibration.calibrate(model, moments, features)[0]
    other = small_acnn.make_model(seed=1)
    assert calibration.read_calibration(tmp_path, other) is None
    for text in ("{", "[]", '{"model": 1}', '{"slope": NaN}'):
        (tmp_path / calibration.NAME).write_text(text)
        if text != '{"model": 1}':
            with pytest.raises(ValueError, match=r"calibration\.json is damag"):
                calibration.read_calibration(tmp_path, model)
