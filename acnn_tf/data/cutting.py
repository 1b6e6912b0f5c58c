"""A part of a video as a video of its own."""

import itertools
import os
from fractions import Fraction

from acnn_tf.data.video import VideoError, open_video
from acnn_tf.files.atomic import replacing
from acnn_tf.files.problems import fail

# Times are kept in these units, as MPEG's are: frames stay where they were.
_TIME_BASE = Fraction(1, 90_000)
# Nearly as sharp as what it was cut from.
_OPTIONS = {"crf": "18", "preset": "veryfast"}
_BT709 = 1


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
    import av

    out = os.fspath(out)
    if os.path.splitext(out)[1].lower() != ".mp4":
        raise ValueError(f"`out` must end in .mp4. Received: {out}")
    video = open_video(path)
    frames = video.between(start, end)
    first = next(frames, None)
    if first is None:
        fail(
            video.path,
            f"has no frame from {start:g} to {end:g} s",
            kind=VideoError,
        )
    rate = Fraction(video.frame_rate or 25).limit_denominator(1001)
    with (
        replacing(out, errors=(av.FFmpegError,)) as partial,
        av.open(partial, "w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", rate=rate, options=_OPTIONS)
        # Colours are stored for pairs of pixels.
        stream.height, stream.width = (
            max(size - size % 2, 2) for size in video.size
        )
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = _TIME_BASE
        context.colorspace = context.color_primaries = _BT709
        context.color_trc = _BT709
        for time, picture in itertools.chain([first], frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(
                stream.width,
                stream.height,
                stream.pix_fmt,
                dst_colorspace=_BT709,
            )
            frame.pts = round((time - first[0]) / _TIME_BASE)
            frame.time_base = _TIME_BASE
            frame.duration = round(1 / rate / _TIME_BASE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
