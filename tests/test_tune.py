"""Tuning: spaces in Python, what is drawn from them, and the command."""

import csv
import re
import sys

import pytest

from acnn_tf.files.locks import locked
from acnn_tf.files.problems import DataError
from experiments.sweeps import spaces
from tests.processes import ROOT, run_module


def space(hp):
    return {
        "kernel_sizes": hp.Choice("kernel_sizes", ["1", "1,3"]),
        "dropout": hp.Float("dropout", 0.0, 0.5),
        "filters": hp.Int("filters", 32, 256, step=32),
    }


@pytest.fixture
def tuner():
    return pytest.importorskip(
        "keras_tuner", reason="KerasTuner is not installed: extra `tune`"
    )


def test_a_space_is_a_python_file_below_the_current_folder(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    tuning = "experiments/grids/tuning.py"
    assert spaces.load_space(tuning) is spaces.load_space(ROOT / tuning)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tacos.flags").touch()
    for path in ("no_space.py", ROOT / tuning, "tacos.flags"):
        with pytest.raises(ValueError, match=f"below .* Received: {path}"):
            spaces.load_space(path)
    (tmp_path / "no_space.py").write_text("SPACE = {}")
    with pytest.raises(ValueError, match=r"no_space.py: expected a function"):
        spaces.load_space("no_space.py")


def test_flags_are_written_as_one_types_them():
    settings = {"a": (1, 3), "b": 0.123456, "c": None, "d": "x y", "e": False}
    words = ["--a=1,3", "--b=0.1235", "--d=x y", "--e=False"]
    assert spaces.as_words(settings) == words


def tried(tuner, space):
    """The flags that are checked of a space, as dictionaries."""
    found = []

    def note(words):
        found.append(dict(word[2:].split("=") for word in words))

    spaces.check_space(tuner, "space.py", space, note)
    return found


def test_all_choices_and_both_ends_are_checked(tuner):
    found = tried(tuner, space)
    assert {flags["kernel_sizes"] for flags in found} == {"1", "1,3"}
    assert {flags["dropout"] for flags in found} == {"0", "0.5"}
    assert {flags["filters"] for flags in found} == {"32", "256"}


def test_what_a_choice_opens_is_checked_with_that_choice(tuner):
    def by_if(hp):
        flags = {"model": hp.Choice("model", ["acnn", "ctrl"])}
        if flags["model"] == "ctrl":
            flags["context_size"] = hp.Int("context_size", 3, 7, step=2)
        return flags

    def by_scope(hp):
        flags = {"model": hp.Choice("model", ["acnn", "ctrl"])}
        with hp.conditional_scope("model", ["ctrl"]):
            flags["context_size"] = hp.Int("context_size", 3, 7, step=2)
        return flags

    for branching in (by_if, by_scope):
        found = tried(tuner, branching)
        assert {"model": "acnn"} in found
        for size in ("3", "7"):
            assert {"model": "ctrl", "context_size": size} in found
        assert {"model": "acnn", "context_size": "3"} not in found


def test_a_bad_space_is_named(tuner):
    def check(words):
        if "--x=bad" in words:
            raise ValueError("not this one")

    for bad, message in (
        (lambda hp: None, r"return flags as \{name: value\}, found None"),
        (lambda hp: {}, r"found \{\}; return at least one"),
        (lambda hp: {"x": hp.Int("x", 5, 1)}, "name='x'.*greater than"),
        (lambda hp: {"x": hp.Choice("x", ["good", "bad"])}, "not this one"),
    ):
        with pytest.raises(DataError, match=f"^space.py: .*{message}"):
            spaces.check_space(tuner, "space.py", bad, check)


def draw(tuner, space, score, count=12, seed=0, algorithm="random"):
    """The settings of a search."""
    drawn = []

    def noted(settings):
        drawn.append(settings)
        return score(settings)

    spaces.search(tuner, algorithm, space, noted, count, seed)
    return drawn


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_a_search_repeats_itself(tuner, algorithm):
    if algorithm == "bayesian":
        pytest.importorskip("sklearn", reason="extra `tune` is not installed")

    def score(settings):
        return -abs(settings["dropout"] - 0.2)

    drawn = draw(tuner, space, score, algorithm=algorithm)
    assert drawn == draw(tuner, space, score, algorithm=algorithm)
    # A longer search begins as the shorter one did.
    longer = draw(tuner, space, score, 14, algorithm=algorithm)
    assert longer[:12] == drawn
    assert drawn != draw(tuner, space, score, seed=1, algorithm=algorithm)


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[tune\]"'):
        spaces.import_tuner("random")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"--algorithm=bayesian.*tune"):
        spaces.import_tuner("bayesian")


SPACES = {
    "good.py": """
def space(hp):
    return {
        "filters": hp.Int("filters", 1, 9),
        "dropout": hp.Choice("dropout", [0, 1]),
    }
""",
    "bad.py": """
def space(hp):
    return {"filters": hp.Int("filters", 1, 9), "kernels": 3}
""",
}


@pytest.mark.slow
def test_command_tunes_goes_on_and_writes_the_best_flags(tuner, tmp_path):
    for name, text in SPACES.items():
        (tmp_path / name).write_text(text)
    out = tmp_path / "out"
    command = "tests.faked_runs", "tune", out
    done = run_module(
        *(*command, "--space=bad.py", "--trials=6"),
        *("--window_seconds=3,6", "--", "--space=good.py", "--"),
        *("--trials=8", "--", "--seed=1"),
        cwd=tmp_path,
    )
    bad, first, second, other, _ = done.stdout.split("---\n")
    # Before anything is run.
    assert "bad.py: expected flags of experiments.train, found '--ker" in bad
    assert "would" not in bad
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
    with locked(out):
        done = run_module(*command, "--space=good.py", cwd=tmp_path)
    assert "FolderInUseError" in done.stdout
