r"""Counts what a dataset holds and lists all that is wrong with it.

    python -m experiments.inspect_data --dataset=tacos \
        --annotations=../shared/data/tacos/TACoS_train_samples.txt \
        --num_frames=../shared/data/tacos/num_frames.json \
        --window_frames=64,128,256,512

    python -m experiments.inspect_data --dataset=charades_sta \
        --data_dir=../shared/data/charades_sta_clip --split=val \
        --window_seconds=4,8,16

Windows slide over every video that has a query; a window that shows an
annotated moment makes a pair with each sentence of that moment. Records that
cannot be used are left out of every count. With --write_manifests, files that
are sound (or, with --skip_bad, texts of which some is) get a manifest.

Exit code: 0 if there is nothing wrong, 2 if there is, 1 if a file or a flag is
missing. With --skip_bad it is 0 as long as a query is left.
"""

import json
import sys

from absl import app, flags

from acnn_tf.data import inspection
from acnn_tf.data.annotations import DATASETS, read_moments
from acnn_tf.data.features import open_features
from acnn_tf.data.known_files import SPLITS, known_files
from acnn_tf.data.windows import WindowGrid
from acnn_tf.files.problems import FeatureError

FLAGS = flags.FLAGS

flags.DEFINE_enum("dataset", None, DATASETS, "Format of the annotations.")
flags.DEFINE_string("data_dir", None, "Folder: files not named are found here.")
flags.DEFINE_enum("split", "train", SPLITS, "Split to find in --data_dir.")
flags.DEFINE_string("annotations", None, "File of queries and their moments.")
flags.DEFINE_string("durations", None, "JSON: seconds of each video.")
flags.DEFINE_string("num_frames", None, "JSON: frames of each video (TACoS).")
flags.DEFINE_string("features", None, "HDF5, .npy folder or TFRecord to check.")
flags.DEFINE_float("clip_seconds", None, "Of a clip, if --features lacks it.")
flags.DEFINE_list("window_frames", None, "Window lengths in frames.")
flags.DEFINE_list("window_seconds", None, "Window lengths in seconds.")
flags.DEFINE_float("frame_rate", None, "Frames per second; TACoS has 29.4.")
flags.DEFINE_float("overlap", None, "Share common to neighbours; default 0.8.")
flags.DEFINE_float("min_iou", None, "Windows pair above this IoU; default 0.5.")
flags.DEFINE_float("max_niol", None, "And below this nIoL; default 0.15.")
flags.DEFINE_bool("skip_bad", False, "Do without the bad records, exit with 0.")
flags.DEFINE_bool("write_manifests", False, "So that damage is told.")
flags.DEFINE_bool("json", False, "Print one JSON object.")


def given(*names):
    """The flags that were given, by name: the others leave defaults alone."""
    return {n: FLAGS[n].value for n in names if FLAGS[n].value is not None}


def window_grid():
    """The grid that the flags ask for, or `None`."""
    if FLAGS.window_frames and FLAGS.window_seconds:
        raise ValueError("Give --window_frames or --window_seconds, not both.")
    lengths = FLAGS.window_frames or FLAGS.window_seconds
    if not lengths:
        return None
    rate = None
    if FLAGS.window_frames:
        rate = FLAGS.frame_rate or (29.4 if FLAGS.dataset == "tacos" else None)
        if rate is None:
            raise ValueError("--window_frames needs --frame_rate.")
    try:
        lengths = sorted(map(float, lengths))
    except ValueError:
        raise ValueError(
            f"Window lengths are numbers, not {lengths}."
        ) from None
    return WindowGrid(lengths, frame_rate=rate, **given("overlap"))


def load():
    """Reads: `(moments, problems, number of records dropped, features)`."""
    paths, features = {}, None
    if FLAGS.data_dir and FLAGS.dataset:
        paths = known_files(
            FLAGS.dataset, FLAGS.data_dir, FLAGS.split, FLAGS.annotations
        )
    for name in ("annotations", "durations", "num_frames", "features"):
        FLAGS[name].value = FLAGS[name].value or paths.get(name)
    if not FLAGS.dataset or not FLAGS.annotations:
        raise ValueError("Give --dataset and --annotations, or --data_dir.")
    problems = []
    moments = read_moments(
        FLAGS.annotations,
        FLAGS.dataset,
        problems=problems,
        **given("durations", "num_frames", "frame_rate"),
    )
    dropped = sum(p.dropped and p.path == FLAGS.annotations for p in problems)
    if FLAGS.features:
        try:
            with open_features(
                FLAGS.features, clip_seconds=FLAGS.clip_seconds
            ) as features:
                sound, found = inspection.with_sound_features(moments, features)
        except FeatureError as error:
            sound, found = [], error.problems
        dropped += len(moments) - len(sound)
        moments = sound
        problems += found
    return moments, problems, dropped, features


def main(_):
    """Reads, counts, prints; returns the exit code."""
    try:
        grid = window_grid()
        moments, problems, dropped, features = load()
        counts = {"videos": len({moment.video_id for moment in moments})}
        counts["queries"] = len(moments)
        counts |= dict.fromkeys(("windows", "pairs", "paired_windows"))
        if grid is not None:
            thresholds = given("min_iou", "max_niol")
            counts |= inspection.count_pairs(moments, grid, **thresholds)
        counts["dropped"] = dropped
        if FLAGS.write_manifests:
            paths = FLAGS.annotations, FLAGS.durations, FLAGS.num_frames
            written = inspection.save_manifests(
                moments, problems, paths, features, FLAGS.skip_bad
            )
            counts["manifests"] = len(written)
    except (OSError, ValueError) as error:
        print(f"inspect_data: {error}", file=sys.stderr)
        return 1
    if FLAGS.json:
        listed = [
            {"path": p.path, "line": p.line, "message": p.message}
            for p in problems
        ]
        print(json.dumps({**counts, "problems": listed}, indent=1))
    else:
        for problem in problems:
            print(problem)
        for name, number in {**counts, "problems": len(problems)}.items():
            number = "not counted" if number is None else f"{number:,}"
            print(f"{name.replace('_', ' '):<16}{number:>12}")
    return 2 if not moments or (problems and not FLAGS.skip_bad) else 0


if __name__ == "__main__":
    app.run(main)
