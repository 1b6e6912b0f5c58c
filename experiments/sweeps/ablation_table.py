"""What a grid of runs found: a row of figures each, and its difference."""

import dataclasses
import os
import shlex
import sys

import numpy as np

from acnn_tf import plots
from acnn_tf.files.atomic import replacing, write_text
from experiments.sweeps import runs, significance, tables

MEASURES = (
    "R@1,IoU=0.3",
    "R@1,IoU=0.5",
    "R@1,IoU=0.7",
    "R@5,IoU=0.5",
    "R@5,IoU=0.7",
    "mIoU",
)
# Those that a first result decides, whatever is suppressed.
FIRST = ("R@1,IoU=0.3", "R@1,IoU=0.5", "R@1,IoU=0.7", "mIoU")
# Those that tables and pictures have room for.
SHOWN = ("R@1,IoU=0.5", "R@1,IoU=0.7", "mIoU")


@dataclasses.dataclass
class Outcome:
    """What became of one run."""

    run: runs.Run
    seed: int
    error: str = ""  # what it failed by
    results: dict | None = None  # of `experiments.evaluate --json`
    queries: tuple | None = None  # of `per_query_csv.read_per_query`
    minutes: tuple[float, float] | None = None  # to the best epoch, in all


class Summary:
    """One row of a grid: the outcomes of its seeds, and its differences.

    Those are to the `Summary` of the reference, by a bootstrap of queries, or,
    where `groups` is true, of videos.
    """

    def __init__(self, row, outcomes, reference=None, groups=False):
        self.row = row
        self.outcomes = outcomes
        self.done = [outcome for outcome in outcomes if outcome.results]
        self.failed = [outcome for outcome in outcomes if outcome.error]
        self.differences = {}
        if reference and reference.done and self.done:
            self.differences = {
                measure: self._difference(reference, measure, groups)
                for measure in MEASURES
            }

    def values(self, measure, table="model"):
        """Figures of the runs that are done, `[S]`."""
        results = [outcome.results for outcome in self.done]
        if table != "model":
            results = [result[table] for result in results if table in result]
        return np.array([result[measure] for result in results])

    def minutes(self):
        """Means over the runs: `(until the best epoch, in all)`."""
        return np.mean([outcome.minutes for outcome in self.done], axis=0)

    def _of_queries(self, measure):
        name = "iou" if measure == "mIoU" else measure
        return np.stack([o.queries[2][name] for o in self.done])  # [S, Q]

    def _difference(self, reference, measure, groups):
        query_ids, video_ids, _ = reference.done[0].queries
        for outcome in [*reference.done, *self.done]:
            if outcome.queries[0] != query_ids:
                raise ValueError(
                    f"{outcome.run.folder} was evaluated on other queries than "
                    f"{reference.done[0].run.folder}, or in another order: "
                    "rows can only be compared on one split of one dataset."
                )
        return significance.paired_bootstrap(
            self._of_queries(measure),
            reference._of_queries(measure),
            groups=video_ids if groups else None,
        )


def summarise(rows, outcomes, groups=False):
    """`Summary` of each row; `outcomes` are lists by the names of rows."""
    first, *others = rows
    reference = Summary(first, outcomes[first.name])
    return [
        reference,
        *(Summary(r, outcomes[r.name], reference, groups) for r in others),
    ]


def write(folder, summaries, heading, groups=False):
    """Writes table.md, table.csv, runs.csv and, with Matplotlib, table.png.

    The heading says what was compared, on what. Returns the paths.
    """
    names = ("table.md", "table.csv", "runs.csv")
    paths = [os.path.join(folder, name) for name in names]
    write_text(paths[0], markdown(summaries, heading, groups))
    tables.write_csv(paths[1], [_csv_row(s) for s in summaries])
    tables.write_csv(
        paths[2], [_csv_run(s, o) for s in summaries for o in s.outcomes]
    )
    done = [summary for summary in summaries if summary.done]
    if done:
        picture = os.path.join(folder, "table.png")
        try:
            _draw(picture, done, summaries[0].row.name, heading)
            paths.append(picture)
        except ImportError as error:  # no Matplotlib: the figures are there
            print(error, file=sys.stderr)
    return paths


def _draw(path, summaries, reference, heading):
    outside = {
        s.row.name: [m for m, d in s.differences.items() if d.outside_noise]
        for s in summaries
    }
    with replacing(path) as partial:
        plots.dots(
            partial,
            {s.row.name: {m: s.values(m) for m in SHOWN} for s in summaries},
            reference=reference,
            outside=outside,
            title=heading,
        )


def markdown(summaries, heading, groups=False):
    """The tables as text, see `write`."""
    parts = [
        heading,
        "Mean over seeds ± their standard deviation; minutes until the best "
        "epoch, and in all; parameters that are trained.",
        tables.markdown(
            [*_titles(MEASURES), "parameters", "minutes"],
            map(_figures, summaries),
        ),
    ]
    compared = [summary for summary in summaries if summary.differences]
    if compared:
        rows = [
            [s.row.name, *(_points(s.differences[m]) for m in MEASURES)]
            for s in compared
        ]
        parts += [
            f"Differences to *{summaries[0].row.name}* in points, with the "
            "95 % interval of a paired bootstrap over "
            f"{'videos' if groups else 'queries'}. **Bold**: outside the "
            "noise, the interval leaves zero out.",
            tables.markdown(_titles(MEASURES), rows),
        ]
    shuffled = [s for s in summaries if len(s.values("mIoU", "shuffled"))]
    if shuffled:
        rows = [
            [s.row.name, *(_spread(s.values(m, "shuffled")) for m in FIRST)]
            for s in shuffled
        ]
        chance = [f"{shuffled[0].values(m, 'chance')[0]:.3f}" for m in FIRST]
        rows.append(["chance (windows of the first row)", *chance])
        parts += [
            "With shuffled sentences, and of windows at random:",
            tables.markdown(_titles(FIRST), rows),
        ]
    failed = [
        f"- {outcome.run.name}: {outcome.error}"
        for summary in summaries
        for outcome in summary.failed
    ]
    if failed:
        parts += ["Failed, and left out:", "\n".join(failed)]
    used = (
        f"- {s.row.name}: `{shlex.join(s.row.flags) or '(none)'}`"
        for s in summaries
    )
    parts += [
        "The flags of each row; table.csv has whole commands.",
        "\n".join(used),
    ]
    return "\n\n".join(parts) + "\n"


def _titles(measures):
    return ["", *(measure.replace(",", ", ") for measure in measures)]


def _figures(summary):
    if not summary.done:
        return [summary.row.name, "failed", *[""] * (len(MEASURES) + 1)]
    best, total = summary.minutes()
    name = summary.row.name
    if summary.failed:
        seeds = ", ".join(str(outcome.seed) for outcome in summary.failed)
        name += f" (failed: seed {seeds})"
    parameters = summary.done[0].results["num_parameters"]
    return [
        name,
        *(_spread(summary.values(measure)) for measure in MEASURES),
        f"{parameters:,}",
        f"{best:.1f}, {total:.1f}",
    ]


def _deviation(values):
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _spread(values):
    deviation = _deviation(values)
    mean = f"{np.mean(values):.3f}"
    return mean if deviation is None else f"{mean} ± {deviation:.3f}"


def _points(found):
    text = (
        f"{100 * found.difference:+.1f} "
        f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    )
    return f"**{text}**" if found.outside_noise else text


def _csv_row(summary):
    row = {
        "name": summary.row.name,
        "seeds": " ".join(str(o.seed) for o in summary.done),
        "failed": " ".join(str(o.seed) for o in summary.failed),
        "flags": shlex.join(summary.row.flags),
        # Of the first seed; runs.csv has all of them.
        "command": summary.outcomes[0].run.command,
    }
    if not summary.done:
        return row
    row["parameters"] = summary.done[0].results["num_parameters"]
    row["minutes to best"], row["minutes"] = summary.minutes()
    for prefix, table in (("", "model"), ("shuffled ", "shuffled")):
        for measure in MEASURES:
            values = summary.values(measure, table)
            if len(values):
                row[prefix + measure] = float(np.mean(values))
                row[f"{prefix}{measure} deviation"] = _deviation(values)
    for measure, found in summary.differences.items():
        for name, value in found._asdict().items():
            row[f"{measure} {name}"] = value
        row[f"{measure} outside noise"] = int(found.outside_noise)
    return row


def _csv_run(summary, outcome):
    results, minutes = outcome.results or {}, outcome.minutes or (None, None)
    return {
        "name": summary.row.name,
        "seed": outcome.seed,
        "error": outcome.error,
        **{measure: results.get(measure) for measure in MEASURES},
        "parameters": results.get("num_parameters"),
        "minutes to best": minutes[0],
        "minutes": minutes[1],
        "command": outcome.run.command,
    }
