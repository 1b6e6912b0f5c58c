"""Pictures: where the moments are, and how the training went.

Every function writes one picture, in the format that its name ends on, and
returns its path. Lines differ by dash and marker as well as by colour, and the
colours (Okabe and Ito's) by lightness, so that any eye can tell them apart.
"""

from __future__ import annotations

import os
import re
import textwrap
import typing
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

if typing.TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#5F5F5F"
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P")

_RECALL_KEY = re.compile(r"R@(\d+)[,_ ]\s*IoU=([\d.]+)")


def timeline(
    path: str | os.PathLike,
    *,
    query: str,
    duration: float,
    truth: Sequence | None,
    predictions: Sequence,
    attention: Mapping | None = None,
    frames: np.ndarray | None = None,
    curve: tuple | None = None,
    source: str = "",
    iou: float | None = None,
) -> Path:
    """Draws predictions, and the truth, on the time axis of the video.

    Args:
        path: Where to write the picture.
        query: The sentence, which is the title.
        duration: Duration of the video in seconds.
        truth: `(start, end)` pairs in seconds; may be empty. `None` where it
            is not known: there is no row for it then.
        predictions: `(start, end, score)` triples, best first; may be empty.
        attention: `{"centre": [W], "kernel_sizes": [K], "weights": [W, K]}`:
            for the window around each centre, in seconds, how much each width
            of the context counts. Windows of about one centre are averaged.
        frames: `uint8 [F, H, W, 3]`, the video. A strip of frames is shown,
            as many as there is room for, in their true shape.
        curve: `(times, scores)`, arrays `[N]`: how well the moments about
            each time, in seconds, answer the query; see
            `acnn_tf.evaluation.score_curve`.
        source: Where the query is from: dataset, split and video. It stands
            below the query.
        iou: IoU of the best prediction with the truth. It stands there, too.

    Returns:
        `path`.

    Example:

    >>> import tempfile
    >>> from acnn_tf.plots import timeline
    >>> path = timeline(
    ...     tempfile.mkdtemp() + "/door.png",
    ...     query="the person opens the door",
    ...     duration=30.0,
    ...     truth=[(3.0, 8.0)],
    ...     predictions=[(2.5, 7.0, 1.25), (20.0, 30.0, -0.5)],
    ...     source="Charades-STA, test",
    ...     iou=0.73,
    ... )
    >>> path.name
    'door.png'
    """
    title = textwrap.wrap(f"“{query.strip()}”", width=80)
    notes = [source] if source else []
    if iou is not None:
        notes.append(f"IoU of the first answer: {iou:.2f}")
    heights = {}
    if frames is not None:
        frames, heights["frames"] = _choose_frames(np.asarray(frames))
    heights["segments"] = max(0.65 + 0.3 * len(predictions), 1.2)
    if curve is not None:
        heights["curve"] = 1.2
    if attention is not None:
        heights["attention"] = 1.5
    notes = textwrap.wrap("   ·   ".join(notes), width=100)
    num_lines = len(title) + len(notes)
    figure = new_figure(9.0, sum(heights.values()) + 1.2 + 0.24 * num_lines)
    axes = figure.subplots(
        len(heights),
        sharex=True,
        squeeze=False,
        height_ratios=list(heights.values()),
    )[:, 0]
    axes = dict(zip(heights, axes, strict=True))
    _write_heading(figure, title)
    if notes:
        next(iter(axes.values())).set_title(
            "\n".join(notes),
            loc="left",
            pad=6 if frames is not None else 20,  # above the legend
            fontsize=10,
            color=GREY,
            parse_math=False,
        )
    for axis in axes.values():
        axis.set_xlim(0, duration)
    _draw_segments(axes["segments"], duration, truth, predictions)
    if curve is not None:
        _draw_score_curve(axes["curve"], curve, truth)
    if attention is not None:
        _draw_attention(axes["attention"], duration, attention)
    list(axes.values())[-1].set_xlabel("seconds into the video")
    if frames is not None:  # the last: their shape depends on what is left
        _draw_frames(axes["frames"], duration, frames)
    return save(figure, path)


def recall_curve(
    path: str | os.PathLike,
    steps: Sequence,
    series: Mapping,
    *,
    chance: float | None = None,
    title: str = "",
    ylabel: str = "R@1, IoU=0.5",
) -> Path:
    """Draws recall over training steps, as the paper's Figure 5.

    Args:
        path: Where to write the picture.
        steps: `[N]` training steps.
        series: Name of a line -> `[N]` fractions; NaN where there is none.
        chance: Fraction that guessing gets, drawn as a level.
        title: Heading.
        ylabel: What the fractions are.

    Returns:
        `path`.

    Example:

    >>> import tempfile
    >>> import acnn_tf
    >>> path = acnn_tf.plots.recall_curve(
    ...     tempfile.mkdtemp() + "/recall.png",
    ...     [100, 200],
    ...     {"ACNN": [0.1, 0.3], "CTRL": [0.1, 0.2]},
    ... )
    >>> path.name
    'recall.png'

    Reference: paper, Figure 5.
    """
    return recall_curves(
        path, {title: (steps, series)}, chance=chance, ylabel=ylabel
    )


def recall_curves(
    path: str | os.PathLike,
    panels: Mapping,
    *,
    chance: float | None = None,
    ylabel: str = "R@1, IoU=0.5",
) -> Path:
    """Draws `recall_curve` of several trainings, one below the other.

    Args:
        path: Where to write the picture.
        panels: Heading -> `(steps, series)`, see `recall_curve`.
        chance: Fraction that guessing gets, drawn as a level in each.
        ylabel: What the fractions are.

    Returns:
        `path`.

    Example:

    >>> import tempfile
    >>> import acnn_tf
    >>> series = {"ACNN": [0.1, 0.3], "CTRL": [0.1, 0.2]}
    >>> path = acnn_tf.plots.recall_curves(
    ...     tempfile.mkdtemp() + "/recall.png",
    ...     {"TACoS": ([100, 200], series)},
    ... )
    >>> path.name
    'recall.png'
    """
    figure = new_figure(7.0, 1.0 + 3.2 * len(panels))
    # On shared axes, so that trainings compare.
    axes = figure.subplots(len(panels), sharex=True, sharey=True, squeeze=False)
    for axis, (title, (steps, series)) in zip(
        axes[:, 0], panels.items(), strict=True
    ):
        _draw_curves(axis, steps, series, title, ylabel)
        if chance is not None:
            _draw_chance(axis, chance)
        _show_percent(axis)
        axis.label_outer()
    axes[0, 0].set_ylim(bottom=0)  # once all are drawn: it fixes the top too
    for axis in axes[:, 0]:
        axis.legend(loc="best", frameon=True)
    return save(figure, path)


def training(
    path: str | os.PathLike,
    steps: Sequence,
    recalls: Mapping,
    losses: Mapping,
    *,
    best: int | None = None,
    chance: float | None = None,
    title: str = "",
    ylabel: str = "R@1, IoU=0.5",
) -> Path:
    """Draws how a training went: recall and, beside it, the losses.

    Args:
        path: Where to write the picture.
        steps: `[N]` training steps, at the ends of epochs.
        recalls: Name of a line -> `[N]` fractions; NaN where there is none.
        losses: Name of a loss -> `[N]` values; NaN where there is none.
        best: Index of the best epoch, which is marked in both pictures.
        chance: Fraction that guessing gets, drawn as a level.
        title: Heading.
        ylabel: What the fractions are.

    Returns:
        `path`.

    Example:

    >>> import tempfile
    >>> from acnn_tf.plots import training
    >>> path = training(
    ...     tempfile.mkdtemp() + "/training.png",
    ...     [100, 200, 300],
    ...     {"validation": [0.1, 0.3, 0.2]},
    ...     {"alignment": [3.0, 2.0, 1.5], "offset": [0.5, 0.4, 0.4]},
    ...     best=1,
    ... )
    >>> path.name
    'training.png'
    """
    heading = textwrap.wrap(title, width=110)
    figure = new_figure(12.0, 4.2 + 0.24 * len(heading))
    left, right = figure.subplots(1, 2)
    _draw_curves(left, steps, recalls, "", ylabel)
    _draw_losses(right, steps, losses, "")
    if chance is not None:
        _draw_chance(left, chance)
    _show_percent(left)
    left.set_ylim(bottom=0)
    if right.get_yscale() == "linear":
        right.set_ylim(bottom=0)
    if best is not None:
        for axis in (left, right):
            axis.axvline(
                steps[best],
                color=GREY,
                linewidth=1.2,
                label=f"best epoch: {best + 1} of {len(steps)}",
            )
    for axis in (left, right):
        if axis.lines:
            axis.legend(loc="best", frameon=True)
    _write_heading(figure, heading)
    return save(figure, path)


def loss_curve(
    path: str | os.PathLike, steps: Sequence, series: Mapping, title: str = ""
) -> Path:
    """Draws losses over training steps.

    Args:
        path: Where to write the picture.
        steps: `[N]` training steps.
        series: Name of a loss -> `[N]` values; NaN where there is none.
        title: Heading.

    Returns:
        `path`.

    Example:

    >>> import tempfile
    >>> import acnn_tf
    >>> path = acnn_tf.plots.loss_curve(
    ...     tempfile.mkdtemp() + "/loss.png",
    ...     [100, 200],
    ...     {"alignment": [3.0, 2.0], "offset": [0.5, 0.4]},
    ... )
    >>> path.name
    'loss.png'
    """
    figure = new_figure(7.0, 4.2)
    axis = figure.add_subplot()
    _draw_losses(axis, steps, series, title)
    axis.legend(loc="best", frameon=True)
    return save(figure, path)


def recall_table(
    path: str | os.PathLike, results: Mapping, title: str = ""
) -> Path:
    """Draws the table of R@n over IoU thresholds, as the paper prints it.

    Args:
        path: Where to write the picture.
        results: `"R@1,IoU=0.5"` -> fraction, and perhaps `"mIoU"`.
        title: Heading. It should say which suppression was used.

    Returns:
        `path`.

    Example:

    >>> import tempfile
    >>> import acnn_tf
    >>> path = acnn_tf.plots.recall_table(
    ...     tempfile.mkdtemp() + "/table.png",
    ...     {"R@1,IoU=0.5": 0.3, "R@5,IoU=0.5": 0.6},
    ...     title="TACoS, test, no suppression",
    ... )
    >>> path.name
    'table.png'

    Reference: paper, Tables 1 and 2.
    """
    cells = {
        (int(match[1]), match[2]): value
        for key, value in results.items()
        if (match := _RECALL_KEY.fullmatch(key))
    }
    if not cells:
        raise ValueError(
            "`results` must have keys such as 'R@1,IoU=0.5'. "
            f"Received: {list(results)}"
        )
    ns = sorted({n for n, _ in cells}, reverse=True)
    ious = sorted({iou for _, iou in cells}, key=float)
    values = np.array([[cells.get((n, m), np.nan) for m in ious] for n in ns])

    heading = textwrap.wrap(title, width=12 * (len(ious) + 1))
    figure = new_figure(
        1.2 + 1.0 * len(ious), 0.9 + 0.5 * len(ns) + 0.24 * len(heading)
    )
    axis = figure.add_subplot()
    # No darker than black letters can be read on.
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1.8, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = "" if np.isnan(value) else f"{100 * value:.1f}"
        axis.text(column, row, text, ha="center", va="center", fontsize=12)
    axis.set_xticks(range(len(ious)), [f"IoU={m}" for m in ious])
    axis.set_yticks(range(len(ns)), [f"R@{n}" for n in ns])
    axis.set_xticks(np.arange(len(ious) - 1) + 0.5, minor=True)
    axis.set_yticks(np.arange(len(ns) - 1) + 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=2)
    axis.tick_params(which="both", length=0, labelsize=11)
    axis.tick_params(labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    note = "% of queries"
    if "mIoU" in results:
        note += f"   ·   mIoU {100 * results['mIoU']:.1f} %"
    axis.set_xlabel(note, color=GREY)
    _write_heading(figure, heading, 0.02)
    return save(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'Pictures need Matplotlib. Run: pip install -e ".[plots]"'
        ) from error
    # Not pyplot: nothing global to configure, nothing to close.
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: str | os.PathLike) -> Path:
    """Writes a figure, and returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    smaller = {}
    if path.suffix == ".png" and any(axis.images for axis in figure.axes):
        # Frames make it large: a twentieth less, for a fifth of a second.
        smaller["pil_kwargs"] = {"optimize": True}
    with warnings.catch_warnings():
        # A sentence in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        warnings.filterwarnings("ignore", message="Matplotlib currently does")
        figure.savefig(path, dpi=150, facecolor="white", **smaller)
    return path


def bare(axis: Axes) -> None:
    """Takes from an axis what says nothing."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(colors=GREY, labelcolor="black")


def _write_heading(figure, lines, x=0.01):
    figure.suptitle(
        "\n".join(lines), x=x, ha="left", fontsize=12, parse_math=False
    )


def _style(index):
    """How the line of a number is told from others, by eyes of any kind."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def _legend_above(axis, num_columns):
    axis.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderaxespad=0.2,
        ncols=num_columns,
        frameon=False,
        fontsize=9,
    )


def _choose_frames(frames):
    """`(frames of the strip, its height in inches)`, of those of a video."""
    aspect = frames.shape[2] / frames.shape[1]
    # The strip is about as wide as this; ten square frames fill it.
    width, gap = 7.7, 0.05
    num_shown = round(width / (0.77 * aspect))
    num_shown = min(max(num_shown, 1), len(frames), 24)
    index = (np.arange(num_shown) + 0.5) / num_shown * len(frames)
    height = min((width / num_shown - gap) / aspect, 1.5)
    return frames[index.astype(int)], height


def _draw_frames(axis, duration, frames):
    axis.set_axis_off()
    axis.set_ylim(0, 1)
    # Only now it is known how large the strip is.
    axis.figure.draw_without_rendering()
    box = axis.get_window_extent()
    aspect = frames.shape[2] / frames.shape[1]
    room = duration / len(frames)  # seconds of the axis for each frame
    width = aspect * box.height / box.width * duration
    height = min(1.0, 0.97 * room / width)
    width *= height
    for index, frame in enumerate(frames):
        middle = (index + 0.5) * room
        axis.imshow(
            frame,
            extent=(
                *(middle - width / 2, middle + width / 2),
                *((1 - height) / 2, (1 + height) / 2),
            ),
            aspect="auto",
            interpolation="nearest" if frame.shape[0] < 64 else "antialiased",
        )
    # Each picture has set them to its own.
    axis.set_xlim(0, duration)
    axis.set_ylim(0, 1)


def _draw_score_curve(axis, curve, truth):
    times, scores = curve
    for start, end in truth or ():
        axis.axvspan(start, end, color=GREEN, alpha=0.12, linewidth=0)
    axis.plot(times, scores, color=BLUE, linewidth=1.8)
    if len(scores):
        low = min(scores)
        axis.fill_between(times, scores, low, color=BLUE, alpha=0.15, lw=0)
    axis.set_ylabel("score", fontsize=9)
    axis.grid(axis="y", alpha=0.3)
    bare(axis)


def _draw_segments(axis, duration, truth, predictions):
    # A column on the right, where no bar can be in the way of a number.
    beside = {"va": "center", "transform": axis.get_yaxis_transform()}

    def bar(row, start, end, color, label):
        axis.barh(
            row, end - start, left=start, height=0.62, color=color, label=label
        )

    is_known = truth is not None
    truth = truth if is_known else ()
    for index, (start, end) in enumerate(truth):
        bar(0, start, end, GREEN, None if index else "truth")
        axis.axvspan(start, end, color=GREEN, alpha=0.12, linewidth=0)
    names = {1: "best prediction", 2: "next predictions"}
    for rank, (start, end, score) in enumerate(predictions, start=1):
        # The best one full, the others paler: order needs no reading.
        color = BLUE if rank == 1 else "#8FBFDD"
        bar(rank, start, end, color, names.get(rank))
        axis.text(1.06, rank, f"{score:.2f}", ha="right", **beside)
    if len(predictions):
        row = 0 if is_known else 0.45
        axis.text(1.06, row, "score", ha="right", color=GREY, **beside)
    else:
        axis.text(
            duration / 2, 1, "no predictions", ha="center", va="center",
            color=GREY, style="italic",
        )  # fmt: skip
    labels = [f"#{n + 1}" for n in range(len(predictions))]
    axis.set_yticks(range(1, len(labels) + 1), labels)
    if is_known:
        axis.set_yticks(range(len(labels) + 1), ["truth", *labels])
    top = -0.6 if is_known else 0.15
    axis.set_ylim(max(len(predictions), 1) + 0.6, top)
    axis.tick_params(axis="y", length=0)
    bare(axis)
    axis.spines["left"].set_visible(False)
    if len(truth) or len(predictions):
        _legend_above(axis, 3)


def _draw_attention(axis, duration, attention):
    centre = np.asarray(attention["centre"], float)
    weights = np.asarray(attention["weights"], float)
    kernel_sizes = list(attention["kernel_sizes"])
    if weights.shape != (len(centre), len(kernel_sizes)):
        raise ValueError(
            "`attention` must have a weight for each centre and kernel size, "
            f"{(len(centre), len(kernel_sizes))}. Received: {weights.shape}"
        )
    num_bins = int(np.clip(len(centre), 1, 48))
    place = np.clip(centre / duration * num_bins, 0, num_bins - 1).astype(int)
    count = np.bincount(place, minlength=num_bins)
    kept = count > 0
    time = (np.arange(num_bins) + 0.5)[kept] * duration / num_bins
    for index, kernel_size in enumerate(kernel_sizes):
        total = np.bincount(place, weights[:, index], num_bins)
        axis.plot(
            time,
            total[kept] / count[kept],
            **_style(index),
            markersize=3.5,
            linewidth=1.6,
            label=f"{kernel_size} window" + "s" * (kernel_size != 1),
        )
    axis.set_ylim(0, 1)
    axis.set_ylabel("attention to\ncontext of", fontsize=9)
    axis.grid(axis="y", alpha=0.3)
    bare(axis)
    _legend_above(axis, len(kernel_sizes))


def _draw_curves(axis, steps, series, title, ylabel):
    for name, values in series.items():
        if len(values) != len(steps):
            raise ValueError(
                f"`series` must have a value for each of {len(steps)} steps. "
                f"Received: {len(values)} for {name!r}"
            )
    # Few enough markers to tell lines apart, whatever their number.
    every = max(1, len(steps) // 12)
    for index, (name, values) in enumerate(series.items()):
        axis.plot(
            steps,
            values,
            **_style(index),
            markevery=every,
            markersize=5,
            linewidth=1.8,
            label=name,
        )
    axis.set_title(title, loc="left", fontsize=12, parse_math=False, wrap=True)
    axis.set_xlabel("training step")
    axis.set_ylabel(ylabel)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.grid(alpha=0.3)
    bare(axis)


def _draw_losses(axis, steps, series, title):
    _draw_curves(axis, steps, series, title, "loss")
    values = np.array([value for v in series.values() for value in np.ravel(v)])
    values = values[np.isfinite(values)]
    if len(values) and 0 < values.min() < values.max() / 30:
        axis.set_yscale("log")
        axis.set_ylabel("loss (logarithmic)")


def _draw_chance(axis, chance):
    axis.axhline(
        chance, color=GREY, linewidth=1.2, dashes=(2, 2), label="chance"
    )


def _show_percent(axis):
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")


def dots(
    path: str | os.PathLike,
    rows: Mapping,
    *,
    reference: str,
    outside: Mapping,
    title: str = "",
) -> Path:
    """Draws figures of several runs: dots in rows, and a bar at their mean.

    Args:
        path: Where to write the picture.
        rows: Name of a row -> name of a measure -> `[S]` fractions, one for
            each run. All rows have the same measures.
        reference: Row whose means are drawn through all others.
        outside: Name of a row -> measures in which it differs from the
            reference by more than noise. The dots of these measures are full.
        title: Heading.

    Returns:
        `path`.

    Example:

    >>> import tempfile
    >>> import acnn_tf
    >>> path = acnn_tf.plots.dots(
    ...     tempfile.mkdtemp() + "/runs.png",
    ...     {"ACNN": {"R@1": [0.3, 0.32]}, "CTRL": {"R@1": [0.2, 0.22]}},
    ...     reference="ACNN",
    ...     outside={"CTRL": ["R@1"]},
    ... )
    >>> path.name
    'runs.png'
    """
    measures = list(next(iter(rows.values())))
    heading = textwrap.wrap(title, width=30 * len(measures))
    figure = new_figure(
        1.8 + 2.6 * len(measures), 1.1 + 0.3 * len(rows) + 0.24 * len(heading)
    )
    axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axis, measure in zip(axes, measures):
        for place, (name, figures) in enumerate(rows.items()):
            values = 100 * np.asarray(figures[measure])
            is_reference = name == reference
            full = is_reference or measure in outside.get(name, ())
            colour = ORANGE if is_reference else BLUE
            axis.plot(
                *(values, [place] * len(values), MARKERS[is_reference]),
                color=colour,
                markerfacecolor=colour if full else "white",
                markersize=6,
            )
            axis.vlines(values.mean(), place - 0.3, place + 0.3, colour, lw=2)
            if is_reference:
                axis.axvline(values.mean(), color=colour, dashes=(2, 2), lw=1)
        axis.set_title(f"{measure.replace(',', ', ')}, %", fontsize=11)
        axis.grid(alpha=0.3)
        bare(axis)
    axes[0].set_yticks(range(len(rows)), list(rows))
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    _write_heading(figure, heading)
    figure.supxlabel(
        "bars: means of the runs; squares: the reference; full: differs from "
        "it by more than noise",
        fontsize=9,
    )
    return save(figure, path)
