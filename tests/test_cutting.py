"""Parts of videos as videos of their own, to the frame."""

import os
from pathlib import Path

import numpy as np
import pytest

from acnn_tf.data import cut_video, open_video
from acnn_tf.data import video as video_lib
from acnn_tf.data.cutting import preview_video
from acnn_tf.data.video import VideoError
from tests.disks import full_disk
from tests.video_files import RATE, av, draw, numbers, write

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
        # Beyond `FAR`, where it begins within the file.
        (24.0, 25.0, range(600, 625)),
        (29.9, 99, [748, 749]),
        # Within a frame, and at the end of the last.
        (1.01, 1.03, [25]),
        (29.97, 29.98, [749]),
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
                patch.setattr(video_lib, "FAR", 99)
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


def write_tone(path, begins, seconds, rate, codec="aac", layout="stereo"):
    """Five pictures a second; a tone of 1 kHz that begins at a time."""
    times = np.arange(seconds * rate) / rate
    wave = np.where(times >= begins, np.sin(6283.2 * times) / 2, 0)
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=5)
        pictures.width, pictures.height = 64, 48
        sound = container.add_stream(codec, rate=rate, layout=layout)
        for number in range(5 * seconds):
            frame = av.VideoFrame.from_ndarray(draw(number), format="rgb24")
            container.mux(pictures.encode(frame))
        channels = [wave.astype(np.float32)] * sound.layout.nb_channels
        frame = av.AudioFrame.from_ndarray(np.stack(channels), "fltp", layout)
        frame.sample_rate, frame.pts = rate, 0
        container.mux(sound.encode(frame))
        for stream in (pictures, sound):
            container.mux(stream.encode())
    return str(path)


def heard(path):
    """Rate of the sound, its channels, and when it begins to be loud."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    assert frames[0].pts == 0
    wave = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    rate = frames[0].sample_rate
    return rate, len(wave), np.argmax(np.abs(wave[0]) > 0.1) / rate


@pytest.fixture(scope="module")
def tone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tone")
    return write_tone(folder / "tone.mp4", 24.123, 26, 44_100)


def test_sound_begins_at_its_time(subtests, tone, tmp_path):
    for name, rate, codec, layout, expected in (
        ("a.mkv", 48_000, "ac3", "5.1", (48_000, 2)),
        # Of a rate that AAC does not have.
        ("b.mkv", 11_111, "flac", "mono", (48_000, 1)),
        ("c.ts", 32_000, "mp2", "stereo", (32_000, 2)),
        ("tone.mp4", None, None, None, (44_100, 2)),
    ):
        path, begins, start = tone, 24.123, 23.4
        if codec:
            begins, start = 1.123, 0.4
            path = write_tone(tmp_path / name, begins, 2, rate, codec, layout)
        with subtests.test(name):
            out = tmp_path / "part.mp4"
            assert cut_video(path, start, start + 1.2, out) == []
            first = out.read_bytes()
            assert len(all_frames(out)[1]) == 6
            *found, found_begins = heard(out)
            assert tuple(found) == expected
            # Matroska rounds to 1 ms; a coder is not loud at once.
            assert found_begins == pytest.approx(begins - start, abs=1.5e-3)
            cut_video(path, start, start + 1.2, out)
            assert out.read_bytes() == first


def test_a_preview_is_heard(tmp_path):
    path = write_tone(tmp_path / "a.mkv", 1.123, 2, 48_000, "ac3", "5.1")
    out = tmp_path / "preview.mp4"
    assert preview_video(path, out) == []
    rate, channels, begins = heard(out)
    assert (rate, channels) == (48_000, 2)
    assert begins == pytest.approx(1.123, abs=1.5e-3)


def test_pictures_are_cut_the_same_with_and_without_sound(tone, tmp_path):
    silent, out = tmp_path / "silent.mp4", tmp_path / "part.mp4"
    with av.open(tone) as source, av.open(str(silent), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    found = []
    for path in (tone, silent):
        assert cut_video(path, 1, 3, out) == []
        with av.open(str(out)) as container:
            found.append([p.to_ndarray() for p in container.decode(video=0)])
            kinds = [stream.type for stream in container.streams]
    assert kinds == ["video"]
    np.testing.assert_array_equal(*found)


def test_where_there_is_no_sound_it_is_silent(tmp_path):
    path = tmp_path / "late.mkv"
    samples = np.full((1, 8000), 0.5, np.float32)
    samples[0, 10:13] = np.nan, np.inf, -1e30
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=5)
        pictures.width, pictures.height = 64, 48
        sound = container.add_stream("pcm_f32le", rate=8000, layout="mono")
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(draw(number), format="rgb24")
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode())
        for second in (1, 3):
            frame = av.AudioFrame.from_ndarray(samples, "flt", "mono")
            frame.sample_rate, frame.pts = 8000, 8000 * second
            container.mux(sound.encode(frame))
    assert cut_video(path, 0, 4, tmp_path / "part.mp4") == []
    with av.open(str(tmp_path / "part.mp4")) as container:
        frames = list(container.decode(audio=0))
    wave = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    level = [
        np.abs(wave[at : at + 4000]).mean() for at in range(2000, 32000, 8000)
    ]
    assert np.round(level, 1).tolist() == [0, 0.5, 0, 0.5]


def test_sound_that_cannot_be_decoded_is_told(subtests, tone, tmp_path):
    whole = Path(tone).read_bytes()
    unknown = whole.replace(b"mp4a", b"xxxx").replace(b"esds", b"xxxx")
    damaged = bytearray(whole)
    with av.open(tone) as container:
        for packet in container.demux(audio=0):
            if packet.size and packet.pts > 60_000:
                end = packet.pos + packet.size
                damaged[packet.pos : end] = b"\xff" * packet.size
    out = tmp_path / "part.mp4"
    for data, message in (
        (unknown, "FFmpeg does not know its kind"),
        (damaged, "of its packets are damaged"),
    ):
        with subtests.test(message):
            path = tmp_path / "damaged.mp4"
            path.write_bytes(data)
            (note,) = cut_video(path, 1, 2, out)
            assert f"{path}: not all of the sound can be decoded" in note
            assert message in note
            assert len(all_frames(out)[1]) == 5


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
