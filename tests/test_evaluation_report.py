"""The page about an evaluation: what it says, and that it loads nothing."""

import collections
import html
import html.parser
import re

import numpy as np
import pytest

from acnn_tf import evaluation
from acnn_tf.data.annotations import Moment
from experiments import evaluation_report

PROTOCOL = {"suppression": "none"}
SCRIPT = '<script>alert("1")</script> & more'


class Page(html.parser.HTMLParser):
    """A page as a browser reads it: its elements, and the text of each."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes = [], []
        self.texts = collections.defaultdict(list)
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]].append(data)


def write(folder, answers, sentences=None, **given):
    """The page of queries about 10 s whose moment is [0, 4), read."""
    moments = [
        Moment(f"q{row}", f"sentence {row}", "v", 10.0, ((0.0, 4.0),))
        for row in range(len(answers))
    ]
    if sentences:
        moments = [
            Moment(m.query_id, sentence, sentence, 10.0, m.segments)
            for m, sentence in zip(moments, sentences)
        ]
    predictions = [np.reshape(a, (-1, 3)).astype(float) for a in answers]
    results = evaluation.score_predictions(moments, predictions, **PROTOCOL)
    evaluation_report.write(
        folder / "report.html",
        **{"title": "TACoS, test", "facts": {"model": "runs/one"}, **given},
        tables={"model": results},
        moments=moments,
        predictions=predictions,
        protocol=PROTOCOL,
    )
    text = (folder / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """Twelve queries, whose first answers fit worse and worse."""
    answers = [[[0, 4 - row / 3, 1], [0, 4, 0.5]] for row in range(12)]
    return write(
        tmp_path_factory.mktemp("report"),
        answers,
        frames_of=lambda moment: np.full((40, 90, 160, 3), 99, np.uint8),
        curve_of=lambda moment: ([2.5, 7.5], [1.0, -1.0]),
    )


def test_a_report_says_what_was_evaluated_and_how_well(twelve):
    text, page = twelve
    assert page.texts["title"] == ["TACoS, test: 12 queries"]
    assert page.texts["h1"] == ["Moment retrieval: TACoS, test"]
    assert {"runs/one", "12", "queries", "videos"} < {
        *page.texts["dd"],
        *page.texts["dt"],
    }
    assert "none: no suppression" in text
    # IoU 1, 11/12, ..., 1/12: seven of twelve reach 0.5.
    assert "58.3" in page.texts["td"]
    labels = [v for tag, n, v in page.attributes if n == "aria-label"]
    assert labels[0].startswith("Recall over IoU. R@1: 91.7 % at 0.1, ")
    assert "IoU ≥ 0.5: 58.3 % at 1, 100.0 % at 10" in labels[1]


def test_a_report_shows_the_best_and_the_worst_queries(twelve):
    _, page = twelve
    shown = [int(re.search(r"\d+", text)[0]) for text in page.texts["h3"]]
    assert shown == [0, 1, 2, 3, 4, 11, 10, 9, 8, 7]
    labels = [v for tag, n, v in page.attributes if n == "aria-label"]
    assert labels[2] == (
        "truth 0.0 to 4.0 s; answer 1 0.0 to 4.0 s; answer 2 0.0 to 4.0 s"
    )
    styles = [v for tag, n, v in page.attributes if (tag, n) == ("i", "style")]
    assert styles[0] == "left:0.00%;width:40.00%"
    # From above to below, each over half of the video.
    points = [value for _, name, value in page.attributes if name == "points"]
    assert points[-1] == "25.00,4.0 75.00,36.0"
    sizes = {(n, v) for tag, n, v in page.attributes if tag == "img"}
    assert {("width", "160"), ("height", "90")} < sizes  # as they are


def test_a_report_loads_and_runs_nothing(twelve):
    text, page = twelve
    for word in ("http:", "https:", "url(", "@import"):
        assert word not in text
    assert not {"script", "link", "iframe", "object"} & {*page.texts}
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        assert name != "href"
        if name == "src":
            assert value.startswith("data:image/")
    assert "default-src 'none'" in text


def test_what_comes_from_a_dataset_is_escaped(tmp_path):
    text, page = write(
        tmp_path,
        [[0, 4, 1]],
        [SCRIPT],
        title=SCRIPT,
        facts={SCRIPT: SCRIPT},
    )
    assert "<script" not in text
    assert text.count(html.escape(SCRIPT)) == 6
    assert page.texts["h3"] == [f"“{SCRIPT}”"]


def test_a_report_of_few_queries_shows_each_once(tmp_path):
    # One without an answer, one without a right one among them.
    _, page = write(tmp_path, [[], [9, 10, 1], [0, 4, 2]])
    assert page.texts["h3"] == ["“sentence 2”", "“sentence 1”"]
    words = " ".join(page.texts["p"])
    assert "1 queries have no answer" in words
    assert "none of ten" in words
