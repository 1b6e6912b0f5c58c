r"""Measures what the project is quick at, against the plain ways.

  python -m experiments.benchmark --out=runs/benchmark
  python -m experiments.benchmark --parts=cross,step --json

Each row holds ours against another way to the same numbers: `ratio` is how
many times as long the other takes, `memory_ratio` how many times the memory,
and `max_relative_error` how far ours is from the other. `gemm_share` is ours
as a share of the rate of matrix products, measured next to it. Seconds are
medians of rounds in turn within one process; memory is the peak over what was
there before, as the operating system counts it. Leave the machine alone for
the minutes that it takes: `busy` is the share of it that others took.
"""

import datetime
import importlib
import json
import os
import platform
import subprocess
import sys
from importlib import metadata

from absl import flags

from experiments.benchmarks import report
from export import command

FLAGS = flags.FLAGS

# The input part comes last: with its generators TensorFlow makes memory dearer
# for the rest of the process.
PARTS = ["cross", "context", "encode", "search", "step", "serve", "input"]

flags.DEFINE_list("parts", PARTS, "Parts of the code to measure.")
flags.register_validator(
    "parts", lambda names: set(names) <= set(PARTS), f"are among {PARTS}."
)
flags.DEFINE_integer("rounds", 5, "Number of timed rounds.", lower_bound=1)
flags.DEFINE_bool(
    "smoke", False, "Measure with tiny sizes, to see that it runs."
)
flags.DEFINE_bool("json", False, "Print a JSON list of rows, and nothing else.")
flags.DEFINE_string(
    "out", None, "Folder to write benchmark.json and benchmark.png to."
)


def machine():
    """What measured, and with what."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            entries = (line.partition(":") for line in lines)
            models = [v.strip() for k, _, v in entries if "model name" in k]
        processor = (models or [processor])[0]
        load = round(os.getloadavg()[0], 2)
    except OSError:
        load = None
    versions = {}
    for name in ("tensorflow", "keras", "torch", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=os.path.dirname(os.path.abspath(__file__)),
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    except OSError:  # no git
        commit = ""
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "load_before": load,
        **versions,
        "commit": commit or None,
        "date": datetime.date.today().isoformat(),
    }


def run():
    # Not at the top: `--help` need not wait for TensorFlow.
    from experiments.benchmarks import measure

    if FLAGS.smoke:
        measure.PAUSE = measure.TURN_SECONDS = 0.0
    about = machine()
    rows = []
    for name in FLAGS.parts:
        part = importlib.import_module(f"experiments.benchmarks.{name}")
        rows += part.rows(smoke=FLAGS.smoke, rounds=FLAGS.rounds)
    if FLAGS.json:
        print(json.dumps(rows))
    else:
        print(", ".join(f"{k} {v}" for k, v in about.items() if v is not None))
        print(*report.table(rows), sep="\n")
    if FLAGS.out:
        os.makedirs(FLAGS.out, exist_ok=True)
        path = os.path.join(FLAGS.out, "benchmark")
        with open(f"{path}.json", "w", encoding="utf-8") as file:
            json.dump({"machine": about, "rows": rows}, file, indent=1)
        try:
            report.draw(f"{path}.png", rows)
        except ImportError as error:  # no Matplotlib: the figures are there
            print(error, file=sys.stderr)


if __name__ == "__main__":
    command.run(run)
