r"""Compares settings: a grid of flags times seeds, each a training of its own.

  python -m experiments.sweeps.ablate --grid=experiments/grids/ablation.txt \
      --flagfile=experiments/flags/charades_clip.flags \
      --data_dir=data/charades_sta_clip --workdir=runs/ablation --seeds=0,1,2

Takes the flags of experiments.train, for all rows, and a grid: on each line a
name, a colon and the flags of that row; the first is the reference. Writes
table.md, table.csv, runs.csv and table.png to --workdir after every run: means
over the seeds, and each row's difference to the reference with the 95 %
interval of a paired bootstrap. Started again it does what is left; a training
that was stopped goes on. A run that fails keeps its log, is named in the table,
and the others go on; the exit code is then 1. All rows are trained with the
first seed, then with the next, so that there is something to see early.
"""

import collections
import concurrent.futures
import json
import os
import sys
import time

from absl import flags

from acnn_tf.files.atomic import replacing
from acnn_tf.files.locks import locked
from experiments import per_query_csv, splits, train
from experiments.sweeps import ablation_table, grid, runs, training_flags
from export import command, flag_help

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(train)

flags.DEFINE_string("grid", None, "File of settings, a row a line.")
flags.DEFINE_list("seeds", "0,1,2", "Each row is trained once with each.")
flags.register_validator(
    "seeds",
    lambda seeds: (
        seeds
        and all(seed.isdecimal() for seed in seeds)
        and len(set(map(int, seeds))) == len(seeds)
    ),
    "must be distinct whole numbers from 0, such as 0,1,2.",
)
flags.DEFINE_integer("jobs", 1, "Trainings at a time.", lower_bound=1)
flags.DEFINE_integer(
    "threads", None, "Of each training. Default: the cores, shared by --jobs."
)
flags.DEFINE_enum("split", "val", ["val", "test"], "What rows are judged on.")
flags.DEFINE_bool("shuffled", False, "Also with shuffled sentences: a control.")
flags.DEFINE_enum(
    "resample",
    "queries",
    ["queries", "videos"],
    "What the bootstrap draws: queries, or videos with all their queries.",
)
flag_help.subject(
    "Comparison",
    "grid",
    "seeds",
    "jobs",
    "threads",
    "split",
    "shuffled",
    "resample",
)


def num_threads(threads, jobs):
    """Threads of each process, `None` for as many as it likes."""
    if threads or jobs == 1:
        return threads
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    return max(1, cores // jobs)


def evaluate(training, processes, split, shuffled):
    """What `experiments.evaluate` finds, once: its JSON, and each query."""
    path = training.path(f"evaluation_{split}.json")
    queries = training.path(f"queries_{split}.csv")
    words = [
        *("-m", "experiments.evaluate", f"--workdir={training.folder}"),
        *(f"--split={split}", "--suppression=fixed", "--nms_threshold=0.5"),
        *("--json", "--timelines=0", f"--per_query_out={queries}"),
        *(["--shuffled"] if shuffled else []),
    ]
    results = _read_json(path)
    if not results or (shuffled and "shuffled" not in results):
        with (
            open(training.path("evaluate.log"), "ab") as log,
            replacing(path) as partial,
            open(partial, "wb") as stdout,
        ):
            processes.run(words, log, stdout)
        results = _read_json(path)
    return results, per_query_csv.read_per_query(queries)


def _read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def finish(training, seed, processes, split, shuffled):
    """Trains and evaluates, what of it is not done yet: an `Outcome`."""
    outcome = ablation_table.Outcome(training, seed)
    try:
        training.train(processes)
        found = evaluate(training, processes, split, shuffled)
        outcome.minutes = (
            training.minutes(training.path("model.keras")),
            training.minutes(),
        )
        outcome.results, outcome.queries = found
    except (runs.RunError, OSError, ValueError) as error:
        outcome.error = str(error)
    return outcome


def describe(outcome):
    """What became of a training, in a few words."""
    if outcome.error:
        return f"FAILED: {outcome.error}"
    results = outcome.results
    return (
        f"R@1,IoU=0.5 {results['R@1,IoU=0.5']:.3f}, mIoU "
        f"{results['mIoU']:.3f}, {outcome.minutes[1]:.1f} min of training"
    )


def progress(training, monitor, epochs):
    """What is trained, and how far it is, in a few words."""
    rows = training.history()
    if not rows:
        return training.name
    score = rows[-1].get(monitor, "")
    return f"{training.name}, epoch {len(rows)}/{epochs}, {monitor} {score:.5}"


def as_they_end(work, items, jobs, while_waiting):
    """Does `work` on each item in threads; yields `(item, result)`.

    Every two seconds `while_waiting` is called with the items worked on.
    """
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    pending = {pool.submit(work, item): item for item in items}
    try:
        while pending:
            ended, _ = concurrent.futures.wait(
                pending,
                timeout=2,
                return_when=concurrent.futures.FIRST_COMPLETED,
            )
            for future in sorted(ended, key=list(pending).index):
                yield pending.pop(future), future.result()
            while_waiting([i for one, i in pending.items() if one.running()])
    finally:  # does not wait: whoever owns the processes ends them
        pool.shutdown(wait=False, cancel_futures=True)


def plan(rows):
    """What is to be done: list of `(row, seed, run)`, the first seed first."""
    base = training_flags.given_flags()
    todo = []
    for seed in map(int, FLAGS.seeds):
        for row in rows:
            training = runs.Run(
                f"{row.name}, seed {seed}",
                os.path.join(FLAGS.workdir, "runs", row.name, f"seed-{seed}"),
                (*base, *row.flags, f"--seed={seed}"),
            )
            training.read()  # refuses folders of other flags, before any hours
            todo.append((row, seed, training))
    return todo


def run():
    if FLAGS["seed"].present:
        raise ValueError("Give --seeds, not --seed.")
    rows = grid.read_grid(FLAGS.grid, training_flags.check_flags)
    with locked(FLAGS.workdir):
        failed, total = compare(rows, plan(rows))
    if failed:
        print(f"{failed} of {total} runs failed.", file=sys.stderr)
        sys.exit(1)


def compare(rows, todo):
    """Trains, evaluates and writes the tables; returns the failed, and all."""
    data = command.flag_values(splits)
    where = splits.title(FLAGS.split, **data) if FLAGS.dataset else FLAGS.split
    heading = (
        f"{where}: {len(rows)} rows of {os.path.basename(FLAGS.grid)}, "
        f"seeds {', '.join(FLAGS.seeds)}"
    )
    by_videos = FLAGS.resample == "videos"
    outcomes = collections.defaultdict(list)
    paths, failed, started = [], 0, time.monotonic()
    clear = "\r\x1b[2K" if sys.stdout.isatty() else ""

    def show(running):
        words = [
            progress(training, FLAGS.monitor, FLAGS.epochs)
            for _, _, training in running
        ]
        if clear and words:
            line = f"[{done}/{len(todo)}] {'; '.join(words)}"
            print(clear + line[:100], end="", flush=True)

    with runs.Processes(num_threads(FLAGS.threads, FLAGS.jobs)) as processes:

        def work(item):
            _, seed, training = item
            return finish(
                training, seed, processes, FLAGS.split, FLAGS.shuffled
            )

        done = 0
        for item, outcome in as_they_end(work, todo, FLAGS.jobs, show):
            row, _, training = item
            outcomes[row.name].append(outcome)
            done += 1
            failed += bool(outcome.error)
            minutes = (time.monotonic() - started) / 60
            print(
                f"{clear}[{done}/{len(todo)}] {training.name}: "
                f"{describe(outcome)}, {minutes:.1f} min so far",
                flush=True,
            )
            seen = [row for row in rows if row.name in outcomes]
            if rows[0] in seen:
                paths = ablation_table.write(
                    FLAGS.workdir,
                    ablation_table.summarise(seen, outcomes, by_videos),
                    heading,
                    by_videos,
                )
    print("\n".join(paths))
    return failed, len(todo)


if __name__ == "__main__":
    flags.mark_flag_as_required("grid")
    command.run(run)
