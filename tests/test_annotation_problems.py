"""Broken annotation files: every fault is told with its file and line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acnn_tf.data.annotations import (
    DATASETS,
    DataError,
    read_moments,
)

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


LINES = "v 1 2##a\n"
ANET = "activitynet_captions"
BAD_RECORDS = {
    # name: dataset, content, line of the problem, words of its message
    "charades empty": ("charades_sta", "\n \n", 1, "no records"),
    "charades cut in times": ("charades_sta", LINES + "v 1", 2, "expected"),
    "charades without sentence": ("charades_sta", LINES + "v 1 2##", 2, "sent"),
    "charades fields": ("charades_sta", LINES + "v 1 2 3##a", 2, "expected"),
    "charades nan": ("charades_sta", LINES + "v nan 2##a", 2, "finite"),
    "charades infinite": ("charades_sta", LINES + "v 1 inf##a", 2, "finite"),
    "charades bytes": (
        "charades_sta",
        LINES.encode() + b"v 1 2##\xff",
        2,
        "UTF",
    ),
    "charades duplicate": ("charades_sta", LINES + LINES, 2, "duplicate of"),
    "charades unknown": ("charades_sta", LINES + "w 1 2##a", 2, "'w' has no"),
    "charades reversed": (
        "charades_sta",
        LINES + "v 2 1##a",
        2,
        "before it st",
    ),
    "charades no length": ("charades_sta", LINES + "v 2 2##a", 2, "no length"),
    "charades negative": ("charades_sta", LINES + "v -1 2##a", 2, "before its"),
    "charades late": ("charades_sta", LINES + "v 30 31##a", 2, "after the end"),
    "charades long": ("charades_sta", LINES + "v 0 34##a", 2, "longer than"),
    "tacos cut": ("tacos", "v_1_", 1, "expected `VIDEO_START"),
    "tacos cut in sentence": ("tacos", "v_1_9:a#\nv_2_9:he ta", 2, "cut short"),
    "tacos no sentence": ("tacos", "v_1_9:#", 1, "expected"),
    "tacos seconds": ("tacos", "v_1.5_9:a#", 1, "expected"),
    "tacos duplicate": ("tacos", "v_1_9:a#\nv.avi_1_9:b#", 2, "duplicate"),
    "tacos unknown": ("tacos", "w_1_9:a#", 1, "'w' has no"),
    "tacos reversed": ("tacos", "v_9_1:a#", 1, "9 to 1 frames ends"),
    "tacos bytes": ("tacos", b"v_1_9:\xe9#", 1, "UTF-8: byte 0xe9"),
    "anet empty": (ANET, "", 1, "no records"),
    "anet no video": (ANET, "{}", 1, "no records"),
    "anet truncated": (ANET, '{"w": {},\n "v": {"dura', 2, "cut short"),
    "anet list": (ANET, "[]", 1, "expected {"),
    "anet trailing": (ANET, '{"v": 1} x', 1, "the end"),
    "anet nested": (ANET, '{"v": ' + "[" * 100_000, 1, "nested"),
    "anet bytes": (ANET, b'{"v":\n"\xff"}', 2, "UTF-8"),
    "anet no object": (ANET, '{"v": [1]}', 1, "video 'v': expected lists"),
    "anet duplicate": (
        ANET,
        json.dumps({"v": VIDEO})[:-1] + ',\n"v": {}}',
        2,
        "expected lists",
    ),
    "anet video twice": (
        ANET,
        json.dumps({"v": VIDEO})[:-1] + ",\n" + json.dumps({"v": VIDEO})[1:],
        2,
        "twice",
    ),
    "anet lists": (ANET, {"v": changed(VIDEO, sentences=[])}, 1, "one length"),
    "anet nan": (
        ANET,
        {"v": changed(VIDEO, timestamps=[[0, float("nan")]])},
        1,
        "finite",
    ),
    "anet duration": (
        ANET,
        {"v": changed(VIDEO, duration=float("nan"))},
        1,
        "`duration` must be",
    ),
    "anet no duration": (
        ANET,
        {"v": without(VIDEO, "duration")},
        1,
        "found None",
    ),
    "anet number": (
        ANET,
        {"v": changed(VIDEO, sentences=[3])},
        1,
        "a sentence, found 3",
    ),
    "anet pair": (
        ANET,
        {"v": changed(VIDEO, timestamps=[[1]])},
        1,
        "sentence 1: expected times",
    ),
    "anet sentence twice": (
        ANET,
        {"v": changed(VIDEO, timestamps=[[1, 9]] * 2, sentences=["a"] * 2)},
        1,
        "duplicate",
    ),
    "tacos json fps": (
        "tacos_json",
        {"v": changed(FRAMES, fps=0)},
        1,
        "`fps` must be",
    ),
    "tacos json frames": (
        "tacos_json",
        {"v": changed(FRAMES, num_frames="9")},
        1,
        "`num_frames` must",
    ),
    "tacos json seconds": (
        "tacos_json",
        {"v": changed(FRAMES, timestamps=[[1.5, 9]] * 2)},
        1,
        "in frames",
    ),
    "didemo empty": ("didemo", "[]", 1, "no records"),
    "didemo truncated": (
        "didemo",
        json.dumps([PIECES, PIECES])[:-9],
        1,
        "cut short",
    ),
    "didemo duplicate": ("didemo", [PIECES, PIECES], 1, "duplicate"),
    "didemo no id": (
        "didemo",
        [without(PIECES, "annotation_id")],
        1,
        "annotation_id",
    ),
    "didemo reversed": (
        "didemo",
        [changed(PIECES, times=[[2, 1]])],
        1,
        "before it starts",
    ),
    "didemo adjacent": (
        "didemo",
        [changed(PIECES, times=[[2, 0]])],
        1,
        "before it starts",
    ),
    "didemo past": (
        "didemo",
        [changed(PIECES, times=[[6, 6]])],
        1,
        "after the end",
    ),
    "didemo half": (
        "didemo",
        [changed(PIECES, times=[[0.5, 1]])],
        1,
        "whole `times`",
    ),
    "didemo pieces": (
        "didemo",
        [changed(PIECES, num_segments=0)],
        1,
        "`num_segments`",
    ),
    "jsonl empty": ("jsonl", "", 1, "no records"),
    "jsonl truncated": ("jsonl", json.dumps(RECORD)[:-5], 1, "is not JSON"),
    "jsonl list": ("jsonl", "[1]", 1, "expected an object"),
    "jsonl no windows": (
        "jsonl",
        without(RECORD, "relevant_windows"),
        1,
        "expected",
    ),
    "jsonl no window": (
        "jsonl",
        changed(RECORD, relevant_windows=[]),
        1,
        "expected times",
    ),
    "jsonl bad window": (
        "jsonl",
        changed(RECORD, relevant_windows=[[1, 2], [4, 3]]),
        1,
        "before it starts",
    ),
    "jsonl duration": (
        "jsonl",
        changed(RECORD, duration=True),
        1,
        "`duration`",
    ),
    "jsonl huge": ("jsonl", changed(RECORD, duration=10**400), 1, "`duration`"),
    "jsonl same id": (
        "jsonl",
        json.dumps(RECORD) + "\n" + json.dumps(changed(RECORD, query="b")),
        2,
        "duplicate of line 1: 1",
    ),
    "jsonl bytes": ("jsonl", b'{"qid": "\xff"}', 1, "UTF-8"),
    "jsonl no query": ("jsonl", changed(RECORD, query=" "), 1, "a sentence"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_bad_record_is_left_out_and_told_with_its_line(read, name):
    dataset, content, line, words = BAD_RECORDS[name]
    suffix = ".txt"
    if dataset == "tacos_json":
        dataset, suffix = "tacos", ".json"
    moments, problems = read(content, dataset, suffix)
    assert any(p.line == line and words in p.message for p in problems)
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
    from acnn_tf.files.problems import Problem

    problems = [Problem("a.txt", line, "bad") for line in range(1, 31)]
    error = DataError(problems)
    assert error.problems == problems
    assert str(error).endswith("a.txt:20: bad\n... and 10 more")


@pytest.mark.parametrize(
    "content, line, words",
    [
        ('{"v": 30,\n"w": -1}', 2, "video 'w': expected a number"),
        ('{"v": 30,\n"v": 31}', 2, "twice"),
        ('{"v": 30, "w": NaN}', 1, "found nan"),
        ('{"v": 30', 1, "cut short"),
        (b'{"v\xff": 30}', 1, "UTF-8"),
        ("", 1, "no records"),
        ("[30]", 1, "expected {"),
    ],
)
def test_bad_durations_name_their_own_file(tmp_path, content, line, words):
    annotations = tmp_path / "a.txt"
    annotations.write_text(LINES)
    durations = tmp_path / "durations.json"
    durations.write_bytes(as_bytes(content))
    with pytest.raises(DataError) as error:
        read_moments(annotations, "charades_sta", durations=durations)
    (problem,) = error.value.problems
    assert (problem.path, problem.line) == (str(durations), line)
    assert words in problem.message


@pytest.mark.parametrize(
    "content", ["name,length\nv,3\n", "id,length\nv,\n", "id,length\nv\n"]
)
def test_bad_csv_of_durations_is_told(tmp_path, content):
    annotations = tmp_path / "a.txt"
    annotations.write_text(LINES)
    durations = tmp_path / "durations.csv"
    durations.write_text(content)
    with pytest.raises(DataError, match=r"durations.csv:\d"):
        read_moments(annotations, "charades_sta", durations=durations)


def test_bad_duration_in_a_mapping_is_told(read):
    _, (problem,) = read(LINES, "charades_sta", durations={"v": float("nan")})
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
    text = json.dumps([PIECES, changed(PIECES, annotation_id=8)])
    path = tmp_path_factory.mktemp("cut") / "a.json"
    path.write_text(text[: min(length, len(text) - 1)])
    with pytest.raises(DataError):
        read_moments(path, "didemo")


def test_two_durations_of_one_video_are_a_problem(tmp_path):
    path = tmp_path / "a.jsonl"
    line = (
        '{"qid": %d, "query": "a", "vid": "v.avi", "duration": %d, '
        '"relevant_windows": [[1, 2]]}\n'
    )
    path.write_text(line % (1, 30) + line % (2, 300))
    with pytest.raises(DataError, match=r"a.jsonl:2: .*300 s here, but 30 s"):
        read_moments(path, "jsonl")


def test_durations_are_found_by_the_ids_of_the_annotations(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"qid": 1, "query": "a", "vid": "v.avi", '
        '"relevant_windows": [[1, 2]]}\n'
    )
    (moment,) = read_moments(path, "jsonl", durations={"v.avi": 22.0})
    assert moment.duration == 22.0
