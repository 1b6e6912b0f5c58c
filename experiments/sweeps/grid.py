"""Grids: settings to compare, a row on each line of a file.

    # name: flags of experiments.train; the first row is the reference
    reference:
    no context: --kernel_sizes=1
    the paper's scorer: --scorer_activation=relu --context_activation=none

Everything is checked as it is read, before any hours are spent.
"""

import os
import re
import shlex
import typing

from acnn_tf.files.names import check_file_name
from acnn_tf.files.problems import DataError, Problem
from acnn_tf.files.text import text_lines


class Row(typing.NamedTuple):
    """One row of a grid."""

    name: str  # also of a folder
    flags: tuple[str, ...]  # --name=value


def read_grid(path, check_flags):
    """Reads and checks a grid: list of `Row`, the reference first.

    `check_flags` raises a `ValueError` where a list of flags will not do. A
    `DataError` names each bad line: what was expected, found, and what to do.
    """
    path = os.fspath(path)
    problems, rows, lines = [], [], {}
    for line, text in text_lines(path):
        try:
            if isinstance(text, ValueError):  # not UTF-8, or too long
                raise text
            if text.startswith("#"):
                continue
            row = _parse(text)
            known = lines.setdefault(row.name.casefold(), line)
            if known != line:
                raise ValueError(
                    f"expected a name of its own, found {row.name!r} again, "
                    f"the name of line {known} (some systems do not tell "
                    "capitals apart); rename one of them"
                )
            check_flags(list(row.flags))
            rows.append(row)
        except ValueError as error:
            problems.append(Problem(path, line, str(error)))
    if not rows and not problems:
        problems.append(
            Problem(
                path,
                None,
                "expected at least one row, `name: --flag=value`, found none; "
                "the first is the reference, and may have no flags",
            )
        )
    if problems:
        raise DataError(problems)
    return rows


def _parse(text):
    name, colon, rest = text.partition(":")
    name = name.strip()
    if not colon or name.startswith("-"):
        raise ValueError(
            f"expected `name: --flag=value ...`, found {text!r:.80}; begin "
            "the line with a name and a colon"
        )
    check_file_name(name)
    if not re.search(r"\w", name):
        raise ValueError(
            f"expected a name with a letter or a digit, found {name!r}; choose "
            "another"
        )
    try:
        words = tuple(shlex.split(rest, comments=True))
    except ValueError as error:
        raise ValueError(
            f"expected quotes in pairs, found {rest.strip()!r:.80} ({error}); "
            "mend the quotes"
        ) from None
    return Row(name, words)
