r"""Searches for good settings with KerasTuner: kernels, widths, rates and more.

  pip install --editable ".[tune]"
  python -m experiments.sweeps.tune --space=experiments/grids/tuning.py \
      --flagfile=experiments/flags/charades_clip.flags \
      --data_dir=data/charades_sta_clip --workdir=runs/tuning \
      --trials=30 --epochs=8

Takes the flags of experiments.train, for all trials, and a Python file with a
function `space(hp)`, which returns the flags to tune; `hp` is KerasTuner's
`HyperParameters`. Each trial is a training; the best epoch by --monitor is its
score. Writes trials.csv and best.flags, a flagfile with all flags of the best
trial, to --workdir. Started again it goes on: the same seed draws the same
settings, and trials that are done are read, not run. What was chosen by a
validation split looks better on it than on others: judge it on a test split, or
with other seeds.
"""

import os
import sys

from absl import flags

from acnn_tf.files.atomic import write_text
from acnn_tf.files.locks import locked
from experiments import train
from experiments.sweeps import runs, spaces, tables, training_flags
from export import command, flag_help

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(train)

flags.DEFINE_string(
    "space",
    "experiments/grids/tuning.py",
    "Python file with a function `space(hp)`.",
)
flags.DEFINE_integer("trials", 20, "Trainings in all.", lower_bound=1)
flags.DEFINE_enum(
    "algorithm",
    "random",
    ["random", "bayesian"],
    "How settings are drawn: at random, or, after some, where a Gaussian "
    "process of the scores so far hopes for most.",
)
flag_help.subject("Tuning", "space", "trials", "algorithm")


def write_best(path, training, trial, num_trials):
    """Writes the flags of the best trial: its run, and its row of the table."""
    lines = [
        f"# python -m {train.__name__} --flagfile={path} --workdir=...",
        f"# {FLAGS.monitor} {trial[FLAGS.monitor]:.4f}, the best of "
        f"{num_trials} trials, number {trial['trial']}.",
        *training.flags,
    ]
    write_text(path, "\n".join([*lines, ""]))


def run():
    try:
        tuner = spaces.import_tuner(FLAGS.algorithm)
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    space = spaces.load_space(FLAGS.space)
    spaces.check_space(tuner, FLAGS.space, space, training_flags.check_flags)
    with locked(FLAGS.workdir), runs.Processes() as processes:
        failed, total = search(tuner, space, processes)
    if failed:
        print(f"{failed} of {total} trials failed.", file=sys.stderr)
        sys.exit(1)


def search(tuner, space, processes):
    """Runs the trials, writes the best; returns how many failed, and all."""
    base = training_flags.given_flags()
    best_path = os.path.join(FLAGS.workdir, "best.flags")
    trials, best = [], None

    def score(settings):
        nonlocal best
        number = len(trials) + 1
        words = spaces.as_words(settings)
        training = runs.Run(
            f"trial {number}",
            os.path.join(FLAGS.workdir, "trials", f"{number:04d}"),
            (*base, *words, f"--seed={FLAGS.seed}"),
        )
        found, failure = None, None
        try:
            training.train(processes)
            found = max(float(r[FLAGS.monitor]) for r in training.history())
        except runs.RunError as error:
            failure = error
        trial = {
            "trial": number,
            FLAGS.monitor: found,
            "error": failure or "",
            **dict(word[2:].partition("=")[::2] for word in words),
        }
        trials.append(trial)
        tables.write_csv(os.path.join(FLAGS.workdir, "trials.csv"), trials)
        if not failure and (not best or found > best[1][FLAGS.monitor]):
            best = training, trial
        if best:
            write_best(best_path, *best, number)
        print(
            f"[{number}/{FLAGS.trials}] {' '.join(words)}: "
            + (f"FAILED: {failure}" if failure else f"{found:.4f}")
            + (f"; best so far: trial {best[1]['trial']}" if best else ""),
            flush=True,
        )
        if failure:
            raise failure
        return found

    spaces.search(
        tuner, FLAGS.algorithm, space, score, FLAGS.trials, FLAGS.seed
    )
    if best:
        with open(best_path, encoding="utf-8") as file:
            print(f"\n{best_path}:\n{file.read()}", end="")
    return sum(bool(trial["error"]) for trial in trials), len(trials)


if __name__ == "__main__":
    command.run(run)
