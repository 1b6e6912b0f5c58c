"""The linear shortlist: what it finds, and what it says that it finds."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from acnn_tf import servable
from acnn_tf.search import shortlist
from acnn_tf.search.best_moments import Moments
from acnn_tf.search.ranking import RankingSettings
from tests import small_acnn
from tests.small_acnn import assert_alike

# Windows do not support each other.
PLAIN = RankingSettings("clips", None, None, None)
RNG = np.random.default_rng(0)
FEATURES = small_acnn.make_features(120, longest=39)
QUERIES = RNG.normal(size=(6, 9)).astype("float32")


def make_index(**arguments):
    model = small_acnn.make_model(
        vocabulary=None, query_encoder="mean", **arguments
    )
    return small_acnn.make_index(model, features=FEATURES)


def by_line(index, **settings):
    return index.search_queries(QUERIES, shortlist="linear", **settings)


@pytest.fixture
def few(monkeypatch):
    """Few windows are many enough."""
    for name, value in {
        "_LEAST": 32,
        "_PER_RESULT": 4,
        "_SAMPLE": 512,
        "_WORTHWHILE": 1,
    }.items():
        monkeypatch.setattr(shortlist, name, value)


@pytest.mark.parametrize("consensus_iou", [None, (0.3, 0.6)])
@pytest.mark.usefixtures("few")
def test_the_head_sees_all_windows_where_they_are_few(
    consensus_iou, monkeypatch
):
    index = make_index(consensus_iou=consensus_iou)
    names = list(FEATURES)[3:9]
    exact = index.search_queries(QUERIES, top_n=5, video_ids=names)
    for times in (0, 100):  # more than these windows: no line
        monkeypatch.setattr(shortlist, "_WORTHWHILE", times)
        found = by_line(index, top_n=5, video_ids=names)
        assert {m.video_id for row in found for m in row} <= {*names}
        assert_alike(found, exact)
        assert [row.recall for row in found] == [1.0] * len(QUERIES)
    assert [row.recall for row in exact] == [1.0] * len(QUERIES)
    assert [len(row) for row in by_line(index, video_ids=[])] == [0] * 6


@pytest.mark.parametrize("int8_is_fast", [False, True])
@pytest.mark.parametrize("consensus_iou", [None, (0.3, 0.6)])
@pytest.mark.usefixtures("few")
def test_a_share_of_the_windows_has_nearly_all_moments(
    consensus_iou, int8_is_fast, monkeypatch
):
    monkeypatch.setattr(shortlist, "_INT8_IS_FAST", int8_is_fast)
    index = make_index(consensus_iou=consensus_iou)
    by_line(index, top_n=5)  # the first search does not round
    scored = count_scored(index, monkeypatch)
    exact = index.search_queries(QUERIES, top_n=5)
    found = by_line(index, top_n=5, min_recall=0.9)
    assert share_found(found, exact) >= 0.9
    assert all(0.9 <= row.recall <= 1.0 for row in found)
    assert 0 < sum(scored) < 0.5 * index.num_windows * len(QUERIES)
    again = by_line(index, top_n=5, min_recall=0.9)
    assert [[*row] for row in again] == [[*row] for row in found]


def share_found(found, exact):
    same = [len({*one} & {*other}) / 5 for one, other in zip(found, exact)]
    return np.mean(same)


def count_scored(index, monkeypatch):
    """Numbers of windows that the head scores from now on."""
    counts, take = [], shortlist.Windows.take

    def count(windows, rows):
        counts.append(len(rows))
        return take(windows, rows)

    monkeypatch.setattr(shortlist.Windows, "take", count)
    return counts


@pytest.mark.usefixtures("few")
def test_a_video_that_is_added_is_found():
    index = make_index()
    by_line(index)
    index.append({"new": FEATURES["v03"][::-1] * 3.0})
    exact = index.search_queries(QUERIES, video_ids=["new"])
    assert_alike(by_line(index, video_ids=["new"]), exact)


@pytest.mark.usefixtures("few")
def test_a_graph_searches_by_a_line_too():
    index = make_index(consensus_iou=(0.3, 0.6))
    signatures = servable.Signatures(index.model, index, 5, min_recall=0.9)
    search = tf.function(signatures.search, autograph=False)
    assert_nearly_all_found(search(tf.constant(QUERIES)), index)


def assert_nearly_all_found(answer, index):
    assert (answer["recall"].numpy() >= 0.9).all()
    exact = index.search_queries(QUERIES, top_n=5)
    same = [
        {name.decode() for name in names.numpy()} & {m.video_id for m in row}
        for names, row in zip(answer["video_id"], exact, strict=True)
    ]
    assert sum(map(len, same)) >= 0.9 * 5 * len(QUERIES)
    scores = [[m.score for m in row] for row in exact]
    assert (answer["score"].numpy() <= np.array(scores) + 1e-4).all()


@pytest.mark.soak
@pytest.mark.usefixtures("few")
def test_a_servable_searches_by_a_line_too(tmp_path):
    index = make_index(consensus_iou=(0.3, 0.6))
    settings = {"index": index, "top_n": 5, "shortlist": "linear"}
    servable.export(index.model, tmp_path / "1", min_recall=0.9, **settings)
    loaded = tf.saved_model.load(tmp_path / "1")
    search = loaded.signatures["search"]
    assert_nearly_all_found(search(query=tf.constant(QUERIES)), index)
    assert "`recall`" in (tmp_path / "1" / "README.md").read_text()


def test_a_shortlist_that_cannot_be_is_refused(tmp_path):
    model = small_acnn.make_model()
    index = small_acnn.make_index(model, features=dict([*FEATURES.items()][:1]))
    for match, settings in (
        ("`min_recall`", {"index": index, "min_recall": 2}),
        ("`index`", {}),
        ("'linear'", {"index": index, "shortlist": "bfloat16"}),
    ):
        with pytest.raises(ValueError, match=match):
            servable.export(
                model, tmp_path / "1", **{"shortlist": "linear"} | settings
            )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        lambda rng, size: rng.normal(0.0, 0.5, size),
        lambda rng, size: -rng.exponential(1.0, size),
        lambda rng, size: rng.uniform(-1.0, 1.0, size),
    ],
)
def test_the_asked_recall_is_reached_whatever_the_errors(error):
    found, shares, count = [], [], 50_000
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rough = rng.normal(0.0, 1.0, count).astype(np.float32)
        exact = rough + error(rng, count).astype(np.float32)
        sample = np.sort(rng.choice(count, 4096, replace=False))
        scored, recall = chosen_rows(rough, exact, sample)
        assert recall >= 0.9
        assert len({*scored}) == len(scored)  # each of them once
        found.append(np.isin(np.argsort(-exact)[:10], scored).mean())
        shares.append(len(scored) / count)
    assert np.mean(found) >= 0.9
    assert np.mean(shares) < 0.3


def chosen_rows(rough, exact, sample):
    """Windows that are scored for the ten best, and the expected recall."""
    scored, owners = [], np.repeat(np.arange(500, dtype=np.int32), 100)

    def score(rows):
        scored.extend(rows.numpy())
        return exact[rows.numpy()]

    def rank(bounds):
        best = np.sort(exact[scored])[:-11:-1].astype(float)
        return Moments(np.zeros((1, 10), int), np.zeros((1, 10, 2)), best[None])

    _, recall = shortlist.search_shortlist(
        *(rough, sample, owners, 500, PLAIN, score, rank, 10, 0.9)
    )
    return scored, recall


def test_windows_in_pieces_are_those_of_one_array(monkeypatch, tmp_path):
    whole = RNG.normal(size=(50, 3)).astype(np.float32)
    np.save(tmp_path / "piece.npy", whole[20:])
    mapped = np.load(tmp_path / "piece.npy", mmap_mode="r")
    pieces = [(whole[:20], [0, 7]), (mapped, [0, 10, 11])]
    windows = shortlist.Windows.of(pieces)
    rows = np.array([0, 19, 20, 49])
    np.testing.assert_array_equal(windows.take(rows), whole[rows])
    assert windows.owners[[0, 7, 19, 20, 30, 31]].tolist() == [0, 1, 1, 2, 3, 4]
    line = RNG.normal(size=(2, 4)).astype(np.float32)
    expected = line[:, :3] @ whole.T + line[:, 3:]
    monkeypatch.setattr(shortlist, "_INT8_IS_FAST", True)
    for dtype in (np.float32, ml_dtypes.bfloat16):
        rounded = [(part.astype(dtype), starts) for part, starts in pieces]
        windows = shortlist.Windows.of(rounded)
        np.testing.assert_allclose(
            list(shortlist.line_scores(line, windows)),
            expected,
            atol=1e-5 if dtype == np.float32 else 0.05,
        )
        windows.round()
        for piece in windows.encodings:
            piece[:] = 0.0  # which is not read any more
        np.testing.assert_allclose(
            list(shortlist.line_scores(line, windows)), expected, atol=0.05
        )


def test_rounded_windows_are_within_half_a_step(monkeypatch):
    monkeypatch.setattr(shortlist, "_INT8_IS_FAST", True)
    # Steps of 2 / 127, of 10 / 127, and none.
    whole = np.array([[2.0, -1.0], [0.1, -10.0], [0.0, 0.0]], np.float32)
    windows = shortlist.Windows.of([(whole, [0])])
    windows.round()
    numbers, scales = windows.rounded
    assert numbers.numpy().tolist() == [[127, -64], [1, -127], [0, 0]]
    np.testing.assert_allclose(scales, [2 / 127, 10 / 127, 0.0], rtol=1e-6)
