"""The sound of a part of a video, in step with its pictures."""

from __future__ import annotations

import typing
from collections.abc import Iterator

import numpy as np

from acnn_tf.data.video import FAR, MAX_STEP_BACK, Video, opened, packets

if typing.TYPE_CHECKING:
    import av

# Seconds by which the times of a file may be off: some round them to 1 ms.
_JITTER = 0.02
# Seconds before a part at which reading begins: within a file, the first that
# a decoder makes is not whole.
_BEFORE = 1
# In place of rates that the encoder does not have.
_USUAL_RATE = 48_000


def sound_between(
    video: Video, start: float, end: float, notes: list[str]
) -> Iterator[av.AudioFrame]:
    """Reads the sound from one time to another, exact to the sample.

    Where the file has none, there is silence.

    Args:
        video: `acnn_tf.data.video.Video`.
        start: Where the sound starts, in seconds from the first frame.
        end: Where the sound ends, in seconds from the first frame.
        notes: A list to which problems with the sound are added, as text.

    Returns:
        Iterator over `av.AudioFrame`, of one or two channels of floats, with
        the times that they have in the part.
    """
    import av

    place = 0  # samples so far
    try:
        for time, part in _decoded(video, start, end):
            rate, samples = part.sample_rate, part.to_ndarray()
            first = round((time - start) * rate)
            if place and abs(first - place) < _JITTER * rate:
                first = place
            while place < first:
                silence = np.zeros_like(samples, shape=(len(samples), rate))
                piece = silence[:, : first - place]
                yield _frame(piece, place, part)
                place += piece.shape[1]
            piece = samples[:, place - first : round((end - start) * rate)]
            piece = piece[:, : round((end - start) * rate) - place]
            if piece.size:
                # The encoder fails at other numbers.
                piece = np.clip(np.nan_to_num(piece), -1, 1)
                yield _frame(piece, place, part)
                place += piece.shape[1]
    except (av.FFmpegError, ValueError) as error:
        notes.append(
            f"{video.path}: not all of the sound can be decoded: {error}"
        )


def _decoded(video, start, end):
    """Yields `(time, frame)` of the sound from one time to another, or more."""
    import av

    kind, time, num_broken = None, None, 0
    rates = av.Codec("aac", "w").audio_rates
    with opened(video.path, threads=1, kind="audio") as (container, stream):
        if stream is None:
            return
        if stream.codec_context is None:
            raise ValueError("this FFmpeg does not know its kind")
        if video.may_seek and start > FAR:
            stamp = (video.start + float(start) - _BEFORE) / stream.time_base
            container.seek(int(stamp), stream=stream)
        for packet in packets(container, stream):
            try:
                frames = stream.decode(packet)
            except av.FFmpegError:
                num_broken += time is not None and time >= start
                continue
            for frame in frames:
                now = frame.format.name, frame.layout.name, frame.sample_rate
                if now != kind:
                    kind = now
                    resampler = av.AudioResampler(
                        "fltp",
                        "mono" if frame.layout.nb_channels == 1 else "stereo",
                        now[2] if now[2] in rates else _USUAL_RATE,
                    )
                for part in resampler.resample(frame):
                    before = time
                    if part.pts is not None:
                        time = part.time - video.start
                    elif time is None:
                        time = 0.0
                    if before is not None and not (
                        -MAX_STEP_BACK <= time - before <= video.max_step
                    ):
                        raise ValueError("its clock leaps")
                    if time >= end:
                        break
                    yield time, part
                    time += part.samples / part.sample_rate
    if num_broken:
        raise ValueError(f"{num_broken} of its packets are damaged")


def _frame(samples, place, like):
    import av

    frame = av.AudioFrame.from_ndarray(samples, "fltp", like.layout.name)
    frame.sample_rate = like.sample_rate
    frame.pts, frame.time_base = place, like.time_base
    return frame
