"""The paired bootstrap: by hand, by its laws, and by what it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.sweeps.significance import Difference, paired_bootstrap

hits = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1)


def test_interval_of_two_queries_by_hand():
    # d = (0, 1). A sample of two is (0, 0), (0, 1), (1, 0) or (1, 1), each
    # with chance 1/4: its mean is 0, 1/2 or 1 with 1/4, 1/2 and 1/4.
    ours, theirs = [0, 1], [0, 0]
    # 95 %: from 2.5 % to 97.5 %, in the first and the last quarter.
    assert paired_bootstrap(ours, theirs) == Difference(0.5, 0.0, 1.0)
    # 40 %: from 30 % to 70 %, both in the middle half.
    assert paired_bootstrap(ours, theirs, confidence=0.4) == Difference(
        0.5, 0.5, 0.5
    )


def test_runs_are_averaged_query_by_query():
    # Means over the runs (1, .5, 0) and (.5, .5, .5): d = (.5, 0, -.5).
    found = paired_bootstrap(
        [[1, 0, 0], [1, 1, 0]], [[1, 0, 1], [0, 1, 0]], num_samples=500
    )
    assert found.difference == 0
    assert found == paired_bootstrap([0.5, 0, -0.5], [0, 0, 0], num_samples=500)
    # Another number of runs of the reference.
    found = paired_bootstrap([[1, 0], [1, 1]], [0, 0])
    assert found.difference == 0.75


def test_groups_are_drawn_whole():
    # Videos a, with d = (1, 1, 1), and b, with d = (0): the means of two are
    # (a, a) 1, (b, b) 0 and, as of all queries, 3/4.
    found = paired_bootstrap([1, 1, 1, 0], [0, 0, 0, 0], groups=list("aaab"))
    assert found == Difference(0.75, 0.0, 1.0)
    middle = paired_bootstrap(
        [1, 1, 1, 0], [0, 0, 0, 0], groups=list("aaab"), confidence=0.4
    )
    assert middle == Difference(0.75, 0.75, 0.75)


@given(hits)
def test_the_other_way_round_is_the_negative(pairs):
    ours, theirs = np.array(pairs).T
    one = paired_bootstrap(ours, theirs, num_samples=200)
    other = paired_bootstrap(theirs, ours, num_samples=200)
    assert one == pytest.approx(
        (-other.difference, -other.high, -other.low), abs=1e-12
    )
    assert one.low <= one.high


@given(hits)
def test_a_model_does_not_differ_from_itself(pairs):
    ours = np.array(pairs)[:, 0]
    found = paired_bootstrap(ours, ours, num_samples=200)
    assert found == Difference(0.0, 0.0, 0.0)
    assert not found.outside_noise


def test_a_difference_that_all_queries_share_has_no_error():
    reference = np.random.default_rng(0).random(50)
    found = paired_bootstrap(reference + 0.25, reference)
    assert found == pytest.approx((0.25, 0.25, 0.25))
    assert found.outside_noise
    assert paired_bootstrap(reference - 0.25, reference).outside_noise


def test_samples_follow_from_the_seed_in_parts_or_not(monkeypatch):
    ours, theirs = np.random.default_rng(0).random((2, 40))
    found = paired_bootstrap(ours, theirs, seed=1)
    assert found == paired_bootstrap(ours, theirs, seed=1)
    assert found != paired_bootstrap(ours, theirs, seed=2)
    monkeypatch.setattr("experiments.sweeps.significance._CHUNK", 40 * 33)
    assert found == pytest.approx(paired_bootstrap(ours, theirs, seed=1))


def test_interval_covers_the_truth_as_often_as_it_says():
    # Queries of different difficulty; ours is hit with .05 more chance, and
    # each model has three runs, which share nothing but the queries.
    rng = np.random.default_rng(0)
    covered, false_alarms, trials = 0, 0, 300
    for trial in range(trials):
        chance = rng.uniform(0.1, 0.8, size=120)
        ours = rng.random((3, 120)) < chance + 0.05
        theirs = rng.random((3, 120)) < chance
        again = rng.random((3, 120)) < chance
        found = paired_bootstrap(ours, theirs, num_samples=400, seed=trial)
        covered += found.low <= 0.05 <= found.high
        equal = paired_bootstrap(again, theirs, num_samples=400, seed=trial)
        false_alarms += equal.outside_noise
    # 95 %, within three deviations of a count of 300: 3 sqrt(.95 .05 / 300).
    assert 0.91 <= covered / trials <= 0.99
    assert 0.01 <= false_alarms / trials <= 0.09


def test_groups_widen_the_interval_of_queries_that_agree():
    # Queries of a video all do alike: 20 videos tell as much as 20 queries.
    video = np.repeat(np.arange(20), 6)
    d = np.random.default_rng(0).normal(size=20)
    single = paired_bootstrap(d, np.zeros(20))
    grouped = paired_bootstrap(d[video], np.zeros(120), groups=video)
    assert grouped == pytest.approx(single)
    naive = paired_bootstrap(d[video], np.zeros(120))
    assert naive.high - naive.low < 0.6 * (grouped.high - grouped.low)


def test_bad_arguments_are_named():
    for arguments, settings, message in (
        (([1, 0], [1]), {}, "same queries. Received: 2 and 1"),
        (([], []), {}, r"`values` must be \[Q\] or \[S, Q\], and not empty"),
        (([1.0], [np.nan]), {}, "`reference` must be finite"),
        (([1], [1]), {"confidence": 1}, "`confidence` must be between"),
        (([1], [1]), {"num_samples": 0}, "`num_samples` must be at least"),
        (([1], [1]), {"groups": []}, "`groups` must have a label for each"),
    ):
        with pytest.raises(ValueError, match=message):
            paired_bootstrap(*arguments, **settings)
