"""Pictures of several runs of several models, side by side."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from acnn_tf import plots


def dots(
    path, rows: Mapping, *, reference: str, outside: Mapping, title: str = ""
) -> Path:
    """Draws the figures of several runs a row: dots, and a bar at their mean.

    Args:
        path: Where to write the picture.
        rows: Name of a row -> name of a measure -> `[S]` fractions, one for
            each run. All rows have the same measures.
        reference: Row whose means are drawn through all others.
        outside: Name of a row -> measures in which it differs from the
            reference by more than noise. Their dots are full.
        title: Heading.

    Returns:
        `path`.
    """
    measures = list(next(iter(rows.values())))
    heading = textwrap.wrap(title, width=30 * len(measures))
    figure = plots.new_figure(
        1.8 + 2.6 * len(measures), 1.1 + 0.3 * len(rows) + 0.24 * len(heading)
    )
    axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axis, measure in zip(axes, measures):
        for place, (name, figures) in enumerate(rows.items()):
            values = 100 * np.asarray(figures[measure])
            is_reference = name == reference
            full = is_reference or measure in outside.get(name, ())
            colour = plots.ORANGE if is_reference else plots.BLUE
            axis.plot(
                *(values, [place] * len(values)),
                *(plots.MARKERS[is_reference],),
                color=colour,
                markerfacecolor=colour if full else "white",
                markersize=6,
            )
            axis.vlines(values.mean(), place - 0.3, place + 0.3, colour, lw=2)
            if is_reference:
                axis.axvline(values.mean(), color=colour, dashes=(2, 2), lw=1)
        axis.set_title(f"{measure.replace(',', ', ')}, %", fontsize=11)
        axis.grid(alpha=0.3)
        plots.bare(axis)
    axes[0].set_yticks(range(len(rows)), list(rows))
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    figure.suptitle(
        "\n".join(heading), x=0.01, ha="left", fontsize=12, parse_math=False
    )
    figure.supxlabel(
        "bars: means of the runs; squares: the reference; full: differs from "
        "it by more than noise",
        fontsize=9,
    )
    return plots.save(figure, path)
