"""Annotation files of every dataset."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acnn_tf.data.annotations import (
    Moment,
    find_files,
    read_moments,
    write_jsonl,
)
from acnn_tf.files.text import normalize

RECORD = {
    "qid": 1,
    "query": "a man runs",
    "vid": "v",
    "duration": 30,
    "relevant_windows": [[5, 10]],
}
PIECES = {
    "annotation_id": 7,
    "video": "v.mov",
    "description": "a dog sits",
    "num_segments": 6,
    "times": [[1, 1], [0, 1], [1, 1]],
}
VIDEO = {"duration": 30, "timestamps": [[1, 9]], "sentences": ["a cat. "]}
FRAMES = {
    "num_frames": 294,
    "fps": 29.4,
    "timestamps": [[147, 294], [147, 294]],
    "sentences": ["he cuts", "he cuts"],
}


def changed(record, **values):
    return {**record, **values}


def without(record, key):
    return {k: v for k, v in record.items() if k != key}


def as_bytes(content):
    if isinstance(content, (list, dict)):
        content = json.dumps(content)
    return content if isinstance(content, bytes) else content.encode()


@pytest.fixture
def read(tmp_path):
    """Reads `content` as a file; returns its moments and problems."""

    def read_content(content, dataset, suffix=".txt", **kwargs):
        path = tmp_path / f"annotations{suffix}"
        path.write_bytes(as_bytes(content))
        problems = []
        kwargs.setdefault("durations", {"v": 30.0})
        kwargs.setdefault("num_frames", {"v": 294})
        moments = read_moments(path, dataset, problems=problems, **kwargs)
        assert all(problem.path == str(path) for problem in problems)
        return moments, problems

    return read_content


def test_tacos_samples_are_a_moment_per_sentence_in_seconds(read):
    moments, problems = read(
        "v.avi_147_294:he cuts#she cuts#\nv_0_29: he looks # #\n", "tacos"
    )
    assert problems == []
    assert [m.query for m in moments] == ["he cuts", "she cuts", "he looks"]
    assert [m.query_id for m in moments] == [
        "v_147_294_0",
        "v_147_294_1",
        "v_0_29_0",
    ]
    # 294 frames at 29.4 a second are 10 seconds.
    assert moments[0].duration == pytest.approx(10.0)
    assert moments[0].segments == (pytest.approx((5.0, 10.0)),)
    assert moments[0].frames == ((147, 294),)
    assert moments[2].source.endswith("annotations.txt:2")


def test_tacos_json_says_its_own_frame_rate_and_may_repeat_a_sentence(read):
    moments, problems = read(
        {"v.avi": changed(FRAMES, fps=14.7)}, "tacos", ".json", num_frames=None
    )
    assert problems == []
    assert [m.query_id for m in moments] == ["v_147_294_0", "v_147_294_1"]
    assert moments[1].video_id == "v"
    assert moments[1].duration == pytest.approx(20.0)
    assert moments[1].frames == ((147, 294),)


def test_charades_sta_lines(read):
    moments, problems = read(
        "v 24.3 30.0##person turns.\r\n\nv 24.3 30.0##it's on\n",
        "charades_sta",
    )
    assert problems == []
    assert moments[0] == Moment(
        "v_24.3_30.0_0",
        "person turns.",
        "v",
        30.0,
        ((24.3, 30.0),),
        None,
        moments[0].source,
    )
    assert moments[1].query_id == "v_24.3_30.0_1"
    assert moments[1].source.endswith(":3")


def test_activitynet_captions_json(read):
    (moment,), problems = read({"v": VIDEO}, "activitynet_captions")
    assert problems == []
    assert moment.query == "a cat."
    assert moment.segments == ((1.0, 9.0),)
    assert moment.query_id == "v_1_9_0"


def test_didemo_pieces_are_five_seconds_and_the_most_chosen_comes_first(read):
    (moment,), problems = read([PIECES], "didemo", durations=None)
    assert problems == []
    assert moment.duration == 30.0
    assert moment.segments == ((5.0, 10.0), (0.0, 10.0))
    assert moment.query_id == "7"


def test_last_piece_of_didemo_ends_with_its_video(read):
    content = [changed(PIECES, times=[[5, 5]])]
    (moment,), problems = read(content, "didemo", durations={"v.mov": 28.5})
    assert problems == []
    assert moment.segments == ((25.0, 28.5),)


def test_didemo_ends_where_its_annotators_stopped_looking(read):
    # A longer video was cut at 30 s for them.
    (moment,), problems = read([PIECES], "didemo", durations={"v.mov": 200.0})
    assert problems == []
    assert moment.duration == 30.0


def test_didemo_tells_how_many_annotators_chose_each_segment(read):
    times = [[0, 0], [1, 2], [1, 2], [3, 3], [1, 2]]
    (moment,), problems = read(
        [changed(PIECES, times=times)], "didemo", durations=None
    )
    assert problems == []
    assert moment.segments == ((5.0, 15.0), (0.0, 5.0), (15.0, 20.0))
    assert moment.num_annotators == (3, 1, 1)


def test_jsonl_may_leave_durations_to_another_file(read):
    content = json.dumps(without(RECORD, "duration"))
    (moment,), problems = read(content, "jsonl", durations={"v": 12})
    assert problems == []
    assert moment.duration == 12.0
    assert moment.query_id == "1"


def test_byte_order_mark_is_not_part_of_the_first_video(read):
    moments, problems = read(b"\xef\xbb\xbfv 1 2##a", "charades_sta")
    assert problems == []
    assert moments[0].video_id == "v"


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_durations_come_from_json_or_csv(read, tmp_path, suffix):
    path = tmp_path / f"durations{suffix}"
    content = {".json": '{"v": 25.5}', ".csv": "id,length\nv,25.5\n"}
    path.write_text(content[suffix])
    moments, _ = read("v 1 2##a", "charades_sta", durations=path)
    assert moments[0].duration == 25.5


ANET = "activitynet_captions"


def test_end_past_the_video_is_cut_and_does_not_raise(read, tmp_path):
    moments, problems = read("v 25.0 31.5##a", "charades_sta")
    assert moments[0].segments == ((25.0, 30.0),)
    assert [p.dropped for p in problems] == [False]
    assert "was cut" in problems[0].message
    path = tmp_path / "annotations.txt"
    assert read_moments(path, "charades_sta", durations={"v": 30}) == moments


def test_end_past_the_last_frame_is_cut_in_frames_too(read):
    moments, problems = read("v_100_300:a#", "tacos")
    assert moments[0].frames == ((100, 294),)
    assert moments[0].segments[0][1] == moments[0].duration
    assert len(problems) == 1


def test_rounding_of_an_end_is_no_problem(read):
    moments, problems = read(
        "v 25.0 30.0##a", "charades_sta", durations={"v": 30.0 - 1e-9}
    )
    assert problems == []
    assert moments[0].segments[0][1] <= moments[0].duration


@pytest.mark.parametrize(
    "dataset, flag", [("charades_sta", "durations"), ("tacos", "num_frames")]
)
def test_missing_durations_say_what_to_give(tmp_path, dataset, flag):
    path = tmp_path / "a.txt"
    path.write_text(
        {"tacos": "v_1_9:a#\n", "charades_sta": "v 1 2##a"}[dataset]
    )
    with pytest.raises(ValueError, match=f"`{flag}` must be given"):
        read_moments(path, dataset)


def test_unknown_dataset_lists_the_known_ones():
    with pytest.raises(ValueError, match="'tacos', 'charades_sta'"):
        read_moments("a.txt", "tvr")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        read_moments(tmp_path / "none.jsonl", "jsonl")


times = st.tuples(st.floats(0, 50), st.floats(0.01, 50)).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)


@given(
    st.lists(
        st.tuples(
            st.text(min_size=1).map(normalize).map(str.strip).filter(bool),
            st.text(min_size=1).filter(str.strip),
            st.lists(times, min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_reading_what_was_written_gives_the_same_moments(
    tmp_path_factory, records
):
    path = tmp_path_factory.mktemp("jsonl") / "moments.jsonl"
    moments = [
        Moment(
            str(i),
            query,
            video,
            100.0,
            tuple(segments),
            source=f"{path}:{i + 1}",
        )
        for i, (query, video, segments) in enumerate(records)
    ]
    write_jsonl(moments, path)
    assert read_moments(path, "jsonl") == moments
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "moments.jsonl",
        "moments.jsonl.manifest.json",
    ]


def test_find_files_are_found_by_name(tmp_path):
    for name in (
        "charades_sta_val.txt",
        "durations_val.json",
        "clip_vitb32_1fps_val.hdf5",
    ):
        (tmp_path / name).touch()
    files = find_files("charades_sta", tmp_path, "val")
    assert files == {
        "annotations": str(tmp_path / "charades_sta_val.txt"),
        "durations": str(tmp_path / "durations_val.json"),
        "features": str(tmp_path / "clip_vitb32_1fps_val.hdf5"),
    }
    with pytest.raises(FileNotFoundError, match=r"charades_sta_test\.txt"):
        find_files("charades_sta", tmp_path, "test")
    with pytest.raises(ValueError, match="`split`"):
        find_files("charades_sta", tmp_path, "dev")


@pytest.mark.parametrize(
    "folder, split, number",
    # The counts of the papers that published the annotations.
    [
        ("TACoS_{}_samples.txt", "train", 10146),
        ("TACoS_{}_samples.txt", "val", 4589),
        ("TACoS_{}_samples.txt", "test", 4083),
        ("{}.json", "train", 9790),
        ("{}.json", "val", 4436),
        ("{}.json", "test", 4001),
    ],
)
def test_tacos_has_its_published_number_of_queries(
    shared_data, folder, split, number
):
    path = shared_data / "tacos"
    moments = read_moments(
        path / folder.format(split),
        "tacos",
        num_frames=path / "num_frames.json",
    )
    assert len(moments) == number
    assert len({m.query_id for m in moments}) == number
    assert (
        len({m.video_id for m in moments})
        == {
            "train": 75,
            "val": 27,
            "test": 25,
        }[split]
    )


@pytest.mark.parametrize(
    "dataset, folder, split, number, cut, dropped",
    [
        ("charades_sta", "charades_sta_clip", "train", 2594, 398, 0),
        ("charades_sta", "charades_sta_clip", "val", 392, 44, 0),
        # 37,421 with four moments that have no length.
        (ANET, ANET, "train", 37417, 29, 4),
        (ANET, ANET, "val", 17505, 5, 0),
        (ANET, ANET, "test", 17031, 1, 0),
        ("didemo", "didemo", "val", 4180, 0, 0),
        ("didemo", "didemo", "test", 4021, 0, 0),
    ],
)
def test_real_annotations(
    shared_data, dataset, folder, split, number, cut, dropped
):
    files = find_files(dataset, shared_data / folder, split)
    problems = []
    moments = read_moments(
        files["annotations"],
        dataset,
        durations=files.get("durations"),
        problems=problems,
    )
    assert len(moments) == number
    assert sum(problem.dropped for problem in problems) == dropped
    assert sum(not problem.dropped for problem in problems) == cut
    assert len({m.query_id for m in moments}) == number
    assert all(
        0 <= start < end <= m.duration
        for m in moments
        for start, end in m.segments
    )
