r"""Measures what the project is quick at, against the plain ways.

  python -m experiments.benchmark --out=runs/benchmark
  python -m experiments.benchmark --parts=cross,step --json

Each row holds ours against another way to the same numbers: `ratio` is how
many times as long the other takes, `memory_ratio` how many times the memory,
and `max_relative_error` how far ours is from the other. `gemm_share` is ours
as a share of the rate of matrix products, measured next to it. Seconds are
medians of rounds in turn within one process; memory is the peak over what was
there before, as the operating system counts it. Leave the machine alone for
the minutes that it takes.
"""

import datetime
import importlib
import json
import os
import platform
import subprocess
from importlib import metadata

from absl import flags

from acnn_tf.files.atomic import write_text
from export import command

FLAGS = flags.FLAGS

# The input part comes last: with its generators TensorFlow makes memory dearer
# for the rest of the process.
# Each is a module with a function `rows(smoke, rounds)`: whether to take tiny
# sizes, and the number of timed rounds.
PARTS = "cross context encode video search step serve input".split()

flags.DEFINE_list("parts", PARTS, "Parts of the code to measure.")
flags.register_validator(
    "parts", lambda names: set(names) <= set(PARTS), f"are among {PARTS}."
)
flags.DEFINE_integer("rounds", 5, "Number of timed rounds.", lower_bound=1)
flags.DEFINE_bool(
    "smoke", False, "Measure with tiny sizes, to see that it runs."
)
flags.DEFINE_list(
    "videos", None, "Files of the part video, in place of a rendered one."
)
flags.DEFINE_bool("json", False, "Print a JSON list of rows, and nothing else.")
flags.DEFINE_string("out", None, "Folder to write benchmark.json to.")


# Heading, entry of a row, factor, and how to print it.
COLUMNS = [
    ("ratio", "ratio", 1, "{:.1f}x"),
    ("memory", "memory_ratio", 1, "{:.1f}x"),
    ("error", "max_relative_error", 1, "{:.0e}"),
    ("of GEMM", "gemm_share", 1, "{:.0%}"),
    ("ms", "seconds", 1000, "{:,.2f}"),
    ("other ms", "other_seconds", 1000, "{:,.2f}"),
    ("MB", "memory_mb", 1, "{:,.1f}"),
    ("other MB", "other_memory_mb", 1, "{:,.1f}"),
    # Seconds of video that go through in a second.
    ("x time", "real_time", 1, "{:.0f}"),
    ("other", "other_real_time", 1, "{:.0f}"),
    # Of a load on the server.
    ("p95 ms", "p95", 1000, "{:,.0f}"),
    ("p99 ms", "p99", 1000, "{:,.0f}"),
    ("sent/s", "sent_per_second", 1, "{:.1f}"),
    ("answered/s", "answered_per_second", 1, "{:.1f}"),
]


def table(rows):
    """Rows as aligned lines, with `-` where something does not apply."""
    cells = [["part", "case", "against", *(column[0] for column in COLUMNS)]]
    for row in rows:
        cells.append([row["part"], row["case"], row["against"]])
        for _, key, factor, form in COLUMNS:
            value = row.get(key)
            text = "-" if value is None else form.format(factor * value)
            cells[-1].append(text)
    widths = [max(map(len, column)) for column in zip(*cells)]
    for line in cells:
        padded = [cell.ljust(width) for cell, width in zip(line[:3], widths)]
        padded += [c.rjust(width) for c, width in zip(line[3:], widths[3:])]
        yield "  ".join(padded)


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
        measure.PRODUCT_SIZE = 64
    about = machine()
    rows = []
    for name in FLAGS.parts:
        part = importlib.import_module(f"experiments.benchmarks.{name}")
        more = {"videos": FLAGS.videos} if name == "video" else {}
        rows += part.rows(smoke=FLAGS.smoke, rounds=FLAGS.rounds, **more)
    if FLAGS.json:
        print(json.dumps(rows))
    else:
        print(", ".join(f"{k} {v}" for k, v in about.items() if v is not None))
        print(*table(rows), sep="\n")
    if FLAGS.out:
        os.makedirs(FLAGS.out, exist_ok=True)
        path = os.path.join(FLAGS.out, "benchmark.json")
        write_text(path, json.dumps({"machine": about, "rows": rows}, indent=1))


if __name__ == "__main__":
    command.run(run)
