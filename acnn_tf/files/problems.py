"""What is wrong with a data file, and where."""

import dataclasses
import os

# What to do about a damaged file of features.
AGAIN = "restore the file, or extract its features again"
_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong at one place of a data file.

    Args:
        path: File.
        line: Line of the file, or number of its record, from 1; `None` where
            it has neither.
        message: What was expected, what was found, what to do.
        dropped: Whether the record is left out. Otherwise it was mended and
            kept.

    Example:

    >>> print(Problem("train.txt", 3, "holds no sentence"))
    train.txt:3: holds no sentence
    """

    path: str
    line: int | None
    message: str
    dropped: bool = True

    def __str__(self):
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.message}"


class DataError(ValueError):
    """A data file that cannot be used as it is.

    Args:
        problems: Sequence of `Problem`, all of which `.problems` keeps and
            the first of which the message shows.
    """

    def __init__(self, problems):
        self.problems = list(problems)
        lines = [str(problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"... and {len(self.problems) - _SHOWN} more")
        super().__init__("\n".join(lines))


class FeatureError(DataError):
    """Features or vectors that cannot be used."""


class UnknownIdError(KeyError):
    """A video or a query that a file does not have."""

    def __str__(self):
        # KeyError would print its message in quotes.
        return self.args[0]


def fail(path, message, record=None, kind=FeatureError):
    """Raises a `FeatureError`, or another, with one problem."""
    raise kind([Problem(os.fspath(path), record, message)])
