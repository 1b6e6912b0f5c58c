"""Video files -> frames at a fixed rate, as they are meant to be seen.

FFmpeg reads them, through PyAV: `pip install -e ".[video]"`. Sound is for
`acnn_tf.data.sound`. A video of any duration takes the memory of a few of its
frames.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import operator
import os
import re
import stat
import typing
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from acnn_tf.files.problems import DataError, Problem, fail

if typing.TYPE_CHECKING:
    import av

# 8192 x 8192: 200 MB as RGB. No camera's video has more.
MAX_PIXELS = 2**26

# Containers of video. FFmpeg also reads playlists, which name other files and
# addresses, and draws text and still pictures as if they were videos.
_FORMATS = (
    "apng,asf,av1,avi,dv,flv,gif,h263,h264,hevc,ivf,m4v,matroska,mjpeg,mov,"
    "mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,vc1,vvc,webp,wtv,yuv4mpegpipe"
)
# Half of the finest step of Matroska's clock, to which 1/30 s is 33 ms: a
# frame that is as little before a tick is on it.
_TOLERANCE = Fraction(1, 2000)
# A recording whose clock goes back by more than a second, or forward by more
# than an hour, was joined or damaged there: no picture is held for so long. In
# MPEG's streams, whose clocks may leap by design, FFmpeg says 10 seconds.
MAX_STEP_BACK = 1
_MAX_STEP = 3600
_MAX_STEPS = {"mpegts": 10, "mpeg": 10}
# Containers whose list of frames says where to begin within the file, and from
# when on, in seconds, that is quicker than to decode what comes before.
_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
FAR = 20
# The last frame is repeated until so much is left of what it is shown for, in
# seconds: of a usual one, nothing is.
_HELD = 1
# How much of a video may be missing at its end before that is a problem.
_MAX_MISSING = 0.5
# Codecs whose frames that no other frame refers to can be told before they
# are decoded, and are then left out without a change to any other.
_SKIPPING_CODECS = ("h264", "mpeg4", "mpeg2video")
# Transfer functions of HDR, PQ and HLG, as FFmpeg numbers them; and what a
# monitor shows, BT.709.
_HDR = (16, 18)
_BT709 = 1


class VideoError(DataError):
    """A file that is no video, or of which no frame can be shown."""


_fail = functools.partial(fail, kind=VideoError)


class Video:
    """A video file.

    `open_video` makes it. No file stays open: each call of `frames` opens it
    again, and closes it at its end.

    Attributes:
        path: String.
        size: `(height, width)` of the frames in pixels, as they are shown:
            turned as the file says, and with square pixels.
        duration: Float: seconds, as the file says, or `None`.
        frame_rate: Float: frames a second on average, or `None` if unknown.
        start: Float: seconds at which the first frame stands on the file's own
            clock. Times here count from the first frame.
        container: String: FFmpeg's name of what holds the video, such as
            `"matroska,webm"`.
        codec: String: FFmpeg's name of how it is encoded, such as `"h264"`.
        pixel_format: String: FFmpeg's name of how pixels are kept, such as
            `"yuv420p"`.
        may_seek: Bool: whether reading can begin within the file.
        max_step: Int: seconds from one frame to the next beyond which the clock
            has leapt.
        decoded: Float: seconds that `frames` has decoded so far.
        problems: List of `acnn_tf.files.problems.Problem`: what was wrong
            with the file, once `frames` has come to its end.
    """

    def __init__(self, path: str):
        self.path = path
        self.decoded = 0.0
        self.problems = []
        with opened(path, threads=1) as (container, stream):
            frame = _first_frame(path, container, stream)
            # AVI has no times at which frames are shown, only their order, and
            # what FFmpeg makes of it is wrong for H.264.
            format_name = self.container = container.format.name
            self.codec = stream.codec_context.codec.canonical_name
            self.pixel_format = frame.format.name
            self.may_seek = format_name in _SEEKABLE
            is_avi = format_name == "avi"
            self.max_step = _MAX_STEPS.get(format_name, _MAX_STEP)
            self._stamp = operator.attrgetter("dts" if is_avi else "pts")
            self._may_skip = (
                stream.codec_context.codec.name in _SKIPPING_CODECS
                and not is_avi
            )
            self._zero = self._stamp(frame) or 0
            self.start = float(self._zero * stream.time_base)
            rate = stream.average_rate or stream.guessed_rate
            self.frame_rate = float(rate) if rate else None
            self.duration = _duration(container, stream, self.start)
            self._width, self._height = _square(stream, frame)
            self._matrix = _display_matrix(frame)
        self.size = (self._height, self._width)
        if _is_transposed(self._matrix):
            self.size = (self._width, self._height)

    def __repr__(self):
        height, width = self.size
        seconds = "?" if self.duration is None else f"{self.duration:.1f}"
        return f"<Video {self.path}: {width} x {height}, {seconds} s>"

    def frames(
        self, fps: float = 1.0, *, threads: int = 0
    ) -> Iterator[np.ndarray]:
        """Reads frames at a fixed rate.

        The frame for time `i / fps` is the first one at or after it, to half a
        millisecond. Where frames are farther apart than these times, one frame
        serves for several of them; so does the last one, if it is shown on.

        What can be decoded of a damaged or shortened file is returned, and
        `problems` then says how much that was.

        Args:
            fps: Frames a second.
            threads: Number of threads that decode; 0 is one for each core. The
                frames are the same for any number.

        Returns:
            Iterator over `uint8 [H, W, 3]`, RGB, of the video's `size`. The
            colours of HDR videos are those of an ordinary screen; what is
            transparent is shown.

        Raises:
            ValueError: If `fps` is no positive number.

        Example:

        >>> from acnn_tf.data import open_video
        >>> frames = open_video("holiday.mp4").frames(fps=2)  # doctest: +SKIP
        >>> for i, frame in enumerate(frames):  # doctest: +SKIP
        ...     print(i / 2, frame.mean())
        """
        if not (0 < fps < math.inf):
            raise ValueError(f"`fps` must be above 0. Received: {fps}")
        if threads < 0:
            raise ValueError(
                f"`threads` must be 0 or more. Received: {threads}"
            )
        self.decoded = 0.0
        self.problems = []
        return self._frames(Fraction(float(fps)), threads)

    def listed_seconds(self) -> float:
        """Seconds that the frames last together, by the file's packets.

        All are read, which takes as long as to read the file, and none is
        decoded. Unlike `duration` this is not what the file claims. Where the
        clock leaps, it goes on as `frames` does.
        """
        with opened(self.path, threads=1) as (container, stream):
            usual_step = 1 / (stream.average_rate or stream.guessed_rate or 25)
            seconds, last, step = Fraction(0), None, usual_step
            for packet in packets(container, stream):
                stamp = packet and (
                    packet.pts if packet.dts is None else packet.dts
                )
                if stamp is None:
                    continue
                if last is not None:
                    away = (stamp - last) * stream.time_base
                    is_leap = not -MAX_STEP_BACK <= away <= self.max_step
                    seconds += usual_step if is_leap else away
                last, step = stamp, usual_step
                if packet.duration:
                    step = packet.duration * stream.time_base
            return float(seconds + min(step, self.max_step))

    def between(
        self, start: float, end: float
    ) -> Iterator[tuple[Fraction, np.ndarray]]:
        """Reads every frame from one time to another, whatever the rate.

        Args:
            start: Start in seconds. The first frame is the one at or after
                this time, to half a millisecond.
            end: End in seconds. All frames are before this time.

        Returns:
            Iterator over pairs: the time of a frame in seconds, and the frame
            as of `frames`. If no frame begins in between, it is the one that
            is shown meanwhile.

        Raises:
            ValueError: If the end is not after the start.
        """
        if not 0 <= start < end < math.inf:
            raise ValueError(
                "`start` must be 0 or more and `end` above it. "
                f"Received: {start}, {end}"
            )
        return self._between(*(Fraction(float(t)) for t in (start, end)))

    def _between(self, start, end):
        show = self._converter()
        may_seek = self.may_seek and start > FAR
        for seeks in (True, False) if may_seek else (False,):
            with opened(self.path, threads=0) as (container, stream):
                if seeks:
                    stamp = self._zero + int(start / stream.time_base)
                    container.seek(stamp, stream=stream)
                self.problems = []
                frames = self._timed_frames(container, stream)
                first = next(frames, None)
                if seeks and (first is None or first[0] > start):
                    continue  # it led behind it, as in a file without its end
                shown, is_any = None, False
                for time, frame in itertools.chain(
                    filter(None, [first]), frames
                ):
                    if time + _TOLERANCE >= end:
                        break
                    if time + _TOLERANCE >= start:
                        is_any = True
                        yield time, show(frame)
                    else:
                        shown = time, frame
                if shown and not is_any and start < self.decoded:
                    yield shown[0], show(shown[1])
                return

    def _frames(self, rate, threads):
        with opened(self.path, threads) as (container, stream):
            show = self._converter()
            tick, frame = 0, None
            for time, frame in self._timed_frames(container, stream, rate):
                if tick > (time + _TOLERANCE) * rate:
                    continue
                picture = show(frame)
                while tick <= (time + _TOLERANCE) * rate:
                    yield picture
                    tick += 1
            last = (self.decoded - _HELD) * rate
            if frame and tick <= last:
                picture = show(frame)
                for _ in range(tick, math.floor(last) + 1):
                    yield picture

    def _timed_frames(self, container, stream, rate=None):
        """Decodes: yields `(time, frame)` in the order of time.

        Where a `rate` is given, those that it does not need may be left out.
        """
        import av

        usual_step = 1 / (stream.average_rate or stream.guessed_rate or 25)
        may_skip = self._may_skip and rate is not None
        first_in_tick = {}  # tick -> least time of a packet after it
        shift, last, num_broken, num_leaps = 0, None, 0, 0
        for packet in packets(container, stream):
            if may_skip and packet is not None and packet.pts is not None:
                time = (packet.pts - self._zero) * stream.time_base + shift
                _choose_skipping(stream, time, rate, first_in_tick)
            try:
                frames = stream.decode(packet)
            except av.FFmpegError:
                num_broken += 1
                continue
            for frame in frames:
                step = usual_step
                if frame.duration:
                    step = frame.duration * stream.time_base
                stamp = self._stamp(frame)
                if stamp is not None:
                    time = (stamp - self._zero) * stream.time_base + shift
                else:
                    time = Fraction(0) if last is None else last + step
                if last is not None and not (
                    -MAX_STEP_BACK <= time - last <= self.max_step
                ):
                    num_leaps += 1
                    shift += last + usual_step - time
                    time = last + usual_step
                num_broken += frame.is_corrupt
                last = time if last is None else max(last, time)
                self.decoded = float(last + min(step, self.max_step))
                yield time, frame
        self._note_problems(num_broken, num_leaps, float(usual_step))

    def _note_problems(self, num_broken, num_leaps, step):
        def note(message):
            self.problems.append(Problem(self.path, None, message, False))

        if num_broken:
            note(f"is damaged: {num_broken} of its frames are not whole")
        if num_leaps:
            note(
                f"has a clock that leaps, in places: {num_leaps}; the parts "
                "are read as if they followed one another"
            )
        # Where the clock leaps, the duration is only a difference of times.
        duration = None if num_leaps else self.duration
        if duration and self.decoded + step + _MAX_MISSING < duration:
            note(
                f"decoded {self.decoded:.1f} of {duration:.1f} s; the rest "
                "holds no frames: is the file cut short?"
            )

    def _converter(self):
        """Returns a function: frame of FFmpeg -> `uint8 [H, W, 3]`."""
        import av
        from av.video.reformatter import Interpolation, VideoReformatter

        # It keeps its tables: those of HDR take 2 to 3 seconds to make.
        reformatter = VideoReformatter()
        # BITEXACT: the same colours on every kind of processor.
        settings = {
            "interpolation": Interpolation.BICUBIC | Interpolation.BITEXACT,
            "threads": 1,
        }

        def show(frame):
            hdr = {}
            if frame.color_trc in _HDR:
                hdr = {"dst_color_trc": _BT709, "dst_color_primaries": _BT709}
            try:
                # FFmpeg would end the process at these.
                if frame.format.name.startswith("yaf32"):
                    raise NotImplementedError
                picture = reformatter.reformat(
                    frame, self._width, self._height, "rgb24", **settings, **hdr
                )
            except (av.FFmpegError, NotImplementedError):
                _fail(
                    self.path,
                    "has pixels of a kind that FFmpeg does not turn into RGB: "
                    f"{frame.format.name}; convert it first",
                )
            return _turned(picture.to_ndarray(), self._matrix)

        return show


def open_video(path: str | os.PathLike) -> Video:
    """Opens a video file.

    Args:
        path: File of any kind that holds video: MP4, MOV, WebM, Matroska, AVI,
            MPEG, GIF and others.

    Returns:
        The opened video.

    Raises:
        VideoError: If the file does not exist, is a folder, is empty, is text,
            has only sound, or is damaged before its first frame.
        ImportError: If PyAV is not installed.

    Example:

    >>> from acnn_tf.data import open_video
    >>> video = open_video("holiday.mp4")  # doctest: +SKIP
    >>> video.duration, video.size  # doctest: +SKIP
    (35.1, (360, 640))
    >>> sum(1 for frame in video.frames(fps=1))  # doctest: +SKIP
    36
    """
    return Video(os.fspath(path))


@contextlib.contextmanager
def opened(
    path: str, threads: int, kind: str = "video"
) -> Iterator[tuple[av.container.InputContainer, av.stream.Stream | None]]:
    """Opens a file's container and the stream of its pictures, or its sound.

    The stream of sound, `kind="audio"`, is `None` where there is none.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            'Reading video needs PyAV: pip install -e ".[video]"'
        ) from error
    _check_file(path)
    try:
        container = av.open(
            # Without `file:`, a colon in a name would make it an address.
            f"file:{path}",
            metadata_errors="replace",
            options={
                "protocol_whitelist": "file",
                "format_whitelist": _FORMATS,
            },
        )
    except av.FFmpegError as error:
        _fail(path, _what_it_is(path, error))
    with container:
        if kind == "video":
            stream = _picture_stream(path, container)
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        else:
            stream = next(iter(container.streams.audio), None)
        # Others are not read at all: in a shortened file their end comes first.
        for other in container.streams:
            if other is not stream:
                other.discard = av.stream.Discard.all
        context = stream and stream.codec_context
        if context:
            context.thread_type = "AUTO"
            context.thread_count = threads
        yield container, stream


def _check_file(path):
    try:
        status = os.stat(path)
    except OSError as error:
        _fail(path, f"cannot be read: {error.strerror}")
    if stat.S_ISDIR(status.st_mode):
        _fail(path, "is a folder; name a video file in it")
    if not stat.S_ISREG(status.st_mode):
        _fail(path, "is not a regular file; copy the video to one")
    if not status.st_size:
        _fail(path, "is empty, 0 bytes; copy or download it again")


def _what_it_is(path, error):
    """Says what a file is that FFmpeg does not open as a video."""
    import av

    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as reason:
        return f"cannot be read: {reason.strerror}"
    if head[4:8] == b"ftyp":
        return (
            "is an MP4 or MOV file without its index (`moov`), as when a copy "
            "or a recording was broken off; copy it again, or repair it with "
            "a tool such as untrunc"
        )
    with contextlib.suppress(UnicodeDecodeError):
        # The cut may go through a character.
        text = head.decode("utf-8", "ignore" if len(head) == 512 else "strict")
        if text.isprintable() or not set(head) & {*range(9), *range(14, 32)}:
            return f"is text, not a video; it begins with {text[:40]!r}"
    if isinstance(error, av.error.ArgumentError):
        return "is not a video but, as FFmpeg sees it, sound or a picture"
    return f"is not a video that FFmpeg can read: {error.strerror}"


def _picture_stream(path, container):
    from av.stream import Disposition

    streams = container.streams
    # The cover of a piece of music is a stream of one picture.
    videos = [
        stream
        for stream in streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not videos:
        kinds = {s.type for s in streams} - {"video"} or {"a still picture"}
        _fail(path, f"holds no video but {', '.join(sorted(kinds))} alone")
    best = streams.best("video")
    stream = best if best in videos else videos[0]
    context = stream.codec_context
    if context is None:
        _fail(path, "holds video of a kind that this FFmpeg cannot decode")
    if context.width * context.height > MAX_PIXELS:
        _fail(
            path,
            f"has frames of {context.width:,} x {context.height:,} pixels, "
            f"more than {MAX_PIXELS:,}; make it smaller first",
        )
    return stream


def _first_frame(path, container, stream):
    import av

    for packet in packets(container, stream):
        with contextlib.suppress(av.FFmpegError):
            for frame in stream.decode(packet):
                return frame
    _fail(
        path,
        f"holds video ({stream.codec_context.codec.name}) of which no frame "
        "can be decoded; copy or download it again",
    )


def packets(
    container: av.container.InputContainer, stream: av.stream.Stream
) -> Iterator[av.Packet | None]:
    """Reads packets. A file that breaks off ends there.

    The last one, empty or `None`, asks the decoder for what it still holds.
    """
    import av

    while True:
        try:
            yield from container.demux(stream)
            return
        except IndexError:
            # PyAV's, at a packet of a stream that begins within the file, as
            # one may in MPEG-TS. It goes on behind that packet.
            continue
        except av.FFmpegError:
            yield None
            return


def _choose_skipping(stream, time, rate, first_in_tick):
    """Tells the decoder whether a packet's frame may be left out.

    It may if another frame lies between it and the tick before it, and no
    frame refers to it. H.264 as cameras and x264 make it is decoded 1.3 to
    1.6 times as fast.
    """
    tick = math.floor((time + _TOLERANCE) * rate)
    first = first_in_tick.get(tick)
    if first is not None and first < time:
        stream.codec_context.skip_frame = "NONREF"
        return
    stream.codec_context.skip_frame = "DEFAULT"
    first_in_tick[tick] = time
    # Packets come in the order of decoding, a few ticks at a time.
    if len(first_in_tick) > 1000:
        del first_in_tick[min(first_in_tick)]


def _duration(container, stream, start):
    import av

    # Matroska's duration is that of the longest stream, sound included, but
    # its writers note each stream's own; both begin at 0.
    noted = re.fullmatch(
        r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")
    )
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if noted:
        hours, minutes, seconds = map(float, noted.groups())
        return hours * 3600 + minutes * 60 + seconds - start
    if container.duration:
        return container.duration / av.time_base - start
    return None


def _square(stream, frame):
    """Width and height at which a frame has square pixels."""
    aspect = stream.sample_aspect_ratio or 1
    width, height = round(frame.width * aspect), frame.height
    # Beyond these it is a slip of the pen.
    if not Fraction(1, 8) <= aspect <= 8 or width * height > MAX_PIXELS:
        width = frame.width
    return max(width, 1), height


def _display_matrix(frame):
    """`(a, b, c, d)`: a pixel at (x, y) is shown at (ax + cy, bx + dy)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    matrix = np.frombuffer(bytes(data), np.int32)
    return tuple(int(matrix[i]) for i in (0, 1, 3, 4))


def _is_transposed(matrix):
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _turned(picture, matrix):
    """Turns a picture by quarters, and mirrors it, as its matrix says."""
    x, y = matrix[0], matrix[3]
    if _is_transposed(matrix):
        picture = picture.swapaxes(0, 1)
        x, y = matrix[2], matrix[1]
    picture = picture[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]
    return np.ascontiguousarray(picture)
