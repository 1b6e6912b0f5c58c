"""How a frame is brought to the size that a network takes, by Pillow."""

import numpy as np

# Of the two sides, at most: a ribbon of a picture is cut, not blown up.
_MAX_ASPECT = 16


def cover(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scales a picture until it just covers a size, and keeps its middle.

    With a square size this is what CLIP was trained with: bicubic, the short
    side to `size`, and the square in the middle. From `uint8 [H, W, 3]` it
    makes `[height, width, 3]`.
    """
    height, width = size
    frame = _trimmed(frame)
    rows, columns = frame.shape[:2]
    # Compared by products, so that the covering side comes out exact.
    if rows * width <= columns * height:
        scaled = (height, columns * height // rows)
    else:
        scaled = (rows * width // columns, width)
    picture = resize(frame, scaled, "BICUBIC")
    top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
    return picture[top : top + height, left : left + width]


def shrink(frame: np.ndarray, short_side: int) -> np.ndarray:
    """Scales a picture so that its short side is as given; all is kept.

    Pixels are means over those that fall together.
    """
    frame = _trimmed(frame)
    rows, columns = frame.shape[:2]
    scale = short_side / min(rows, columns)
    return resize(frame, (round(rows * scale), round(columns * scale)), "BOX")


def resize(frame: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    """Scales a picture to a size, whatever that does to its shape.

    The method is the name of one of Pillow's `Image.Resampling`.
    """
    height, width = size
    if frame.shape[:2] == (height, width):
        return frame
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            'Frames are scaled by Pillow: pip install -e ".[video]"'
        ) from error
    picture = Image.fromarray(frame)
    return np.asarray(picture.resize((width, height), Image.Resampling[method]))


def _trimmed(frame):
    """Cuts off what is beyond 16 times the short side, at both ends."""
    most = _MAX_ASPECT * min(frame.shape[:2])
    for axis in (0, 1):
        surplus = max(frame.shape[axis] - most, 0)
        kept = slice(surplus // 2, surplus // 2 + min(most, frame.shape[axis]))
        frame = frame[kept] if axis == 0 else frame[:, kept]
    return frame
