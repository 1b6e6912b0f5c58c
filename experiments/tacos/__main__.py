r"""TACoS at the paper's full scale, from annotations to table, without video.

  python -m experiments.tacos --data_dir=data/tacos --workdir=runs/tacos

Makes semi-synthetic C3D features and Skip-thought vectors from the
annotations, trains on the paper's 26,963 pairs with its settings, and tests on
its 15,881 windows. Each step is a command of its own, printed before it runs;
--workdir holds what it leaves. Started again, finished steps are not done
again, and training goes on where it was stopped. Printed with each step are
its minutes (those since its last start) and its peak resident memory, which is
that of its own process.
"""

import json
import os
import shlex
import subprocess
import sys
import time

from absl import flags

from acnn_tf.files.atomic import write_text
from acnn_tf.files.locks import locked
from export import command

FLAGS = flags.FLAGS

flags.DEFINE_string("data_dir", None, "Annotations of TACoS.", required=True)
flags.DEFINE_string("workdir", "runs/tacos", "Folder to fill.")
flags.DEFINE_integer("seed", 0, "Of features and of training.", lower_bound=0)
flags.DEFINE_bool("smoke", False, "Train for one epoch of 64 queries.")

FLAGFILE = "experiments/flags/tacos_paper.flags"


def plan(data_dir, workdir, seed, smoke):
    """The commands, by the names of their steps."""
    made = os.path.join(workdir, "features")
    vectors = f"--sentence_vectors={made}/skip_thoughts.hdf5"
    return {
        "features": [
            "experiments.tacos.make_features",
            f"--data_dir={data_dir}",
            f"--out={made}",
            f"--seed={seed}",
        ],
        "train": [
            "experiments.train",
            f"--flagfile={FLAGFILE}",
            f"--data_dir={data_dir}",
            f"--features={made}/c3d_train.hdf5",
            f"--val_features={made}/c3d_val.hdf5",
            vectors,
            "--videos_in_memory=16",
            f"--workdir={workdir}",
            f"--seed={seed}",
            *(["--smoke"] if smoke else []),
        ],
        "test": [
            "experiments.evaluate",
            f"--workdir={workdir}",
            "--split=test",
            f"--features={made}/c3d_test.hdf5",
            vectors,
            "--window_lengths=128,256",
            "--suppression=per_threshold",
            "--shuffled",
        ],
    }


def run_step(words):
    """Runs a command; returns its figures and the end of what it printed."""
    words = ["-m", *words]
    print(f"\n$ {shlex.join(['python', *words])}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *words],
        # Each of glibc's heaps, one a thread, keeps what was freed in it.
        env={"MALLOC_ARENA_MAX": "2", **os.environ},
        stdout=subprocess.PIPE,
        text=True,
    )
    printed = []
    for line in process.stdout:
        print(line, end="", flush=True)
        printed = [*printed, line][-60:]
    # Of this process alone, which `resource` cannot tell once it has ended.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(process.returncode)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "minutes": round((time.monotonic() - started) / 60, 1),
        "peak_gib": round(usage.ru_maxrss * unit / 2**30, 2),
        "printed": "".join(printed),
    }


def read_steps(path, commands):
    """What earlier runs finished; it has to be part of the same plan."""
    try:
        with open(path, encoding="utf-8") as file:
            steps = json.load(file)
        found = {name: step["command"] for name, step in steps.items()}
    except FileNotFoundError:
        return {}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected an object of finished steps, found something "
            f"else ({error!r}); remove it to do every step again"
        ) from None
    for name, words in found.items():
        if words != commands.get(name):
            raise ValueError(
                f"{path}: step {name!r} was done by {words}, expected "
                f"{commands.get(name)}; give the same flags, or choose another "
                "--workdir"
            )
    return steps


def run():
    # Not the folder itself, which the training locks.
    with locked(os.path.join(FLAGS.workdir, "features")):
        run_steps()


def run_steps():
    commands = plan(FLAGS.data_dir, FLAGS.workdir, FLAGS.seed, FLAGS.smoke)
    path = os.path.join(FLAGS.workdir, "steps.json")
    steps = read_steps(path, commands)
    for name, words in commands.items():
        if name in steps:
            print(f"\nDone before: {name}")
            continue
        steps[name] = {"command": words, **run_step(words)}
        write_text(path, json.dumps(steps, indent=1))
    print("\nTACoS, semi-synthetic features: no published figure compares.\n")
    print(steps["test"]["printed"])
    for name, step in steps.items():
        print(
            f"{name}: {step['minutes']:.1f} min, peak {step['peak_gib']:.2f} "
            "GiB"
        )
    peak = max(step["peak_gib"] for step in steps.values())
    print(f"Largest of the processes: {peak:.2f} GiB")


if __name__ == "__main__":
    command.run(run)
