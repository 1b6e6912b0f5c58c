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
import os
import sys
import time

from absl import flags

from experiments import train
from experiments.sweeps import ablation_table, grid, row_runs, runs
from export import command

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(train)

flags.DEFINE_string("grid", None, "File of settings, a row a line.")
flags.DEFINE_list("seeds", "0,1,2", "Each row is trained once with each.")
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


def show(running, done, total):
    """One line on a terminal: what is being trained, and how far it is."""
    words = "; ".join(f"{run.name}{row_runs.progress(run)}" for run in running)
    print(f"\r\x1b[2K[{done}/{total}] {words}"[:200], end="", flush=True)


def run():
    base = row_runs.given_flags()
    seeds = row_runs.parse_seeds(FLAGS.seeds)
    rows = grid.read_grid(FLAGS.grid, row_runs.check_flags)
    todo = [
        (row, seed, row_runs.make_run(row, seed, base))
        for seed in seeds
        for row in rows
    ]
    for _, _, each in todo:
        each.read()  # refuses folders of other flags, before any hours
    os.makedirs(FLAGS.workdir, exist_ok=True)
    outcomes = collections.defaultdict(list)
    heading = (
        f"{os.path.basename(FLAGS.grid)}: {len(rows)} rows, seeds "
        f"{', '.join(map(str, seeds))}, judged on {FLAGS.split}"
    )
    groups = FLAGS.resample == "videos"
    started, tty, failed = time.monotonic(), sys.stdout.isatty(), 0
    with (
        concurrent.futures.ThreadPoolExecutor(FLAGS.jobs) as pool,
        runs.Processes(row_runs.num_threads()) as processes,
    ):
        pending = {
            pool.submit(row_runs.finish, each, seed, processes): (row, each)
            for row, seed, each in todo
        }
        try:
            while pending:
                ended, _ = concurrent.futures.wait(
                    pending,
                    timeout=2,
                    return_when=concurrent.futures.FIRST_COMPLETED,
                )
                for future in sorted(ended, key=list(pending).index):
                    row, each = pending.pop(future)
                    outcome = future.result()
                    outcomes[row.name].append(outcome)
                    failed += bool(outcome.error)
                    done = len(todo) - len(pending)
                    print(
                        f"{chr(13) + chr(27) + '[2K' if tty else ''}"
                        f"[{done}/{len(todo)}] {each.name}: "
                        f"{row_runs.describe(outcome)}, "
                        f"{(time.monotonic() - started) / 60:.1f} min so far",
                        flush=True,
                    )
                if ended:
                    seen = [row for row in rows if row.name in outcomes]
                    if rows[0] in seen:
                        paths = ablation_table.write(
                            FLAGS.workdir,
                            ablation_table.summarise(seen, outcomes, groups),
                            heading,
                            groups,
                        )
                if tty and pending:
                    running = [
                        e for f, (_, e) in pending.items() if f.running()
                    ]
                    show(running, len(todo) - len(pending), len(todo))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    print("\n".join(paths))
    if failed:
        print(f"{failed} of {len(todo)} runs failed.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.mark_flag_as_required("grid")
    command.run(run)
