"""Fixed descriptors of coloured shapes: the encoder that needs nothing.

Enough to see what happens in the scenes of `acnn_tf.data.scenes`, and
small enough to read. Nothing is learned or random, and nothing but the pixels
goes in.
"""

from collections.abc import Iterator

import numpy as np

from acnn_tf.encoders.encoder import Encoder
from acnn_tf.encoders.pictures import shrink

# In the order in which `_colour_amounts` returns them.
COLOURS = ("red", "green", "blue", "yellow", "purple", "turquoise")
CELLS = ("top left", "top right", "bottom left", "bottom right")
NAMES = (
    *(
        f"{colour} {name}"
        for colour in COLOURS
        for name in (
            *("area", "x", "y", "appearing", "leaving"),
            *("sparse", "loose", "round", "full", "lopsided"),
            *("left", "right", "up", "down", "growing", "shrinking"),
            *("moving", *CELLS),
        )
    ),
    *(f"change {cell}" for cell in CELLS),
)

# Centres and width of the histogram's bins of how full a shape is. About 0.34
# for a cross, 0.5 for a triangle, 0.67 for a disc, 1 for a square.
_FULLNESS_BINS = np.array([0.34, 0.5, 0.67, 0.95], np.float32)
_BIN_WIDTH = 0.12
# Least chroma that counts, of 255: more than the grain of a grey wall.
_MIN_CHROMA = 30
_MAX_CHROMA = 120


# Short side of a picture that `describe` sees, as in those scenes.
_SHORT_SIDE = 32


class Pixels(Encoder):
    """What `describe` says of each clip of two frames.

    Its vectors are those of the built-in scenes, at the scenes' 4 frames a
    second. Larger pictures are made as small as the scenes are, since areas
    and steps are counted in pixels.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.encoders.pixels import Pixels
    >>> Pixels().encode(np.zeros((5, 360, 640, 3), np.uint8)).shape
    (3, 130)
    """

    kind = "pixels"
    default_frame_rate = 4.0
    clip_frames = 2
    size = (_SHORT_SIDE, _SHORT_SIDE)
    preprocessing = f"short side {_SHORT_SIDE}, means of pixels"
    dim = len(NAMES)

    def __init__(self, weights: str = "", frame_rate: float | None = None):
        super().__init__(weights, frame_rate)
        if weights:
            raise ValueError(f"`pixels` has no weights. Received: {weights!r}")

    def preprocess(self, frame: np.ndarray) -> np.ndarray:
        return shrink(frame, _SHORT_SIDE)

    def encode_batches(
        self, batches: Iterator[np.ndarray]
    ) -> Iterator[np.ndarray]:
        # What a clip is compared with ends the batch before.
        before = None
        for clips in batches:
            frames = clips.reshape(-1, *clips.shape[2:])
            if before is not None:
                frames = np.concatenate([before, frames])
            vectors = describe(frames, self.clip_frames)
            yield vectors if before is None else vectors[1:]
            before = frames[-self.clip_frames :]


def describe(frames: np.ndarray, clip_frames: int = 2) -> np.ndarray:
    """Describes what is to be seen in each clip of a small video.

    The pixels are split by colour. Of each colour: how much of it there is,
    where, and whether that is more or less than before; how fully its shape
    fills the space around its centre and how lopsided it is; where its centre
    moves, and whether it grows. Besides, what changes at all, by quarter of
    the picture.

    Args:
        frames: `uint8 [F, H, W, 3]`.
        clip_frames: Number of frames of a clip. Changes are measured over as
            many frames.

    Returns:
        `float32 [T, D]`, means over the frames of each clip; `NAMES` names
        the columns. Frames at the end that make no whole clip are left out.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.encoders.pixels import NAMES, describe
    >>> frames = np.zeros((8, 32, 32, 3), np.uint8)
    >>> describe(frames).shape == (4, len(NAMES))
    True
    """
    num_frames, height, width, _ = frames.shape
    amounts = _colour_amounts(frames)  # [C, F, H, W]
    area, x, y, fullness, skewness = _statistics(amounts)  # each [C, F]
    seen = np.clip(area / 10, 0, 1)

    before = np.maximum(np.arange(num_frames) - clip_frames, 0)
    appearance = seen - seen[:, before]
    # A shape that comes or goes does not move by that, nor grow.
    both = np.minimum(seen, seen[:, before])
    x_step, y_step = x - x[:, before], y - y[:, before]
    step = np.hypot(x_step, y_step)
    # Direction rather than speed, and nothing below a fraction of a pixel.
    x_step, y_step = (both * s / (step + 0.3) for s in (x_step, y_step))
    growth = np.log((area + 1) / (area[:, before] + 1))
    growth = both * growth / (np.abs(growth) + 0.05)
    distance = fullness - _FULLNESS_BINS[:, None, None]  # [4, C, F]
    histogram = np.exp(-((distance / _BIN_WIDTH) ** 2))

    by_colour = np.stack(
        [
            *(area / 50, seen * x / width, seen * y / height),
            *_split_sign(appearance),
            *(seen * histogram),
            seen * np.clip(skewness, 0, 1),
            *_split_sign(-x_step),
            *_split_sign(-y_step),
            *_split_sign(growth),
            both * np.minimum(step, 2),
            *(_quarters(amounts) / 20),
        ],
        axis=1,
    )  # [C, 21, F]
    grey = frames @ np.full(3, 1 / 3, np.float32)  # [F, H, W]
    changed = np.abs(grey - grey[before]) > 16
    columns = np.concatenate(
        [by_colour.reshape(-1, num_frames), _quarters(changed) / 20]
    )
    num_clips = num_frames // clip_frames
    columns = columns[:, : num_clips * clip_frames]
    clips = columns.reshape(len(columns), num_clips, clip_frames).mean(axis=-1)
    return np.ascontiguousarray(clips.T, np.float32)


def _colour_amounts(frames):
    """How far each pixel has each of six hues: `float32 [6, F, H, W]`, 0..1.

    A colour is a grey, an amount of one of red, green and blue, and an amount
    of one of their three mixtures.
    """
    channels = np.ascontiguousarray(np.moveaxis(frames, -1, 0))
    red, green, blue = channels.astype(np.int16)
    chroma = np.stack(
        [
            red - np.maximum(green, blue),
            green - np.maximum(red, blue),
            blue - np.maximum(red, green),
            np.minimum(red, green) - blue,
            np.minimum(red, blue) - green,
            np.minimum(green, blue) - red,
        ]
    )
    np.clip(chroma, _MIN_CHROMA, _MAX_CHROMA, out=chroma)
    scale = np.float32(1 / (_MAX_CHROMA - _MIN_CHROMA))
    return (chroma - np.int16(_MIN_CHROMA)) * scale


def _statistics(amounts):
    """Area, centre x and y, fullness and skewness downwards, each `[C, F]`.

    Fullness is `E[x²y²] / (E[x²] E[y²])` about the centre, skewness
    `E[y³] / E[y²]^1.5`: neither knows the shape's size or place.
    """
    height, width = amounts.shape[-2:]
    x_powers = np.arange(width)[:, None] ** np.arange(3.0)
    y_powers = np.arange(height)[:, None] ** np.arange(4.0)
    # moment[..., i, j] = sum of y^i x^j: two products of matrices.
    moment = np.swapaxes(amounts @ x_powers.astype(np.float32), -1, -2)
    moment = np.swapaxes(moment.astype(np.float64) @ y_powers, -1, -2)
    area = moment[..., 0, 0]
    m = moment / np.maximum(area, 1e-3)[..., None, None]
    x, y = m[..., 0, 1], m[..., 1, 0]
    # A quarter of a pixel squared keeps ratios finite where nothing is seen.
    x_variance = np.maximum(m[..., 0, 2] - x**2, 0) + 0.25
    y_variance = np.maximum(m[..., 2, 0] - y**2, 0) + 0.25
    both = (
        m[..., 2, 2]
        - 2 * x * m[..., 2, 1]
        - 2 * y * m[..., 1, 2]
        + x**2 * m[..., 2, 0]
        + y**2 * m[..., 0, 2]
        + 4 * x * y * m[..., 1, 1]
        - 3 * x**2 * y**2
    )
    third = m[..., 3, 0] - 3 * y * m[..., 2, 0] + 2 * y**3
    fullness = both / (x_variance * y_variance)
    skewness = third / y_variance**1.5
    return tuple(
        value.astype(np.float32) for value in (area, x, y, fullness, -skewness)
    )


def _quarters(pixels):
    """Sums over the quarters of the picture, `[..., H, W]` -> `[4, ...]`."""
    halves = [np.arange(size) * 2 // size for size in pixels.shape[-2:]]
    rows, columns = (
        np.equal.outer(half, [0, 1]).astype(np.float32) for half in halves
    )
    cells = rows.T @ (pixels @ columns)  # [..., 2, 2]
    return np.moveaxis(cells.reshape(*pixels.shape[:-2], 4), -1, 0)


def _split_sign(values):
    """The positive part and the negative part, both positive."""
    return np.maximum(values, 0), np.maximum(-values, 0)
