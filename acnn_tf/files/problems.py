"""What is wrong with a data file, and where."""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import NoReturn

# What to do about a damaged file of features.
AGAIN = "restore the file, or extract its features again"
_SHOWN = 20
# Problems of a kind that are told one by one.
_FEW = 4
# What tells problems of one kind apart: names and numbers.
_VARIES = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d.,]*")


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong at one place of a data file.

    Args:
        path: The file.
        line: Line of the file, or number of its record, from 1. `None` where
            it has neither.
        message: What was expected, what was found, what to do.
        dropped: Whether the record is left out. Otherwise it was corrected and
            kept.

    Example:

    >>> from acnn_tf.files.problems import Problem
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


def summarize(problems: Sequence[Problem]) -> list[str]:
    """One line for each kind of problem in a file, where there are many.

    Args:
        problems: The problems.

    Returns:
        The lines, in the order of the first problem of each kind.

    Example:

    >>> from acnn_tf.files.problems import Problem, summarize
    >>> missing = [Problem("f.h5", None, f"no video '{v}'") for v in "abcde"]
    >>> summarize(missing)
    ["f.h5: no video 'a' (and 4 more like this: 'b', 'c', 'd', ...)"]
    """
    kinds = {}
    for problem in problems:
        kind = problem.path, problem.dropped, _VARIES.sub("", problem.message)
        kinds.setdefault(kind, []).append(problem)
    lines = []
    for group in kinds.values():
        if len(group) <= _FEW:
            lines += map(str, group)
            continue
        first, *others = group
        shown = ", ".join(_told_apart(first, p) for p in others[:3])
        lines.append(
            f"{first} (and {len(others):,} more like this: {shown}, ...)"
        )
    return lines


def _told_apart(first, problem):
    """What tells a problem from the first of its kind."""
    pairs = zip(
        _VARIES.findall(first.message), _VARIES.findall(problem.message)
    )
    told = [new for old, new in pairs if new != old]
    if problem.line is None:
        return told[0] if told else "the same again"
    name = next((one for one in told if one[0] in "'\""), None)
    return f"{name} in line {problem.line}" if name else f"line {problem.line}"


class DataError(ValueError):
    """A data file that cannot be used as it is.

    Args:
        problems: Sequence of `Problem`, all of which `.problems` keeps and
            the message shows by their kinds, see `summarize`.
    """

    def __init__(self, problems: Sequence[Problem]):
        self.problems = list(problems)
        lines = summarize(self.problems)
        if len(lines) > _SHOWN:
            lines[_SHOWN:] = [f"... and {len(lines) - _SHOWN} other kinds"]
        super().__init__("\n".join(lines))


class FeatureError(DataError):
    """Features or vectors that cannot be used."""


class UnknownIdError(KeyError):
    """A video or a query that a file does not have."""

    def __str__(self):
        # KeyError would print its message in quotes.
        return self.args[0]


def fail(
    path: str | os.PathLike,
    message: str,
    record: int | None = None,
    kind: type[DataError] = FeatureError,
) -> NoReturn:
    """Raises a `FeatureError`, or another, with one problem."""
    raise kind([Problem(os.fspath(path), record, message)])
