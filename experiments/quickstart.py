r"""From nothing to found moments, in a few minutes and without a download.

  python -m experiments.quickstart

Makes small videos of moving shapes, with sentences that say what moves, how
and in which order; trains ACNN on them, evaluates it, answers three sentences,
draws pictures and exports a servable. Each step is a command of its own,
printed before it runs, which works the same on your data. Everything is
written to --workdir, which is emptied first if an earlier quick start filled
it.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time

from absl import flags

from export import command

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "workdir", "runs/quickstart", "Folder that is filled with everything."
)
flags.DEFINE_integer(
    "num_scenes", 400, "Number of training videos to make.", lower_bound=5
)
flags.DEFINE_bool(
    "smoke", False, "Make and train as little as possible, to see that it runs."
)

FLAGFILE = "experiments/flags/quickstart.flags"


def step(module, *arguments):
    """Prints a command and runs it; returns what it printed, if any."""
    words = ["-m", module, *arguments]
    print(f"\n$ {shlex.join(['python', *words])}", flush=True)
    captured = "--json" in arguments
    done = subprocess.run(
        [sys.executable, *words],
        check=False,
        text=True,
        stdout=subprocess.PIPE if captured else None,
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def make_scenes(folder, num_scenes):
    """Writes training, validation and test videos as files."""
    from acnn_tf.data import synthetic

    for split, share in (("train", 1.0), ("val", 0.2), ("test", 0.2)):
        scenes = synthetic.make_scenes(
            max(1, round(num_scenes * share)), split=split
        )
        synthetic.write(scenes, folder, split)
        print(
            f"{split}: {len(scenes.features)} videos, "
            f"{len(scenes.moments)} sentences"
        )
    return scenes.moments


def answer(workdir, data, moments, count):
    """Searches the videos of so many sentences, one from each part."""
    for part in range(count):
        moment = moments[(2 * part + 1) * len(moments) // (2 * count)]
        printed = step(
            "experiments.search",
            f"--workdir={workdir}",
            f"--features={data}/features_test.hdf5",
            f"--videos={moment.video_id}",
            f"--query={moment.query}",
            "--top=3",
            "--json",
        )
        print(f"  {moment.query!r} in {moment.video_id}:")
        for found in json.loads(printed)["moments"]:
            print(
                f"    found {found['start']:5.1f} to {found['end']:5.1f} s, "
                f"score {found['score']:.2f}"
            )
        (start, end), *_ = moment.segments
        print(f"    true  {start:5.1f} to {end:5.1f} s")


def run():
    started = time.monotonic()
    workdir, num_scenes = FLAGS.workdir, FLAGS.num_scenes
    data = os.path.join(workdir, "data")
    # Only what a quick start has filled may be emptied.
    if os.path.exists(workdir):
        if os.listdir(workdir) and not os.path.exists(
            os.path.join(data, "train.jsonl")
        ):
            raise ValueError(
                f"{workdir} is not the folder of a quick start: choose a "
                "--workdir that is not there yet, or is empty."
            )
        shutil.rmtree(workdir)
    print(f"Making scenes in {data}")
    moments = make_scenes(data, 5 if FLAGS.smoke else num_scenes)
    smoke = ["--smoke"] if FLAGS.smoke else []
    step(
        "experiments.train",
        f"--flagfile={FLAGFILE}",
        f"--data_dir={data}",
        f"--workdir={workdir}",
        *smoke,
    )
    step(
        "experiments.evaluate",
        f"--workdir={workdir}",
        "--split=test",
        "--shuffled",
        "--suppression=per_threshold",
        "--timelines=4",
    )
    answer(workdir, data, moments, 1 if FLAGS.smoke else 3)
    step(
        "export.saved_model",
        f"--workdir={workdir}",
        f"--export_dir={workdir}/models",
        f"--corpus={data}/features_test.hdf5",
    )
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"\nDone in {minutes} min {seconds} s. Pictures:")
    for name in ("training.png", "table.png", "timelines"):
        print(f"  {os.path.join(workdir, name)}")
    models = os.path.join(workdir, "models", "acnn")
    words = [
        "export.server",
        "--model_name=acnn",
        f"--model_base_path={models}",
    ]
    print("To ask a server, after pip install -e '.[serving]':")
    print(f"  python -m {shlex.join(words)}")


if __name__ == "__main__":
    command.run(run)
