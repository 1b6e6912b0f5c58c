"""Writes small videos for tests, whole and broken, and reads them again."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")

RATE = 25
HEIGHT, WIDTH = 48, 64
# What each codec writes here, and its own settings.
QUIET = {"libx265": {"x265-params": "log-level=none"}}
PIXELS = {"mjpeg": "yuvj420p", "gif": "rgb8", "qtrle": "rgb24"}


def draw(number):
    """A picture that says its number: ten columns, one for each bit."""
    picture = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    for bit in range(10):
        if number >> bit & 1:
            picture[:, 6 * bit : 6 * bit + 6] = 235
    return picture


def numbers(frames):
    """Reads the numbers of pictures again, whatever a codec did to them."""
    result = []
    for frame in frames:
        assert frame.dtype == np.uint8
        bits = [frame[:, 6 * b + 2 : 6 * b + 4].mean() > 128 for b in range(10)]
        result.append(sum(1 << b for b in range(10) if bits[b]))
    return result


def write(
    path,
    codec="libx264",
    pictures=None,
    *,
    times=None,
    pixels=None,
    rate=RATE,
    change=None,
    kind=None,
    options=(),
    **settings,
):
    """Writes a video: by default 60 numbered pictures, 25 a second.

    `times` are the time stamps of the pictures in 1/rate s, `change` is called
    with the stream before anything is written.
    """
    pictures = list(map(draw, range(60)) if pictures is None else pictures)
    height, width = pictures[0].shape[:2]
    options = {**QUIET.get(codec, {}), **dict(options)}
    with av.open(str(path), "w", format=kind, options=settings) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = pixels or PIXELS.get(codec, "yuv420p")
        if change:
            change(stream)
        for index, picture in enumerate(pictures):
            layout = "rgb24" if picture.ndim == 3 else "gray"
            frame = av.VideoFrame.from_ndarray(picture, format=layout)
            frame = frame.reformat(format=stream.pix_fmt)
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if codec == "libsvtav1":
        # Where it may, as root, it takes real-time priority, and leaves it.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return str(path)


def write_sound(path, codec, seconds=1, cover=None):
    """Writes noise, with a cover if there is one."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream(codec, rate=48000)
        if cover is not None:
            stream = container.add_stream("mjpeg", rate=1)
            stream.height, stream.width = cover.shape[:2]
            stream.pix_fmt = "yuvj420p"
            stream.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(cover, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        noise = np.random.default_rng(0).integers(
            -9999, 9999, (1, seconds * 48000), np.int16
        )
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
        frame.rate = 48000
        resampler = av.AudioResampler(sound.codec_context.format, "mono", 48000)
        for part in resampler.resample(frame):
            container.mux(sound.encode(part))
        container.mux(sound.encode())
    return str(path)


def shortened(path, share=0.3):
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(share * len(data))])
    return path


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
