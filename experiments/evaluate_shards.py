r"""Evaluates a trained model on a large split in shards, on any machines.

  python -m experiments.evaluate_shards --workdir=runs/charades --split=val \
      --out=runs/charades/val --num_shards=16 \
      --direct_num_workers=2 --direct_running_mode=multi_processing

The same table as experiments.evaluate, to the last digit. Flags that name data
and protocol are those of that command; others are Apache Beam's, as in
experiments.encode_corpus. Each shard holds the queries of some videos and
writes two files into --out: `....predictions.jsonl`, which experiments.evaluate
reads (all of them in one file, in any order), and `....counts.json`, hits in
whole numbers, which add up to those of the split. Killed and started again, the
command evaluates what is missing.
"""

import functools

from absl import flags

import acnn_tf
from acnn_tf.data.windows import check_features
from experiments import evaluate, shard_work, splits
from export import command

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(splits)
# Those of `evaluate` that are the same in shards.
for name in (
    "workdir",
    "split",
    "suppression",
    "nms_threshold",
    "window_lengths",
    "json",
):
    flags.declare_key_flag(name)

flags.DEFINE_string(
    "out", None, "Folder to write the files of each shard to.", required=True
)
# Of `load_split`. Workers may have started in another folder.
_PATHS = ("data_dir", "sentence_vectors", *splits.FILES)

flags.DEFINE_integer("num_shards", 16, "Number of shards.", lower_bound=1)


def run(beam_arguments):
    # Not at the top: they bring TensorFlow, for which `--help` need not wait.
    from acnn_tf.files.manifests import digest
    from acnn_tf.search.index_files import fingerprint
    from experiments import shard_files

    if not FLAGS.workdir:
        raise ValueError("Give --workdir.")
    for name in ("predictions", "shuffled", "timelines", "report", "videos"):
        if FLAGS[name].present:
            raise ValueError(f"--{name} is for experiments.evaluate.")
    options = shard_work.beam_options(beam_arguments)
    data = {
        name: command.absolute(value) if name in _PATHS else value
        for name, value in evaluate.data_settings().items()
    }
    workdir = command.absolute(FLAGS.workdir)
    split = splits.load_split(FLAGS.split, **data)
    lengths = tuple(map(float, FLAGS.window_lengths or ())) or None
    model = shard_work.load_model(workdir, lengths)
    check_features(model, split.features)
    command.tell_unknown(split.features, model)
    protocol = evaluate.suppression(data["dataset"])
    moments = split.moments
    durations = {moment.video_id: moment.duration for moment in moments}
    num_shards = min(FLAGS.num_shards, len(durations))
    shards = acnn_tf.search.assign_videos(durations, num_shards, model.grid)
    about = [fingerprint(model), repr(model.grid), protocol, FLAGS.split]
    about += map(digest, shard_work.data_files(FLAGS.split, data))
    parts = [[m for m in moments if m.video_id in shard] for shard in shards]
    described = shard_files.describe(about, parts)
    read = functools.partial(shard_files.read_counts, FLAGS.out)
    shard_work.run_shards(
        functools.partial(
            shard_work.evaluate,
            workdir=workdir,
            split=FLAGS.split,
            out=command.absolute(FLAGS.out),
            window_lengths=lengths,
            data=data,
            protocol=protocol,
            model=fingerprint(model),
        ),
        list(zip(shards, described, strict=True)),
        lambda: {one["number"] for one in described if read(one) is not None},
        f"{len(moments)} queries",
        FLAGS.out,
        options,
    )
    counts = acnn_tf.evaluation.add_counts(map(read, described))
    results = acnn_tf.evaluation.fractions(counts, **protocol)
    is_known = acnn_tf.evaluation.known_sentences(model, moments)
    results["num_unknown"] = int((~is_known).sum())
    if data["dataset"] == "qvhighlights":
        results |= acnn_tf.qvhighlights.score_predictions(
            moments,
            shard_files.read_shards(FLAGS.out, described, parts, moments),
            **protocol,
        )
    chance = acnn_tf.evaluation.chance(moments, model.grid)
    title = splits.title(FLAGS.split, **data)
    evaluate.show({"model": results, "chance": chance}, title)


if __name__ == "__main__":
    command.run(run, other_flags=True)
