"""Runs in the form of the paper's tables, beside the published figures."""

import csv

import pytest
from absl.testing import flagsaver

from experiments import splits, training_curves
from experiments.sweeps import paper_tables, published
from experiments.sweeps.published import NOTE, PUBLISHED
from export import command
from tests.test_experiments import SMALL, run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    run(
        "train",
        *("--dataset=synthetic", "--num_scenes=5", f"--workdir={folder}"),
        *("--epochs=2", *SMALL),
    )
    return folder


@pytest.mark.slow
def test_tables_and_figure_of_a_run(runs, tmp_path):
    text = run(
        *(
            "paper_tables",
            f"--runs=ACNN:{runs}",
            "--split=val",
            f"--out={tmp_path}",
        )
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


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"history.csv must be .* Train the"):
        training_curves.read_history(tmp_path)
    (tmp_path / "history.csv").write_text("epoch,step\n0,x\n")
    with pytest.raises(ValueError, match=r"history.csv must be"):
        training_curves.read_history(tmp_path)


def test_a_history_without_steps_is_told_from_one_without_epochs(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,val_R@1_IoU=0.5\n0,0.5\n")
    with pytest.raises(ValueError, match=r"found: no columns step\. Train"):
        training_curves.read_history(tmp_path)
    path.write_text("epoch,step,val_R@1_IoU=0.5\n")
    with pytest.raises(ValueError, match="found: no epochs"):
        training_curves.read_history(tmp_path)


def test_flags_of_the_data_reach_the_evaluation():
    # Those of a test split are in no flag of a training.
    given = ["--features=t.hdf5", "--skip_bad"]
    with flagsaver.as_parsed(features="t.hdf5", skip_bad="true"):
        assert sorted(command.flag_words(splits, only_given=True)) == given
    assert not command.flag_words(splits, only_given=True)
    words = paper_tables.evaluation_of("r", "test", ["128", "256"], given)
    assert words[-3:] == ["--window_lengths=128,256", *given]
    assert words[:6] == paper_tables.evaluation_of("r", "test")[:6]


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
    text = published.markdown("t", {1: (0.25, None, 0.5, 0.1, 0.05)})
    assert "| R@1 | .250 |  | .500 | .100 | .050 |" in text
