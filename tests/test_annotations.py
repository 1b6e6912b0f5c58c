"""Annotation files of every dataset, whole and broken."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acnn_tf.data.annotations import (
    DATASETS,
    DataError,
    Moment,
    Problem,
    find_files,
    read_moments,
    write_jsonl,
)
from acnn_tf.data.datasets import records
from acnn_tf.files.text import normalize, text_lines

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
        {"v.avi": FRAMES | {"fps": 14.7}}, "tacos", ".json", num_frames=None
    )
    assert problems == []
    assert [m.query_id for m in moments] == ["v_147_294_0", "v_147_294_1"]
    assert moments[1].video_id == "v"
    assert moments[1].duration == pytest.approx(20.0)
    assert moments[1].frames == ((147, 294),)


def test_charades_sta_lines(read):
    moments, problems = read(
        "v 24.3 30.0##person turns.\r\n\nv 24.3 30.0##it's on\n", "charades_sta"
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
    times = [[0, 0], [1, 2], [1, 2], [3, 3], [1, 2]]
    (moment,), problems = read(
        [PIECES | {"times": times}], "didemo", durations=None
    )
    assert problems == []
    assert (moment.query_id, moment.duration) == (7, 30.0)
    assert moment.segments == ((5.0, 15.0), (0.0, 5.0), (15.0, 20.0))
    assert moment.num_annotators == (3, 1, 1)


def test_last_piece_of_didemo_ends_with_its_video_or_the_annotators(read):
    # A video longer than 30 s was cut there for them.
    for seconds, end in ((28.5, 28.5), (200.0, 30.0)):
        content = [PIECES | {"times": [[5, 5]]}]
        (moment,), problems = read(
            content, "didemo", durations={"v.mov": seconds}
        )
        assert problems == []
        assert (moment.segments, moment.duration) == (((25.0, end),), end)


def test_jsonl_may_leave_durations_to_another_file(read):
    content = without(RECORD, "duration") | {"vid": "v.avi"}
    (moment,), problems = read(content, "jsonl", durations={"v.avi": 12})
    assert problems == []
    assert moment.duration == 12.0
    assert moment.query_id == 1


def test_byte_order_mark_is_not_part_of_the_first_video(read):
    moments, problems = read(b"\xef\xbb\xbfv 1 2##a", "charades_sta")
    assert problems == []
    assert moments[0].video_id == "v"


def test_durations_come_from_json_or_csv(read, tmp_path):
    content = {".json": '{"v": 25.5}', ".csv": "id,length\nv,25.5\n"}
    for suffix, text in content.items():
        path = tmp_path / f"durations{suffix}"
        path.write_text(text)
        moments, _ = read("v 1 2##a", "charades_sta", durations=path)
        assert moments[0].duration == 25.5, suffix


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


def test_missing_durations_say_what_to_give(refused, tmp_path):
    path = tmp_path / "a.txt"
    for dataset, content, argument in (
        ("charades_sta", "v 1 2##a", "durations"),
        ("tacos", "v_1_9:a#", "num_frames"),
        ("jsonl", without(RECORD, "duration"), "durations"),
    ):
        path.write_bytes(as_bytes(content))
        with refused(ValueError, f"`{argument}` must be given"):
            read_moments(path, dataset)


def test_another_dataset_is_a_reader_and_a_row(tmp_path, monkeypatch):
    def parse(text):
        video, start, end, query = text.split("|")
        times = [(float(start), float(end))]
        return text, [records.Record(query, video, times, duration=9.0)]

    mine = records.Dataset(
        text_lines, parse, lambda split: [f"mine_{split}.txt"]
    )
    monkeypatch.setitem(DATASETS, "mine", mine)
    (tmp_path / "mine_val.txt").write_text("v|1|2|a\nv|2\nv|3|2|b\n")
    files = find_files("mine", tmp_path, "val")
    problems = []
    (moment,) = read_moments(files["annotations"], "mine", problems=problems)
    assert (moment.query, moment.segments) == ("a", ((1.0, 2.0),))
    assert [problem.line for problem in problems] == [2, 3]


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
    given = {"features": "mine.hdf5", "durations": None}
    found = find_files("charades_sta", tmp_path, "val", **given)
    assert found == files | {"features": "mine.hdf5"}
    found = find_files("charades_sta", tmp_path, "test", annotations="a.txt")
    assert found == {"annotations": "a.txt"}
    with pytest.raises(FileNotFoundError, match=r"charades_sta_test\.txt"):
        find_files("charades_sta", tmp_path, "test")
    with pytest.raises(ValueError, match="`split`"):
        find_files("charades_sta", tmp_path, "dev")


LINE = "v 1 2##a\n"
# Dataset -> content, line of the problem, words of its message.
BAD_RECORDS = {
    "charades_sta": [
        ("\n \n", 1, "no records"),
        (LINE + "v 1", 2, "expected"),
        (LINE + "v 1 2##", 2, "sentence"),
        (LINE + "v 1 2 3##a", 2, "expected"),
        (LINE + "v nan 2##a", 2, "expected a number, found 'nan'"),
        (LINE + "v 1 inf##a", 2, "expected a number, found 'inf'"),
        (LINE.encode() + b"v 1 2##\xff", 2, "UTF"),
        (LINE + LINE, 2, "duplicate of"),
        (LINE + "w 1 2##a", 2, "'w' has no"),
        (LINE + "v 2 1##a", 2, "ends before it starts"),
        (LINE + "v 2 2##a", 2, "no length"),
        (LINE + "v -1 2##a", 2, "starts before its"),
        (LINE + "v 30 31##a", 2, "after the end"),
        (LINE + "v 0 34##a", 2, "longer than"),
    ],
    "tacos": [
        ("v_1_", 1, "expected `VIDEO_START"),
        ("v_1_9:a#\nv_2_9:he ta", 2, "cut short"),
        ("v_1_9:#", 1, "expected"),
        ("v_1.5_9:a#", 1, "expected"),
        ("v_1_9:a#\nv.avi_1_9:b#", 2, "duplicate"),
        ("w_1_9:a#", 1, "'w' has no"),
        ("v_9_1:a#", 1, "9 to 1 frames ends"),
        (b"v_1_9:\xe9#", 1, "UTF-8: byte 0xe9"),
        ({"v": FRAMES | {"fps": 0}}, 1, "`fps` must be"),
        ({"v": FRAMES | {"num_frames": "9"}}, 1, "`num_frames` must"),
        ({"v": FRAMES | {"timestamps": [[1.5, 9]] * 2}}, 1, "in frames"),
    ],
    "activitynet_captions": [
        ("", 1, "no records"),
        ("{}", 1, "no records"),
        ('{"w": {},\n "v": {"dura', 2, "cut short"),
        ("[]", 1, "expected {"),
        ('{"v": 1} x', 1, "the end"),
        ('{"v": ' + "[" * 100_000, 1, "nested"),
        (b'{"v":\n"\xff"}', 2, "UTF-8"),
        ('{"v": [1]}', 1, "video 'v': expected an object"),
        (f'{{"v": {json.dumps(VIDEO)},\n"v": {{}}}}', 2, "expected an object"),
        (
            f'{{"v": {json.dumps(VIDEO)},\n"v": {json.dumps(VIDEO)}}}',
            2,
            "twice",
        ),
        ({"": VIDEO}, 1, "video '': `name` must be text"),
        ({"\ud800": VIDEO}, 1, "`name` must be text"),
        ({"v": VIDEO | {"sentences": []}}, 1, "one length"),
        ({"v": VIDEO | {"timestamps": [[0, math.nan]]}}, 1, "finite"),
        ({"v": VIDEO | {"duration": math.nan}}, 1, "`duration` must be"),
        ({"v": without(VIDEO, "duration")}, 1, "found None"),
        ({"v": VIDEO | {"sentences": [3]}}, 1, "a sentence, found 3"),
        ({"v": VIDEO | {"timestamps": [[1]]}}, 1, "sentence 1: expected times"),
        ({"v": {k: v * 2 for k, v in VIDEO.items()}}, 1, "duplicate"),
    ],
    "didemo": [
        ("[]", 1, "no records"),
        (json.dumps([PIECES, PIECES])[:-9], 1, "cut short"),
        ([PIECES, PIECES], 1, "duplicate"),
        ([without(PIECES, "annotation_id")], 1, "annotation_id"),
        ([PIECES | {"times": [[2, 1]]}], 1, "before it starts"),
        ([PIECES | {"times": [[2, 0]]}], 1, "before it starts"),
        ([PIECES | {"times": [[6, 6]]}], 1, "after the end"),
        ([PIECES | {"times": [[0.5, 1]]}], 1, "whole `times`"),
        ([PIECES | {"num_segments": 0}], 1, "`num_segments`"),
    ],
    "jsonl": [
        ("", 1, "no records"),
        (json.dumps(RECORD)[:-5], 1, "is not JSON"),
        ("[1]", 1, "expected an object"),
        (without(RECORD, "relevant_windows"), 1, "expected"),
        (RECORD | {"relevant_windows": []}, 1, "expected times"),
        (
            RECORD | {"relevant_windows": [[1, 2], [4, 3]]},
            1,
            "before it starts",
        ),
        (RECORD | {"duration": True}, 1, "`duration`"),
        (RECORD | {"duration": 10**400}, 1, "`duration`"),
        (
            json.dumps(RECORD) + "\n" + json.dumps(RECORD | {"query": "b"}),
            2,
            "duplicate of line 1: 1",
        ),
        (b'{"qid": "\xff"}', 1, "UTF-8"),
        (RECORD | {"query": " "}, 1, "a sentence"),
    ],
}


def test_bad_records_are_left_out_and_told_with_their_lines(subtests, read):
    cases = [
        (name, *case) for name in BAD_RECORDS for case in BAD_RECORDS[name]
    ]
    for dataset, content, line, words in cases:
        suffix = ".txt"
        if dataset == "tacos" and isinstance(content, dict):
            suffix = ".json"
        with subtests.test(dataset, words=words):
            moments, problems = read(content, dataset, suffix)
            told = [p.message for p in problems if p.line == line]
            assert any(words in message for message in told), problems
            assert all(p.dropped and "\n" not in str(p) for p in problems)
            with pytest.raises(DataError, match=r"annotations\.\w+:\d"):
                read_moments(
                    problems[0].path,
                    dataset,
                    durations={"v": 30},
                    num_frames={"v": 294},
                )
            # What stands before the bad record is read.
            if line == 2 and dataset == "charades_sta":
                assert [m.query for m in moments] == ["a"]


def test_all_problems_of_a_file_are_told_at_once(read, tmp_path):
    moments, problems = read(
        "v 1 2##a\nv 2 1##b\nw 1 2##c\nv 1 2##a\n??\nv 29 31##d\n",
        "charades_sta",
    )
    assert [m.query for m in moments] == ["a", "d"]
    assert sorted((p.line, p.dropped) for p in problems) == [
        (2, True),
        (3, True),
        (4, True),
        (5, True),
        (6, False),
    ]
    path = tmp_path / "annotations.txt"
    with pytest.raises(DataError) as error:
        read_moments(path, "charades_sta", durations={"v": 30})
    assert len(error.value.problems) == 4
    assert str(error.value).count("\n") == 3


def test_long_lists_of_problems_are_counted_in_the_message():
    problems = [Problem("a.txt", line, "bad") for line in range(1, 31)]
    error = DataError(problems)
    assert error.problems == problems
    assert str(error) == (
        "a.txt:1: bad (and 29 more like this: line 2, line 3, line 4, ...)"
    )
    missing = [Problem("a.txt", n, f"no video 'v{n}'") for n in range(1, 9)]
    assert str(DataError(missing)).endswith(
        "(and 7 more like this: 'v2' in line 2, 'v3' in line 3, 'v4' in line "
        "4, ...)"
    )
    kinds = [Problem(f"{name}.txt", 1, "bad") for name in range(25)]
    assert str(DataError(kinds)).endswith("\n... and 5 other kinds")


def test_bad_durations_name_their_own_file(subtests, tmp_path):
    annotations = tmp_path / "a.txt"
    annotations.write_text(LINE)
    for name, content, line, words in (
        ("a.json", '{"v": 30,\n"w": -1}', 2, "video 'w': expected a number"),
        ("a.json", '{"v": 30,\n"v": 31}', 2, "twice"),
        ("a.json", '{"v": 30, "w": NaN}', 1, "found nan"),
        ("a.json", '{"v": 30', 1, "cut short"),
        ("a.json", b'{"v\xff": 30}', 1, "UTF-8"),
        ("a.json", "", 1, "no records"),
        ("a.json", "[30]", 1, "expected {"),
        ("a.csv", "name,length\nv,3\n", 1, ""),
        ("a.csv", "id,length,length\nv,3,30\n", 1, "one column"),
        ("a.csv", "id,length\nv,\n", 2, ""),
        ("a.csv", "id,length\nv\n", 2, ""),
    ):
        durations = tmp_path / name
        durations.write_bytes(as_bytes(content))
        with subtests.test(name, content=content):
            with pytest.raises(DataError) as error:
                read_moments(annotations, "charades_sta", durations=durations)
            (problem,) = error.value.problems
            assert (problem.path, problem.line) == (str(durations), line)
            assert words in problem.message


def test_bad_duration_in_a_mapping_is_told(read):
    _, (problem,) = read(LINE, "charades_sta", durations={"v": float("nan")})
    assert "duration of video 'v' must be" in problem.message


@given(st.sampled_from(list(DATASETS)), st.binary(max_size=60))
def test_no_bytes_whatever_bring_a_reader_down(
    tmp_path_factory, dataset, content
):
    for suffix in (".txt", ".json") if dataset == "tacos" else (".txt",):
        path = tmp_path_factory.mktemp("bytes") / f"a{suffix}"
        path.write_bytes(content)
        problems = []
        moments = read_moments(
            path,
            dataset,
            durations={"v": 30},
            num_frames={"v": 30},
            problems=problems,
        )
        assert moments or problems


@given(st.integers(0, 200))
def test_cut_json_is_never_taken_for_whole(tmp_path_factory, length):
    text = json.dumps([PIECES, PIECES | {"annotation_id": 8}])
    path = tmp_path_factory.mktemp("cut") / "a.json"
    path.write_text(text[: min(length, len(text) - 1)])
    with pytest.raises(DataError):
        read_moments(path, "didemo")


def test_two_durations_of_one_video_are_a_problem(read):
    other = RECORD | {"qid": 2, "duration": 300}
    content = f"{json.dumps(RECORD)}\n{json.dumps(other)}\n"
    _, (problem,) = read(content, "jsonl")
    assert problem.line == 2
    assert "300 s here, but 30 s" in problem.message


@pytest.mark.slow
def test_real_annotations_have_their_published_numbers(subtests, shared_data):
    tacos = {"num_frames": shared_data / "tacos" / "num_frames.json"}
    for dataset, name, number, num_videos, cut, dropped in (
        ("tacos", "TACoS_train_samples.txt", 10146, 75, 0, 0),
        ("tacos", "TACoS_val_samples.txt", 4589, 27, 0, 0),
        ("tacos", "TACoS_test_samples.txt", 4083, 25, 0, 0),
        ("tacos", "train.json", 9790, 75, 43, 0),
        ("tacos", "val.json", 4436, 27, 0, 0),
        ("tacos", "test.json", 4001, 25, 5, 0),
        ("charades_sta", "train", 2594, None, 398, 0),
        ("charades_sta", "val", 392, None, 44, 0),
        # 37,421 with four moments that have no length.
        ("activitynet_captions", "train", 37417, None, 29, 4),
        ("activitynet_captions", "val", 17505, None, 5, 0),
        ("activitynet_captions", "test", 17031, None, 1, 0),
        ("didemo", "val", 4180, None, 0, 0),
        ("didemo", "test", 4021, None, 0, 0),
    ):
        folder = shared_data / dataset.replace("sta", "sta_clip")
        given = tacos | {"annotations": folder / name}
        if dataset != "tacos":
            given = find_files(dataset, folder, name)
            given.pop("features", None)
        problems = []
        with subtests.test(dataset, name=name):
            moments = read_moments(
                given.pop("annotations"), dataset, problems=problems, **given
            )
            assert len(moments) == number
            assert len({m.query_id for m in moments}) == number
            if num_videos:
                assert len({m.video_id for m in moments}) == num_videos
            assert [p.dropped for p in problems].count(True) == dropped
            assert [p.dropped for p in problems].count(False) == cut
            for moment in moments:
                for start, end in moment.segments:
                    assert 0 <= start < end <= moment.duration
