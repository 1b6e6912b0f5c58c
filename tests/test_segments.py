"""Segment arithmetic against numbers worked by hand, and its laws."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acnn_tf import segments

# Halves and whole numbers: exact in floats, so that laws hold to the digit.
HALVES = st.integers(-40, 40).map(lambda value: value / 2)
SEGMENTS = st.tuples(HALVES, HALVES).map(sorted).map(np.array)


def test_iou_of_segments_worked_by_hand(subtests):
    for a, b, expected in (
        ([0, 10], [5, 20], 5 / 20),  # half of a; union 0..20
        ([0, 10], [2, 4], 2 / 10),  # one inside the other
        ([0, 10], [0, 10], 1.0),  # equal
        ([0, 10], [10, 20], 0.0),  # touching
        ([0, 10], [15, 20], 0.0),  # disjoint: 0, not negative
        ([5, 5], [0, 10], 0.0),  # a point within a segment
        ([5, 5], [5, 5], 0.0),  # two equal points
        ([5, 5], [7, 7], 0.0),  # two points apart
    ):
        with subtests.test(a=a, b=b):
            assert segments.iou(a, b) == expected


def test_niol_of_segments_worked_by_hand(subtests):
    for window, moment, expected in (
        ([0, 10], [5, 20], 0.5),
        ([0, 10], [-5, 20], 0.0),  # wholly inside
        ([0, 10], [10, 20], 1.0),  # touching
        ([0, 10], [15, 20], 1.0),  # disjoint: 1, not more
        ([0, 10], [2, 4], 0.8),  # longer than the moment
        ([5, 5], [0, 10], 1.0),  # no length
    ):
        with subtests.test(window=window, moment=moment):
            assert segments.niol(window, moment) == expected


def test_iou_broadcasts_windows_against_moments():
    windows = np.array([[0.0, 4.0], [4.0, 8.0], [2.0, 6.0]])
    moments = np.array([[0.0, 4.0], [5.0, 7.0]])
    expected = [[1, 0], [0, 2 / 4], [2 / 6, 1 / 5]]
    np.testing.assert_allclose(
        segments.iou(windows[:, None], moments), expected, rtol=1e-15
    )


@given(SEGMENTS, SEGMENTS)
def test_iou_is_symmetric_and_a_share(a, b):
    value = segments.iou(a, b)
    assert value == segments.iou(b, a)
    assert 0.0 <= value <= 1.0
    assert (value == 1.0) == (a.tolist() == b.tolist() and a[0] < a[1])


@given(
    st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=4, max_size=4).map(
        np.array
    )
)
def test_iou_stays_a_share_whatever_the_rounding(times):
    a, b = np.sort(times[:2]), np.sort(times[2:])
    assert 0.0 <= segments.iou(a, b) <= 1.0
    assert 0.0 <= segments.niol(a, b) <= 1.0


@given(SEGMENTS, SEGMENTS, HALVES, st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_shift_and_scale_leave_iou_and_niol_alone(a, b, shift, scale):
    moved_a, moved_b = (a + shift) * scale, (b + shift) * scale
    assert segments.iou(a, b) == segments.iou(moved_a, moved_b)
    assert segments.niol(a, b) == segments.niol(moved_a, moved_b)


def test_offsets_in_each_unit_worked_by_hand():
    window, moment = np.array([2.0, 6.0]), np.array([3.0, 12.0])
    for unit, expected in [
        ("seconds", [1.0, 6.0]),
        ("frames", [25.0, 150.0]),  # 25 frames a second
        ("window_lengths", [0.25, 1.5]),  # the window is 4 s long
    ]:
        offset = segments.encode_offsets(moment, window, unit, frame_rate=25)
        np.testing.assert_array_equal(offset, expected)


@given(SEGMENTS, SEGMENTS, st.sampled_from(segments.OFFSET_UNITS))
def test_decoding_undoes_encoding(moment, window, unit):
    window = window + np.array([0.0, 1.0])  # never without length
    offset = segments.encode_offsets(moment, window, unit, frame_rate=29.4)
    np.testing.assert_allclose(
        segments.decode_offsets(offset, window, unit, frame_rate=29.4),
        moment,
        atol=1e-12,
    )


def test_offsets_name_a_bad_unit_or_a_missing_frame_rate(refused):
    for unit in ("minutes", "frames"):
        with refused(ValueError, "Received", unit=unit):
            segments.encode_offsets(np.zeros(2), np.zeros(2), unit)
