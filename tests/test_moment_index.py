"""The index of moments, against a loop over all windows of all videos."""

import concurrent.futures
import contextlib
import functools
import threading
import time

import keras
import numpy as np
import pytest

from acnn_tf import search
from acnn_tf.files.problems import UnknownIdError
from acnn_tf.search import best_moments, encoding, moment_index, scoring
from acnn_tf.search.ranking import RankingSettings
from tests import slow_ranking, small_acnn
from tests.small_acnn import assert_alike

RNG = np.random.default_rng(0)
FEATURES = small_acnn.make_features(30, longest=39)
QUERIES = RNG.normal(size=(20, 9)).astype("float32")


@functools.cache
def make_model(**arguments):
    """One for all tests, and its graphs, unless it is `new_model`."""
    return small_acnn.make_model(
        vocabulary=None, query_encoder="mean", **arguments
    )


new_model = make_model.__wrapped__
filled = functools.partial(small_acnn.make_index, features=FEATURES)


@pytest.fixture(scope="module")
def index():
    """An index in memory, which no test changes."""
    return filled(make_model())


def slow_search(model, queries, top_n, max_iou, rounded="float32"):
    """Every window of every video, shifted, suppressed and sorted."""
    queries = model.encode_queries(queries)
    durations = {v: float(len(clip)) for v, clip in FEATURES.items()}
    settings = RankingSettings.of(model)
    found = [[] for _ in range(len(queries))]
    for video in search.encode_videos(model, FEATURES, durations):
        video.encoding[:] = keras.ops.cast(video.encoding, rounded)
        output = model.match(queries, video.encoding)
        for row, *numbers in zip(found, output["score"], output["offset"]):
            ranked = slow_ranking.rank(
                settings,
                video.windows,
                *map(search.to_numpy, numbers),
                *(video.duration, None, max_iou),
            )
            for segment, score in zip(*ranked):
                row.append(search.FoundMoment(video.video_id, *segment, score))
    return [
        sorted(row, key=lambda moment: -moment.score)[:top_n] for row in found
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        {"consensus_iou": None},
        {"consensus_iou": 0.5},
        {"consensus_iou": (0.3, 0.6), "decay_sigma": 0.4},
        {"hidden_dim": None, "first_order_query": False},
        {"window_lengths": (16, 48), "frame_rate": 8.0},
    ],
)
def test_finds_what_a_loop_over_all_windows_finds(arguments):
    model = make_model(**arguments)
    index = filled(model)
    expected = slow_search(model, QUERIES, 2000, max_iou=0.4)
    for top_n in (1, 2000):
        found = index.search_queries(QUERIES, top_n=top_n, nms_threshold=0.4)
        assert_alike(found, [row[:top_n] for row in expected])


def test_a_rough_first_pass_changes_nothing():
    for consensus_iou in (None, 0.3):
        index = filled(make_model(consensus_iou=consensus_iou))
        exact = index.search_queries(QUERIES, top_n=4)
        rough = index.search_queries(QUERIES, top_n=4, shortlist="bfloat16")
        assert_alike(rough, exact)


def test_without_suppression_all_windows_are_results(index):
    (found,) = index.search_queries(QUERIES[:1], top_n=9999, suppression="none")
    assert len(found) == index.num_windows
    expected = slow_search(index.model, QUERIES[:1], 9999, max_iou=1.0)
    assert_alike([found], expected)


def test_tiles_chunks_and_blocks_change_nothing(index, monkeypatch):
    whole = index.search_queries(QUERIES, top_n=3)
    monkeypatch.setattr(moment_index, "_CHUNK", 50)
    monkeypatch.setattr(best_moments, "_WINDOWS", 100)
    monkeypatch.setattr(moment_index, "_QUERIES", 3)
    monkeypatch.setattr(scoring, "TILE", 1)
    ranking = functools.cache(best_moments._compiled_ranking.__wrapped__)
    monkeypatch.setattr(best_moments, "_compiled_ranking", ranking)
    # Of a new model, whose graphs are new.
    assert_alike(filled(new_model()).search_queries(QUERIES, top_n=3), whole)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_folder_holds_what_memory_holds(dtype, tmp_path):
    model = make_model()
    path, names = tmp_path / "index", list(FEATURES)
    # Appending is the same as building at once.
    for some in (names[:7], names[7:8], names[8:]):
        index = search.MomentIndex(model, path, dtype=dtype)
        index.append({name: FEATURES[name] for name in some})
    assert sorted(index.video_ids) == names
    expected = slow_search(model, QUERIES, 3, max_iou=0.5, rounded=dtype)
    saved = tmp_path / "saved"
    filled(model, dtype=dtype).save(saved)
    assert_alike(index.search_queries(QUERIES, top_n=3), expected)
    found = {video.video_id: video for video in index.videos()}
    for folder in (path, saved):
        one = search.MomentIndex(model, folder)
        assert one.dtype == dtype
        assert len(one) == len(FEATURES)
        for video in one.videos():
            own = found[video.video_id]
            np.testing.assert_array_equal(video.windows, own.windows)
            np.testing.assert_allclose(
                *(video.encoding, own.encoding), rtol=1e-2, atol=1e-5
            )


def test_an_empty_index_finds_nothing_and_is_filled_window_by_window(tmp_path):
    told = []
    index = search.MomentIndex(make_model(), tmp_path / "index")
    index.append({})
    assert index.search_queries(QUERIES[:2]) == [[], []]
    assert index.num_windows == 0
    index.append(FEATURES, progress=lambda *counts: told.append(counts))
    assert len(told) == len(FEATURES)
    assert told[-1] == (index.num_windows, index.num_windows)
    assert told == sorted(told)


def test_a_video_is_taken_once(index):
    with pytest.raises(ValueError, match="'v03' is in the index already"):
        index.append({"new": FEATURES["v00"], "v03": FEATURES["v03"]})
    assert "new" not in index.video_ids


@pytest.mark.parametrize("in_folder", [True, False])
def test_videos_that_are_removed_are_found_no_more(in_folder, tmp_path):
    model = make_model()
    index = filled(model, tmp_path / "index" if in_folder else None)
    few = {name: FEATURES[name] for name in ("v03", "v11", "v20")}
    one = {"v11": FEATURES["v12"]}
    index.remove([name for name in FEATURES if name not in few])
    index.update(one, {"v11": float(len(one["v11"]))}, {"v11": "changed"})
    assert index.sources == {"v03": None, "v20": None, "v11": "changed"}
    expected = filled(model, features=few | one)
    found = index.search_queries(QUERIES, top_n=9)
    assert_alike(found, expected.search_queries(QUERIES, top_n=9))
    with pytest.raises(UnknownIdError, match=r"no video 'v12' \(1 of 2"):
        index.remove(["v03", "v12"])
    with pytest.raises(ValueError, match="must be a list of ids"):
        index.remove("v03")
    index.remove(["v03", "v20", "v11"])
    assert (len(index), index.num_windows) == (0, 0)
    assert index.search_queries(QUERIES[:1]) == [[]]
    index.append(few)
    assert len(index) == 3


def test_some_videos_alone_can_be_searched(index):
    names = ["v07", "v20", "v03"]
    found = index.search_queries(QUERIES, top_n=9, video_ids=names)
    few = filled(index.model, features={name: FEATURES[name] for name in names})
    assert_alike(found, few.search_queries(QUERIES, top_n=9))
    assert index.search_queries(QUERIES[:1], video_ids=[]) == [[]]
    with pytest.raises(UnknownIdError, match="the index has no video 'x'"):
        index.search_queries(QUERIES, video_ids=["v03", "x"])


@pytest.mark.parametrize("in_folder", [True, False])
def test_what_fails_half_way_leaves_the_index_as_it_was(in_folder, tmp_path):
    class Spoilt(dict):
        def __getitem__(self, name):
            if name == "last":
                raise OSError("the disk is gone")
            return super().__getitem__(name)

    model = make_model()
    path = tmp_path / "index" if in_folder else None
    index = filled(model, path)
    before = index.search_queries(QUERIES, top_n=3)
    files = sorted(p.name for p in tmp_path.rglob("*"))
    more = {f"w{n}": RNG.normal(size=(400, 6)) for n in range(9)}
    more = Spoilt({**more, "last": np.ones((500, 6))})
    durations = dict.fromkeys(more, 400.0) | {"last": 500.0}
    with pytest.raises(OSError, match="the disk is gone"):
        index.append(more, durations)
    assert sorted(p.name for p in tmp_path.rglob("*")) == files
    assert index.search_queries(QUERIES, top_n=3) == before
    index.append({"w0": more["w0"]})
    assert len(index) == len(FEATURES) + 1


def test_features_that_cannot_be_encoded_are_named():
    index = search.MomentIndex(make_model(), dtype="float16")
    spoilt = np.ones((5, 6), np.float32)
    spoilt[2, 3] = np.nan
    with pytest.raises(ValueError, match="'bad' is not finite"):
        index.append({"good": np.ones((5, 6)), "bad": spoilt})
    with pytest.raises(ValueError, match="bfloat16 or float32"):
        index.append({"v": np.full((5, 6), 1e6)})
    assert len(index) == 0


def test_another_model_grid_or_precision_is_refused(tmp_path):
    path, model = tmp_path / "index", new_model()
    filled(model, path)
    with pytest.raises(search.IndexFileError, match="other weights"):
        search.MomentIndex(make_model(seed=1), path)
    with pytest.raises(search.IndexFileError, match="holds float32"):
        search.MomentIndex(model, path, dtype="float16")
    model.grid = make_model(window_overlap=0.8).grid
    with pytest.raises(search.IndexFileError, match="another grid"):
        search.MomentIndex(model, path)


def test_bad_arguments_are_named(index, tmp_path):
    with pytest.raises(ValueError, match=r"`dtype`.*float8"):
        search.MomentIndex(index.model, dtype="float8")
    with pytest.raises(ValueError, match="`top_n`"):
        index.search_queries(QUERIES, top_n=0)
    with pytest.raises(ValueError, match="`shortlist`"):
        index.search_queries(QUERIES, shortlist="int8")
    with pytest.raises(ValueError, match=r"`min_recall`.*1.5"):
        index.search_queries(QUERIES, shortlist="linear", min_recall=1.5)
    for shortlist in (None, "linear"):
        with pytest.raises(ValueError, match="not finite"):
            index.search_queries(
                np.full((1, 9), np.nan, "float32"), shortlist=shortlist
            )
    with pytest.raises(FileExistsError):
        index.save(tmp_path)


def test_indexes_of_a_model_share_its_graphs():
    one, other = (search.MomentIndex(make_model()) for _ in range(2))
    assert one._rank is other._rank
    assert one._rank is not search.MomentIndex(new_model())._rank


def test_a_long_video_in_pieces_is_the_same(monkeypatch):
    model = make_model()
    features = {"v": RNG.normal(size=(200, 6)).astype("float32")}
    durations = {"v": 198.6}
    (whole,) = search.encode_videos(model, features, durations)
    monkeypatch.setattr(encoding, "_LONG", 24)
    (pieces,) = search.encode_videos(model, features, durations)
    np.testing.assert_allclose(pieces.encoding, whole.encoding, atol=1e-5)
    np.testing.assert_array_equal(pieces.windows, whole.windows)


@pytest.mark.slow
@pytest.mark.parametrize("in_folder", [False, True])
def test_threads_search_in_one_state_while_another_changes_it(
    tmp_path, in_folder
):
    model, names = make_model(), list(FEATURES)[:8]
    index = search.MomentIndex(model, tmp_path / "i" if in_folder else None)
    replaced = dict(zip(FEATURES, reversed(FEATURES.values())))
    moments = moments_of(index, (FEATURES, replaced))
    # Which of the two each video is in: all that an answer may tell of.
    states, answers, is_over = [{}], [], threading.Event()

    def change():
        for number, name in enumerate(names):
            step(states[-1] | {name: 0}, index.append, {name: FEATURES[name]})
            if number % 3 == 2:
                other = names[number - 1]
                clips = {other: replaced[other]}
                seconds = {other: float(len(replaced[other]))}
                after = states[-1] | {other: 1}
                step(after, index.update, clips, seconds, {})
                after = {v: s for v, s in after.items() if v != name}
                step(after, index.remove, [name])

    def step(after, act, *arguments):
        states.append(after)
        act(*arguments)
        wanted = len(answers) + 4  # each reader has begun one since
        while len(answers) < wanted and not any(r.done() for r in readers):
            time.sleep(0.001)

    def look():
        while not is_over.is_set():
            answers.extend(index.search_queries(QUERIES[:1], top_n=9999))

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(look) for _ in range(3)]
        try:
            change()
        finally:
            is_over.set()
        for reader in readers:
            reader.result()
    seen = [state_of(answer, states, moments) for answer in answers]
    assert set(seen) >= set(range(1, len(states)))


def moments_of(index, several):
    """The moments of each video, for each of several features."""
    moments = []
    for features in several:
        seconds = {v: float(len(clips)) for v, clips in features.items()}
        index.update(features, seconds, {})
        (found,) = index.search_queries(QUERIES[:1], top_n=9999)
        moments.append(
            {v: [m for m in found if m.video_id == v] for v in features}
        )
    index.remove(list(index.video_ids))
    return moments


def state_of(answer, states, moments):
    """The number of the state that an answer is of, in all its moments."""
    for number, state in enumerate(states):
        expected = [m for v, which in state.items() for m in moments[which][v]]
        if len(expected) == len(answer):
            if not answer:
                return number
            expected.sort(key=lambda moment: -moment.score)
            with contextlib.suppress(AssertionError, ValueError):
                assert_alike([answer], [expected])
                return number
    raise AssertionError(f"of no state: {answer}")
