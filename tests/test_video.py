import itertools
import os
import re
import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from acnn_tf.data import video as video_lib
from acnn_tf.data.video import VideoError, open_video
from tests.video_files import (
    HEIGHT,
    RATE,
    WIDTH,
    av,
    draw,
    numbers,
    resident_bytes,
    shortened,
    write,
    write_sound,
)


def expected_numbers(times, fps):
    """The plain way: for each tick, the first picture at or after it."""
    result, tick = [], Fraction(0)
    fps = Fraction(str(fps))
    while True:
        after = [
            i
            for i, time in enumerate(times)
            if time + Fraction(1, 2000) >= tick
        ]
        if not after:
            return result
        result.append(after[0])
        tick += 1 / fps


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def mp4(folder):
    """60 numbered pictures in 2.4 s, as x264 writes them, with B-frames."""
    return write(folder / "numbers.mp4")


# Frames at a fixed rate


def test_real_videos_have_a_frame_for_each_second(shared_data):
    for name, count, size in (
        ("OHOFG", 36, (360, 640)),
        ("Y1HGC", 31, (270, 480)),
    ):
        video = open_video(shared_data / "videos" / f"{name}.mp4")
        frames = list(video.frames(fps=1))
        assert len(frames) == count
        assert video.size == size
        assert {frame.shape for frame in frames} == {(*size, 3)}
        assert video.decoded == pytest.approx(video.duration, abs=0.01)
        assert video.problems == []


def test_codecs_and_containers_give_the_same_frames(subtests, tmp_path):
    for name, codec, settings in (
        ("a.mp4", "libx264", {}),
        ("a.mp4", "libx265", {}),
        ("a.mp4", "libx265", {"pixels": "yuv420p10le"}),
        ("a.webm", "libvpx-vp9", {}),
        ("a.webm", "libvpx", {}),
        ("a.mp4", "libsvtav1", {}),
        ("a.avi", "mjpeg", {}),
        ("a.gif", "gif", {}),
        ("a.mov", "qtrle", {}),
        ("a.mkv", "libx264", {}),
        ("a.flv", "libx264", {}),
        ("a.ts", "libx264", {}),
        # Time stamps are in the order of decoding, or there are none.
        ("a.avi", "libx264", {}),
        ("a.avi", "mpeg4", {"options": {"bf": "2"}}),
        ("a.h264", "libx264", {}),
        ("a.mpg", "mpeg2video", {"options": {"bf": "2"}}),
        ("a.mp4", "libx264", {"options": {"bf": "0", "g": "5"}}),
    ):
        with subtests.test(name, codec=codec, **settings):
            video = open_video(write(tmp_path / name, codec, **settings))
            # 12.5 frames between ticks: the first at or after 12.5 is 13.
            assert numbers(video.frames(fps=2)) == [0, 13, 25, 38, 50]
            assert video.decoded == pytest.approx(2.4, abs=0.05)
            assert video.problems == []
            assert video.frame_rate == pytest.approx(RATE)


def test_frames_are_those_of_decoding_everything(subtests, mp4):
    with av.open(mp4) as container:
        everything = list(container.decode(video=0))
    times = [frame.pts * frame.time_base for frame in everything]
    pictures = [frame.to_ndarray(format="rgb24") for frame in everything]
    rates = (0.3, 1, 2, 7, 25, 29.97, 60)
    for fps, threads in itertools.product(rates, (1, 2)):
        with subtests.test(fps=fps, threads=threads):
            frames = list(open_video(mp4).frames(fps, threads=threads))
            expected = [pictures[i] for i in expected_numbers(times, fps)]
            np.testing.assert_array_equal(frames, expected)


def test_variable_rates_go_by_time_stamps(tmp_path):
    times = [0, 1, 2, 30, 31, 32, 33, 34, 90, 100, 101, 250, 251]
    expected = expected_numbers([Fraction(t, RATE) for t in times], 1)
    assert expected == [0, 3, 8, 8, 9] + 6 * [11]
    for name in ("a.mp4", "a.mkv"):
        pictures = map(draw, range(len(times)))
        path = write(tmp_path / name, pictures=pictures, times=times)
        # By the MP4 the last one, of 10.04 s, is shown until 12.76 s.
        held = [12] if name == "a.mp4" else []
        found = numbers(open_video(path).frames(fps=1))
        assert found == expected + held, name


def test_frames_a_rounding_before_a_tick_are_on_it(tmp_path):
    # To Matroska's clock of ms, picture 1 of 30 a second is at 0.033 s.
    path = write(tmp_path / "a.mkv", rate=30)
    assert numbers(open_video(path).frames(fps=30)) == list(range(60))


def test_times_count_from_the_first_frame(subtests, tmp_path):
    for name in ("a.mp4", "a.mkv", "a.ts"):
        with subtests.test(name):
            video = open_video(write(tmp_path / name, times=range(100, 160)))
            assert video.start == pytest.approx(4, abs=0.01)
            assert video.duration == pytest.approx(2.4, abs=0.05)
            assert numbers(video.frames(fps=2)) == [0, 13, 25, 38, 50]
            assert video.problems == []


def test_edit_lists_are_honoured(tmp_path, mp4):
    data = bytearray(Path(mp4).read_bytes())
    # elst: size, name, version, number of entries, duration, first time.
    place = data.index(b"elst") + 12
    duration, first = struct.unpack(">Ii", data[place : place + 8])
    with av.open(mp4) as container:
        second = round(1 / container.streams.video[0].time_base)
    data[place : place + 8] = struct.pack(
        ">Ii", duration * 14 // 24, first + second
    )
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    # Without the first second, which is 25 frames.
    assert numbers(open_video(path).frames(fps=2)) == [25, 38, 50]


def test_a_single_frame_is_a_video(tmp_path):
    video = open_video(write(tmp_path / "a.mp4", pictures=[draw(5)]))
    assert numbers(video.frames(fps=1)) == [5]
    assert video.duration == pytest.approx(1 / RATE)
    assert video.problems == []


@pytest.mark.parametrize(
    "seconds", [600, pytest.param(2 * 3600, marks=pytest.mark.soak)]
)
def test_hours_take_no_more_memory_than_seconds(tmp_path, seconds):
    pictures = (draw(i % 1024) for i in range(seconds))
    path = write(
        tmp_path / "a.mkv", "mpeg4", pictures, rate=1, options={"g": "100"}
    )
    frames = open_video(path).frames(fps=1, threads=1)
    for _ in range(100):
        next(frames)
    before = resident_bytes()
    assert sum(1 for _ in frames) == seconds - 100
    assert resident_bytes() - before < 8 * 2**20


def test_each_call_reads_from_the_beginning(mp4):
    video = open_video(mp4)
    slow, fast = video.frames(fps=1), video.frames(fps=5)
    assert numbers([next(slow), next(fast), next(fast)]) == [0, 0, 5]
    assert numbers(slow) == [25, 50]


def test_progress_is_told(mp4):
    video = open_video(mp4)
    assert video.decoded == 0
    told = [video.decoded for _ in video.frames(fps=2, threads=1)]
    assert told == pytest.approx([0.04, 0.56, 1.04, 1.56, 2.04])


def open_files():
    return len(os.listdir("/proc/self/fd"))


def test_seconds_are_counted_whatever_the_file_claims(tmp_path):
    path = write(tmp_path / "a.mp4", pictures=map(draw, range(60)))
    video = open_video(path)
    assert video.listed_seconds() == pytest.approx(2.4)
    assert (video.codec, video.pixel_format) == ("h264", "yuv420p")
    assert "mp4" in video.container
    streams = [write(tmp_path / f"{n}.ts", kind="mpegts") for n in range(2)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(Path(name).read_bytes() for name in streams))
    assert open_video(joined).listed_seconds() == pytest.approx(4.8, abs=0.1)
    path = write(
        tmp_path / "b.mp4", pictures=map(draw, range(500)), movflags="faststart"
    )
    video = open_video(shortened(path, share=0.5))
    assert video.duration == pytest.approx(20)
    assert 2 < video.listed_seconds() < 18


def test_no_file_stays_open(mp4):
    before = open_files()
    frames = open_video(mp4).frames()
    next(frames)
    assert open_files() == before + 1
    frames.close()
    assert open_files() == before


def test_a_rate_must_be_positive(mp4):
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`fps` must be above 0"):
            open_video(mp4).frames(fps)
    with pytest.raises(ValueError, match="`threads` must be 0 or more"):
        open_video(mp4).frames(threads=-1)


# As they are meant to be seen


def corners():
    """Red, green, blue, white: top left, top right, bottom left and right."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    top, left = slice(0, HEIGHT // 2), slice(0, WIDTH // 2)
    bottom, right = slice(HEIGHT // 2, None), slice(WIDTH // 2, None)
    picture[top, left] = (200, 0, 0)
    picture[top, right] = (0, 200, 0)
    picture[bottom, left] = (0, 0, 200)
    picture[bottom, right] = 200
    return picture


# In 1/65536, rows of 3: what is shown at (x, y) is at (ax + cy, bx + dy).
ONE = 1 << 16


def test_pictures_are_turned_as_the_file_says(subtests, tmp_path):
    for matrix, expected in (
        # A phone held upright, to either side, and upside down; a mirror; and
        # a mirror of an upright phone.
        ((0, ONE, -ONE, 0), lambda picture: np.rot90(picture, -1)),
        ((0, -ONE, ONE, 0), lambda picture: np.rot90(picture)),
        ((-ONE, 0, 0, -ONE), lambda picture: np.rot90(picture, 2)),
        ((-ONE, 0, 0, ONE), lambda picture: picture[:, ::-1]),
        ((0, ONE, ONE, 0), lambda picture: picture.swapaxes(0, 1)),
        ((ONE, 0, 0, ONE), lambda picture: picture),
    ):
        a, b, c, d = matrix
        rows = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path = write(
            tmp_path / "a.mp4",
            pictures=3 * [corners()],
            change=lambda s, rows=rows: s.set_display_matrix(rows),
        )
        with subtests.test(matrix=matrix):
            video = open_video(path)
            (frame,) = video.frames()
            picture = expected(corners())
            assert frame.shape == picture.shape
            assert video.size == picture.shape[:2]
            assert frame.flags["C_CONTIGUOUS"]
            assert np.abs(frame.astype(int) - picture).mean() < 8


def write_corners(path, codec="libx264", aspect=None):
    """Three pictures of `corners`, in pixels of a shape."""

    def change(stream):
        stream.codec_context.sample_aspect_ratio = aspect

    return write(path, codec, [corners()] * 3, change=change)


def test_pixels_become_square(subtests, tmp_path):
    kinds = {"a.mp4": "libx264", "a.mkv": "libx264", "a.avi": "mpeg4"}
    widths = {Fraction(4, 3): 85, Fraction(1, 2): 32}
    for name, aspect in itertools.product(kinds, widths):
        with subtests.test(name, aspect=aspect):
            path = write_corners(tmp_path / name, kinds[name], aspect)
            video = open_video(path)
            width = widths[aspect]
            assert video.size == (HEIGHT, width)
            (frame,) = video.frames()
            assert frame.shape == (HEIGHT, width, 3)
            assert frame[5, 5, 0] > 150 > 50 > frame[5, 5, 1]
            assert frame[5, width - 5, 1] > 150 > 50 > frame[5, width - 5, 0]
    # Beyond these it is a slip of the pen.
    for aspect in (Fraction(9), Fraction(1, 9)):
        path = write_corners(tmp_path / "a.mp4", aspect=aspect)
        assert open_video(path).size == (HEIGHT, WIDTH)


def test_colours_of_any_size_are_exact_where_nothing_is_lost(
    subtests, tmp_path
):
    codecs = (("ffv1", "bgr0"), ("ffv1", "bgra"), ("png", "rgba"))
    shapes = ((48, 64), (17, 33), (1, 1), (2, 300))
    rng = np.random.default_rng(0)
    for (codec, pixels), shape in itertools.product(codecs, shapes):
        with subtests.test(codec, pixels=pixels, shape=shape):
            picture = rng.integers(0, 256, (*shape, 3), np.uint8)
            name = "a.mov" if codec == "png" else "a.mkv"
            path = write(tmp_path / name, codec, [picture] * 2, pixels=pixels)
            (frame,) = open_video(path).frames()
            np.testing.assert_array_equal(frame, picture)


def test_grey_and_more_bits_become_bytes(subtests, tmp_path):
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (HEIGHT, 1))
    for pixels in ("gray", "gray10le", "yuv444p10le"):
        with subtests.test(pixels):
            path = write(tmp_path / "a.mkv", "ffv1", [ramp] * 2, pixels=pixels)
            (frame,) = open_video(path).frames()
            assert frame.shape == (*ramp.shape, 3)
            assert np.abs(frame.astype(int) - ramp[..., None]).max() <= 2


def pq(nits):
    """SMPTE ST 2084: the code, of 1, for a brightness."""
    power = (nits / 10000) ** 0.1593017578125
    return (
        (0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)
    ) ** 78.84375


def test_hdr_is_shown_as_on_an_ordinary_screen(tmp_path):
    # White of paper is 203 nits in HDR (ITU-R BT.2408), and 255 elsewhere; a
    # screen makes (v / 255)^2.4 of it (BT.1886): of a tenth, 98.
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_range = 9, 1
        context.color_trc, context.color_primaries = 16, 9
        frame = av.VideoFrame(WIDTH, HEIGHT, stream.pix_fmt)
        luma = [64 + round(876 * pq(nits)) for nits in (20.3, 203)]
        row = np.repeat(np.array(luma, np.uint16), WIDTH // 2)
        frame.planes[0].update(np.tile(row, (HEIGHT, 1)).tobytes())
        for plane in frame.planes[1:]:
            grey = np.full(plane.buffer_size // 2, 512, np.uint16)
            plane.update(grey.tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (frame,) = open_video(tmp_path / "a.mkv").frames()
    assert frame[5, 10].tolist() == pytest.approx([98] * 3, abs=3)
    assert frame[5, 54].tolist() == pytest.approx([253] * 3, abs=3)


# What is wrong with a file


def test_what_is_there_of_a_shortened_file_is_given(subtests, tmp_path):
    # Noise, so that pictures weigh more than what surrounds them.
    noise = np.random.default_rng(0).integers(
        0, 40, (250, HEIGHT, WIDTH, 3), np.uint8
    )
    pictures = [np.clip(draw(i), 40, 215) + noise[i] - 20 for i in range(250)]
    for name, codec, settings in (
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx-vp9", {}),
        ("a.avi", "mpeg4", {}),
        ("a.mp4", "libx264", {"movflags": "faststart"}),
    ):
        path = write(
            tmp_path / name, codec, pictures, options={"g": "25"}, **settings
        )
        with subtests.test(name):
            video = open_video(shortened(path))
            given = numbers(video.frames(fps=5))
            # The fewer cores there are, the more the first pictures weigh.
            assert 2 <= len(given) <= 25
            assert given == list(range(0, 5 * len(given), 5))
            (*_, problem) = video.problems
            assert re.fullmatch(
                f"{re.escape(path)}: .*decoded {video.decoded:.1f} of "
                f"{video.duration:.1f} s; .*cut short.*",
                str(problem),
            )


def test_missing_sound_ends_nothing(tmp_path, mp4):
    # A fragment of a recording that was broken off: its pictures stand before
    # its sound, which is not there.
    sound = write_sound(tmp_path / "sound.mp4", "aac", seconds=2)
    path = tmp_path / "a.mp4"
    with (
        av.open(mp4) as first,
        av.open(sound) as second,
        av.open(
            str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}
        ) as container,
    ):
        sources = (first.streams.video[0], second.streams.audio[0])
        streams = [container.add_stream_from_template(s) for s in sources]
        for source, stream in zip(sources, streams):
            for packet in source.container.demux(source):
                if packet.dts is not None:
                    packet.stream = stream
                    container.mux(packet)
    given = numbers(open_video(shortened(path, 0.66)).frames(fps=RATE))
    assert given == list(range(60))


def test_what_the_decoder_still_holds_is_given_where_reading_fails(tmp_path):
    path = write(tmp_path / "a.apng", "apng", pixels="rgba")
    video = open_video(shortened(path, 0.93))
    given = numbers(video.frames(RATE, threads=1))
    assert given == list(range(len(given)))
    assert numbers(video.frames(RATE, threads=4)) == given


def test_damage_within_a_file_is_told(tmp_path, mp4):
    data = bytearray(Path(mp4).read_bytes())
    middle = data.index(b"mdat") + len(data) // 3
    data[middle : middle + 400] = bytes(400)
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    video = open_video(path)
    frames = list(video.frames(fps=5))
    assert frames[0].shape == (HEIGHT, WIDTH, 3)
    assert any("is damaged" in str(problem) for problem in video.problems)
    # The next reading tells it anew, not twice.
    told = list(map(str, video.problems))
    list(video.frames(fps=5))
    assert list(map(str, video.problems)) == told


def test_parts_of_a_joined_recording_follow_one_another(tmp_path):
    path = write(tmp_path / "a.ts")
    data = Path(path).read_bytes()
    Path(path).write_bytes(data + data)
    video = open_video(path)
    # 2.4 s into the recording it begins again; there, within a frame or two.
    assert numbers(video.frames(fps=2)) == [
        *(0, 13, 25, 38, 50),
        *(pytest.approx(i, abs=2) for i in (3, 15, 28, 40, 53)),
    ]
    assert "clock that leaps" in str(video.problems[0])


def test_a_stream_that_begins_within_the_file_ends_nothing(tmp_path):
    path = write(
        tmp_path / "a.ts",
        "mpeg2video",
        map(draw, range(60)),
        options={"g": "1"},
    )
    data = bytearray(Path(path).read_bytes())
    # MPEG-TS is packets of 188 bytes. In the second is whether something
    # begins with it; in that and the third, to which stream it belongs: 0x100.
    first_packets = [
        start
        for start in range(0, len(data), 188)
        if data[start + 1 : start + 3] == b"\x41\x00"
    ]
    assert len(first_packets) == 60
    data[first_packets[40] + 2] = 1  # picture 40: of a stream of its own
    Path(path).write_bytes(data)
    video = open_video(path)
    assert numbers(video.frames(fps=2)) == [0, 13, 25, 38, 50]


def test_a_gap_is_a_held_picture_unless_it_is_a_leap(tmp_path):
    times = [*range(30), *range(30 + 600 * RATE, 45 + 600 * RATE)]
    for name, count, leaps in (("a.mkv", 602, 0), ("a.ts", 2, 1)):
        pictures = map(draw, range(45))
        video = open_video(
            write(tmp_path / name, pictures=pictures, times=times)
        )
        assert len(list(video.frames(fps=1))) == count, name
        assert len(video.problems) == leaps, name


def test_any_damage_ends_in_frames_or_in_a_clear_error(tmp_path, capfd):
    sources = [
        write(tmp_path / "a.mp4", pictures=map(draw, range(20))),
        write(tmp_path / "a.webm", "libvpx-vp9", map(draw, range(20))),
        write(tmp_path / "a.avi", "mpeg4", map(draw, range(20))),
        write(tmp_path / "a.gif", "gif", map(draw, range(20))),
    ]
    capfd.readouterr()
    rng = np.random.default_rng(0)
    outcomes = set()
    for number in range(120):
        source = sources[number % len(sources)]
        data = bytearray(Path(source).read_bytes())
        for place in rng.integers(0, len(data), 1 + number // 10):
            data[place] = rng.integers(256)
        if number % 3 == 0:
            data = data[: rng.integers(len(data))]
        path = tmp_path / f"damaged{os.path.splitext(source)[1]}"
        path.write_bytes(data)
        try:
            video = open_video(path)
            for frame in video.frames(fps=5):
                assert frame.shape == (*video.size, 3)
            outcomes.add("frames")
        except VideoError:
            outcomes.add("error")
    assert outcomes == {"frames", "error"}
    assert capfd.readouterr() == ("", "")


def test_what_is_no_video_is_named(refused, tmp_path):
    sound = "holds no video but audio alone"
    unlike = "is not a video but, as FFmpeg sees it, sound or a picture"
    for number, (name, make, message) in enumerate(
        (
            ("a.mp4", lambda path: None, "cannot be read: No such file"),
            ("a.mp4", os.mkdir, "is a folder; name a video file in it"),
            ("a.mp4", os.mkfifo, "is not a regular file"),
            ("a.mp4", Path.touch, "is empty, 0 bytes"),
            (
                "a.mp4",
                lambda path: path.write_text("Thank you for your order\n" * 99),
                "is text, not a video; it begins with 'Thank you for your",
            ),
            (
                "a.mp4",
                lambda path: path.write_bytes(b"\x00\x01\x02" * 999),
                "is not a video that FFmpeg can read",
            ),
            # A playlist would have other files read, or addresses.
            (
                "a.mp4",
                lambda path: path.write_text("ffconcat version 1.0\nfile b"),
                "is text, not a video; it begins with 'ffconcat",
            ),
            (
                "a.mp4",
                lambda path: shortened(write(path)),
                "without its index .*broken off",
            ),
            ("a.mp4", lambda path: write_sound(path, "aac"), sound),
            ("a.webm", lambda path: write_sound(path, "libopus"), sound),
            (
                "a.mp4",
                lambda path: write_sound(path, "aac", cover=corners()),
                sound,
            ),
            ("a.wav", lambda path: write_sound(path, "pcm_s16le"), unlike),
            (
                "a.png",
                lambda path: write(path, "png", [corners()], pixels="rgb24"),
                unlike,
            ),
        )
    ):
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        make(path)
        with refused(VideoError, f"^{path}: .*{message}"):
            open_video(path)


def test_pixels_that_cannot_be_shown_are_named(mp4):
    # Frames as a decoder may give them: PyAV writes no such file.
    for pixels in ("gray32le", "yaf32le"):
        frame = av.VideoFrame(WIDTH, HEIGHT, pixels)
        with pytest.raises(VideoError, match=f"into RGB: {pixels}; convert"):
            open_video(mp4)._converter()(frame)


def test_huge_pictures_are_refused_before_they_take_memory(mp4, monkeypatch):
    monkeypatch.setattr(video_lib, "MAX_PIXELS", 1000)
    with pytest.raises(VideoError, match="64 x 48 pixels, more than 1,000"):
        open_video(mp4)


def test_names_are_taken_as_they_are(tmp_path, mp4, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ü: #?.mp4", "%03d.mp4", "data:,a.mp4"):
        Path(name).write_bytes(Path(mp4).read_bytes())
        assert len(list(open_video(name).frames(fps=1))) == 3, name


def test_the_message_says_what_to_install(mp4, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[video\]"'):
        open_video(mp4)
