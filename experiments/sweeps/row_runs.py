"""The runs of a grid: their flags, and what is done for each.

The mains that use it have the flags of `experiments.train` besides their own.
"""

import csv
import json
import os
import re

from absl import flags
from absl.testing import flagsaver

from acnn_tf.files.atomic import replacing
from experiments import model_flags, per_query_csv, train
from experiments.sweeps import ablation_table, runs
from export import command

FLAGS = flags.FLAGS

# What every run has of its own.
OWN = ("workdir", "seed")


def train_flags():
    """Names of the flags of `experiments.train`."""
    return {flag.name for flag in FLAGS.get_key_flags_for_module(train)}


def given_flags():
    """The flags for `experiments.train` on our own command line, as a list."""
    given = [
        FLAGS[name].serialize()
        for name in sorted(train_flags() - set(OWN))
        if FLAGS[name].present
    ]
    return [flag for flag in given if flag]


def check_flags(words):
    """Raises unless flags will do for `experiments.train`.

    They come after those on our own command line, and win.

    Args:
        words: The flags, as a list.

    Raises:
        ValueError: Says what was expected, what was found, and what to do.
    """
    known = train_flags()
    for word in words:
        name = re.match(r"--(\w+)", word)[1]
        plain = name if name in known else name.removeprefix("no")
        if plain in OWN:
            raise ValueError(
                f"expected flags that rows may differ in, found {word!r:.80}, "
                "which every run has of its own; leave it out"
            )
        if plain not in known and name != "flagfile":
            raise ValueError(
                "expected flags of experiments.train, found "
                f"{word!r:.80}; `python -m experiments.train --help` has a list"
            )
    with flagsaver.flagsaver():
        try:
            left = FLAGS(["", *words])[1:]
            settings = command.flag_values(model_flags)
            for name in ("members", "word_vectors"):
                settings.pop(name, None)
            model_flags.constructor_arguments(**settings)
        except (flags.Error, OSError, ValueError) as error:
            raise ValueError(
                "expected values that experiments.train takes, found "
                f"{' '.join(words)!r:.200}: {error}; correct the value"
            ) from None
    if left:
        raise ValueError(f"expected flags, found {left}; write --name=value")


def parse_seeds(texts):
    """The seeds of `--seeds`, as a list of ints."""
    if FLAGS["seed"].present:
        raise ValueError("Give --seeds, not --seed.")
    if not texts or not all(text.strip().isdecimal() for text in texts):
        raise ValueError(
            f"--seeds must be whole numbers from 0, such as 0,1,2: {texts}"
        )
    seeds = [int(text) for text in texts]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds must be distinct: {texts}")
    return seeds


def make_run(row, seed, base):
    """The run of a row with a seed, in `--workdir`.

    Args:
        row: `experiments.sweeps.grid.Row`.
        seed: Int.
        base: The flags of all rows.

    Returns:
        `experiments.sweeps.runs.Run`.
    """
    return runs.Run(
        f"{row.name}, seed {seed}",
        os.path.join(FLAGS.workdir, "runs", row.name, f"seed-{seed}"),
        (*base, *row.flags, f"--seed={seed}"),
    )


def num_threads():
    """Threads of each process: `--threads`, or the cores that it may have."""
    if FLAGS.threads or FLAGS.jobs == 1:
        return FLAGS.threads
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    return max(1, cores // FLAGS.jobs)


def finish(run, seed, processes):
    """Trains and evaluates, what of it is not done yet.

    Args:
        run: `experiments.sweeps.runs.Run`.
        seed: Int.
        processes: `experiments.sweeps.runs.Processes`.

    Returns:
        `experiments.sweeps.ablation_table.Outcome`.
    """
    outcome = ablation_table.Outcome(run, seed)
    try:
        run.train(processes)
        results = _evaluate(run, processes)
    except (runs.RunError, OSError, ValueError) as error:
        outcome.error = str(error)
        return outcome
    outcome.queries = per_query_csv.read_per_query(run.path(_queries_name()))
    outcome.results = results
    best = run.minutes(run.path("model.keras"))
    outcome.minutes = best, run.minutes()
    return outcome


def _queries_name():
    return f"queries_{FLAGS.split}.csv"


def _evaluate(run, processes):
    path = run.path(f"evaluation_{FLAGS.split}.json")
    results = _read_results(path)
    if results is None or (FLAGS.shuffled and "shuffled" not in results):
        words = [
            *("-m", "experiments.evaluate", f"--workdir={run.folder}"),
            *(f"--split={FLAGS.split}", "--suppression=fixed"),
            *("--nms_threshold=0.5", "--json", "--timelines=0"),
            f"--per_query_out={run.path(_queries_name())}",
        ]
        if FLAGS.shuffled:
            words.append("--shuffled")
        with (
            open(run.path("evaluate.log"), "ab") as log,
            replacing(path) as partial,
            open(partial, "wb") as stdout,
        ):
            processes.run(words, log, stdout)
        results = _read_results(path)
    return results


def _read_results(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def describe(outcome):
    """What became of a run, in a few words."""
    if outcome.error:
        return f"FAILED: {outcome.error}"
    results = outcome.results
    return (
        f"R@1,IoU=0.5 {results['R@1,IoU=0.5']:.3f}, mIoU "
        f"{results['mIoU']:.3f}, {outcome.minutes[1]:.1f} min of training"
    )


def read_history(run):
    """The rows of `history.csv`, one for each epoch so far."""
    try:
        with open(run.path("history.csv"), encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def best_score(run):
    """The best `--monitor` of the epochs of a run."""
    return max(float(row[FLAGS.monitor]) for row in read_history(run))


def progress(run):
    """How far a run is, in a few words; empty where it has just begun."""
    rows = read_history(run)
    if not rows:
        return ""
    found = rows[-1].get(FLAGS.monitor, "")
    return f", epoch {len(rows)}/{FLAGS.epochs}, {FLAGS.monitor} {found:.5}"
