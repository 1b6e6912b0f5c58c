"""Windows that are made of pieces of a video, as in DiDeMo."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class PieceGrid:
    """Every stretch of consecutive pieces of a video as a window.

    A video of n pieces, the last of which is whatever is left, has
    n (n + 1) / 2 of them: 21 for 6 pieces, 15 for 5.

    It stands in for a `WindowGrid` in search and evaluation.

    Args:
        piece_seconds: Float, seconds of a piece.

    Example:

    >>> PieceGrid().windows(13.0).tolist()
    [[0.0, 5.0], [5.0, 10.0], [10.0, 13.0], [0.0, 10.0], [5.0, 13.0], \
[0.0, 13.0]]

    Reference: Hendricks et al., Localizing Moments in Video with Natural
    Language, 2017, section 4.
    """

    piece_seconds: float = 5.0

    def __post_init__(self):
        if not 0 < self.piece_seconds < math.inf:
            raise ValueError(
                "`piece_seconds` must be positive. "
                f"Received: {self.piece_seconds}"
            )

    def windows(self, duration):
        """Windows of a video that lasts `duration` seconds.

        Args:
            duration: Float, seconds.

        Returns:
            `float64 [W, 2]` in seconds, by length and then by start.
        """
        if not 0 < duration < math.inf:
            raise ValueError(
                f"`duration` must be positive. Received: {duration}"
            )
        # A hair off, so that rounding never adds a piece.
        count = max(1, math.ceil(duration / self.piece_seconds - 1e-6))
        pieces = [
            (first, first + length)
            for length in range(1, count + 1)
            for first in range(count - length + 1)
        ]
        windows = np.array(pieces) * float(self.piece_seconds)
        return np.minimum(windows, duration)

    def contexts(self, windows, size):
        """Windows of as many pieces before and after each window.

        Args:
            windows: `[W, 2]`, all windows of a video, as above.
            size: Odd int: number of context windows, the window itself in the
                middle.

        Returns:
            `[W, size, 2]`, seconds; adjacent stretches that do not overlap,
            `[0, 0]` where the video has no such window.

        Example:

        >>> grid = PieceGrid()
        >>> grid.contexts(grid.windows(10.0), size=3)[0].tolist()
        [[0.0, 0.0], [0.0, 5.0], [5.0, 10.0]]
        """
        if size < 1 or size % 2 == 0:
            raise ValueError(f"`size` must be odd. Received: {size}")
        windows = np.asarray(windows)
        first, end = self.pieces(windows).T
        hops = (end - first)[:, None] * np.arange(-(size // 2), size // 2 + 1)
        there = np.stack(
            [first[:, None] + hops, end[:, None] + hops], axis=-1
        )  # [W, C, 2]
        inside = (there[..., 0] >= 0) & (there[..., 1] <= end.max())
        seconds = np.minimum(there * self.piece_seconds, windows.max())
        return np.where(inside[..., None], seconds, 0.0)

    def pieces(self, segments):
        """Segments in pieces: the first, and the one after the last.

        Args:
            segments: `[..., 2]` seconds. Ends within a piece, as that of a
                video, count as the end of that piece.

        Returns:
            `int64 [..., 2]`.

        Example:

        >>> PieceGrid().pieces([25.0, 28.5]).tolist()
        [5, 6]
        """
        numbers = np.asarray(segments, np.float64) / self.piece_seconds
        first = np.floor(numbers[..., 0] + 1e-6)
        end = np.ceil(numbers[..., 1] - 1e-6)
        return np.stack([first, end], axis=-1).astype(np.int64)
