"""Spaces to tune in: on each line a flag of experiments.train and its values.

    --kernel_sizes: 1 | 1,3 | 1,3,5
    --dropout: 0 .. 0.5
    --filters: 32 .. 256 step 32
    --learning_rate: 3e-4 .. 3e-3 log

Values to choose from, or a range: of whole numbers, of numbers, or of their
logarithm. Everything is checked as it is read.
"""

import math
import os
import re
import typing

from acnn_tf.files.problems import DataError, Problem
from acnn_tf.files.text import text_lines

_LINE = re.compile(r"--(\w+)\s*:\s*(.*?)\s*(?:\s#.*)?")
_NUMBER = r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)"
_RANGE = re.compile(
    rf"{_NUMBER}\s*\.\.\s*{_NUMBER}(?:\s+(log)|\s+step\s+(\d+))?"
)


class Values(typing.NamedTuple):
    """What a flag may be.

    Attributes:
        flag: Its name.
        choices: Tuple of strings; empty for a range.
        low: Int or float, the least of a range.
        high: The greatest.
        step: Int, of a range of whole numbers.
        log: Whether all orders of magnitude are as likely.
    """

    flag: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    step: int = 1
    log: bool = False

    def examples(self):
        """Some of its values as text: all choices, or both ends."""
        return self.choices or (str(self.low), str(self.high))


def read_space(path, check_flags):
    """Reads and checks a space.

    Args:
        path: Text file.
        check_flags: Function of a list of flags that raises a `ValueError`
            where they will not do.

    Returns:
        List of `Values`.

    Raises:
        DataError: Names each bad line: what was expected, what was found, and
            what to do.
    """
    path = os.fspath(path)
    problems, space, lines = [], [], {}
    for line, text in text_lines(path):
        try:
            if isinstance(text, ValueError):  # not UTF-8, or too long
                raise text
            if text.startswith("#"):
                continue
            values = _parse(text)
            known = lines.setdefault(values.flag, line)
            if known != line:
                raise ValueError(
                    f"expected each flag once, found --{values.flag} again, "
                    f"after line {known}; join the two lines"
                )
            for value in values.examples():
                check_flags([f"--{values.flag}={value}"])
            space.append(values)
        except ValueError as error:
            problems.append(Problem(path, line, str(error)))
    if not space and not problems:
        problems.append(
            Problem(
                path,
                None,
                "expected at least one flag, `--name: value | value`, found "
                "none; add one",
            )
        )
    if problems:
        raise DataError(problems)
    return space


def _parse(text):
    match = _LINE.fullmatch(text)
    if not match:
        raise ValueError(
            "expected `--name: value | value` or `--name: low .. high`, found "
            f"{text!r:.80}; begin the line with a flag and a colon"
        )
    flag, rest = match.groups()
    if ".." in rest:
        return _range(flag, rest)
    choices = tuple(choice.strip() for choice in rest.split("|"))
    if len(choices) < 2 or not all(choices) or len(set(choices)) < len(choices):
        raise ValueError(
            f"expected two or more different values between |, found {rest!r}; "
            "a flag with one value belongs on the command line"
        )
    return Values(flag, choices)


def _range(flag, text):
    match = _RANGE.fullmatch(text)
    try:
        low, high, log, step = match.groups()
        kind = float if log or re.search(r"[.eE]", low + high) else int
        low, high = kind(low), kind(high)
    except (AttributeError, ValueError):
        raise ValueError(
            "expected `low .. high`, with `log` or `step 32` behind it or not, "
            f"found {text!r}; write numbers, and spaces around the dots"
        ) from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            f"expected the lower number first, found {text!r}; swap them"
        )
    if log and low <= 0:
        raise ValueError(
            f"expected numbers above 0 before `log`, found {text!r}; leave "
            "`log` out, or begin above 0"
        )
    if step and (kind is float or not 0 < int(step) <= high - low):
        raise ValueError(
            "expected whole numbers and a step that fits between them, found "
            f"{text!r}; leave the step out, or make it smaller"
        )
    return Values(flag, (), low, high, int(step or 1), bool(log))
