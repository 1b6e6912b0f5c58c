"""Tables of settings compared: by hand, and by the command itself."""

import csv
import os
import re

import numpy as np
import pytest

from acnn_tf import plots
from acnn_tf.data.annotations import Moment
from acnn_tf.files.locks import locked
from acnn_tf.files.problems import DataError
from experiments import per_query_csv
from experiments.sweeps import ablation_table
from experiments.sweeps.grid import Row
from experiments.sweeps.runs import Run
from tests.processes import run_module

QUERIES = ["a", "b", "c", "d"]


def outcome(row, seed, hits, minutes=(1.0, 2.0), queries=QUERIES):
    """A run whose every figure is that of the same hits."""
    hits = np.array(hits, float)
    names = [*ablation_table.MEASURES[:-1], "iou"]
    results = {name: hits.mean() for name in ablation_table.MEASURES}
    results |= {"num_parameters": 1234}
    results["shuffled"] = dict.fromkeys(ablation_table.MEASURES, 0.25)
    results["chance"] = dict.fromkeys(ablation_table.MEASURES, 0.125)
    return ablation_table.Outcome(
        Run(f"{row.name}, seed {seed}", f"runs/{row.name}", (*row.flags,)),
        seed,
        results=results,
        queries=(queries, ["v", "v", "w", "w"], dict.fromkeys(names, hits)),
        minutes=minutes,
    )


def failure(row, seed):
    run = Run(f"{row.name}, seed {seed}", "runs/x", row.flags)
    return ablation_table.Outcome(run, seed, error="exit code 2, x.log: no")


ROWS = [Row("ours", ()), Row("none", ("--crop=0",)), Row("broken", ("--x=y",))]


@pytest.fixture(scope="module")
def summaries():
    ours, none, broken = ROWS
    return ablation_table.summarise(
        ROWS,
        {
            "ours": [
                outcome(ours, 0, [1, 0, 1, 0]),
                outcome(ours, 1, [1, 0, 1, 1], minutes=(2.0, 4.0)),
            ],
            # Half as often as ours, query by query: d = (-1, 0, -1, -1/2).
            "none": [outcome(none, 0, [0, 0, 0, 0]), failure(none, 1)],
            "broken": [failure(broken, 0), failure(broken, 1)],
        },
    )


def test_table_by_hand(summaries):
    text = ablation_table.markdown(summaries, "grid.txt: 3 rows")
    # Means .5 and .75: .625, and their deviation .25 / sqrt 2 = .177.
    cells = " | ".join(["0.625 ± 0.177"] * 6)
    assert f"| ours | {cells} | 1,234 | 1.5, 3.0 |" in text
    cells = " | ".join(["0.000"] * 6)
    assert f"| none (failed: seed 1) | {cells} | 1,234 | 1.0, 2.0 |" in text
    assert "| broken | failed |" in text
    assert "- none, seed 1: exit code 2, x.log: no" in text
    assert "- none: `--crop=0`" in text
    assert "| ours | 0.250 ± 0.000 |" in text  # shuffled
    assert "| chance (windows of the first row) | 0.125 |" in text


def test_differences_by_hand(summaries):
    reference, none, broken = summaries
    assert reference.differences == broken.differences == {}
    found = none.differences["mIoU"]
    assert found.difference == -0.625
    # Samples of four. All of a and c, -1 on average: chance 1/16 > 2.5 %. All
    # of b, 0: 1/256, and with one d, -1/8: 4/256, together 2.0 % < 2.5 %; then
    # comes -1/4.
    assert found.low == -1
    assert found.high == -0.25
    text = ablation_table.markdown(summaries, "")
    assert "| none | **-62.5 [-100.0, -25.0]** |" in text


def test_videos_can_be_drawn_in_place_of_queries():
    ours, none, _ = ROWS
    outcomes = {
        "ours": [outcome(ours, 0, [1, 1, 1, 0])],
        "none": [outcome(none, 0, [0, 0, 0, 0])],
    }
    _, found = ablation_table.summarise(ROWS[:2], outcomes, groups=True)
    # Videos v, d = -1, and w, d = -1/2: means of two are -1, -3/4 or -1/2.
    assert tuple(found.differences["mIoU"]) == (-0.75, -1.0, -0.5)
    assert "over videos" in ablation_table.markdown([_, found], "", groups=True)


def test_other_queries_cannot_be_compared():
    ours, none, _ = ROWS
    outcomes = {
        "ours": [outcome(ours, 0, [1, 0, 1, 0])],
        "none": [outcome(none, 0, [1, 0, 1, 0], queries=list("abdc"))],
    }
    with pytest.raises(ValueError, match="runs/none was evaluated on other qu"):
        ablation_table.summarise(ROWS[:2], outcomes)


def test_files_hold_figures_and_whole_commands(summaries, tmp_path):
    paths = ablation_table.write(tmp_path, summaries, "grid.txt: 3 rows")
    names = {"table.md", "table.csv", "runs.csv", "table.png"}
    assert {os.path.basename(path) for path in paths} == names
    assert set(os.listdir(tmp_path)) == names  # nothing half-written
    with open(tmp_path / "table.csv", encoding="utf-8") as file:
        ours, none, broken = csv.DictReader(file)
    assert float(ours["mIoU"]) == 0.625
    assert float(ours["mIoU deviation"]) == pytest.approx(0.25 / 2**0.5)
    assert float(ours["shuffled mIoU"]) == 0.25
    assert ours["mIoU low"] == ""
    assert none["R@1,IoU=0.5 outside noise"] == "1"
    assert none["seeds"], none["failed"] == ("0", "1")
    assert none["command"] == (
        "python -m experiments.train --crop=0 --workdir=runs/none"
    )
    assert broken["mIoU"] == ""
    with open(tmp_path / "runs.csv", encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    assert [(run["name"], run["seed"]) for run in runs] == [
        (row.name, seed) for row in ROWS for seed in "01"
    ]
    assert runs[1]["mIoU"] == "0.75"
    assert "no" in runs[-1]["error"]


def test_a_failed_reference_leaves_figures_without_differences(tmp_path):
    ours, none, _ = ROWS
    outcomes = {
        "ours": [failure(ours, 0)],
        "none": [outcome(none, 0, [1, 0, 1, 0])],
    }
    summaries = ablation_table.summarise(ROWS[:2], outcomes)
    text = ablation_table.markdown(summaries, "")
    assert "| none | 0.500 |" in text
    assert "Differences" not in text
    ablation_table.write(tmp_path, summaries, "")


def test_picture_takes_any_number_of_rows_and_runs(tmp_path):
    for count in (1, 30):
        rows = {
            f"row {i} $x_": {"mIoU": np.full(1 + i % 3, i / 40)}
            for i in range(count)
        }
        path = plots.dots(
            tmp_path / f"{count}.png",
            rows,
            reference="row 0 $x_",
            outside={"row 1 $x_": ["mIoU"]},
            title="words " * 30,
        )
        assert path.read_bytes().startswith(b"\x89PNG")


def test_queries_come_back_as_they_were_written(tmp_path):
    moments = [
        Moment(name, "a man, running", 'v,"1"', 9.0, ((0.0, 1.0),))
        for name in ("1", 'a,"b"\n', "ñ")
    ]
    hits = {
        "R@1,IoU=0.5": np.array([True, False, True]),
        "iou": np.array([1 / 3, 0.0, 0.1 + 0.2]),
    }
    path = tmp_path / "queries.csv"
    per_query_csv.write_per_query(path, moments, hits)
    query_ids, video_ids, found = per_query_csv.read_per_query(path)
    assert query_ids == ["1", 'a,"b"\n', "ñ"]
    assert set(video_ids) == {'v,"1"'}
    assert set(found) == set(hits)
    for name, values in hits.items():
        np.testing.assert_array_equal(found[name], values)  # to the last bit


def test_a_damaged_file_of_queries_is_named(tmp_path):
    path = tmp_path / "queries.csv"
    for text, line in (
        ("", 1),
        ("qid,vid,iou\n", 1),
        ("query,vid,iou\n1,v,0.5\n", 1),
        ("qid,vid,iou\n1,v,0.5\n2,v\n", 3),
        ("qid,vid,iou\n1,v,much\n", 2),
        ("qid,vid,iou\n1,v,0.5,1\n", 2),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=f"queries.csv:{line}: .*evaluate"):
            per_query_csv.read_per_query(path)


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """Faked runs, thrice: (table, what each printed, errors)."""
    folder = tmp_path_factory.mktemp("tried")
    (folder / "bad.txt").write_text(BAD)
    path = folder / "grid.txt"
    path.write_text("ours:\nbad: --dropout=1\nother: --crop=0\n")
    done = run_module(
        *("tests.faked_runs", "ablate", folder / "out"),
        *(f"--grid={folder / 'bad.txt'}", "--seeds=3,5", "--"),
        *(f"--grid={path}", "--", "--shuffled"),
    )
    text = (folder / "out" / "table.md").read_text()
    return text, done.stdout.split("---\n"), done.stderr


BAD = """reference:
a: --kernels=1
b: --epochs=none
c: --seed=3
d: --workdir=x
e: --grid=x
f: --videos_in_memory=3
g: --flagfile=missing.flags
h: --model=ctrl --kernel_sizes=1
i: --dropout 0
fine: --nofirst_order_query --kernel_sizes=1,3
"""


def test_bad_rows_are_refused_before_anything_is_run(tried):
    error = tried[1][0]
    for line, words in {
        2: "expected flags of experiments.train, found '--kernels=1'",
        3: "expected values that experiments.train takes",
        4: "which every run has of its own; leave it out",
        5: "which every run has of its own; leave it out",
        6: "expected flags of experiments.train, found '--grid=x'",
        7: "--videos_in_memory is for --batches=pairs",
        8: "missing.flags",
        9: "--kernel_sizes is no setting of --model=ctrl",
        10: "expected flags, --name=value or --noname, found '0'; join a flag",
    }.items():
        (found,) = re.findall(rf"bad.txt:{line}: .*", error)
        assert words in found
    assert "bad.txt:11" not in error
    assert "would" not in error


def test_all_rows_are_run_with_one_seed_and_then_the_next(tried):
    printed = tried[1][1]
    assert re.findall("would (.*)", printed) == [
        f"{what} in runs/{row}/seed-{seed}"
        for seed in (3, 5)
        for row in ("ours", "bad", "other")
        for what in ("train", "evaluate")
        if (what, row) != ("evaluate", "bad")
    ]
    assert "[1/6] ours, seed 3: R@1,IoU=0.5 0.500, mIoU 0.250" in printed


def test_a_run_that_fails_is_named_and_the_others_go_on(tried):
    text, (_, printed, *_), errors = tried
    assert "bad, seed 5: FAILED: exit code 2" in printed
    assert "2 of 6 runs failed" in errors
    assert "ended with 1\n" in printed
    assert "| other | 0.500 ± 0.000 |" in text
    assert "| bad | failed |" in text
    assert "- bad, seed 3: exit code 2, train.log: told to fail" in text
    assert "| other | +0.0 [+0.0, +0.0] |" in text


def test_started_again_it_does_what_is_left(tried):
    text, (*_, printed, _), _ = tried
    # Failed runs are tried again, and the control is new.
    assert re.findall("would (.*)", printed) == [
        "evaluate in runs/ours/seed-3",
        "train in runs/bad/seed-3",
        "evaluate in runs/other/seed-3",
        "evaluate in runs/ours/seed-5",
        "train in runs/bad/seed-5",
        "evaluate in runs/other/seed-5",
    ]
    assert "shuffled sentences" in text


def test_a_folder_is_compared_in_by_one_process_at_a_time(tmp_path):
    (tmp_path / "grid.txt").write_text("ours:\n")
    flags = f"--grid={tmp_path / 'grid.txt'}", "--", "--seeds=1"
    with locked(tmp_path):
        done = run_module("tests.faked_runs", "ablate", tmp_path, *flags)
    assert done.stdout.count("FolderInUseError") == 2
    assert "would" not in done.stdout
