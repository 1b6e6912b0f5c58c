"""Found moments as lists: lines for people, CSV, SRT and EDL for programs."""

import csv
import io

# That many events an EDL can number.
_MAX_EVENTS = 999
# Of a moment of which it is said that there is none such.
_UNLIKELY = 0.1


def as_lines(moments, is_calibrated, with_names):
    """A line for each moment of one sentence, and what to think of them.

    Args:
        moments: `acnn_tf.search.moment_index.FoundMoments`.
        is_calibrated: Whether scores are likelihoods. Where the model knows
            too few words of the sentence, they still are none.
        with_names: Whether to name the video of each moment.

    Example:

    >>> from acnn_tf.search.moment_index import FoundMoment, FoundMoments
    >>> found = FoundMoments([FoundMoment("v", 1.5, 73.0, 0.9)], "a dog", [])
    >>> as_lines(found, is_calibrated=True, with_names=False)
    ['0:01.5 - 1:13.0  0.90']
    """
    is_vague = is_calibrated and not moments.is_mostly_known
    lines = []
    if is_vague:
        lines = [
            "no likelihoods: the model knows no more than half of the words"
        ]
    best = max((moment.score for moment in moments), default=0)
    if not moments:
        lines.append("no such moment")
    elif is_calibrated and not is_vague and best < _UNLIKELY:
        lines.append("no such moment, most likely")
    width = max((len(m.video_id) for m in moments), default=0)
    for video_id, start, end, score in moments:
        name = f"{video_id:<{width}}  " if with_names else ""
        score = "-" if is_vague else f"{score:.2f}"
        lines.append(f"{name}{_clock(start)} - {_clock(end)}  {score}")
    return lines


def _clock(seconds):
    """Seconds as `0:12.4`, or `1:02:12.4`."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    text = f"{tenths // 10:02d}.{tenths % 10}"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{text}"
    return f"{minutes}:{text}"


def as_csv(answers, videos=None):
    """A row for each moment: its sentence, video, start, end and score.

    `answers` are lists of moments, each with a `query`; `videos` is for the
    functions below.

    Example:

    >>> from acnn_tf.search.moment_index import FoundMoment, FoundMoments
    >>> found = FoundMoments([FoundMoment("v", 1.5, 3.0, 0.9)], "a dog", [])
    >>> print(as_csv([found]), end="")
    query,video_id,start,end,score
    a dog,v,1.5,3.0,0.9
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["query", "video_id", "start", "end", "score"])
    for moments in answers:
        writer.writerows([moments.query, *moment] for moment in moments)
    return text.getvalue()


def as_srt(answers, videos):
    """Subtitles of one video, SubRip, in the order of time."""
    if len(videos) > 1:
        raise ValueError(
            "Subtitles are of one video: give one --video with --format=srt. "
            f"Received: {', '.join(videos)}"
        )
    cues = sorted(
        (moment.start, moment.end, f"{moments.query} ({moment.score:.2f})")
        for moments in answers
        for moment in moments
    )
    return "\n".join(
        f"{number}\n{_srt_time(start)} --> {_srt_time(end)}\n{text}\n"
        for number, (start, end, text) in enumerate(cues, start=1)
    )


def _srt_time(seconds):
    seconds, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{_hours(seconds)},{thousandths:03d}"


def _hours(seconds):
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def as_edl(answers, videos):
    """An edit decision list, CMX 3600: the moments one after the other.

    `videos` is a dictionary from video id to `Video`. Time codes count frames
    from the first of each video, without dropping any; all videos must have
    one frame rate.
    """
    rates = {video_id: video.frame_rate for video_id, video in videos.items()}
    if len(set(rates.values())) != 1 or None in rates.values():
        found = ", ".join(f"{name} {rate}" for name, rate in rates.items())
        raise ValueError(
            "An EDL counts frames at one rate: give videos of one rate with "
            f"--format=edl. Received: {found}"
        )
    (rate,) = set(rates.values())
    events = [
        (moments.query, moment) for moments in answers for moment in moments
    ]
    if len(events) > _MAX_EVENTS:
        raise ValueError(
            f"An EDL has {_MAX_EVENTS} events at most: give a lower --top, or "
            f"fewer sentences. Received: {len(events)}"
        )
    lines = ["TITLE: acnn_tf", "FCM: NON-DROP FRAME"]
    record = 0
    for number, (query, moment) in enumerate(events, start=1):
        first, last = (round(t * rate) for t in (moment.start, moment.end))
        last = max(last, first + 1)
        times = first, last, record, record + last - first
        record = times[-1]
        codes = " ".join(_time_code(frame, rate) for frame in times)
        path = videos[moment.video_id].path
        lines += [
            f"{number:03d}  AX       V     C        {codes}",
            f"* FROM CLIP NAME: {' '.join(path.splitlines())}",
            f"* COMMENT: {moment.score:.2f} {query}",
        ]
    return "\n".join([*lines, ""])


def _time_code(frame, rate):
    rate = max(round(rate), 1)
    return f"{_hours(frame // rate)}:{frame % rate:02d}"
