"""Rendered scenes with planted moments: data that needs no download.

Sentences name some of the events in the scenes of `acnn_tf.data.scenes`, or
whole visits of a shape; their segments are the moments. What is not named is
there to be told apart from them.
"""

import concurrent.futures
import dataclasses
import operator
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from acnn_tf import segments as segments_lib
from acnn_tf.data import annotations
from acnn_tf.data import features as features_lib
from acnn_tf.data.annotations import SPLITS, Moment
from acnn_tf.data.datasets import qvhighlights
from acnn_tf.data.scenes import FRAME_RATE, FRAME_SIZE, generator, plan, render
from acnn_tf.encoders.pixels import Pixels, describe
from acnn_tf.files.atomic import replacing

CLIP_SECONDS = 0.5
VIDEOS_IN_SPLIT = 100_000
# Of a pixel in the files of videos.
_SCALE = 4

# What the shapes and motions of a scene are called.
SHAPES = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle",),
    "cross": ("cross", "plus sign"),
}
MOTIONS = {
    "left": ("moves left", "goes to the left", "slides left"),
    "right": ("moves right", "goes to the right", "slides right"),
    "up": ("moves up", "rises", "goes upwards"),
    "down": ("moves down", "sinks", "goes downwards"),
    "grow": ("grows", "gets bigger", "becomes larger"),
    "shrink": ("shrinks", "gets smaller", "becomes smaller"),
}
# {who}: a shape; {does}: its motion; {it_does}: its motion before or after
# that; {other}: another shape, which comes or goes.
PLAIN = ("{who} {does}", "{who} {does}", "at some point {who} {does}")
ORDINAL = (
    (
        "{who} {does} for the first time",
        "the first time {who} {does}",
        "for the first time {who} {does}",
    ),
    (
        "{who} {does} for the second time",
        "the second time {who} {does}",
        "{who} {does} again",
    ),
)
CONTEXT = {
    "after_it": (
        "{who} {does} after it {it_does}",
        "after it {it_does} {who} {does}",
    ),
    "before_it": (
        "{who} {does} before it {it_does}",
        "before it {it_does} {who} {does}",
    ),
    "after": (
        "{who} {does} after {other} leaves",
        "after {other} disappears {who} {does}",
        "{who} {does} once {other} is gone",
    ),
    "before": (
        "{who} {does} before {other} appears",
        "before {other} comes {who} {does}",
        "{who} {does} and then {other} appears",
    ),
}


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Videos of one split, with their sentences.

    Args:
        moments: List of `Moment`.
        features: Video id -> `float32 [T, D]`, see
            `acnn_tf.encoders.pixels.describe`.
        clip_seconds: Seconds that one row of `features` stands for.
    """

    moments: list[Moment]
    features: dict[str, np.ndarray]
    clip_seconds: float = CLIP_SECONDS

    @property
    def encoder(self) -> dict:
        """What made the features, see `acnn_tf.encoders.descriptions`."""
        return Pixels(frame_rate=FRAME_RATE).description

    def frames(self, video_id: str) -> np.ndarray:
        """Draws a video again: `uint8 [F, H, W, 3]`."""
        return render(video_id)


def make_scenes(
    num_videos: int = 200, *, split: str = "train", seed: int = 0
) -> Scenes:
    """Makes videos, their features and their sentences.

    The same arguments always make the same videos, and no video belongs to two
    splits or two seeds.

    Args:
        num_videos: How many videos, at most `VIDEOS_IN_SPLIT`. A larger number
            begins with the same videos.
        split: `"train"`, `"val"` or `"test"`.
        seed: Seed of the videos, not negative.

    Returns:
        The videos' features and moments.

    Example:

    >>> from acnn_tf.data import make_scenes
    >>> scenes = make_scenes(num_videos=2)
    >>> moment = scenes.moments[-1]
    >>> moment.query, moment.segments
    ('for the first time the red triangle gets bigger', ((9.75, 13.75),))
    >>> scenes.features[moment.video_id].shape
    (93, 130)
    """
    moments, features = [], {}
    for video_id in _video_ids(num_videos, split, seed):
        moments += name_moments(video_id)
        features[video_id] = describe(
            render(video_id), clip_frames=round(CLIP_SECONDS * FRAME_RATE)
        )
    return Scenes(moments, features)


def _video_ids(num_videos, split, seed):
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {SPLITS}. Received: {split}")
    if not 0 < num_videos <= VIDEOS_IN_SPLIT:
        raise ValueError(
            f"`num_videos` must be in [1, {VIDEOS_IN_SPLIT}]. "
            f"Received: {num_videos}"
        )
    if seed < 0:
        raise ValueError(f"`seed` must not be negative. Received: {seed}")
    first = (seed * len(SPLITS) + SPLITS.index(split)) * VIDEOS_IN_SPLIT
    return [f"scene_{first + number:06d}" for number in range(num_videos)]


def write(scenes: Scenes, folder: str | os.PathLike, split: str) -> None:
    """Writes `{split}.jsonl` and `features_{split}.hdf5` into `folder`.

    They show what a data set of one's own should look like; the first has its
    manifest beside it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    annotations.write_jsonl(scenes.moments, folder / f"{split}.jsonl")
    features_lib.write_features(
        folder / f"features_{split}.hdf5",
        scenes.features,
        scenes.clip_seconds,
        scenes.encoder,
    )


def write_videos(
    folder: str | os.PathLike,
    num_videos: int = 200,
    *,
    split: str = "train",
    seed: int = 0,
    progress: Callable[[float, int], object] | None = None,
) -> list[Moment]:
    """Writes the videos of `make_scenes` as files, `ID.mp4` in H.264.

    Each pixel is a square of 4 x 4, so that what a codec takes away, colour
    first of all, takes nothing from what is to be seen.

    Args:
        folder: Folder to which the videos are written.
        num_videos: How many videos, at most `VIDEOS_IN_SPLIT`.
        split: `"train"`, `"val"` or `"test"`.
        seed: Seed of the videos, not negative.
        progress: Function called after each video, with the share of the
            videos that are written and their number.

    Returns:
        The moments of the videos, with their sentences.

    Raises:
        ImportError: If PyAV is not installed.

    Example:

    >>> import tempfile
    >>> import os
    >>> from acnn_tf.data.synthetic import write_videos
    >>> folder = tempfile.mkdtemp()
    >>> moments = write_videos(folder, num_videos=1)
    >>> os.listdir(folder), moments[0].video_id
    (['scene_000000.mp4'], 'scene_000000')
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    videos = _video_ids(num_videos, split, seed)
    # FFmpeg lets other threads go on while it encodes.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        paths = [folder / f"{video_id}.mp4" for video_id in videos]
        for done, _ in enumerate(pool.map(_write_mp4, paths, videos), 1):
            if progress is not None:
                progress(done / len(videos), done)
    return [moment for video_id in videos for moment in name_moments(video_id)]


def _write_mp4(path, video_id):
    import av

    options = {"crf": "18", "preset": "veryfast", "threads": "1"}
    size = _SCALE * FRAME_SIZE
    with (
        replacing(path) as partial,
        av.open(partial, "w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", FRAME_RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for picture in render(video_id):
            for axis in (0, 1):
                picture = picture.repeat(_SCALE, axis)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def name_moments(video_id: str) -> list[Moment]:
    """Four to six sentences about a video, each of another segment.

    A video in which little happens may have fewer.
    """
    duration, events = plan(video_id)
    rng = generator(video_id, "sentences")
    pairs = [
        pair for event in events for pair in _sentences(event, events, rng)
    ]
    chosen = {}
    for index in rng.permutation(len(pairs)):
        query, segment = pairs[index]
        chosen.setdefault(segment, query)
    chosen = list(chosen.items())[: rng.integers(4, 7)]
    return [
        Moment(
            query_id=f"{video_id}_{index}",
            query=query,
            video_id=video_id,
            duration=duration,
            segments=(segment,),
        )
        for index, (segment, query) in enumerate(chosen)
    ]


def with_saliency(moments: list[Moment]) -> list[Moment]:
    """The moments of scenes with the clips that matter, as in QVHighlights.

    Each annotator gives a clip of two seconds 4 times the share of it that lies
    in the moment, rounded: so it is Fair where about half of it shows what the
    query asks for, and VeryGood where all of it does.

    Example:

    >>> from acnn_tf.data import Moment
    >>> from acnn_tf.data.synthetic import with_saliency
    >>> moment = Moment("1", "a ball", "v", 6.0, ((1.0, 4.0),))
    >>> with_saliency([moment])[0].saliency
    ((2, 2, 2), (4, 4, 4), (0, 0, 0))
    """
    return [
        dataclasses.replace(moment, saliency=_saliency(moment))
        for moment in moments
    ]


def _saliency(moment):
    seconds = qvhighlights.CLIP_SECONDS
    start = seconds * np.arange(qvhighlights.num_clips(moment.duration))
    clips = np.column_stack([start, start + seconds])  # [C, 2]
    shared = segments_lib.intersection(clips[:, None], moment.segments)
    scores = np.floor(4 * shared.sum(axis=1) / seconds + 0.5).astype(int)
    return tuple(
        (score,) * qvhighlights.NUM_ANNOTATORS for score in scores.tolist()
    )


def _sentences(event, events, rng):
    """`(sentence, segment)` pairs: what is true of one event alone.

    The segment is the event's, or that of the visit which it begins.
    """
    if event.motion not in MOTIONS:
        return []

    def pick(choices):
        return str(choices[rng.integers(len(choices))])

    def name(colour, shape):
        return f"the {colour} {pick(SHAPES[shape])}"

    def same(*attributes):
        of = operator.attrgetter(*attributes)
        return [other for other in events if of(other) == of(event)]

    look = event.colour, event.shape
    does = pick(MOTIONS[event.motion])
    sentences = []

    def say(templates, does=does, **words):
        template = pick(templates)
        sentences.append(template.format(who=name(*look), does=does, **words))

    twins = same("colour", "shape", "motion")
    if len(twins) == 1:
        say(PLAIN)
        if len(same("colour", "motion")) == 1:
            sentences.append(f"something {event.colour} {does}")
        if len(same("shape", "motion")) == 1:
            sentences.append(f"a {pick(SHAPES[event.shape])} {does}")
        # One is enough, or there would be few that need their context.
        sentences[:] = [pick(sentences)]
    elif len(twins) == 2:
        order = twins.index(event)
        say(ORDINAL[order])
        of_twin = _context(twins[1 - order], events)
        for (relation, *what), gap in _context(event, events).items():
            # What is not true of the twin, and near enough to be context.
            if (relation, *what) in of_twin or gap > 5:
                continue
            if relation in ("after_it", "before_it"):
                say(CONTEXT[relation], it_does=pick(MOTIONS[what[0]]))
            else:
                say(CONTEXT[relation], other=name(*what))
    pairs = [(sentence, event.segment) for sentence in sentences]

    visits = sorted({other.visit for other in same("colour", "shape")})
    if len(visits) == 2 and event.segment[0] == event.visit[0]:
        say(ORDINAL[visits.index(event.visit)], does="appears")
        pairs.append((sentences[-1], event.visit))
    return pairs


def _context(event, events):
    """What is before and after an event, and how many seconds away."""
    visits = {(other.colour, other.shape, other.visit) for other in events}
    looks = [visit[:2] for visit in visits]
    context = {}
    for other in events:
        look = other.colour, other.shape
        if look == (event.colour, event.shape):
            if other.visit == event.visit and other.motion in MOTIONS:
                if other.segment < event.segment:
                    context["after_it", other.motion] = 0.0
                elif other.segment > event.segment:
                    context["before_it", other.motion] = 0.0
        elif looks.count(look) == 1:
            after = event.segment[0] - other.visit[1]
            before = other.visit[0] - event.segment[1]
            if max(after, before) >= 0:
                relation = "after" if after >= 0 else "before"
                context[relation, *look] = max(after, before)
    return context
