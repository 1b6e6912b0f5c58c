r"""Prints runs in the form of the paper's tables and of its Figure 5.

  python -m experiments.sweeps.paper_tables \
      --runs=ACRN:runs/acrn,ACNN:runs/acnn --split=test --out=runs/tables

Of each run: R@{10,5,1} at IoU 0.1 to 0.5 with the suppression of the paper
(for IoU=m, NMS at m - 0.05), as in its Tables 1 and 2, and R@1, IoU=0.5 over
training steps, as in its Figure 5; with the training queries too where the run
had --train_queries. A run without a name has that of its folder; its dataset is
that of its training unless you name another. The published figures stand below,
with their data. Figures of other data, splits, features or protocols do not
compare with them. Writes tables.md, tables.csv and figure_5.png, a panel for
each run, to --out.
"""

import json
import os
import shlex
import subprocess
import sys

from absl import flags

from acnn_tf.files.atomic import write_text
from experiments import splits, training_curves
from experiments.sweeps import tables
from export import command

FLAGS = flags.FLAGS

flags.adopt_module_key_flags(splits)

flags.DEFINE_list("runs", None, "Of experiments.train: NAME:FOLDER or FOLDER.")
flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Of the dataset.")
flags.DEFINE_list("window_lengths", None, "Others than those of training.")
flags.DEFINE_string("out", None, "Folder for tables and pictures.")

NS = (10, 5, 1)
IOUS = (0.1, 0.2, 0.3, 0.4, 0.5)
_DATA = "TACoS test, C3D features"
_THEIRS = f"{_DATA}, NMS at m - 0.05"
_FIRST = f"{_DATA}, first result, which no suppression changes"
NOTE = (
    "Figures of other data, splits, features or protocols do not compare "
    "with these."
)
# Of the paper's two, the last columns are displaced in its text: read by eye.
PUBLISHED = {
    f"Table 1, ACRN as the paper ran it ({_THEIRS})": {
        10: (0.712, 0.618, 0.533, 0.489, 0.328),
        5: (0.588, 0.504, 0.435, 0.340, 0.274),
        1: (0.211, 0.182, 0.146, 0.109, 0.077),
    },
    f"Table 2, ACNN ({_THEIRS})": {
        10: (0.719, 0.606, 0.519, 0.445, 0.347),
        5: (0.588, 0.504, 0.426, 0.373, 0.271),
        1: (0.287, 0.266, 0.202, 0.165, 0.131),
    },
    f"CTRL, Gao et al. 2017 ({_FIRST})": {
        1: (0.243, None, 0.183, None, 0.133),
    },
    f"ACRN, Liu et al. 2018 ({_FIRST})": {
        1: (0.242, None, 0.195, None, 0.146),
    },
    f"2D-TAN, Zhang et al. 2020 ({_FIRST})": {
        1: (0.476, None, 0.373, None, 0.253),
    },
}


def named_folders(runs):
    """`{name: folder}` of `--runs`, all of which are trained."""
    names = {}
    for run in runs:
        name, _, folder = run.partition(":")
        if not folder or os.path.isdir(run):
            name, folder = os.path.basename(os.path.normpath(run)), run
        if name in names:
            raise ValueError(
                f"--runs: {folder} and {names[name]} have one name, {name!r}; "
                "expected NAME:FOLDER with a name of its own for each."
            )
        for file in ("model.keras", "flags.txt"):
            path = os.path.join(folder, file)
            if not os.path.isfile(path):
                raise ValueError(
                    f"--runs: {run}: expected {path}, found no such file. "
                    f"Train it: experiments.train --workdir={folder}, or "
                    "leave it out."
                )
        names[name] = folder
    return names


def evaluation_of(folder, split, window_lengths=None, data=()):
    """The words, after `python`, of the command that evaluates a run.

    `data` are the flags of `experiments.evaluate` that name data.
    """
    words = [
        *("-m", "experiments.evaluate"),
        *(f"--workdir={folder}", f"--split={split}", "--json"),
        "--suppression=per_threshold",
    ]
    if window_lengths:
        words.append(f"--window_lengths={','.join(window_lengths)}")
    return [*words, *data]


def recalls(results):
    """`{n: (R@n at each of IOUS)}` of what `experiments.evaluate` prints."""
    return {n: tuple(results[f"R@{n},IoU={m}"] for m in IOUS) for n in NS}


def markdown(title, figures):
    """One table of the paper's form in Markdown: a row for each n."""
    rows = [
        [f"R@{n}"] + ["" if r is None else f"{r:.3f}".lstrip("0") for r in row]
        for n, row in figures.items()
    ]
    table = tables.markdown(["", *(f"IoU={m}" for m in IOUS)], rows)
    return f"**{title}**\n\n{table}\n"


def write(folder, text, figures):
    """Writes tables.md and tables.csv."""
    os.makedirs(folder, exist_ok=True)
    write_text(os.path.join(folder, "tables.md"), text)
    tables.write_csv(
        os.path.join(folder, "tables.csv"),
        [
            {"table": title, "n": n}
            | {f"IoU={m}": recall for m, recall in zip(IOUS, row, strict=True)}
            for title, table in figures.items()
            for n, row in table.items()
        ],
    )


def run():
    folders = named_folders(FLAGS.runs)
    histories = {
        name: training_curves.read_history(path)
        for name, path in folders.items()
    }
    figures = {}
    data = command.flag_words(splits, only_given=True)
    for name, folder in folders.items():
        words = evaluation_of(folder, FLAGS.split, FLAGS.window_lengths, data)
        done = subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ValueError(
                f"{folder} could not be evaluated; the command python "
                f"{shlex.join(words)} said: {done.stderr.strip()[-500:]}"
            )
        results = json.loads(done.stdout)
        title = (
            f"{name}: {results['num_queries']} queries of {FLAGS.split}, "
            f"{results['protocol']}"
        )
        figures[title] = recalls(results)
    text = "\n".join(
        [
            *(markdown(title, table) for title, table in figures.items()),
            *(
                markdown(f"Published: {title}. {NOTE}", table)
                for title, table in PUBLISHED.items()
            ),
        ]
    )
    print(text)
    if FLAGS.out:
        write(FLAGS.out, text, figures | PUBLISHED)
        try:
            training_curves.draw(
                os.path.join(FLAGS.out, "figure_5.png"), histories
            )
        except ImportError as error:  # no Matplotlib: the tables are there
            print(error, file=sys.stderr)


if __name__ == "__main__":
    flags.mark_flag_as_required("runs")
    command.run(run)
