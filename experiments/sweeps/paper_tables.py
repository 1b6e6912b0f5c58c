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

import csv
import json
import os
import subprocess
import sys

from absl import flags

from acnn_tf.files.atomic import replacing
from experiments import splits, training_curves
from experiments.sweeps.published import IOUS, NOTE, NS, PUBLISHED, markdown
from export import command

FLAGS = flags.FLAGS

flags.adopt_module_key_flags(splits)

flags.DEFINE_list("runs", None, "Of experiments.train: NAME:FOLDER or FOLDER.")
flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Of the dataset.")
flags.DEFINE_list("window_lengths", None, "Others than those of training.")
flags.DEFINE_string("out", None, "Folder for tables and pictures.")


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
    """The words of the command that evaluates a run: list."""
    words = [
        *(sys.executable, "-m", "experiments.evaluate"),
        *(f"--workdir={folder}", f"--split={split}", "--json"),
        "--suppression=per_threshold",
    ]
    if window_lengths:
        words.append(f"--window_lengths={','.join(window_lengths)}")
    return [*words, *data]


def evaluate(folder):
    """What `experiments.evaluate` says of a run: dictionary."""
    words = evaluation_of(
        folder,
        FLAGS.split,
        FLAGS.window_lengths,
        command.flag_words(splits, True),
    )
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(
            f"{folder} could not be evaluated; the command {' '.join(words)} "
            f"said: {done.stderr.strip()[-500:]}"
        )
    return json.loads(done.stdout)


def recalls(results):
    """`{n: (R@n at each of IOUS)}` of what `evaluate` returned."""
    return {n: tuple(results[f"R@{n},IoU={m}"] for m in IOUS) for n in NS}


def write(folder, text, tables):
    """Writes tables.md and tables.csv."""
    os.makedirs(folder, exist_ok=True)
    with (
        replacing(os.path.join(folder, "tables.md")) as partial,
        open(partial, "w", encoding="utf-8") as file,
    ):
        file.write(text)
    with (
        replacing(os.path.join(folder, "tables.csv")) as partial,
        open(partial, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["table", "n", *(f"IoU={m}" for m in IOUS)])
        for title, figures in tables.items():
            for n, row in figures.items():
                writer.writerow([title, n, *row])


def run():
    names = named_folders(FLAGS.runs)
    histories = {
        name: training_curves.read_history(path) for name, path in names.items()
    }
    tables = {}
    for name, folder in names.items():
        results = evaluate(folder)
        title = (
            f"{name}: {results['num_queries']} queries of {FLAGS.split}, "
            f"{results['protocol']}"
        )
        tables[title] = recalls(results)
    text = "\n".join(
        [
            *(markdown(title, one) for title, one in tables.items()),
            *(
                markdown(f"Published: {title}. {NOTE}", one)
                for title, one in PUBLISHED.items()
            ),
        ]
    )
    print(text)
    if FLAGS.out:
        write(FLAGS.out, text, tables | PUBLISHED)
        try:
            training_curves.draw(
                os.path.join(FLAGS.out, "figure_5.png"), histories
            )
        except ImportError as error:  # no Matplotlib: the tables are there
            print(error, file=sys.stderr)


if __name__ == "__main__":
    flags.mark_flag_as_required("runs")
    command.run(run)
