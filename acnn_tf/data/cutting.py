"""A part of a video, or a small copy, as a video of its own."""

import itertools
import os
from collections.abc import Callable
from fractions import Fraction

from acnn_tf.data.video import VideoError, open_video
from acnn_tf.files.atomic import replacing
from acnn_tf.files.problems import fail

# Times are kept in these units, as MPEG's are: frames stay where they were.
_TIME_BASE = Fraction(1, 90_000)
# Nearly as sharp as what it was cut from.
_OPTIONS = {"crf": "18", "preset": "veryfast"}
# Quick to make, and to be looked at for a moment.
_PREVIEW_OPTIONS = {
    "crf": "23",
    "preset": "veryfast",
    "threads": "1",
    "movflags": "faststart",
}
_BT709 = 1
# Seconds, behind the end of any video.
_FOREVER = 1e9


def cut_video(
    path: str | os.PathLike, start: float, end: float, out: str | os.PathLike
) -> None:
    """Cuts a part out of a video, exact to the frame, without its sound.

    Every frame from the start on and before the end is encoded again (H.264),
    as it is meant to be seen, and at its own time. What cannot be finished
    leaves nothing behind.

    Args:
        path: Video file, see `acnn_tf.data.open_video`.
        start: Float: seconds.
        end: Float: seconds.
        out: `.mp4` file, which is replaced if there is one.

    Raises:
        VideoError: If it is no video, or has no frame there.
        WriteError: If the new file could not be written.
        ValueError: If the end is not behind the start.

    Example:

    >>> cut_video("holiday.mp4", 12.4, 19.8, "dog.mp4")  # doctest: +SKIP
    """
    video = open_video(path)
    frames = video.between(start, end)
    first = next(frames, None)
    if first is None:
        fail(
            video.path,
            f"has no frame from {start:g} to {end:g} s",
            kind=VideoError,
        )
    _encode(video, itertools.chain([first], frames), video.size, out, _OPTIONS)


def preview_video(
    path: str | os.PathLike,
    out: str | os.PathLike,
    max_side: int = 960,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Makes a small copy of a video that every browser plays.

    It has all frames at their own times, counted from the first, as they are
    meant to be seen (H.264, 8 bits, 4:2:0), without sound. What cannot be
    finished leaves nothing behind.

    Args:
        path: Video file, see `acnn_tf.data.open_video`.
        out: `.mp4` file, which is replaced if there is one.
        max_side: Int: pixels of the longer side at most.
        progress: Function that is called with the share that is done.

    Raises:
        VideoError: If it is no video.
        WriteError: If the new file could not be written.

    Example:

    >>> preview_video("holiday.avi", "holiday.mp4")  # doctest: +SKIP
    """
    video = open_video(path)
    frames = video.between(0, _FOREVER)
    if progress and video.duration:
        frames = _watched(frames, video.duration, progress)
    scale = min(1.0, max_side / max(video.size))
    size = [max(round(side * scale), 2) for side in video.size]
    _encode(video, frames, size, out, _PREVIEW_OPTIONS)


def _watched(frames, duration, progress):
    for time, picture in frames:
        yield time, picture
        progress(min(float(time) / duration, 1.0))


def _encode(video, frames, size, out, options):
    """Writes pairs of a time and a frame, the first at time 0."""
    import av

    out = os.fspath(out)
    if os.path.splitext(out)[1].lower() != ".mp4":
        raise ValueError(f"`out` must end in .mp4. Received: {out}")
    start = None
    rate = Fraction(video.frame_rate or 25).limit_denominator(1001)
    with (
        replacing(out, errors=(av.FFmpegError,)) as partial,
        av.open(partial, "w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", rate=rate, options=options)
        # Colours are stored for pairs of pixels.
        stream.height, stream.width = (max(side - side % 2, 2) for side in size)
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = _TIME_BASE
        context.colorspace = context.color_primaries = _BT709
        context.color_trc = _BT709
        for time, picture in frames:
            start = time if start is None else start
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(
                stream.width,
                stream.height,
                stream.pix_fmt,
                dst_colorspace=_BT709,
            )
            frame.pts = round((time - start) / _TIME_BASE)
            frame.time_base = _TIME_BASE
            frame.duration = round(1 / rate / _TIME_BASE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
