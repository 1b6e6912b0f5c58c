"""How far a long piece of work is, and how much time it will take."""

import shutil
import sys
import time

# Seconds from one line to the next: on a terminal, which shows one; in a log.
_REFRESH, _LOG = 0.2, 30.0
_MOST_COLUMNS = 100


class Progress:
    """Prints progress to stderr: a bar on a terminal, else lines now and then.

    Args:
        total: Int: how many things there are; an attribute, for who learns it
            later.
        things: String: what they are.
        title: String: what comes before their number.

    Example:

    >>> progress = Progress(3, "videos")
    >>> progress(0.5, 1)  # doctest: +SKIP
    [###########...........] 1 of 3 videos, 0:05 so far, 0:05 left
    """

    def __init__(self, total: int | None, things: str, title: str = ""):
        self.total, self._things, self._title = total, things, title
        self._is_over = False
        self._is_terminal = sys.stderr.isatty()
        self._start = time.monotonic()
        self._told = self._start if not self._is_terminal else 0.0

    def __call__(self, share: float, done: int):
        """Tells of a share of the work, and the number of things done.

        What comes once all is done is not told.
        """
        now = time.monotonic()
        is_over = share >= 1 and done == self.total
        pause = _REFRESH if self._is_terminal else _LOG
        if self._is_over or (now - self._told < pause and not is_over):
            return
        self._told, self._is_over = now, is_over
        text = f"{self._title}{done:,} of {self.total:,} {self._things}"
        passed = now - self._start
        if is_over:
            text += f" in {_clock(passed)}"
        else:
            text += f", {_clock(passed)} so far"
            if share > 0:
                text += f", {_clock(passed / share - passed)} left"
        if not self._is_terminal:
            print(text, file=sys.stderr, flush=True)
            return
        columns = min(shutil.get_terminal_size().columns, _MOST_COLUMNS)
        width = max(columns - len(text) - 4, 0)
        filled = int(width * share)
        bar = f"[{'#' * filled}{'.' * (width - filled)}] " if width > 9 else ""
        # What is left of a longer line goes.
        line = f"\r{bar}{text}"[:columns]
        end = "\n" if is_over else ""
        print(f"{line}\x1b[K", end=end, file=sys.stderr, flush=True)

    def clear(self):
        """Takes the bar away, where one is shown and not at its end."""
        if self._is_terminal and not self._is_over:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{minutes}:{seconds:02d}"
