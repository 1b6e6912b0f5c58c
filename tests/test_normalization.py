"""Sentences of anybody: bounded, in one writing, and safe to show."""

import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acnn_tf.data.annotations import DataError, read_moments
from acnn_tf.data.predictions import read_predictions
from acnn_tf.data.sentences import Vocabulary
from acnn_tf.files import text as text_files
from acnn_tf.files.text import MAX_CHARACTERS, normalize
from tests.processes import run_module

CONTROLS = [chr(n) for n in (*range(32), *range(127, 160))]
TURNS = list("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@given(st.text())
def test_a_sentence_is_composed_and_holds_no_control_character(sentence):
    found = normalize(sentence)
    assert unicodedata.is_normalized("NFC", found)
    assert not set(found) & {*CONTROLS, *TURNS}
    assert normalize(found) == found


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"])))
def test_other_text_is_only_composed(sentence):
    assert normalize(sentence) == unicodedata.normalize("NFC", sentence)


def test_a_control_character_parts_words():
    sentences = [f"a{sign}door" for sign in CONTROLS + TURNS]
    assert set(map(normalize, sentences)) == {"a door"}
    found = Vocabulary(["a", "door"]).encode(sentences)
    assert found.tolist() == [[2, 3]] * len(sentences)


def test_a_sentence_has_a_limit():
    assert normalize("a" * MAX_CHARACTERS) == "a" * MAX_CHARACTERS
    with pytest.raises(ValueError, match="2,000 characters, found 2,001"):
        normalize("a" * (MAX_CHARACTERS + 1))
    # The message does not repeat it.
    with pytest.raises(ValueError, match="found 100,000,000") as error:
        normalize("a" * 10**8)
    assert len(str(error.value)) < 300


def test_half_a_letter_is_told():
    for half in ("\ud800", "a\udc80b"):
        with pytest.raises(ValueError, match="half a letter"):
            normalize(half)
        with pytest.raises(ValueError, match=r"row 1: .*half a letter"):
            Vocabulary(["a"]).encode(["a", half])


def line(query, number=1):
    return json.dumps(
        {
            "qid": number,
            "query": query,
            "vid": "v",
            "duration": 9,
            "relevant_windows": [[0, 5]],
        }
    )


def test_a_bad_sentence_is_named_by_file_and_line(subtests, tmp_path):
    path = tmp_path / "moments.jsonl"
    for query, message in (
        ("a" * (MAX_CHARACTERS + 1), "2,000 characters"),
        ("\ud800", "half a letter"),
        ("\0\x1b", "expected a sentence"),
    ):
        path.write_text(f"{line('a door')}\n{line(query, 2)}\n")
        with subtests.test(message):
            with pytest.raises(DataError, match=message) as error:
                read_moments(path, "jsonl")
            assert str(error.value).startswith(f"{path}:2: ")


def test_sentences_are_read_in_one_writing(tmp_path):
    path = tmp_path / "moments.jsonl"
    path.write_text(line("a cafe\u0301\u202e\nopens\0"))
    (moment,) = read_moments(path, "jsonl")
    assert moment.query == "a caf\u00e9  opens"


def test_an_endless_line_or_file_is_not_read(refused, tmp_path):
    lengths = {"durations": {}, "num_frames": {"v": 1}}
    for dataset, message in (
        ("jsonl", r"moments:1: .*8,388,608 bytes"),
        ("charades_sta", r"moments:1: .*8,388,608 bytes"),
        ("tacos", r"moments:1: .*8,388,608 bytes"),
        ("activitynet_captions", "67,108,864 bytes"),
        ("didemo", "67,108,864 bytes"),
    ):
        path = tmp_path / "moments"
        with open(path, "wb") as file:
            file.write(b"a")
            file.truncate(10**11)  # takes no room on the disk
        with refused(DataError, message, dataset=dataset):
            read_moments(path, dataset, **lengths)


def test_json_that_is_too_much_is_told(refused, tmp_path):
    opening = {"activitynet_captions": '{"v": ', "didemo": "[", "jsonl": ""}
    path = tmp_path / "moments.json"
    for name, text in {
        "digits": "9" * 5000,
        "lists": "[" * 10**6,
        "objects": '{"a":' * 10**5,
        "string": '["' + "a" * 10**6,
        "negative": "-" + "1" * 10**6,
        "exponent": "1e" + "9" * 5000,
    }.items():
        for dataset, start in opening.items():
            path.write_text(start + text)
            with refused(DataError, r"moments\.json:1: ", text=name):
                read_moments(path, dataset)


def test_predictions_that_are_too_much_are_told(tmp_path, monkeypatch):
    path = tmp_path / "moments.jsonl"
    path.write_text(line("a door"))
    moments = read_moments(path, "jsonl")
    monkeypatch.setattr(text_files, "MAX_LINE_BYTES", 1000)
    predictions = tmp_path / "predictions.jsonl"
    for text in (
        "[" * 999,
        "[" * 2000,
        '{"qid": ' + "9" * 900 + "}",
        json.dumps({"qid": "x" * 900, "pred_relevant_windows": []}),
    ):
        predictions.write_text(text)
        with pytest.raises(DataError, match=r"predictions\.jsonl:1: ") as error:
            read_predictions(predictions, moments)
        assert len(str(error.value)) < 500


def test_a_csv_file_that_is_none_is_told(tmp_path):
    path = tmp_path / "lengths.csv"
    path.write_text("id,length\nv," + "9" * 200_000 + "\n")
    problems = []
    assert text_files.read_numbers(path, problems) == {}
    assert [problem.line for problem in problems] == [2]


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--query= ", "Type a sentence that says what happens in the"),
        ("--queries_file={path}", r"queries\.txt:2: .*2,000 characters"),
    ],
)
def test_search_tells_of_a_sentence_that_is_empty_or_too_long(
    tmp_path, flag, message
):
    path = tmp_path / "queries.txt"
    path.write_text("a door\n" + "a" * 2001 + "\n")
    done = run_module(
        "experiments.search",
        f"--workdir={tmp_path}",
        flag.format(path=path),
        code=2,
    )
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr
