"""A part of a video, or a small copy, as a video of its own."""

import heapq
import itertools
import operator
import os
from collections.abc import Callable
from fractions import Fraction

from acnn_tf.data.sound import sound_between
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
_BIT_RATE = 192_000


def cut_video(
    path: str | os.PathLike, start: float, end: float, out: str | os.PathLike
) -> list[str]:
    """Cuts a part out of a video, exact to the frame, with its sound.

    Every frame from the start on and before the end is encoded again (H.264),
    as it is meant to be seen, and at its own time. So is the first of its
    sounds (AAC, mono or stereo), from the first of these frames on, exact to
    the sample. What cannot be finished leaves nothing behind.

    Args:
        path: Video file, see `acnn_tf.data.open_video`.
        start: Where the part starts, in seconds.
        end: Where the part ends, in seconds.
        out: `.mp4` file, which is replaced if there is one.

    Returns:
        What is wrong with the sound, as text. Then the video may have only a
        part of the sound; it has all pictures.

    Raises:
        VideoError: If the file is no video, or has no frame in this part.
        WriteError: If the new file could not be written.
        ValueError: If the end is not after the start.

    Example:

    >>> from acnn_tf.data import cut_video
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
    part = itertools.chain([first], frames)
    start = max(first[0], Fraction(float(start)))
    return _encode(video, part, start, end, video.size, out, _OPTIONS)


def preview_video(
    path: str | os.PathLike,
    out: str | os.PathLike,
    max_side: int = 960,
    progress: Callable[[float], None] | None = None,
) -> list[str]:
    """Makes a small copy of a video that every browser plays.

    It has all frames at their own times, counted from the first, as they are
    meant to be seen (H.264, 8 bits, 4:2:0), and its sound as of `cut_video`.
    What cannot be finished leaves nothing behind.

    Args:
        path: Video file, see `acnn_tf.data.open_video`.
        out: `.mp4` file, which is replaced if there is one.
        max_side: The most pixels of the longer side.
        progress: Function that is called with the share that is done, from 0
            to 1.

    Returns:
        What is wrong with the sound, as text; see `cut_video`.

    Raises:
        VideoError: If the file is no video.
        WriteError: If the new file could not be written.

    Example:

    >>> from acnn_tf.data.cutting import preview_video
    >>> preview_video("holiday.avi", "holiday.mp4")  # doctest: +SKIP
    """
    video = open_video(path)
    frames = video.between(0, _FOREVER)
    if progress and video.duration:
        frames = _watched(frames, video.duration, progress)
    scale = min(1.0, max_side / max(video.size))
    size = [max(round(side * scale), 2) for side in video.size]
    return _encode(video, frames, 0, _FOREVER, size, out, _PREVIEW_OPTIONS)


def _watched(frames, duration, progress):
    for time, picture in frames:
        yield time, picture
        progress(min(float(time) / duration, 1.0))


def _encode(video, frames, start, end, size, out, options):
    """Writes pairs of a time and a frame, and the sound of that time."""
    import av

    out = os.fspath(out)
    if os.path.splitext(out)[1].lower() != ".mp4":
        raise ValueError(f"`out` must end in .mp4. Received: {out}")
    rate = Fraction(video.frame_rate or 25).limit_denominator(1001)
    notes = []
    sound = sound_between(video, start, end, notes)
    first_sound = next(sound, None)
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

        def pictures():
            for time, picture in frames:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame = frame.reformat(
                    stream.width,
                    stream.height,
                    stream.pix_fmt,
                    dst_colorspace=_BT709,
                )
                frame.pts = round(max(time - start, 0) / _TIME_BASE)
                frame.time_base = _TIME_BASE
                frame.duration = round(1 / rate / _TIME_BASE)
                yield frame.time, stream, frame

        parts = [pictures()]
        if first_sound:
            heard = container.add_stream(
                "aac",
                first_sound.sample_rate,
                layout=first_sound.layout.name,
                bit_rate=_BIT_RATE,
            )
            parts.append(
                (frame.time, heard, frame)
                for frame in itertools.chain([first_sound], sound)
            )
        for _, one, frame in heapq.merge(*parts, key=operator.itemgetter(0)):
            container.mux(one.encode(frame))
        for one in container.streams:
            container.mux(one.encode())
    return notes
