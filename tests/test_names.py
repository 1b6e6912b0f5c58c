"""Ids as names of files: in their folder, and each its own."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from acnn_tf import evaluation, plots
from acnn_tf.data.annotations import Moment
from acnn_tf.data.features import open_features, write_features
from acnn_tf.files.names import check_file_name, file_name
from experiments import evaluation_plots, splits

# Also halves of letters, as names that are not UTF-8 have.
IDS = st.text(max_size=300) | st.text(
    st.sampled_from("./\\ %~a2F:\0\ud800\u202e\n"), max_size=12
)
HOSTILE = [
    *("", ".", "..", "../x", "/x", "a/b", "a\\b", "..\\x", "C:x", ".hidden"),
    *("a\0b", "a\nb", "\ud800", "\u202egnp", "x" * 300, "\u00e9" * 128),
    *("x ", "x."),
]


@given(IDS, st.sampled_from(["", ".png", ".npy"]))
def test_a_name_stays_in_its_folder(name, suffix):
    found = file_name(name, suffix)
    path = Path("/folder/within") / found
    assert path.parent == Path("/folder/within")
    assert Path(os.path.normpath(path)) == path
    assert path.name == found
    assert found.endswith(suffix)
    assert 0 < len(os.fsencode(found)) <= 255
    assert not found.startswith(".")
    assert "\\" not in found
    assert found.isprintable()


@given(IDS, IDS)
def test_distinct_ids_have_distinct_names(first, second):
    assume(first != second)
    assert file_name(first, ".png") != file_name(second, ".png")


@given(IDS)
def test_no_id_takes_the_name_of_another(name):
    """Such as one that is written as another one is escaped."""
    found = file_name(name)
    assume(found != name)
    assert file_name(found) != found


def test_usual_ids_stay_as_they_are():
    for name in (
        "3MSZA",
        "s13-d21",
        "v_--0edUL8zmA",
        "a b",
        "caf\u00e9",
        "@.x",
    ):
        assert file_name(name) == name
        check_file_name(name)


def test_long_ids_that_differ_at_their_end_differ():
    names = {file_name("x" * 300 + end, ".png") for end in ("", "a", "b")}
    assert len(names) == 3
    assert {len(name) for name in names} == {255}


def test_a_name_that_would_leave_its_folder_is_told_and_not_written(tmp_path):
    clips = np.ones((2, 3), np.float32)
    for name in HOSTILE:
        with pytest.raises(ValueError, match="cannot be the name of a file"):
            check_file_name(name)
        with pytest.raises(ValueError, match=r"name of a file|'/'"):
            write_features(tmp_path / "a" / "b", {"a": clips, name: clips}, 1.0)
        assert not list(tmp_path.iterdir()), name


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=5))
def test_features_that_are_written_are_read_again(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("features")
    features = {
        name: np.full((1, 2), number, np.float32)
        for number, name in enumerate(["known", *ids])
    }
    if any(file_name(name, ".npy") != f"{name}.npy" for name in features):
        with pytest.raises(ValueError, match=r"name of a file|'/'"):
            write_features(folder / "npy", features, 1.0)
        assert not list(folder.iterdir())
        return
    write_features(folder / "npy", features, 1.0)
    with open_features(folder / "npy") as found:
        assert {name: float(found[name][0, 0]) for name in found} == {
            name: value[0, 0] for name, value in features.items()
        }
    assert os.listdir(folder) == ["npy"]


def test_plots_stay_in_their_folder_one_for_each_query(tmp_path, monkeypatch):
    ids = ["../../x", "/x", "a/b", "a_b", "a\\b", "..", "", "y" * 400, "\0"]
    drawn = []
    monkeypatch.setattr(plots, "recall_table", lambda *_: "table.png")
    monkeypatch.setattr(
        plots, "timeline", lambda path, **_: drawn.append(path) or path
    )
    monkeypatch.setattr(evaluation, "attention", lambda *_: None)
    monkeypatch.setattr(evaluation, "score_curve", lambda *_: None)
    moments = [Moment(name, "a door", "v", 9.0, ((0.0, 3.0),)) for name in ids]
    evaluation_plots.draw_evaluation(
        str(tmp_path),
        None,
        splits.Split(moments, {}, None),
        {"protocol": ""},
        [np.array([[0.0, 3.0, 1.0]])] * len(ids),
        timelines=len(ids),
        title="../../a dataset, test",
    )
    assert len(set(drawn)) == len(ids)
    folder = tmp_path / "pictures" / "a-dataset-test"
    assert {Path(path).parent for path in drawn} == {folder / "timelines"}
