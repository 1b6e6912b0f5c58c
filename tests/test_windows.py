"""Windows, contexts, pairs and pooling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acnn_tf import segments
from acnn_tf.data.windows import WindowGrid, pair_windows, pool_clips

grids = st.builds(
    WindowGrid,
    lengths=st.lists(
        st.floats(0.5, 60), min_size=1, max_size=4, unique_by=lambda x: x
    ).map(lambda lengths: tuple(sorted(lengths))),
    overlap=st.sampled_from([0.0, 0.5, 0.75, 0.8]),
)


def test_windows_in_frames_follow_the_paper():
    grid = WindowGrid(lengths=(64, 128), overlap=0.8, frame_rate=29.4)
    windows = grid.frames(150)
    # 64: step 12, last start with s + 64 <= 151; 128: step 25, one window.
    starts = [1, 13, 25, 37, 49, 61, 73, 85]
    assert windows[:8].tolist() == [[s, s + 64] for s in starts]
    assert windows[8:].tolist() == [[1, 129]]


def test_the_last_window_may_end_with_the_last_frame():
    # 10 frames in steps of 2; frame 14 is the last, so 15 the end.
    grid = WindowGrid(lengths=(10,), overlap=0.8, frame_rate=1.0)
    assert grid.frames(14).tolist() == [[1, 11], [3, 13], [5, 15]]
    assert grid.frames(13).tolist() == [[1, 11], [3, 13]]


def test_windows_in_frames_are_the_same_in_seconds():
    grid = WindowGrid(lengths=(64, 128), frame_rate=29.4)
    np.testing.assert_allclose(
        grid.windows(2955 / 29.4) * 29.4, grid.frames(2955), rtol=1e-9
    )


@given(grids, st.floats(0.1, 300))
def test_windows_cover_the_video_and_stay_inside(grid, duration):
    windows = grid.windows(duration)
    assert windows[:, 0].min() == 0.0
    assert np.isclose(windows[:, 1].max(), duration)
    assert (windows[:, 1] <= duration + 1e-9).all()
    for length in grid.lengths:
        starts = windows[np.isclose(windows[:, 1] - windows[:, 0], length), 0]
        steps = np.diff(starts)
        assert (steps <= (1 - grid.overlap) * length + 1e-4).all()


def test_a_video_shorter_than_every_window_is_one_window():
    assert WindowGrid(lengths=(4.0,)).windows(3.0).tolist() == [[0.0, 3.0]]
    grid = WindowGrid(lengths=(64,), frame_rate=30.0)
    assert grid.frames(50).tolist() == [[1, 51]]


def test_default_dilation_makes_contexts_adjacent():
    grid = WindowGrid(lengths=(5.0,), overlap=0.8)
    assert grid.dilation == 5
    contexts = grid.contexts(grid.windows(20.0), size=3)
    np.testing.assert_allclose(
        contexts[5], [[0.0, 5.0], [5.0, 10.0], [10.0, 15.0]]
    )


def test_contexts_never_mix_lengths():
    grid = WindowGrid(lengths=(2.0, 4.0), overlap=0.5)
    windows = grid.windows(8.0)
    contexts = grid.contexts(windows, size=5)
    length = contexts[..., 1] - contexts[..., 0]
    own = (windows[:, 1] - windows[:, 0])[:, None]
    assert (np.isclose(length, own) | (length == 0)).all()
    np.testing.assert_array_equal(contexts[:, 2], windows)
    # The last short and the first long window have none beyond them.
    last_short = np.flatnonzero(np.isclose(own[:, 0], 2.0))[-1]
    assert length[last_short, 3:].tolist() == [0.0, 0.0]
    assert length[last_short + 1, :2].tolist() == [0.0, 0.0]


def test_bad_grids_are_refused(refused):
    for arguments in (
        {"lengths": ()},
        {"lengths": (4.0, 2.0)},
        {"lengths": (2.0, 2.0)},
        {"lengths": (-1.0,)},
        {"lengths": (np.nan,)},
        {"lengths": (2.0, np.inf)},
        {"lengths": "24"},
        {"lengths": (2.0,), "overlap": 1.0},
        {"lengths": (2.0,), "dilation": 0},
        {"lengths": (2.0,), "dilation": 2.5},
        {"lengths": (2.5,), "frame_rate": 30.0},
        {"lengths": (2,), "frame_rate": -1.0},
        {"lengths": (2,), "frame_rate": np.nan},
    ):
        with refused(ValueError, "Received", **arguments):
            WindowGrid(**arguments)


def test_grid_refuses_what_it_cannot_do():
    grid = WindowGrid(lengths=(4.0,))
    with pytest.raises(ValueError, match="frame_rate"):
        grid.frames(100)
    with pytest.raises(ValueError, match="odd"):
        grid.contexts(grid.windows(8.0), size=2)
    with pytest.raises(ValueError, match="positive"):
        grid.windows(0.0)
    # A few windows too many, of one length or of many.
    for lengths in ((1e-9,), (5e-324,), np.linspace(1e-5, 1.1e-5, 200)):
        with pytest.raises(ValueError, match="4,194,304"):
            WindowGrid(lengths).windows(8.0)


def test_pairs_by_hand():
    windows = [[0, 10], [4, 14], [0, 20], [30, 40]]
    moments = [[0, 10], [1, 10], [31, 40]]
    # Window 0: moment 0 (IoU 1) beats moment 1 (IoU .9, nIoL .1).
    # Window 1: IoU 6/14, not above 1/2. Window 2: nIoL 1/2.
    # Window 3: IoU .9, nIoL .1.
    window, moment = pair_windows(windows, moments)
    assert window.tolist() == [0, 3]
    assert moment.tolist() == [0, 2]


def test_boundaries_do_not_pair():
    # Quarters are exact in floats: IoU 1/2, then nIoL 1/4.
    assert len(pair_windows([[0, 10]], [[0, 20]])[0]) == 0
    assert len(pair_windows([[0, 4]], [[1, 4]], max_niol=0.25)[0]) == 0
    assert len(pair_windows([[0, 4]], [[1, 4]], max_niol=0.26)[0]) == 1


@given(st.integers(0, 2**32 - 1))
def test_pairs_equal_two_plain_loops(seed):
    rng = np.random.default_rng(seed)
    windows = np.sort(rng.integers(0, 30, (20, 2)))
    windows[:, 1] += 1
    moments = np.unique(np.sort(rng.integers(0, 30, (6, 2))), axis=0)
    expected = []
    for i, window in enumerate(windows):
        best, best_iou = None, 0.0
        for j, moment in enumerate(moments):
            iou = float(segments.iou(window, moment))
            if iou > 0.4 and float(segments.niol(window, moment)) < 0.3:
                if iou > best_iou:
                    best, best_iou = j, iou
        if best is not None:
            expected.append((i, best))
    found = pair_windows(windows, moments, min_iou=0.4, max_niol=0.3)
    assert list(zip(*map(np.ndarray.tolist, found))) == expected


def test_nothing_pairs_with_nothing():
    for windows, moments in ([[]], [[0, 1]]), ([[0, 1]], [[]]):
        assert [len(x) for x in pair_windows(windows, moments)] == [0, 0]


def test_pooling_counts_partial_clips_by_their_share():
    clips = np.array([[1.0], [2.0], [4.0]])
    # [1, 5) of clips that last 2 s: half of the first, all of the second,
    # half of the third.
    pooled = pool_clips(clips, [1.0, 5.0], clip_seconds=2.0)
    np.testing.assert_allclose(pooled, [(0.5 * 1 + 2 + 0.5 * 4) / 2])


def test_pooling_ignores_what_lies_beyond_the_clips():
    clips = np.array([[1.0], [3.0]])
    np.testing.assert_allclose(pool_clips(clips, [1.0, 9.0], 1.0), [3.0])
    np.testing.assert_allclose(pool_clips(clips, [5.0, 9.0], 1.0), [0.0])
    np.testing.assert_allclose(pool_clips(clips, [0.0, 0.0], 1.0), [0.0])


@given(st.integers(0, 2**32 - 1))
def test_pooling_equals_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    clips = rng.normal(size=(7, 3)).astype("float32")
    ends = np.sort(rng.uniform(0, 16, (5, 2)))
    pooled = pool_clips(clips, ends, clip_seconds=2.0)
    for (start, end), row in zip(ends, pooled):
        share = np.array(
            [
                max(0.0, min(end, 2.0 * t + 2) - max(start, 2.0 * t))
                for t in range(7)
            ]
        )
        total = share.sum()
        expected = share @ clips / total if total > 1e-6 else np.zeros(3)
        if total > 1e-6:
            np.testing.assert_allclose(row, expected, atol=1e-4)
