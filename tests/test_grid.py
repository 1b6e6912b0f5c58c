"""Grids of settings: what is read, and what is refused with its line."""

import re

import pytest

from acnn_tf.files.problems import DataError
from experiments.sweeps.grid import Row, read_grid


def read(folder, text, check=lambda words: None):
    path = folder / "grid.txt"
    path.write_text(text, encoding="utf-8")
    return read_grid(path, check)


def test_rows_come_in_order_with_their_flags(tmp_path):
    rows = read(
        tmp_path,
        "# compared on the scenes\n"
        "\n"
        "reference:\n"
        "no context : --kernel_sizes=1 --dilation=1  # one window\n"
        "  ñ, 2: --word_vectors='my words.txt' --noposition_features\n",
    )
    assert rows == [
        Row("reference", ()),
        Row("no context", ("--kernel_sizes=1", "--dilation=1")),
        Row("ñ, 2", ("--word_vectors=my words.txt", "--noposition_features")),
    ]


def test_all_bad_lines_are_named_at_once(tmp_path):
    def check(words):
        if "--crop=bad" in words:
            raise ValueError("not this one")

    expected = (
        ("--dropout=0", "expected `name: --flag=value ...`, found '--dropout"),
        ("--dropout=0: --crop=0", "expected `name: --flag=value"),
        ("no colon", "begin the line with a name and a colon"),
        (": --dropout=0", "cannot be the name of a file"),
        ("../up: --dropout=0", "cannot be the name of a file"),
        ("a/b: --dropout=0", "Choose another name"),
        ("x.: --dropout=0", "no dot or space at an end"),
        ("-: --dropout=0", "begin the line with a name"),
        ("+: --dropout=0", "expected a name with a letter or a digit"),
        ("REFERENCE: --dropout=0", "the name of line 2 .* rename one of them"),
        ("x: --dropout='0", "expected quotes in pairs"),
        ("x: --crop=bad", "not this one"),
    )
    lines = [line for line, _ in expected]
    text = "\n".join(["", "reference:", "fine: --dropout=1", *lines])
    with pytest.raises(DataError) as caught:
        read(tmp_path, text, check)
    problems = caught.value.problems
    for number, problem in enumerate(problems, start=4):
        assert problem.line == number
        assert re.search(expected[number - 4][1], problem.message), problem
    assert len(problems) == len(expected)


def test_a_grid_has_a_row(tmp_path):
    for text in ("", "\n# nothing but words\n"):
        with pytest.raises(DataError, match=r"at least one row.* found none"):
            read(tmp_path, text)


def test_what_is_not_utf8_is_named(tmp_path):
    (tmp_path / "grid.txt").write_bytes(b"reference:\nn\xf6: --dropout=0\n")
    with pytest.raises(DataError, match=r"grid.txt:2: .*UTF-8"):
        read_grid(tmp_path / "grid.txt", lambda words: None)
