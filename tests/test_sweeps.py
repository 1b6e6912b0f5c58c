"""The commands of `experiments.sweeps`, on one small training."""

import csv
import json
import re
import shlex

import numpy as np
import pytest
from absl.testing import flagsaver

from acnn_tf.models import load_model
from experiments import per_query_csv, splits, training_curves
from experiments.sweeps import paper_tables
from experiments.sweeps.paper_tables import NOTE, PUBLISHED
from export import command
from tests.processes import run_module

SMALL = (
    "--dataset=synthetic",
    "--num_scenes=3",
    "--epochs=1",
    "--window_seconds=3",
    "--filters=4",
    "--embedding_dim=4",
    "--hidden_dim=none",
    "--query_encoder=mean",
    "--word_dim=4",
    "--noposition_features",
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A grid of one row, trained: (folder, what was printed)."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "grid.txt").write_text("ours: --kernel_sizes=1,3\n")
    words = f"--grid={folder / 'grid.txt'}", f"--workdir={folder}", "--seeds=1"
    done = run_module("experiments.sweeps.ablate", *words, *SMALL)
    return folder, done.stdout


@pytest.mark.slow
def test_ablate_trains_evaluates_and_compares(compared):
    out, printed = compared
    assert "[1/1] ours, seed 1: R@1,IoU=0.5 0." in printed
    text = (out / "table.md").read_text()
    assert re.search(r"\| ours \|( [01]\.\d{3} \|){6} [\d,]+ \| 0", text)
    with open(out / "table.csv", encoding="utf-8") as file:
        (ours,) = csv.DictReader(file)
    words = shlex.split(ours["command"])
    assert {*SMALL, "--kernel_sizes=1,3", "--seed=1"} < set(words)
    folder = out / "runs" / "ours" / "seed-1"
    query_ids, _, hits = per_query_csv.read_per_query(
        folder / "queries_val.csv"
    )
    assert len(query_ids) == len(set(query_ids))
    results = json.loads((folder / "evaluation_val.json").read_text())
    assert float(ours["mIoU"]) == results["mIoU"]
    assert results["mIoU"] == pytest.approx(hits.pop("iou").mean())
    for name, hit in hits.items():
        assert results[name] == pytest.approx(hit.mean()), name
    model = load_model(folder / "model.keras")
    assert int(ours["parameters"]) == sum(
        np.prod(variable.shape) for variable in model.trainable_variables
    )


@pytest.mark.slow
def test_paper_tables_and_figure_of_a_run(compared, tmp_path):
    folder = compared[0] / "runs" / "ours" / "seed-1"
    text = run_module(
        "experiments.sweeps.paper_tables",
        *(f"--runs=ACNN:{folder}", "--split=val", f"--out={tmp_path}"),
    ).stdout
    assert "**ACNN: " in text
    assert "NMS keeps results of IoU <= m - 0.05" in text
    # The paper's own, in its words and numbers.
    lines = [line for line in text.split("\n") if "Published: " in line]
    assert len(lines) == len(PUBLISHED)
    assert all(line.endswith(f"). {NOTE}**") for line in lines)
    assert "| R@1 | .287 | .266 | .202 | .165 | .131 |" in text
    assert (tmp_path / "tables.md").read_text() == text[:-1]
    assert (tmp_path / "figure_5.png").read_bytes()[:4] == b"\x89PNG"
    with open(tmp_path / "tables.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    ours = [row for row in rows if row["table"].startswith("ACNN: ")]
    assert [row["n"] for row in ours] == ["10", "5", "1"]
    for row in ours:
        values = [float(row[f"IoU={m}"]) for m in paper_tables.IOUS]
        assert values == sorted(values, reverse=True) or row["n"] != "1"
        assert all(0 <= value <= 1 for value in values)


def test_what_is_wrong_with_a_history_is_told(tmp_path):
    path = tmp_path / "history.csv"
    for text, message in (
        (None, "No such file.* Train the"),
        ("epoch,step\n0,x\n", "could not convert"),
        ("epoch,val_R@1_IoU=0.5\n0,0.5\n", r"no columns step\. Train"),
        ("epoch,step,val_R@1_IoU=0.5\n", "no epochs"),
    ):
        if text:
            path.write_text(text)
        expected = f"history.csv must be .*found: .*{message}"
        with pytest.raises(ValueError, match=expected):
            training_curves.read_history(tmp_path)


def test_flags_of_the_data_reach_the_evaluation():
    # Those of a test split are in no flag of a training.
    given = ["--features=t.hdf5", "--skip_bad"]
    with flagsaver.as_parsed(features="t.hdf5", skip_bad="true"):
        assert sorted(command.flag_words(splits, only_given=True)) == given
    assert not command.flag_words(splits, only_given=True)
    words = paper_tables.evaluation_of("r", "test", ["128", "256"], given)
    assert words[-3:] == ["--window_lengths=128,256", *given]
    plain = paper_tables.evaluation_of("r", "test")
    assert words[:-3] == plain


def test_runs_have_names_and_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.keras").touch()
        (tmp_path / name / "flags.txt").touch()
    one, two = (str(tmp_path / name) for name in ("a", "b"))
    found = paper_tables.named_folders([f"ACRN:{one}", two])
    assert found == {"ACRN": one, "b": two}
    with pytest.raises(ValueError, match=r"have one name, 'b'; expected NAME:"):
        paper_tables.named_folders([f"b:{one}", two])
    (tmp_path / "b" / "flags.txt").unlink()
    with pytest.raises(ValueError, match=r"--runs: x:.*b.flags.txt, found no"):
        paper_tables.named_folders([f"x:{two}"])
    with pytest.raises(ValueError, match=r"y.model.keras, .* Train it: .*=y,"):
        paper_tables.named_folders(["y"])


def test_published_figures_name_their_data_and_protocol():
    for title, figures in PUBLISHED.items():
        assert "TACoS test, C3D features, " in title
        # What suppression changes says which it is.
        assert ("NMS at m - 0.05" in title) == (10 in figures)
        assert ("no suppression changes" in title) == (list(figures) == [1])


def test_recalls_are_in_the_order_of_the_papers_rows():
    results = {
        f"R@{n},IoU={m}": n + m
        for n in paper_tables.NS
        for m in (0.7, *paper_tables.IOUS)
    }
    found = paper_tables.recalls(results)
    assert list(found) == [10, 5, 1]
    assert found[5] == pytest.approx((5.1, 5.2, 5.3, 5.4, 5.5))
    text = paper_tables.markdown("t", {1: (0.25, None, 0.5, 0.1, 0.05)})
    assert "| R@1 | .250 |  | .500 | .100 | .050 |" in text
