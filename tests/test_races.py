"""Two commands at once on one folder: nothing is lost, nothing is harmed."""

import functools
import json

import numpy as np
import pytest

from acnn_tf import search
from acnn_tf.data.features import open_features, write_features
from acnn_tf.data.sentences import Vocabulary
from acnn_tf.models import load_model, save_model
from tests import small_acnn
from tests.processes import Started

QUERY = "a person opens the door"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A model, and two files of different videos."""
    folder = tmp_path_factory.mktemp("run")
    save_model(small_acnn.make_model(), folder / "model.keras")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        clips = {
            f"{name}{number}": rng.normal(1, 2, (20 + number, 6))
            for number in range(40)
        }
        write_features(folder / f"{name}.hdf5", clips, 1.0)
    return folder


@pytest.fixture(scope="module")
def expected(run_folder):
    """Answers of indexes in memory, over some of the files."""
    model = load_model(run_folder / "model.keras")
    queries = Vocabulary(model.vocabulary).encode([QUERY])

    @functools.cache
    def search_in(*names):
        index = search.MomentIndex(model)
        for name in names:
            with open_features(run_folder / f"{name}.hdf5") as features:
                index.append(features)
        return index.search_queries(queries, top_n=20)

    return model, search_in


def search_at_once(run_folder, index, expected):
    """Two searches with one new index and different videos."""
    model, search_in = expected
    processes = {
        name: Started(
            "experiments.search",
            f"--workdir={run_folder}",
            f"--features={run_folder / name}.hdf5",
            f"--index={index}",
            f"--query={QUERY}",
            "--top=20",
            "--json",
        )
        for name in ("a", "b")
    }
    over_both = 0
    for name, process in processes.items():
        done = process.finish()
        assert done.returncode == 0, done.stderr
        moments = json.loads(done.stdout)["moments"]
        found = [[search.FoundMoment(**moment) for moment in moments]]
        # The first may have answered before the second began.
        owners = {moment.video_id[0] for moment in found[0]}
        over = ("a", "b") if len(owners) > 1 else (name,)
        small_acnn.assert_alike(found, search_in(*over))
        over_both += len(over) == 2
    assert over_both
    both = search.MomentIndex(model, index)
    assert sorted(both.video_ids) == sorted(
        f"{name}{number}" for name in ("a", "b") for number in range(40)
    )
    assert {path.suffix for path in index.iterdir()} == {".json", ".npy"}


@pytest.mark.slow
@pytest.mark.soak
def test_two_searches_with_one_new_index_lose_nothing(
    run_folder, expected, tmp_path
):
    search_at_once(run_folder, tmp_path / "index", expected)


@pytest.mark.soak
def test_twenty_times_two_searches_lose_nothing(run_folder, expected, tmp_path):
    for number in range(20):
        search_at_once(run_folder, tmp_path / str(number), expected)
