"""Small videos of moving shapes: what happens in them, and how that looks.

A shape appears, does one thing or two, and leaves; so do others meanwhile.
Each thing that it does is an event.

A video follows from its id alone: the same id always gives the same events
and the same pixels.
"""

import dataclasses
import itertools

import numpy as np

FRAME_RATE = 4
FRAME_SIZE = 32
COLOURS = {
    "red": (225, 40, 40),
    "green": (40, 205, 40),
    "blue": (45, 45, 230),
    "yellow": (215, 215, 35),
    "purple": (205, 35, 205),
    "turquoise": (35, 205, 205),
}
SHAPES = ("circle", "square", "triangle", "cross")
MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "still", "wander")
# Shapes that are to be seen at the same time.
NUM_ROWS = 2
# How often a shape comes again, and how often it then does again what it did:
# what only order and context tell apart.
SHAPE_AGAIN = 0.5
MOTION_AGAIN = 0.8
# Radii in pixels of small shapes and of large ones.
SIZES = ((2.6, 3.4), (4.4, 5.4))


@dataclasses.dataclass(frozen=True)
class Event:
    """One thing that one shape does.

    Args:
        segment: `(start, end)` in seconds, on frame boundaries.
        visit: The segment from the shape's appearance until it leaves.
        colour: Key of `COLOURS`.
        shape: One of `SHAPES`.
        motion: One of `MOTIONS`.
        path: `float64 [F, 3]`: x, y (downwards) and radius in pixels, in each
            of its frames.
    """

    segment: tuple[float, float]
    visit: tuple[float, float]
    colour: str
    shape: str
    motion: str
    path: np.ndarray = dataclasses.field(repr=False, compare=False)


def plan(video_id: str) -> tuple[float, list[Event]]:
    """What happens in a video: its duration in seconds, its events by start."""
    rng = generator(video_id, "plan")
    duration = float(rng.integers(64, 97)) / 2
    events = []
    # Rows of visits side by side, each with colours of its own, so that no two
    # shapes of one colour are to be seen at the same time.
    for colours in np.split(rng.permutation(list(COLOURS)), NUM_ROWS):
        row = []
        # From before the video on, and without those that its ends would cut:
        # no place in it is then unlike the others.
        start = -rng.uniform(0, 12)
        while start < duration:
            seconds = _event_seconds(rng)
            edges = np.cumsum([start, *seconds])
            edges = np.round(edges * FRAME_RATE) / FRAME_RATE
            if edges[0] >= 0 and edges[-1] <= duration:
                row += _visit(row, edges.tolist(), colours, rng)
            start = edges[-1] + rng.uniform(0.5, 1.5)
        events += row
    return duration, sorted(events, key=lambda event: event.segment)


def render(video_id: str) -> np.ndarray:
    """Draws a video: `uint8 [F, H, W, 3]`, `FRAME_RATE` frames a second."""
    duration, events = plan(video_id)
    rng = generator(video_id, "pixels")
    size = (FRAME_SIZE, FRAME_SIZE, 3)
    frames = np.empty((round(duration * FRAME_RATE), *size), np.float32)
    frames[:] = rng.uniform(20, 70) + rng.uniform(-5, 5, 3)
    light = rng.uniform(0.85, 1.0)
    for event in events:
        first = round(event.segment[0] * FRAME_RATE)
        part = frames[first : first + len(event.path)]
        colour = light * np.array(COLOURS[event.colour], np.float32)
        part += _coverage(event.shape, event.path)[..., None] * (colour - part)
    # The same grain over and over: fresh grain would cost more than all else.
    grain = rng.integers(-6, 7, (2, *size)).astype(np.float32)
    frames.reshape(-1, *grain.shape)[:] += grain
    return np.clip(frames, 0, 255).astype(np.uint8)


def generator(video_id: str, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose, any word, in one video.

    What is drawn for one purpose does not move what is drawn for another.
    """
    number = video_id.removeprefix("scene_")
    if not (number.isdecimal() and number.isascii() and number != video_id):
        raise ValueError(
            "`video_id` must be that of a built-in scene, such as "
            f"'scene_000007'. Received: {video_id!r}"
        )
    return np.random.default_rng([int(number), *purpose.encode()])


def _event_seconds(rng):
    """Durations of the events of one visit: 3 to 10 seconds in all."""
    # Short ones are more frequent, as short windows are in a grid: a duration
    # alone then tells little.
    if rng.random() < 0.4:
        return [1 / rng.uniform(1 / 9, 1 / 3)]
    return list(1 / rng.uniform(1 / 5, 1 / 3, 2))


def _visit(row, edges, colours, rng):
    """The events of the next visit of a row, at `edges` seconds."""
    looks = [(event.colour, event.shape) for event in row]
    # The same look twice on end would be seen as one visit.
    known = [look for look in looks if look != looks[-1]]
    look = looks[-1] if looks else None
    if known and rng.random() < SHAPE_AGAIN:
        look = known[rng.integers(len(known))]
    while look is None or (looks and look == looks[-1]):
        look = str(rng.choice(colours)), str(rng.choice(SHAPES))
    place = rng.uniform(6, FRAME_SIZE - 6, 3)
    place[2] = rng.uniform(*SIZES[rng.integers(len(SIZES))])
    events, motion = [], None
    for start, end in itertools.pairwise(edges):
        possible = [m for m in _possible_motions(place) if m != motion]
        before = [
            event.motion
            for event in row
            if (event.colour, event.shape) == look and event.motion in possible
        ]
        if before and rng.random() < MOTION_AGAIN:
            possible = before
        motion = possible[rng.integers(len(possible))]
        path = _path(motion, place, round((end - start) * FRAME_RATE), rng)
        place = path[-1]
        events.append(
            Event((start, end), (edges[0], edges[-1]), *look, motion, path)
        )
    return events


def _possible_motions(place):
    """Motions for which a shape at `place` has room."""
    x, y, radius = place
    return [
        "left" if x > FRAME_SIZE / 2 else "right",
        "up" if y > FRAME_SIZE / 2 else "down",
        "grow" if radius < 4 else "shrink",
        ("still", "wander")[int(x + y) % 2],
    ]


def _path(motion, place, num_frames, rng):
    """Centre and radius over an event's frames: `float64 [F, 3]`."""
    near = rng.uniform(5, 9)
    axis, target = {
        "left": (0, near),
        "right": (0, FRAME_SIZE - near),
        "up": (1, near),
        "down": (1, FRAME_SIZE - near),
        "grow": (2, rng.uniform(*SIZES[1])),
        "shrink": (2, rng.uniform(*SIZES[0])),
    }.get(motion, (0, place[0]))
    path = np.tile(place, (num_frames, 1))
    path[:, axis] = np.linspace(place[axis], target, num_frames)
    if motion == "wander":
        # Whole turns of a circle, towards the middle of the picture.
        turns = max(1, round(num_frames / FRAME_RATE / 3))
        angle = np.linspace(0, 2 * np.pi * turns, num_frames)
        inwards = np.sign(FRAME_SIZE / 2 - place[:2])
        path[:, 0] += 4 * inwards[0] * (1 - np.cos(angle))
        path[:, 1] += 4 * inwards[1] * np.sin(angle)
    return path


def _coverage(shape, path):
    """Share of each pixel that a shape covers: `float32 [F, H, W]`."""
    path = path.astype(np.float32)
    pixel = np.arange(FRAME_SIZE, dtype=np.float32) + 0.5
    x = np.abs(pixel - path[:, 0, None])[:, None, :]  # [F, 1, W]
    y = (pixel - path[:, 1, None])[:, :, None]  # [F, H, 1]
    radius = path[:, 2, None, None]
    # How far a pixel lies outside, in pixels. Areas are about those of the
    # circle.
    if shape == "circle":
        outside = np.sqrt(x**2 + y**2) - radius
    elif shape == "square":
        outside = np.maximum(x, np.abs(y)) - 0.89 * radius
    elif shape == "triangle":
        outside = np.maximum(y, 0.866 * x - 0.5 * y) - 0.78 * radius
    else:
        y = np.abs(y)
        long, short = 1.25 * radius, 0.45 * radius
        outside = np.minimum(
            np.maximum(x - long, y - short), np.maximum(x - short, y - long)
        )
    return np.clip(0.5 - outside, 0, 1)
