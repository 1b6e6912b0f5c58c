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

from acnn_tf.files.atomic import replacing
from experiments import train
from experiments.sweeps import runs, spaces, tables, training_flags
from export import command

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


def write_best(path, training, trial, monitor, num_trials):
    """Writes the flags of the best trial.

    Args:
        path: File to write.
        training: `experiments.sweeps.runs.Run` of that trial.
        trial: Its row of trials.csv.
        monitor: String, name of the score.
        num_trials: Int, trials so far.
    """
    lines = [
        f"# python -m {train.__name__} --flagfile={path} --workdir=...",
        f"# {monitor} {trial[monitor]:.4f}, the best of {num_trials} trials, "
        f"number {trial['trial']}.",
        *training.flags,
    ]
    with replacing(path) as partial, open(partial, "w") as file:
        file.write("\n".join([*lines, ""]))


def run():
    try:
        tuner = spaces.import_tuner(FLAGS.algorithm)
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    space = spaces.load_space(FLAGS.space)
    spaces.check_space(tuner, FLAGS.space, space, training_flags.check_flags)
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
        failure = None
        trial = {"trial": number, FLAGS.monitor: None, "error": ""}
        try:
            training.train(processes)
            trial[FLAGS.monitor] = max(
                float(row[FLAGS.monitor]) for row in training.history()
            )
        except runs.RunError as error:
            failure = trial["error"] = error
        trials.append(
            trial | dict(word[2:].partition("=")[::2] for word in words)
        )
        tables.write_csv(os.path.join(FLAGS.workdir, "trials.csv"), trials)
        found = trial[FLAGS.monitor]
        if not failure and (not best or found > best[1][FLAGS.monitor]):
            best = training, trial
        if best:
            write_best(best_path, *best, FLAGS.monitor, number)
        print(
            f"[{number}/{FLAGS.trials}] {' '.join(words)}: "
            + (f"FAILED: {failure}" if failure else f"{found:.4f}")
            + (f"; best so far: trial {best[1]['trial']}" if best else ""),
            flush=True,
        )
        if failure:
            raise failure
        return found

    with runs.Processes() as processes:
        spaces.search(
            tuner, FLAGS.algorithm, space, score, FLAGS.trials, FLAGS.seed
        )
    if best:
        with open(best_path) as file:
            print(f"\n{best_path}:\n{file.read()}", end="")
    failed = sum(bool(trial["error"]) for trial in trials)
    if failed:
        print(f"{failed} of {len(trials)} trials failed.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    command.run(run)
