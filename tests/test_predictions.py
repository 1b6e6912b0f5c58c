"""Files of predictions, whole and broken."""

import pytest

from acnn_tf.data.annotations import DataError, Moment
from acnn_tf.data.predictions import read_predictions

MOMENTS = [
    Moment("1", "a man", "v1", 10.0, ((0.0, 5.0),)),
    Moment("2", "a man", "v2", 10.0, ((5.0, 9.0),)),
]


def _line(qid="1", windows="[[0, 5, 0.9]]", vid='"v1"'):
    return (
        f'{{"qid": "{qid}", "vid": {vid}, "pred_relevant_windows": {windows}}}'
    )


def _read(tmp_path, *lines, **kwargs):
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(
        b"\n".join(
            line if isinstance(line, bytes) else line.encode() for line in lines
        )
    )
    return read_predictions(path, MOMENTS, **kwargs)


def test_predictions_of_others_are_read_in_the_order_of_the_annotations(
    tmp_path,
):
    # A whole-number id, no video, something else besides, an empty line.
    predictions = _read(
        tmp_path,
        '{"qid": 2, "pred_relevant_windows": [], "pred_saliency_scores": [1]}',
        "",
        _line(windows="[[0, 5, -1], [2, 2, 3.5]]"),
    )
    (first, second), saliency = predictions, predictions.saliency
    assert saliency == [None, [1]]
    assert first.tolist() == [[0, 5, -1], [2, 2, 3.5]]
    assert second.shape == (0, 3)


def test_a_bad_line_is_named_with_its_file(refused, tmp_path):
    for line, message in (
        ('{"qid": "1", "pred_rel', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "expected a JSON object, found list"),
        ('{"pred_relevant_windows": []}', "has no 'qid'"),
        ('{"qid": "1", "windows": []}', "has no 'pred_relevant_windows'"),
        (b'{"qid": "1\xff", "pred_relevant_windows": []}', "not UTF-8"),
        (_line(qid="7"), "query '7' is not in the annotations"),
        (_line("2", vid='"v2"'), "predicted twice, first in line 1"),
        (_line(vid='"v2"'), "'v1' in the annotations, about 'v2' here"),
        (_line(windows='{"0": 5}'), "must be a list, found dict"),
        (_line(windows="[[0, 5]]"), "three finite numbers"),
        (_line(windows="[0, 5, 0.9]"), "three finite numbers"),
        (_line(windows='[["0", 5, 0.9]]'), "three finite numbers"),
        (_line(windows="[[true, 5, 0.9]]"), "three finite numbers"),
        (_line(windows="[[0, NaN, 0.9]]"), "three finite numbers"),
        (_line(windows="[[0, 5, Infinity]]"), "three finite numbers"),
        (_line(windows=f"[[0, {10**400}, 1]]"), "three finite numbers"),
        (_line(windows="[[5, 4, 0.9]]"), "ends before it starts"),
        (_line()[:-1] + ', "pred_saliency_scores": 1}', "list of finite"),
        (_line()[:-1] + ', "pred_saliency_scores": [NaN]}', "list of finite"),
    ):
        message = rf"predictions\.jsonl:2: .*{message}"
        with refused(DataError, message, line=line[:80]):
            _read(tmp_path, _line(qid="2", vid='"v2"'), line)


def test_all_bad_lines_are_listed(tmp_path):
    with pytest.raises(DataError) as raised:
        _read(tmp_path, "nonsense", _line(), "{}")
    assert [problem.line for problem in raised.value.problems] == [1, 3]


def test_queries_without_predictions_are_an_error_unless_allowed(tmp_path):
    for lines in ([_line()], [""]):
        with pytest.raises(DataError, match=r"of 2 queries .*'2'"):
            _read(tmp_path, *lines)
        _, second = _read(tmp_path, *lines, allow_missing=True)
        assert second.shape == (0, 3)


def test_annotations_must_tell_queries_apart(tmp_path):
    with pytest.raises(ValueError, match="2 queries with 1 ids"):
        read_predictions(tmp_path / "none", [MOMENTS[0], MOMENTS[0]])
