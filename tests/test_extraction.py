import os
from pathlib import Path

import numpy as np
import pytest

from acnn_tf import encoders
from acnn_tf.data import open_video
from acnn_tf.data.extraction import encode_video, find_videos
from acnn_tf.data.video import VideoError
from acnn_tf.files.problems import DataError
from tests.video_files import RATE, draw, shortened, write

PIXELS = encoders.make("pixels", frame_rate=5)


def touch(folder, *names):
    for name in names:
        path = Path(folder, name)
        path.parent.mkdir(exist_ok=True)
        path.touch()


# Videos by name


def test_files_folders_and_patterns_name_videos(
    subtests, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    touch("a", "two.mp4", "one.MKV", ".hidden.mp4", "notes.txt", "d.mp4/x.webm")
    touch("b", "[1].mp4", "v.1.mp4", "odd.dat")
    both = {"one": "a/one.MKV", "two": "a/two.mp4"}
    for patterns, expected in (
        ("a", both),
        (Path("a"), both),
        ("a/*.mp4", {"two": "a/two.mp4"}),
        (["a/*o*", "./a/two.mp4"], both | {"notes": "a/notes.txt"}),
        ("**/*.webm", {"x": "a/d.mp4/x.webm"}),
        ("b/[1].mp4", {"[1]": "b/[1].mp4"}),
        (["b/v.1.mp4", "b/odd.dat"], {"odd": "b/odd.dat", "v.1": "b/v.1.mp4"}),
    ):
        with subtests.test(patterns=patterns):
            found = find_videos(patterns)
            assert found == expected
            assert list(found) == sorted(found)


def test_what_names_no_video_or_two_is_refused(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch("a", "v.mp4", "w.mp4")
    touch("b", "v.webm")
    touch("empty", "notes.txt")
    for patterns, message in (
        ("empty", "^empty: is a folder without videos .*mp4"),
        ("a/*.avi", r"^a/\*\.avi: matches no file"),
        ("a/x.mp4", r"^a/x\.mp4: is not there"),
        (["a", "b"], r"^b/v\.webm: has the name of a/v\.mp4.*'v'; rename"),
        # All that is wrong is said at once.
        (["a", "b/*", "c"], r"b/v\.webm: .*\nc: is not there"),
    ):
        with refused(DataError, f"(?s){message}"):
            find_videos(patterns)
    Path(os.fsdecode(b"a/\xff.mp4")).touch()
    with refused(DataError, "not UTF-8; rename"):
        find_videos("a")


# From a file to clips


def test_a_video_is_encoded_as_its_frames_are(tmp_path):
    path = write(tmp_path / "a.mp4")
    video = open_video(path)
    # 12 frames at 5 a second, 2 to a clip.
    expected = PIXELS.encode(np.stack(list(video.frames(5))))
    encoded = encode_video(path, PIXELS)
    assert encoded.clips.shape == (6, PIXELS.dim)
    np.testing.assert_array_equal(encoded.clips, expected)
    assert encoded.duration == video.duration == pytest.approx(2.4)
    assert encoded.notes == []
    in_ones = encode_video(path, PIXELS, batch_size=1)
    np.testing.assert_array_equal(in_ones.clips, expected)


def test_a_shortened_video_lasts_as_long_as_what_is_left(tmp_path):
    path = write(tmp_path / "a.mkv", pictures=map(draw, range(250)))
    encoded = encode_video(shortened(path, 0.6), PIXELS)
    assert 1 < encoded.duration < 10
    # Each clip has 0.4 s; the last may be begun.
    assert encoded.duration == pytest.approx(0.4 * len(encoded.clips), abs=0.5)
    (note,) = (note for note in encoded.notes if "cut short" in note)
    assert f"decoded {encoded.duration:.1f} of 10.0 s" in note


def test_a_single_frame_is_a_clip(tmp_path):
    path = write(tmp_path / "a.mp4", pictures=[draw(5)])
    encoded = encode_video(path, PIXELS)
    assert encoded.clips.shape == (1, PIXELS.dim)
    assert encoded.duration == pytest.approx(1 / RATE)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    class Broken(type(PIXELS)):
        def encode_batches(self, batches):
            for clips in super().encode_batches(batches):
                yield np.log(clips - 1)

    path = write(tmp_path / "a.mp4")
    with (
        np.errstate(invalid="ignore", divide="ignore"),
        pytest.raises(VideoError, match=r"a\.mp4: pixels makes numbers that"),
    ):
        encode_video(path, Broken())


def test_real_videos_are_encoded(shared_data):
    encoder = encoders.make("pixels", frame_rate=1)
    videos = find_videos(shared_data / "videos")
    assert list(videos) == ["OHOFG", "Y1HGC"]
    # 36 and 31 frames, 2 to a clip.
    for (_, path), count in zip(videos.items(), (18, 16), strict=True):
        assert encode_video(path, encoder).clips.shape == (count, encoder.dim)
