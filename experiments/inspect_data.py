r"""Counts what a dataset holds and lists all that is wrong with it.

    python -m experiments.inspect_data --dataset=tacos \
        --annotations=data/tacos/TACoS_train_samples.txt \
        --num_frames=data/tacos/num_frames.json \
        --window_frames=64,128,256,512

    python -m experiments.inspect_data --dataset=charades_sta \
        --data_dir=data/charades_sta_clip --split=val \
        --window_seconds=4,8,16

Windows slide over every video that has a query; a window that shows an
annotated moment makes a pair with each sentence of that moment. Records that
cannot be used are left out of every count. With --write_manifests, files
without problems (with --skip_bad, also text files with some) get a manifest.

It prints how long moments are: the shortest, the one that a tenth of them are
shorter than, and so on to the longest; how many queries windows can reach an
IoU with, which no ranking of them exceeds before offsets move their ends; and
lengths of windows that fit these moments.

The last line says what made the features, if their file does.

Problems of one kind are one line, with their number. A note (an end that was
cut at its video's, clips a little longer than their video) leaves nothing out.

Exit code: 0 if there is nothing wrong but notes, 2 if there is, or if a file or
a flag is missing. With --skip_bad it is 0 as long as a query is left.
"""

import json
import sys

import numpy as np
from absl import flags

import acnn_tf
from acnn_tf.data import inspection
from acnn_tf.data.annotations import DATASETS, SPLITS, find_files, read_moments
from acnn_tf.data.windows import WindowGrid
from acnn_tf.files.problems import FeatureError, summarize
from experiments import model_flags, splits
from export import command, flag_help

FLAGS = flags.FLAGS
# Defined by `splits` and `model_flags`.
for name in (
    *("dataset", "data_dir", *splits.FILES, "clip_seconds", "skip_bad"),
    *("window_frames", "window_seconds", "frame_rate", "overlap"),
):
    flags.declare_key_flag(name)

flags.DEFINE_enum("split", "train", SPLITS, "Split to find in --data_dir.")
flags.DEFINE_float(
    "min_iou",
    None,
    "Windows above this IoU with a moment make pairs. Default: 0.5.",
)
flags.DEFINE_float(
    "max_niol",
    None,
    "Windows below this nIoL (share of the window outside the moment) make "
    "pairs. Default: 0.15.",
)
flags.DEFINE_bool(
    "write_manifests",
    False,
    "Write a manifest beside each file without problems: its digest, by which "
    "damage to the file is told later.",
)
flags.DEFINE_bool("json", False, "Print one JSON object.")
flag_help.subject("Data", "split")
flag_help.subject("Windows", "min_iou", "max_niol")
flag_help.subject("Output", "write_manifests", "json")


def window_grid():
    """The grid that the flags ask for, or `None`."""
    if FLAGS.window_frames and FLAGS.window_seconds:
        raise ValueError("Give --window_frames or --window_seconds, not both.")
    lengths = FLAGS.window_frames or FLAGS.window_seconds
    if not lengths:
        return None
    rate = None
    if FLAGS.window_frames:
        rate = FLAGS.frame_rate
        if FLAGS.dataset:
            rate = rate or DATASETS[FLAGS.dataset].frame_rate
        if rate is None:
            raise ValueError("--window_frames needs --frame_rate.")
    try:
        lengths = sorted(model_flags.floats(lengths))
    except ValueError:
        raise ValueError(
            f"Window lengths are numbers, not {lengths}."
        ) from None
    return WindowGrid(lengths, frame_rate=rate, **command.given("overlap"))


def load(grid, annotations, features=None, **others):
    """Reads: `(moments, problems, number of records dropped, features)`."""
    problems, path, features = [], features, None
    moments = read_moments(
        annotations,
        FLAGS.dataset,
        problems=problems,
        **others,
        **command.given("frame_rate"),
    )
    dropped = sum(p.dropped and p.path == annotations for p in problems)
    if path is not None:
        try:
            with acnn_tf.data.open_features(
                path, clip_seconds=FLAGS.clip_seconds
            ) as features:
                sound, found = inspection.with_usable_features(
                    moments, features, grid
                )
        except FeatureError as error:
            sound, found = [], error.problems
        dropped += len(moments) - len(sound)
        moments = sound
        problems += found
    return moments, problems, dropped, features


def describe_lengths(moments, grid):
    """How long moments are, and what windows can reach: for JSON."""
    shown = [m for m in moments if m.segments]
    if not shown:  # they are hidden
        return {}
    spans = [end - start for m in shown for start, end in m.segments]
    overlap = command.given("overlap")
    lengths = inspection.suggest_lengths(shown, **overlap)
    suggested = WindowGrid(lengths, **overlap)
    return {
        "moment_seconds": {
            f"{share}%": float(np.percentile(spans, share))
            for share in (0, 10, 25, 50, 75, 90, 100)
        },
        "reached": None if grid is None else reached(shown, grid),
        "suggested": {
            "window_seconds": lengths,
            "reached": reached(shown, suggested),
        },
    }


def reached(moments, grid):
    """Shares of the queries whose moment some window fits well enough."""
    ious = inspection.best_ious(moments, grid)
    return {f"IoU={m:g}": float((ious >= m).mean()) for m in (0.5, 0.7)}


def length_lines(lengths):
    """What `describe_lengths` returns, in words."""
    if not lengths:
        return
    seconds = lengths["moment_seconds"]
    text = ", ".join(f"{share} {s:.3g}" for share, s in seconds.items())
    yield f"{'moment seconds':<20}{text}"

    def words(shares):
        return ", ".join(f"{m} {share:.1%}" for m, share in shares.items())

    if lengths["reached"]:
        yield f"{'windows can reach':<20}{words(lengths['reached'])}"
    suggested = lengths["suggested"]
    flag = ",".join(f"{x:g}" for x in suggested["window_seconds"])
    yield f"{'suggested':<20}--window_seconds={flag}"
    yield f"{'which can reach':<20}{words(suggested['reached'])}"


def run():
    """Reads, counts and prints."""
    grid = window_grid()
    if not FLAGS.dataset or not (FLAGS.annotations or FLAGS.data_dir):
        raise ValueError("Give --dataset and --annotations, or --data_dir.")
    paths = find_files(
        FLAGS.dataset,
        FLAGS.data_dir,
        FLAGS.split,
        **command.given(*splits.FILES),
    )
    moments, problems, dropped, features = load(grid, **paths)
    counts = {"videos": len({moment.video_id for moment in moments})}
    counts["queries"] = len(moments)
    counts |= dict.fromkeys(("windows", "pairs", "paired_windows"))
    if grid is not None:
        thresholds = command.given("min_iou", "max_niol")
        counts |= inspection.count_pairs(moments, grid, **thresholds)
    counts["dropped"] = dropped
    lengths = describe_lengths(moments, grid)
    if FLAGS.write_manifests:
        texts = [
            paths.get(name)
            for name in ("annotations", "durations", "num_frames")
        ]
        written = inspection.save_manifests(
            moments, problems, texts, features, FLAGS.skip_bad
        )
        counts["manifests"] = len(written)
    found = {
        "problems": [problem for problem in problems if problem.dropped],
        "notes": [problem for problem in problems if not problem.dropped],
    }
    if FLAGS.json:
        listed = {
            kind: [
                {"path": p.path, "line": p.line, "message": p.message}
                for p in some
            ]
            for kind, some in found.items()
        }
        if features is not None:
            counts["encoder"] = features.encoder
        print(json.dumps(counts | lengths | listed, indent=1))
    else:
        for line in summarize(found["problems"]):
            print(line)
        for line in summarize(found["notes"]):
            print(f"note: {line}")
        counts |= {kind: len(some) for kind, some in found.items()}
        for name, number in counts.items():
            number = "not counted" if number is None else f"{number:,}"
            print(f"{name.replace('_', ' '):<16}{number:>12}")
        print(*length_lines(lengths), sep="\n")
        if features is not None:
            made_by = features.encoder
            text = "not said" if made_by is None else json.dumps(made_by)
            print(f"{'features made by':<20}{text}")
    if not moments or (found["problems"] and not FLAGS.skip_bad):
        sys.exit(2)


if __name__ == "__main__":
    command.run(run)
