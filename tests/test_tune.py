"""Tuning: spaces of settings, what is drawn from them, and the command."""

import csv
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from acnn_tf.files.problems import DataError
from experiments.sweeps import trials
from experiments.sweeps.runs import RunError
from experiments.sweeps.space import Values, read_space

ROOT = Path(__file__).resolve().parents[1]


def read(folder, text, check=lambda words: None):
    path = folder / "space.txt"
    path.write_text(text, encoding="utf-8")
    return read_space(path, check)


SPACE = """
# kernels first
--kernel_sizes: 1 | 1,3|1,3,5   # odd
--dropout: 0 .. 0.5
--filters: 32 .. 256 step 32
--epochs: 4 .. 9
--learning_rate: 3e-4 .. 3e-3 log
"""


def test_choices_and_ranges_are_read(tmp_path):
    asked = []
    assert read(tmp_path, SPACE, lambda words: asked.extend(words)) == [
        Values("kernel_sizes", ("1", "1,3", "1,3,5")),
        Values("dropout", (), 0.0, 0.5),
        Values("filters", (), 32, 256, 32),
        Values("epochs", (), 4, 9),
        Values("learning_rate", (), 3e-4, 3e-3, 1, True),
    ]
    assert asked[:3] == [f"--kernel_sizes={k}" for k in ("1", "1,3", "1,3,5")]
    assert asked[-2:] == ["--learning_rate=0.0003", "--learning_rate=0.003"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("filters: 1 | 2", "begin the line with a flag and a colon"),
        ("--filters=3", "expected `--name: value"),
        ("--filters: 3", "two or more different values .* found '3'"),
        ("--filters: 3 | ", "two or more different values"),
        ("--filters: 3 | 3", "two or more different values"),
        ("--filters: a .. b", "write numbers, and spaces around the dots"),
        ("--filters: 1 ... 5", "write numbers"),
        ("--filters: 1 .. 5 steps 2", "write numbers"),
        ("--filters: 1.2.3 .. 5", "write numbers"),
        ("--filters: 5 .. 1", "the lower number first"),
        ("--filters: 1e999 .. 2e999", "the lower number first"),
        ("--filters: 0 .. 5 log", "numbers above 0 before `log`"),
        ("--filters: 1 .. 5 step 9", "a step that fits"),
        ("--filters: 1 .. 5 step 0", "a step that fits"),
        ("--dropout: 0.1 .. 0.5 step 1", "a step that fits"),
        ("--known: 1 | 2", "after line 1; join the two lines"),
        ("--filters: 1 | bad", "not this one"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    def check(words):
        if words[0].endswith("bad"):
            raise ValueError("not this one")

    with pytest.raises(DataError, match=rf"space.txt:2: .*{message}"):
        read(tmp_path, f"--known: 1 | 3\n{line}\n", check)


def test_a_space_has_a_flag(tmp_path):
    with pytest.raises(DataError, match="at least one flag"):
        read(tmp_path, "# nothing\n")


@pytest.fixture
def tuner():
    return pytest.importorskip(
        "keras_tuner", reason="KerasTuner is not installed: extra `tune`"
    )


def draw(tuner, space, score, count=12, seed=0, algorithm="random"):
    """The settings of a search, and what they scored."""
    drawn = []

    def noted(settings):
        drawn.append(settings)
        return score(settings)

    trials.search(tuner, algorithm, space, noted, count, seed)
    return drawn


def test_what_is_drawn_lies_in_the_space(tuner, tmp_path):
    drawn = draw(tuner, read(tmp_path, SPACE), lambda settings: 0.5, 40)
    assert len(drawn) == 40
    assert {s["kernel_sizes"] for s in drawn} == {"1", "1,3", "1,3,5"}
    assert all(0 <= float(s["dropout"]) <= 0.5 for s in drawn)
    assert {int(s["filters"]) % 32 for s in drawn} == {0}
    assert {int(s["epochs"]) for s in drawn} <= set(range(4, 10))
    rates = [math.log(float(s["learning_rate"])) for s in drawn]
    assert math.log(3e-4) - 1e-3 <= min(rates)
    assert max(rates) <= math.log(3e-3) + 1e-3
    # Even on a scale of logarithms: half of them below the middle, 9.5e-4.
    assert 10 < sum(rate < math.log(9.5e-4) for rate in rates) < 30


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_a_search_repeats_itself(tuner, tmp_path, algorithm):
    if algorithm == "bayesian":
        pytest.importorskip("sklearn", reason="extra `tune` is not installed")
    space = read(tmp_path, SPACE)

    def score(settings):
        return -abs(float(settings["dropout"]) - 0.2)

    one = draw(tuner, space, score, algorithm=algorithm)
    assert one == draw(tuner, space, score, algorithm=algorithm)
    # A longer search begins as the shorter one did.
    longer = draw(tuner, space, score, 14, algorithm=algorithm)
    assert longer[:12] == one
    assert one != draw(tuner, space, score, seed=1, algorithm=algorithm)


def test_a_trial_that_fails_does_not_end_the_search(tuner, tmp_path):
    def score(settings):
        raise RunError("no luck")

    assert len(draw(tuner, read(tmp_path, SPACE), score, 5)) == 5


def test_bad_input_ends_the_search(tuner, tmp_path):
    def score(settings):
        raise ValueError("other flags")

    with pytest.raises(ValueError, match="other flags"):
        draw(tuner, read(tmp_path, SPACE), score)


def test_a_small_space_is_drawn_once(tuner, tmp_path):
    space = read(tmp_path, "--kernel_sizes: 1 | 1,3\n--crop: 0 | 1\n")
    drawn = draw(tuner, space, lambda settings: 0.5, 50)
    assert len({tuple(s.values()) for s in drawn}) == len(drawn) == 4


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    with pytest.raises(ImportError, match=r"pip install 'acnn_tf\[tune\]'"):
        trials.import_tuner("random")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"--algorithm=bayesian.*tune"):
        trials.import_tuner("bayesian")


@pytest.fixture
def tried(tuner, tmp_path):
    """Faked trials: (folder, what each of two searches printed)."""
    path = tmp_path / "space.txt"
    path.write_text("--filters: 1 .. 9\n--dropout: 0 | 1\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.faked_runs", "tune"),
            *(tmp_path / "out", f"--space={path}", "--trials=6"),
            *("--window_seconds=3,6", "--", "--trials=8", "--"),
            *("--seed=1",),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return tmp_path / "out", done.stdout.split("---\n")


@pytest.mark.slow
def test_command_tunes_goes_on_and_writes_the_best_flags(tried):
    out, (first, second, other, _) = tried
    with open(out / "trials.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == list("12345678")
    for row in rows:
        failed = row["dropout"] == "1"
        assert bool(row["error"]) == failed
        # The best epoch, not the last.
        score = "" if failed else str(int(row["filters"]) / 100)
        assert row["val_mIoU"] == score
    kinds = {bool(row["error"]) for row in rows}
    assert kinds == {True, False}, "draw more of them"
    begun = [f"would train in trials/000{n}" for n in range(1, 7)]
    assert re.findall("would.*", first) == begun
    # Those that are done are read; those that failed are tried again.
    again = [r["trial"] for r in rows if r["error"] or int(r["trial"]) > 6]
    assert re.findall(r"would.*(\d)", second) == again
    assert "ended with 1" in second
    best = max(rows, key=lambda row: float(row["val_mIoU"] or 0))
    flags = (out / "best.flags").read_text().splitlines()
    assert f"--flagfile={out / 'best.flags'}" in flags[0]
    assert f"number {best['trial']}" in flags[1]
    assert set(flags[2:]) == {
        "--dataset=synthetic",
        "--window_seconds=3,6",
        f"--filters={best['filters']}",
        "--dropout=0",
        "--seed=0",
    }
    # Another seed would be another search in the same folder.
    assert "was begun with other flags" in other
