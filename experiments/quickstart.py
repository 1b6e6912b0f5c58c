r"""From nothing to found moments, in a few minutes and without a download.

  python -m experiments.quickstart

Makes small videos of moving shapes as .mp4 files, with sentences that say what
moves, how and in which order; extracts features, trains ACNN, evaluates it,
draws pictures, exports a servable, and answers three sentences about a video
that it has not seen. Each step is a command of its own, printed before it runs,
which works the same on your data. Everything is written to --workdir, which is
emptied first if an earlier quick start filled it.
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
from export.progress import Progress

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


def make_videos(folder, num_videos):
    """Writes videos and sentences for training, validation and test.

    Returns the path of a further video, and its moments.
    """
    from acnn_tf.data import synthetic, write_jsonl

    count = max(1, round(0.2 * num_videos))
    for split, num in (("train", num_videos), ("val", count), ("test", count)):
        path = os.path.join(folder, split)
        # In a log the line below is enough.
        progress = Progress(num, "videos") if sys.stderr.isatty() else None
        moments = synthetic.write_videos(
            path, num, split=split, progress=progress
        )
        write_jsonl(moments, f"{path}.jsonl")
        print(f"{path}: {num} videos, {len(moments)} sentences")
    # One of other random numbers.
    path = os.path.join(folder, "new")
    moments = synthetic.write_videos(path, 1, split="test", seed=1)
    return os.path.join(path, f"{moments[0].video_id}.mp4"), moments


def ask(workdir, video, moments):
    """Asks for moments of a video: a list of lines."""
    lines = [f"{video}, which it has not seen:"]
    printed = step(
        "experiments.predict",
        f"--workdir={workdir}",
        f"--video={video}",
        *(f"--query={moment.query}" for moment in moments),
        "--top=2",
        "--json",
    )
    for moment, line in zip(moments, printed.splitlines()):
        lines.append(f"  {moment.query}")
        for found in json.loads(line)["moments"]:
            lines.append(
                f"    found {found['start']:5.1f} to {found['end']:5.1f} s, "
                f"score {found['score']:.2f}"
            )
        (start, end), *_ = moment.segments
        lines.append(f"    true  {start:5.1f} to {end:5.1f} s")
    return lines


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
    print(f"Making videos in {data}")
    video, moments = make_videos(data, 5 if FLAGS.smoke else num_scenes)
    for name, splits in (("features", "train,val"), ("features_test", "test")):
        folders = ",".join(os.path.join(data, x) for x in splits.split(","))
        step(
            "experiments.extract_features",
            f"--videos={folders}",
            "--encoder=pixels",
            f"--out={data}/{name}.hdf5",
        )
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
        "--timelines=4",
    )
    step(
        "export.saved_model",
        f"--workdir={workdir}",
        f"--export_dir={workdir}/models",
        f"--corpus={data}/features_test.hdf5",
        f"--example_query={moments[0].query}",
    )
    answers = ask(workdir, video, moments[: 1 if FLAGS.smoke else 3])
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"\nDone in {minutes} min {seconds} s. Pictures:")
    for name in ("training.png", "pictures"):
        print(f"  {os.path.join(workdir, name)}")
    models = os.path.join(workdir, "models", "acnn")
    server = "export.server", "--model_name=acnn", f"--model_base_path={models}"
    print("To serve the model:")
    print(f"  {command.as_command(*server)}")
    print(
        "The model knows coloured shapes that move, and no videos of the real "
        "world.\nFor those see BUILD.md, Your own videos."
    )
    print("\n".join(["", *answers]))


if __name__ == "__main__":
    command.run(run)
