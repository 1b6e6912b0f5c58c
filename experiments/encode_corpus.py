r"""Encodes the videos of a large corpus in shards, on one machine or many.

  python -m experiments.encode_corpus --workdir=runs/charades \
      --features=clips.hdf5 --out=runs/corpus --num_shards=16
  python -m experiments.encode_corpus --workdir=runs/charades \
      --features=clips.hdf5 --out=runs/corpus --num_shards=16 \
      --direct_num_workers=2 --direct_running_mode=multi_processing

It is a pipeline of Apache Beam (pip install -e ".[beam]"): other flags are
Beam's. Without them this process does all. On many machines the workers are
Dask's (pip install -e ".[dask]", --runner=DaskRunner, --dask_client_address;
see BUILD.md); they need a checkout of this code on their PYTHONPATH and must
see --workdir, --features and --out under the same paths, on disks that they
share.

Each shard is the folder of an index, and takes its name once it is complete.
Killed and started again, the command makes those that are missing; it stops
where shards are there of another model or other videos. --out then is an
index of all videos, for experiments.search; one of its shards is an index too,
for export.saved_model on a server of its own.
"""

import functools

from absl import flags

import acnn_tf
from acnn_tf.data.windows import check_features
from experiments import shard_work
from export import command

FLAGS = flags.FLAGS

# Defined by `splits`, which `shard_work` imports.
for name in ("features", "durations", "clip_seconds"):
    flags.declare_key_flag(name)
flags.DEFINE_string(
    "workdir", None, "Folder of a run, whose model encodes.", required=True
)
flags.DEFINE_string(
    "out", None, "Folder to write the shards to.", required=True
)
flags.DEFINE_integer("num_shards", 16, "Number of shards.", lower_bound=1)
flags.DEFINE_enum(
    "index_dtype",
    None,
    ["float32", "float16", "bfloat16"],
    "Type of the numbers that the shards keep. Default: float32.",
)


def run(beam_arguments):
    # Not at the top: it brings TensorFlow, for which `--help` need not wait.
    from acnn_tf.search.shards import find_shards

    if not FLAGS.features:
        raise ValueError("Give --features.")
    options = shard_work.beam_options(beam_arguments)
    # Workers may have started in another folder.
    workdir, path, out = map(
        command.absolute, (FLAGS.workdir, FLAGS.features, FLAGS.out)
    )
    model = shard_work.load_model(workdir)
    with acnn_tf.data.open_features(
        FLAGS.features, clip_seconds=FLAGS.clip_seconds
    ) as features:
        check_features(model, features)
        command.tell_unknown(features, model)
        durations = acnn_tf.data.video_seconds(features, FLAGS.durations)
    search = acnn_tf.search
    shards = search.assign_videos(durations, FLAGS.num_shards, model.grid)
    # Raises where there are others.
    search.done_shards(
        FLAGS.out, model, shards, FLAGS.index_dtype, features.encoder
    )
    shard_work.run_shards(
        functools.partial(
            shard_work.encode,
            workdir=workdir,
            features=path,
            out=out,
            **command.given("clip_seconds", "index_dtype"),
        ),
        list(zip(shards, search.describe_shards(shards), strict=True)),
        lambda: find_shards(FLAGS.out)[1],
        f"{len(durations)} videos",
        FLAGS.out,
        options,
    )
    command.say_next(
        "experiments.search",
        f"--workdir={FLAGS.workdir}",
        f"--index={FLAGS.out}",
        "--query=SENTENCE",
    )


if __name__ == "__main__":
    command.run(run, other_flags=True)
