"""Parts of videos as videos of their own, to the frame."""

import os

import numpy as np
import pytest

from acnn_tf.data import cut_video, open_video
from acnn_tf.data import video as video_lib
from acnn_tf.data.cutting import preview_video
from acnn_tf.data.video import VideoError
from tests.disks import full_disk
from tests.video_files import RATE, draw, numbers, write

NUM_FRAMES = 750  # half a minute


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    return write(folder / "long.mp4", pictures=map(draw, range(NUM_FRAMES)))


def all_frames(path):
    times, frames = zip(*open_video(path).between(0, 1e6), strict=True)
    return [float(time) for time in times], numbers(frames)


def test_every_frame_between_two_times_is_kept(subtests, mp4, tmp_path):
    out = tmp_path / "part.mp4"
    for start, end, expected in (
        (0, 2.4, range(60)),
        (1.0, 1.48, range(25, 37)),
        (1.01, 1.05, [26]),
        # Beyond `_FAR`, where it begins within the file.
        (24.0, 25.0, range(600, 625)),
        (29.9, 99, [748, 749]),
    ):
        with subtests.test(start=start, end=end):
            cut_video(mp4, start, end, out)
            times, found = all_frames(out)
            assert found == list(expected)
            expected_times = np.arange(len(found)) / RATE
            np.testing.assert_allclose(times, expected_times, atol=1e-4)
            cut = open_video(out)
            assert cut.duration == pytest.approx(len(found) / RATE)
            assert cut.problems == []


def test_a_preview_has_all_frames_and_is_small(tmp_path):
    path = write(
        tmp_path / "a.avi", "ffv1", map(draw, range(60)), pixels="yuv444p"
    )
    told, out = [], tmp_path / "a.mp4"
    preview_video(path, out, max_side=60, progress=told.append)
    preview = open_video(out)
    assert (preview.codec, preview.pixel_format) == ("h264", "yuv420p")
    assert preview.size == (44, 60)
    assert preview.listed_seconds() == pytest.approx(2.4, abs=0.05)
    assert sum(1 for _ in preview.between(0, 99)) == 60
    assert told == sorted(told)
    assert told[-1] > 0.9
    with pytest.raises(ValueError, match=r"must end in \.mp4"):
        preview_video(path, tmp_path / "a.mkv")


def test_a_far_part_is_the_same_wherever_reading_begins(
    subtests, mp4, tmp_path, monkeypatch
):
    mkv = write(tmp_path / "a.mkv", pictures=map(draw, range(NUM_FRAMES)))
    for path in (mp4, mkv):
        with subtests.test(path):
            far = [
                (time, frame.tobytes())
                for time, frame in open_video(path).between(21.3, 22.1)
            ]
            with monkeypatch.context() as patch:
                patch.setattr(video_lib, "_FAR", 99)
                near = [
                    (time, frame.tobytes())
                    for time, frame in open_video(path).between(21.3, 22.1)
                ]
            assert len(far) == 20
            assert far == near


def test_variable_rates_and_odd_sizes_are_cut_too(tmp_path):
    times = [0, 1, 2, 30, 31, 50, 80]
    pictures = [draw(n)[:41, :63] for n in range(len(times))]
    path = write(
        tmp_path / "a.mkv", "ffv1", pictures, times=times, pixels="bgr0"
    )
    assert open_video(path).size == (41, 63)
    out = tmp_path / "part.mp4"
    cut_video(path, 1, 3, out)
    assert open_video(out).size == (40, 62)
    found, _ = all_frames(out)
    # Matroska's clock counts milliseconds.
    assert found == pytest.approx([0, 1 / 25, 20 / 25], abs=1e-3)


def test_what_cannot_be_cut_leaves_nothing(refused, mp4, tmp_path):
    out = tmp_path / "part.mp4"
    for start, end, path, error, message in (
        (31, 32, out, VideoError, "has no frame from 31 to 32 s"),
        (2, 2, out, ValueError, "`end` above it. Received: 2, 2"),
        (-1, 2, out, ValueError, "`start` must be 0 or more"),
        (0, 1, tmp_path / "part.avi", ValueError, "must end in .mp4"),
    ):
        with refused(error, message):
            cut_video(mp4, start, end, path)
    with full_disk(1000), pytest.raises(OSError, match="could not be written"):
        cut_video(mp4, 0, 20, out)
    assert os.listdir(tmp_path) == []


def test_real_videos_are_cut_to_the_frame(shared_data, tmp_path):
    for name in ("OHOFG", "Y1HGC"):
        path = shared_data / "videos" / f"{name}.mp4"
        video, out = open_video(path), tmp_path / "part.mp4"
        cut_video(path, 12.4, 19.8, out)
        cut = open_video(out)
        assert cut.size == video.size
        assert cut.duration == pytest.approx(7.4, abs=1 / video.frame_rate)
        expected = [frame for _, frame in video.between(12.4, 19.8)]
        found = [frame for _, frame in cut.between(0, 99)]
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert np.abs(one.astype(int) - other).mean() < 4
