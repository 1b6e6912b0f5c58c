r"""Searches for good settings with KerasTuner: kernels, widths, rates and more.

  pip install --editable ".[tune]"
  python -m experiments.sweeps.tune --space=experiments/grids/tuning.space \
      --flagfile=experiments/flags/charades_clip.flags \
      --data_dir=data/charades_sta_clip --workdir=runs/tuning \
      --trials=30 --epochs=8

Takes the flags of experiments.train, for all trials, and a file of flags to
tune, each with its values (experiments/sweeps/space.py has the format). Each
trial is a training; the best epoch by --monitor is its score. Writes
trials.csv and best.flags, a flagfile with all flags of the best trial, to
--workdir. Started again it goes on: the same seed draws the same settings, and
trials that are done are read, not run. What was chosen by a validation split
looks better on it than on others: judge it on a test split, or with other
seeds.
"""

import csv
import os
import sys

from absl import flags

from acnn_tf.files.atomic import replacing
from experiments import train
from experiments.sweeps import row_runs, runs, space, trials
from export import command

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(train)

flags.DEFINE_string(
    "space", "experiments/grids/tuning.space", "File of flags and their values."
)
flags.DEFINE_integer("trials", 20, "Trainings in all.", lower_bound=1)
flags.DEFINE_enum(
    "algorithm",
    "random",
    ["random", "bayesian"],
    "How settings are drawn: at random, or, after some, where a Gaussian "
    "process of the scores so far hopes for most.",
)


def best_path():
    return os.path.join(FLAGS.workdir, "best.flags")


def write(done, base):
    """Writes all trials so far, and the flags of the best."""
    path = os.path.join(FLAGS.workdir, "trials.csv")
    with replacing(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, list(done[0]))
        writer.writeheader()
        writer.writerows(done)
    scored = [trial for trial in done if not trial["error"]]
    if not scored:
        return None
    best = max(scored, key=lambda trial: trial[FLAGS.monitor])
    own = [f"--{n}={v}" for n, v in list(best.items())[3:]]
    with replacing(best_path()) as partial, open(partial, "w") as file:
        file.write(
            f"# python -m {train.__name__} "
            f"--flagfile={best_path()} --workdir=...\n"
            f"# {FLAGS.monitor} {best[FLAGS.monitor]:.4f}, the best of "
            f"{len(done)} trials, number {best['trial']}.\n"
        )
        file.write("\n".join([*base, *own, f"--seed={FLAGS.seed}", ""]))
    return best


def run():
    try:
        tuner = trials.import_tuner(FLAGS.algorithm)
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    base = row_runs.given_flags()
    values = space.read_space(FLAGS.space, row_runs.check_flags)
    done = []

    def score(settings):
        number = len(done) + 1
        words = [f"--{name}={value}" for name, value in settings.items()]
        each = runs.Run(
            f"trial {number}",
            os.path.join(FLAGS.workdir, "trials", f"{number:04d}"),
            (*base, *words, f"--seed={FLAGS.seed}"),
        )
        found, failure = None, None
        try:
            each.train(processes)
            found = row_runs.best_score(each)
        except runs.RunError as error:
            failure = error
        trial = {"trial": number, FLAGS.monitor: found, "error": failure or ""}
        done.append(trial | settings)
        best = write(done, base)
        print(
            f"[{number}/{FLAGS.trials}] {' '.join(words)}: "
            + (f"FAILED: {failure}" if failure else f"{found:.4f}")
            + (f"; best so far: trial {best['trial']}" if best else ""),
            flush=True,
        )
        if failure:
            raise failure
        return found

    with runs.Processes() as processes:
        trials.search(
            tuner, FLAGS.algorithm, values, score, FLAGS.trials, FLAGS.seed
        )
    failed = sum(bool(trial["error"]) for trial in done)
    if failed < len(done):
        with open(best_path()) as file:
            print(f"\n{best_path()}:\n{file.read()}", end="")
    if failed:
        print(f"{failed} of {len(done)} trials failed.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    command.run(run)
