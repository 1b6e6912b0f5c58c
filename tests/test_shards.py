"""A corpus in shards, against one index; missing, foreign, damaged shards."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acnn_tf import search
from acnn_tf.data.windows import WindowGrid
from acnn_tf.search.shards import shard_name
from tests import small_acnn
from tests.small_acnn import encode_shards

FEATURES = small_acnn.make_features(30)
DURATIONS = {video: float(len(clip)) for video, clip in FEATURES.items()}


def encode(model, path, num_shards=4, durations=DURATIONS, **options):
    shards = search.assign_videos(durations, num_shards, model.grid)
    encode_shards(model, FEATURES, shards, path, **options)


@pytest.fixture(scope="module")
def model():
    return small_acnn.make_model()


@pytest.fixture(scope="module")
def corpus(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus")
    encode(model, path)
    return path


@given(
    st.dictionaries(st.text(max_size=3), st.floats(0.5, 99), min_size=1),
    st.integers(1, 9),
    st.randoms(use_true_random=False),
)
def test_videos_are_divided_once_evenly_and_whatever_their_order(
    durations, num_shards, random
):
    num_shards = min(num_shards, len(durations))
    grid = WindowGrid((2.0, 5.0), overlap=0.5)
    shards = search.assign_videos(durations, num_shards, grid)
    assert sorted(v for shard in shards for v in shard) == sorted(durations)
    loads = [
        sum(len(grid.windows(seconds)) for seconds in shard.values())
        for shard in shards
    ]
    most = max(len(grid.windows(seconds)) for seconds in durations.values())
    assert max(loads) - min(loads) <= most
    shuffled = list(durations.items())
    random.shuffle(shuffled)
    again = search.assign_videos(dict(shuffled), num_shards, grid)
    assert [list(shard.items()) for shard in again] == [
        list(shard.items()) for shard in shards
    ]


def test_more_shards_than_videos_are_refused():
    with pytest.raises(ValueError, match=r"`num_shards`.*1.*Received: 2"):
        search.assign_videos({"v": 3.0}, 2, WindowGrid((2.0,)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_find_what_their_encodings_hold(model, dtype, tmp_path):
    encode(model, tmp_path / "corpus", dtype=dtype)
    whole = small_acnn.make_index(model, features=FEATURES, dtype=dtype)
    sharded = search.MomentIndex(model, tmp_path / "corpus")
    assert len(sharded) == len(whole)
    assert sharded.num_windows == whole.num_windows
    assert sharded.dtype == dtype
    expected = {video.video_id: video for video in whole.videos()}
    for video in sharded.videos():
        other = expected[video.video_id]
        np.testing.assert_array_equal(video.windows, other.windows)
        # Batches of other shapes: float32's last bits, a step of bfloat16's.
        np.testing.assert_allclose(
            video.encoding,
            other.encoding,
            rtol=1e-2 if dtype == "bfloat16" else 1e-5,
            atol=1e-5,
        )
    # The same encodings in one piece, in another order.
    same = search.MomentIndex(model, dtype=dtype)
    videos = sorted(sharded.videos(), key=lambda video: video.video_id)
    same._files.append(iter(videos), sharded.num_windows)
    ids = np.arange(1, 9).reshape(4, 2)
    for top_n in (1, 7, 200):
        found = sharded.search_queries(ids, top_n=top_n)
        shortlist = sharded.search_queries(
            ids, top_n=top_n, shortlist="bfloat16"
        )
        small_acnn.assert_alike(found, same.search_queries(ids, top_n=top_n))
        small_acnn.assert_alike(shortlist, found)
        if dtype == "float32":
            small_acnn.assert_alike(
                found, whole.search_queries(ids, top_n=top_n)
            )


def test_equal_scores_are_ranked_by_video_wherever_it_lies(tmp_path):
    model = small_acnn.make_model()
    for weight in model.head.weights:  # equal on every processor
        weight.assign(np.zeros(weight.shape))
    # Copies of a video, in the order in which shards hold them: not by name.
    names = ["d", "b", "e", "a", "c"]
    clip = FEATURES["v03"]
    copies = dict.fromkeys(names, clip)
    shards = [{name: float(len(clip))} for name in names]
    encode_shards(model, copies, shards, tmp_path)
    sharded = search.MomentIndex(model, tmp_path)
    assert sharded.video_ids == names
    whole = small_acnn.make_index(model, features=copies)
    ids = np.array([[1, 2], [3, 4]])
    for top_n in (3, 5):  # also where a tie is cut
        found = sharded.search_queries(ids, top_n=top_n)
        assert found == whole.search_queries(ids, top_n=top_n)
        for row in found:
            assert [moment.video_id for moment in row] == sorted(names)[:top_n]
            assert len({moment[1:] for moment in row}) == 1


def test_a_video_in_two_shards_is_told(model, tmp_path):
    features = {"a": FEATURES["v03"][:3]}
    encode_shards(model, features, [{"a": 3.0}, {"a": 3.0}], tmp_path)
    with pytest.raises(search.IndexFileError, match="a video in two shards"):
        search.MomentIndex(model, tmp_path)


def test_encodings_of_shards_stay_on_the_disk(model, corpus):
    index = search.MomentIndex(model, corpus)
    index.search_queries(np.array([[1, 2]]), top_n=3)
    files = index._files.contents
    for part in files.parts:
        assert isinstance(part, np.memmap)
    # A search takes them shard by shard.
    sizes = [len(encoding) for encoding, _ in files.chunks(10**9)]
    assert sizes == [len(part) for part in files.parts]
    assert len(sizes) == 4


def test_a_shard_alone_is_an_index_of_its_videos(model, corpus):
    shards = search.assign_videos(DURATIONS, 4, model.grid)
    one = search.MomentIndex(model, corpus / shard_name(2, 4))
    assert set(one.video_ids) == set(shards[2])
    (found,) = one.search_queries(np.array([[2, 3]]), top_n=1)
    assert found[0].video_id in shards[2]


def test_nothing_is_added_to_a_corpus_or_a_shard(model, corpus):
    for path in (corpus, corpus / shard_name(0, 4)):
        index = search.MomentIndex(model, path)
        index.append({})
        with pytest.raises(ValueError, match="nothing is added"):
            index.append({"new": FEATURES["v00"]})


def test_missing_shards_are_named_with_the_command_that_makes_them(
    model, tmp_path
):
    path = tmp_path / "corpus"
    encode(model, path, only=[0, 3])
    with pytest.raises(
        search.IndexFileError,
        match=r"2 of 4 shards are missing \(shard-00001-of-00004, shard-0000"
        rf"2-of-00004\).*experiments\.encode_corpus --out={path} --num_sha",
    ):
        search.MomentIndex(model, path)
    # Nor is a corpus complete of which nothing is.
    for number in (0, 3):
        (path / shard_name(number, 4)).rename(
            path / f"{shard_name(number, 4)}.0a.partial"
        )
    with pytest.raises(search.IndexFileError, match="4 of 4 shards are miss"):
        search.MomentIndex(model, path)


def test_shards_of_two_corpora_are_told(model, corpus, tmp_path):
    path = tmp_path / "corpus"
    shutil.copytree(corpus, path)
    shutil.rmtree(path / shard_name(1, 4))
    of_another = (
        "00001-of-00004 says it is shard [12] of 4 of the corpus .*, but it "
        "should be shard 1 of 4 of the corpus .* remove that folder"
    )
    fewer = {video: DURATIONS[video] for video in list(DURATIONS)[:-1]}
    encode(model, path, only=[1], durations=fewer)
    with pytest.raises(search.IndexFileError, match=of_another):
        search.MomentIndex(model, path)
    shutil.rmtree(path / shard_name(1, 4))
    shutil.copytree(path / shard_name(2, 4), path / shard_name(1, 4))
    with pytest.raises(search.IndexFileError, match=of_another):
        search.MomentIndex(model, path)
    encode(model, path, num_shards=2, only=[0])
    with pytest.raises(
        search.IndexFileError, match="00004, but expected were shards of 2"
    ):
        search.MomentIndex(model, path)


def test_a_damaged_shard_is_named(model, corpus, tmp_path):
    path = tmp_path / "corpus"
    shutil.copytree(corpus, path)
    file = path / shard_name(3, 4) / "encodings-00000.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        search.IndexFileError,
        match=f"{file}: has other bytes.* remove its folder",
    ):
        search.MomentIndex(model, path)
    (path / shard_name(1, 4) / "manifest.json").unlink()
    with pytest.raises(search.IndexFileError, match=r"holds no manifest\.js"):
        search.MomentIndex(model, path)


def test_what_is_done_must_be_the_same_work(model, corpus, tmp_path):
    shards = search.assign_videos(DURATIONS, 4, model.grid)
    assert search.done_shards(corpus, model, shards) == {0, 1, 2, 3}
    assert search.done_shards(tmp_path / "new", model, shards) == set()
    with pytest.raises(
        search.IndexFileError, match="float32, not float16: ask for"
    ):
        search.done_shards(corpus, model, shards, "float16")
    longer = {video: 1.5 * seconds for video, seconds in DURATIONS.items()}
    others = search.assign_videos(longer, 4, model.grid)
    with pytest.raises(search.IndexFileError, match="should be shard 0 of 4"):
        search.done_shards(corpus, model, others)
    others = search.assign_videos(DURATIONS, 3, model.grid)
    with pytest.raises(
        search.IndexFileError, match=r"of 3 in all.*num_shards=4"
    ):
        search.done_shards(corpus, model, others)
    coarse = small_acnn.make_model(window_overlap=0.0)
    with pytest.raises(search.IndexFileError, match=r"other weights|grid"):
        search.done_shards(corpus, coarse, shards)


def test_of_two_that_encode_one_shard_the_first_stays(model, tmp_path):
    encode(model, tmp_path, only=[1])
    inode = (tmp_path / shard_name(1, 4)).stat().st_ino
    encode(model, tmp_path, only=[1])
    assert (tmp_path / shard_name(1, 4)).stat().st_ino == inode
    assert [path.name for path in tmp_path.iterdir()] == [shard_name(1, 4)]
