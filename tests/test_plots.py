import sys
import warnings

import matplotlib.image
import matplotlib.text
import numpy as np
import pytest

from acnn_tf import plots


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to look into."""
    figures = []
    figure_of = plots.new_figure

    def figure(*args):
        figures.append(figure_of(*args))
        return figures[-1]

    monkeypatch.setattr(plots, "new_figure", figure)
    return figures


def timeline(folder, **given):
    """Draws one: of a video of five seconds, without moments."""
    plain = {"query": "q", "duration": 5.0, "truth": [], "predictions": []}
    return plots.timeline(folder / "timeline.png", **plain | given)


def texts(figure):
    """Everything that can be read in a figure."""
    return [
        text.get_text().replace("\u2212", "-")
        for text in figure.findobj(matplotlib.text.Text)
        if text.get_text()
    ]


def bars(axis):
    """`(start, end)` of the bars, from the top down."""
    boxes = [patch for patch in axis.patches if patch.get_height() < 1]
    boxes.sort(key=lambda box: box.get_y())
    return [(box.get_x(), box.get_x() + box.get_width()) for box in boxes]


def test_timeline_shows_truth_and_predictions_in_order(tmp_path, drawn):
    path = plots.timeline(
        tmp_path / "new" / "timeline.png",
        query="the person opens the door",
        duration=30.0,
        truth=[(3.0, 8.0)],
        predictions=[(2.5, 7.0, 1.25), (20.0, 30.0, -0.5)],
    )
    assert path == tmp_path / "new" / "timeline.png"
    assert matplotlib.image.imread(path).shape[2] in (3, 4)
    (axis,) = drawn[0].axes
    assert axis.get_xlim() == (0, 30)
    assert bars(axis) == [(3, 8), (2.5, 7), (20, 30)]
    shown = texts(drawn[0])
    for text in ("“the person opens the door”", "truth", "#1", "#2"):
        assert text in shown
    for text in ("1.25", "-0.50", "best prediction", "seconds into the video"):
        assert text in shown


def test_timeline_shows_frames_and_attention(tmp_path, drawn):
    centre = np.array([1.0, 3.0, 5.0, 3.0])
    timeline(
        tmp_path,
        duration=6.0,
        truth=[(0, 2), (4, 6)],
        predictions=[(0, 2, 0.5)],
        attention={
            "centre": centre,
            "kernel_sizes": [1, 3],
            "weights": [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.7, 0.3]],
        },
        frames=np.zeros((12, 8, 8, 3), np.uint8),
    )
    _, segments, attention = drawn[0].axes
    assert bars(segments) == [(0, 2), (4, 6), (0, 2)]
    for line, name, weights in zip(
        attention.lines,
        ("1 window", "3 windows"),
        # Both windows around 3 s count by half there.
        ([0.9, 0.6, 0.2], [0.1, 0.4, 0.8]),
        strict=True,
    ):
        assert line.get_label() == name
        np.testing.assert_allclose(line.get_ydata(), weights)


def test_frames_keep_their_shape_and_their_time(
    subtests, tmp_path, drawn, monkeypatch
):
    monkeypatch.setattr(plots, "save", lambda *_: None)  # seconds
    for width, height, num_frames in (
        *((32, 18, 40), (18, 32, 40), (8, 8, 40), (40, 4, 40), (32, 18, 2)),
    ):
        with subtests.test(f"{num_frames} of {width} x {height}"):
            frames = np.zeros((num_frames, height, width, 3), np.uint8)
            timeline(tmp_path, duration=6.0, frames=frames)
            strip = drawn[-1].axes[0]
            box = strip.get_window_extent()
            shown = [image.get_extent() for image in strip.images]
            for left, right, bottom, top in shown:
                drawn_width = (right - left) / 6 * box.width
                drawn_height = (top - bottom) * box.height
                # Within a pixel or two of the picture.
                assert drawn_width / drawn_height == pytest.approx(
                    width / height, rel=0.03
                )
            middles = [(left + right) / 2 for left, right, *_ in shown]
            count = len(shown)
            expected = 6 * (np.arange(count) + 0.5) / count
            np.testing.assert_allclose(middles, expected)
            edges = np.ravel([extent[:2] for extent in shown])
            assert (np.diff(edges) > 0).all()  # none covers another
            assert 0 <= edges[0] < edges[-1] <= 6


def test_timeline_shows_where_it_is_from_and_the_score_over_time(
    tmp_path, drawn
):
    for frames in (None, np.zeros((3, 9, 16, 3), np.uint8)):
        timeline(
            tmp_path,
            truth=[(1.0, 2.0)],
            curve=([0.5, 1.5, 4.5], [0.0, 2.0, 1.0]),
            source="Charades-STA, test, video $1_x^",
            iou=0.726,
            frames=frames,
        )
        words = (
            "Charades-STA, test, video $1_x^ · IoU of the first answer: 0.73"
        )
        assert words in [" ".join(t.split()) for t in texts(drawn[-1])]
        curve = drawn[-1].axes[-1]
        np.testing.assert_array_equal(
            curve.lines[0].get_xdata(), [0.5, 1.5, 4.5]
        )
        np.testing.assert_array_equal(curve.lines[0].get_ydata(), [0, 2, 1])
        assert curve.get_xlim() == (0, 5)


def test_timeline_without_predictions_says_so(tmp_path, drawn):
    path = timeline(tmp_path, frames=np.zeros((1, 4, 4, 3), np.uint8))
    assert path.stat().st_size > 0
    assert "no predictions" in texts(drawn[0])


def test_timeline_takes_any_sentence(subtests, tmp_path):
    japanese = "女の人が座る"
    for query in (
        "",
        "word " * 80,
        "$5 and $x_1^$ {\\frac",
        japanese,
        "l" * 300,
    ):
        with subtests.test(query):
            found = {"truth": [(0, 1)], "predictions": [(0, 1, 0.0)]}
            path = timeline(tmp_path, query=query, **found)
            assert matplotlib.image.imread(path).shape[1] == 1350


def test_timeline_names_attention_of_the_wrong_shape(tmp_path):
    attention = {"centre": [1, 2], "kernel_sizes": [1, 3], "weights": [[1, 0]]}
    with pytest.raises(ValueError, match=r"\(2, 2\). Received: \(1, 2\)"):
        timeline(tmp_path, attention=attention)


def test_recall_curve_shows_lines_and_chance(tmp_path, drawn):
    path = plots.recall_curve(
        tmp_path / "recall.png",
        [0, 100, 200],
        {"ACNN": [0.1, np.nan, 0.4], "shuffled": [0.1, 0.1, 0.1]},
        chance=0.07,
        title="Charades-STA",
    )
    assert path.exists()
    (axis,) = drawn[0].axes
    acnn, shuffled, chance = axis.lines
    np.testing.assert_array_equal(acnn.get_ydata(), [0.1, np.nan, 0.4])
    np.testing.assert_array_equal(shuffled.get_xdata(), [0, 100, 200])
    assert set(chance.get_ydata()) == {0.07}
    assert axis.get_ylim()[0] == 0
    for text in ("ACNN", "shuffled", "chance", "Charades-STA"):
        assert text in texts(drawn[0])
    # Not by colour alone.
    assert acnn.get_marker() != shuffled.get_marker()
    assert acnn.get_linestyle() != shuffled.get_linestyle()


def test_recall_curves_share_their_axes(tmp_path, drawn):
    panels = {
        "ACRN": ([10, 20], {"training": [0.1, 0.5]}),
        "ACNN": ([10, 20, 30], {"training": [0.2, 0.3, 1.0]}),
    }
    path = plots.recall_curves(tmp_path / "recall.png", panels)
    assert path.exists()
    upper, lower = drawn[0].axes
    assert [axis.get_title(loc="left") for axis in (upper, lower)] == [*panels]
    np.testing.assert_array_equal(upper.lines[0].get_xdata(), [10, 20])
    assert upper.get_xlim() == lower.get_xlim()
    assert upper.get_ylim() == lower.get_ylim()
    assert upper.get_ylim()[0] == 0 < 1.0 < upper.get_ylim()[1]
    assert not upper.get_xlabel()
    assert lower.get_xlabel() == "training step"


def test_levels_of_recall_are_not_rounded_to_others(tmp_path, drawn):
    # Up to 20 % there is a level each 2.5 %: 17.5 is not 18.
    plots.recall_curve(tmp_path / "r.png", [1, 2], {"a": [0.0, 0.2]})
    axis = drawn[0].axes[0].yaxis
    levels = [axis.get_major_formatter()(n / 40, None) for n in (0, 1, 7, 40)]
    assert levels == ["0 %", "2.5 %", "17.5 %", "100 %"]


def test_curves_of_no_step_or_one(tmp_path):
    for curve in (plots.recall_curve, plots.loss_curve):
        for steps, values in (([], []), ([5], [0.25])):
            assert curve(tmp_path / "c.png", steps, {"a": values}).exists()
        with pytest.raises(ValueError, match=r"of 2 st.*Received: 1 for 'a'"):
            curve(tmp_path / "curve.png", [1, 2], {"a": [0.5]})


def test_losses_far_apart_are_drawn_logarithmically(tmp_path, drawn):
    for offsets, scale in (
        ([0.5, 0.4], "linear"),
        ([0.05, 0.01], "log"),
        ([0.0, np.nan], "linear"),
    ):
        series = {"loss": [4.0, 2.0], "offset": offsets}
        plots.loss_curve(tmp_path / "loss.png", [1, 2], series)
        assert drawn[-1].axes[0].get_yscale() == scale, offsets


def test_training_shows_losses_beside_recall_and_the_best_epoch(
    tmp_path, drawn
):
    path = plots.training(
        tmp_path / "training.png",
        [62, 124, 186],
        {"validation": [0.1, 0.4, 0.3]},
        {"alignment": [3.0, 2.0, 1.0], "offset": [0.5, 0.4, 0.3]},
        best=1,
        chance=0.05,
        title="TACoS, val",
    )
    assert path.exists()
    recall, loss = drawn[0].axes
    np.testing.assert_array_equal(recall.lines[0].get_ydata(), [0.1, 0.4, 0.3])
    assert [line.get_label() for line in loss.lines[:2]] == [
        "alignment",
        "offset",
    ]
    for axis in (recall, loss):
        mark = axis.lines[-1]
        assert mark.get_label() == "best epoch: 2 of 3"
        assert set(mark.get_xdata()) == {124}
        assert axis.get_ylim()[0] == 0
    assert {"TACoS, val", "chance"} < {*texts(drawn[0])}
    plots.training(tmp_path / "none_yet.png", [], {}, {})


def test_recall_table_has_the_rows_and_columns_of_the_paper(tmp_path, drawn):
    plots.recall_table(
        tmp_path / "table.png",
        {
            "R@1,IoU=0.5": 0.131,
            "R@5,IoU=0.5": 0.271,
            "R@10,IoU=0.5": 0.347,
            "R@1,IoU=0.1": 0.287,
            "mIoU": 0.1234,
        },
        title="TACoS, per_threshold",
    )
    (axis,) = drawn[0].axes
    assert [t.get_text() for t in axis.get_xticklabels()] == [
        "IoU=0.1",
        "IoU=0.5",
    ]
    assert [t.get_text() for t in axis.get_yticklabels()] == [
        "R@10",
        "R@5",
        "R@1",
    ]
    cells = {t.get_position(): t.get_text() for t in axis.texts}
    assert cells[0, 2] == "28.7"
    assert [cells[1, row] for row in range(3)] == ["34.7", "27.1", "13.1"]
    assert "mIoU 12.3 %" in axis.get_xlabel()


def test_recall_table_names_results_without_recall(tmp_path):
    with pytest.raises(ValueError, match=r"Received: \['loss'\]"):
        plots.recall_table(tmp_path / "table.png", {"loss": 1.0})


def test_missing_matplotlib_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"\.\[plots\]"):
        plots.loss_curve(tmp_path / "loss.png", [1], {"loss": [1.0]})


def test_pictures_leave_nothing_behind(tmp_path):
    filters = list(warnings.filters)
    pyplot = "matplotlib.pyplot" in sys.modules
    plots.loss_curve(tmp_path / "loss.png", [1, 2], {"loss": [1.0, 0.5]})
    assert warnings.filters == filters
    assert ("matplotlib.pyplot" in sys.modules) == pyplot
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]
