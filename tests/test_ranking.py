"""Shift, consensus, decay and suppression, by hand and against slow loops."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from acnn_tf import segments as segments_lib
from acnn_tf.search import consensus, decay, nms, ranking
from acnn_tf.search.ranking import RankingSettings
from tests import slow_ranking

RNG = np.random.default_rng(0)


def random_rows(num_rows, num_windows, longest=9.0):
    """Segments that start before 17 s; many of the scores are equal."""
    start = RNG.uniform(0, 17, (num_rows, num_windows, 1))
    length = RNG.uniform(0.1, longest, start.shape)
    scores = RNG.normal(size=(num_rows, num_windows)).round(1)
    return np.concatenate([start, start + length], axis=-1), scores


@pytest.mark.parametrize("num_windows", [1, 7, 300])
def test_ranking_is_that_of_loops_over_pairs(num_windows):
    windows, scores = random_rows(3, num_windows)
    scores = np.float32(scores)
    offsets = np.float32(RNG.normal(size=windows.shape)).astype(float)
    counts = [num_windows, num_windows, (num_windows + 1) // 2]
    scores[2, counts[2] :] = -np.inf
    duration = np.array([25.0, 18.0, 30.0])
    # Each way to score anew, and the units in turn: a graph takes its time.
    ways = itertools.product([None, 0.5, (0.3, 0.6)], [None, 0.4])
    units = itertools.cycle(segments_lib.OFFSET_UNITS)
    for unit, (consensus_iou, decay_sigma) in zip(units, ways):
        settings = RankingSettings(unit, 4.0, consensus_iou, decay_sigma)
        segments, found = ranking.rank(
            settings, windows, scores, offsets, tf.constant(duration), 5, 0.4
        )
        for row, count in enumerate(counts):
            real = row, slice(count)
            segment, score = slow_ranking.rank(
                settings,
                *(windows[real], scores[real], offsets[real], duration[row]),
                *(5, 0.4),
            )
            kept, told = len(score), str(settings)
            np.testing.assert_allclose(
                segments[row, :kept], segment, err_msg=told
            )
            np.testing.assert_allclose(
                found[row, :kept], score, atol=1e-9, err_msg=told
            )
            assert np.all(np.isneginf(found[row, kept:])), told
            assert not np.any(segments[row, kept:]), told


@pytest.mark.parametrize("pairs", [1, 1000, 1 << 18])
def test_blocks_of_any_size_meet_all_that_they_overlap(pairs, monkeypatch):
    start = RNG.uniform(0, 120, (2, 60))
    segments = np.stack([start, start + RNG.uniform(0, 30, (2, 60))], axis=2)
    scores = RNG.normal(size=(2, 60)) * 3
    scores[1, 45:] = -np.inf
    monkeypatch.setattr(ranking, "_PAIRS", pairs)
    monkeypatch.setattr(ranking, "_BLOCK", 16)
    for rescore, slow, setting in (
        (consensus, slow_ranking.consensus, 0.5),
        (consensus, slow_ranking.consensus, (0.3, 0.6)),
        (decay, slow_ranking.decay, 0.4),
    ):
        found = rescore(segments, scores, setting).numpy()
        for row, count in enumerate((60, 45)):
            expected = slow(segments[row, :count], scores[row, :count], setting)
            np.testing.assert_allclose(found[row, :count], expected, atol=1e-9)
        assert np.isneginf(found[1, 45:]).all()


@given(st.integers(0, 2**32 - 1))
def test_iou_of_tensors_is_that_of_arrays(seed):
    rng = np.random.default_rng(seed)
    # Whole numbers, so that some touch, nest, are equal or without length.
    segments = np.sort(rng.integers(0, 8, (2, 9, 2)), axis=-1).astype(float)
    a, b = segments[0][:, None], segments[1]
    np.testing.assert_array_equal(ranking.iou(a, b), segments_lib.iou(a, b))


def test_windows_that_agree_support_each_other():
    # IoU of the first two is 3/5: gain (0.6 - 0.5) / 0.5 = 0.2. The third
    # overlaps neither.
    segments = np.array([[[0.0, 4.0], [1.0, 5.0], [8.0, 9.0]]])
    scores = np.log([[2.0, 1.0, 2.1]])
    supported = consensus(segments, scores, 0.5)
    np.testing.assert_allclose(np.exp(supported), [[2.2, 1.4, 2.1]])
    # Gains (0.6 - 0.2) / 0.8 = 0.5 and 0.2, and their mean.
    supported = consensus(segments, scores, (0.2, 0.5))
    np.testing.assert_allclose(np.exp(supported), [[2.35, 1.7, 2.1]])


def test_consensus_bears_scores_far_apart():
    segments = np.array([[[0.0, 4.0], [6.0, 9.0]]])
    supported = consensus(segments, [[1e4, -1e4]], 0.5).numpy()
    assert np.isfinite(supported).all()
    assert supported[0, 0] == 1e4


def test_windows_under_better_ones_lose():
    # Best first: a [0, 4], b [0, 5], c [1, 5], d [8, 9]. IoU of a with b 4/5,
    # with c 3/5; of b with c 4/5. c is lowered by a alone, by .36 / .4: b,
    # which a covers by .64, would lower it by .64 - .64.
    segments = np.array([[[8.0, 9.0], [1.0, 5.0], [0.0, 4.0], [0.0, 5.0]]])
    scores = np.array([[-1.0, 0.0, 2.0, 1.0]])
    expected = [[-1.0, -0.36 / 0.4, 2.0, 1.0 - 0.64 / 0.4]]
    np.testing.assert_allclose(decay(segments, scores, 0.4), expected)
    # Of equal ones the first is better; padding stays what it is.
    twice = np.array([[[0.0, 4.0], [0.0, 4.0], [0.0, 4.0]]])
    lowered = decay(twice, [[1.0, 1.0, -np.inf]], 0.5)
    np.testing.assert_allclose(lowered, [[1.0, -1.0, -np.inf]])


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_decay_lowers_all_but_the_best(seed):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 20, (2, 30))
    segments = np.stack([start, start + rng.uniform(0.1, 9, (2, 30))], axis=-1)
    scores = rng.normal(size=(2, 30)).round(1)
    lowered = decay(segments, scores, rng.uniform(0.1, 1)).numpy()
    assert (lowered <= scores).all()
    np.testing.assert_array_equal(lowered.max(axis=1), scores.max(axis=1))
    np.testing.assert_array_equal(lowered.argmax(axis=1), scores.argmax(axis=1))


def suppressed(segments, scores, max_iou, top_n=99):
    """What is kept of one row."""
    (kept,) = nms([segments], [scores], max_iou, top_n).numpy().tolist()
    return kept


def test_nms_worked_by_hand():
    # By score: [0, 10]; then [0, 8] (IoU .8 with it) goes, [4, 12] (6/12) is
    # at the boundary and stays, [11, 13] (1/9 with [4, 12]) stays.
    found = [[0, 8], [0, 10], [11, 13], [4, 12]]
    scores = [0.8, 0.9, 0.1, 0.5]
    assert suppressed(found, scores, 0.5) == [1, 3, 2]
    assert suppressed(found, scores, 0.49) == [1, 2]
    assert suppressed(found, scores, 1.0) == [1, 0, 3, 2]
    assert suppressed(found, scores, 0.5, top_n=2) == [1, 3]


def test_nms_drops_what_the_dropped_overlapped_only_if_the_kept_does():
    # The second goes because of the first; the third overlaps only the second.
    assert suppressed([[0, 4], [2, 6], [4, 8]], [3, 2, 1], 0.1) == [0, 2]


def test_nms_keeps_the_order_of_equal_scores_and_no_padding():
    found = [[0, 1], [2, 3], [0, 1], [4, 5]]
    assert suppressed(found, [1, 1, 1, 1], 0.5) == [0, 1, 3]
    assert suppressed(np.zeros((3, 2)), np.full(3, -np.inf), 0.5) == [-1]


HALVES = st.integers(0, 60).map(lambda number: number / 2)
SEGMENTS = st.tuples(HALVES, HALVES).map(sorted)
CANDIDATES = st.lists(st.tuples(SEGMENTS, HALVES), min_size=1, max_size=12)


@given(CANDIDATES, st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_nms_is_idempotent_and_equals_a_plain_loop(candidates, max_iou):
    found = np.array([segment for segment, _ in candidates])
    scores = np.array([score for _, score in candidates])
    kept = suppressed(found, scores, max_iou)
    again = suppressed(found[kept], scores[kept], max_iou)
    assert again == list(range(len(kept)))
    assert kept == slow_ranking.nms(found, scores, max_iou)


@given(st.lists(CANDIDATES, min_size=1, max_size=4))
def test_nms_of_rows_is_nms_of_each_with_its_own_threshold(rows):
    width = max(map(len, rows))
    found = np.full((len(rows), width, 2), np.nan)
    scores = np.full((len(rows), width), -np.inf)
    for row, candidates in enumerate(rows):
        for column, (segment, score) in enumerate(candidates):
            found[row, column], scores[row, column] = segment, score
    max_iou = np.array([0.5, 0.0, 1.0, 0.3])[: len(rows)]
    kept = nms(found, scores, max_iou, 5).numpy()
    for row, candidates in enumerate(rows):
        real = row, slice(len(candidates))
        alone = slow_ranking.nms(found[real], scores[real], max_iou[row], 5)
        assert kept[row][kept[row] >= 0].tolist() == alone
        assert (kept[row, len(alone) :] == -1).all()
