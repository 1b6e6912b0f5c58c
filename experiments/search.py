r"""Finds moments: the best over all videos of a feature file, or an index.

  python -m experiments.search --workdir=runs/charades \
      --features=clips.hdf5 --query="a person opens the door" --top=5
  python -m experiments.search --workdir=runs/charades --index=runs/index \
      --features=clips.hdf5 --query="a person opens the door"
  python -m experiments.search --model=zero_shot --encoder=clip:weights \
      --features=clips.hdf5 --query="a person opens the door"

With --index the encoded windows are kept in that folder: videos of --features
that are not there yet are added, and later searches need no --features.

Prints video, start and end (seconds) and score, best first. Scores compare
moments for one query; they are no probabilities, and those of two queries do
not compare. Results of one video overlap by at most --nms_threshold.
"""

from absl import flags, logging

import acnn_tf
from experiments import queries
from export import command, flag_help, indexing, run_models
from export.protocol.merging import print_answer

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(indexing)
flags.adopt_module_key_flags(queries)

run_models.define_flags()
flags.DEFINE_string("workdir", None, "Folder of a run, whose model searches.")
flags.DEFINE_string(
    "features",
    None,
    "Clip features of the videos: HDF5, TFRecord or a folder of .npy.",
)
flags.DEFINE_string(
    "index", None, "Folder that keeps the encoded windows for later searches."
)
flags.DEFINE_enum(
    "index_dtype",
    None,
    ["float32", "float16", "bfloat16"],
    "Type of the numbers that a new index keeps. Default: float32.",
)
flags.DEFINE_enum(
    "shortlist",
    None,
    ["linear", "bfloat16"],
    "Score all windows in a rough, faster way first: by a straight line "
    "through the scores of some, or in this lower precision. Default: exactly.",
)
flags.DEFINE_float(
    "min_recall",
    None,
    "With --shortlist=linear: the share of the best moments that must be "
    "found. Default: 0.99.",
)
flags.DEFINE_list(
    "videos", None, "Ids of the videos of --features to add. Default: all."
)
flags.DEFINE_bool("json", False, "Print one JSON object for each sentence.")
flag_help.subject("Data", "features", "index", "index_dtype", "videos")


def run():
    sentences = queries.read_queries(**command.given("query", "queries_file"))
    if not (FLAGS.features or FLAGS.index):
        raise ValueError("Give --features, --index or both.")
    model = indexing.load_model(
        FLAGS.workdir,
        FLAGS.features,
        FLAGS.clip_seconds,
        **command.given("model", "encoder"),
    )
    index = acnn_tf.search.MomentIndex(
        model, FLAGS.index, dtype=FLAGS.index_dtype
    )
    if FLAGS.features:
        indexing.add_videos(
            index,
            FLAGS.features,
            videos=FLAGS.videos,
            **command.flag_values(indexing),
        )
    if not len(index):
        raise ValueError(f"{FLAGS.index} has no videos yet: give --features.")
    found = index.search(
        sentences,
        top_n=FLAGS.top,
        **command.given("nms_threshold", "shortlist", "min_recall"),
    )
    if FLAGS.shortlist == "linear":
        logging.info(
            "Of the best moments of each sentence, at least %.3f are expected "
            "to be among these.",
            min(moments.recall for moments in found),
        )
    for query, moments in zip(sentences, found, strict=True):
        print_answer(query, moments, FLAGS.json)
    queries.refuse_unknown([m.query for m in found if not m])


if __name__ == "__main__":
    command.run(run)
