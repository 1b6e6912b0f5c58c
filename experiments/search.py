r"""Finds moments: the best over all videos of a feature file, or an index.

  python -m experiments.search --workdir=runs/charades \
      --features=clips.hdf5 --query="a person opens the door" --top=5
  python -m experiments.search --workdir=runs/charades --index=runs/index \
      --features=clips.hdf5 --query="a person opens the door"

With --index the encoded windows are kept in that folder: videos of --features
that are not there yet are added, and later searches need no --features.

Prints video, start and end (seconds) and score, best first. Scores compare
moments for one query; they are no probabilities, and those of two queries do
not compare. Results of one video overlap by at most --nms_threshold.
"""

import os

from absl import flags

import acnn_tf
from acnn_tf.files.problems import DataError, Problem
from acnn_tf.files.text import normalize, text_lines
from export import command, indexing
from export.protocol.merging import print_answer

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(indexing)
# All are encoded at once.
_MAX_QUERIES = 10_000

flags.DEFINE_string(
    "workdir", None, "Folder of a run, whose model searches.", required=True
)
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
    ["bfloat16"],
    "Score in this lower precision first, then the best again exactly.",
)
flags.DEFINE_list(
    "videos", None, "Ids of the videos of --features to add. Default: all."
)
flags.DEFINE_string("query", None, "Sentence to search for.")
flags.DEFINE_string(
    "queries_file", None, "Text file of sentences to search for, one a line."
)
flags.DEFINE_integer(
    "top", 5, "Number of moments to print for a sentence.", lower_bound=1
)
flags.DEFINE_float(
    "nms_threshold",
    None,
    "IoU that two moments of one video may have at most. Default: 0.5.",
)
flags.DEFINE_bool("json", False, "Print one JSON object for each sentence.")


def read_queries():
    """Returns the sentences that the flags name."""
    queries, problems = [], []
    if FLAGS.query:
        queries.append(normalize(FLAGS.query))
    if FLAGS.queries_file:
        for line, text in text_lines(FLAGS.queries_file):
            try:
                if isinstance(text, ValueError):  # not UTF-8, or too long
                    raise text
                queries.append(normalize(text).strip())
            except ValueError as error:
                problems.append(Problem(FLAGS.queries_file, line, str(error)))
            if len(queries) > _MAX_QUERIES:
                raise ValueError(
                    f"{FLAGS.queries_file} has more than {_MAX_QUERIES:,} "
                    "sentences: split it."
                )
    if problems:
        raise DataError(problems)
    if not queries:
        raise ValueError("Give --query, or --queries_file.")
    return queries


def run():
    queries = read_queries()
    if not (FLAGS.features or FLAGS.index):
        raise ValueError("Give --features, --index or both.")
    path = os.path.join(FLAGS.workdir, "model.keras")
    model = acnn_tf.models.load_model(path)
    if model.vocabulary is None:
        raise ValueError(
            f"{path} takes sentence vectors, and nothing here makes them of "
            "sentences: see acnn_tf.search.MomentIndex."
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
        queries,
        top_n=FLAGS.top,
        **command.given("nms_threshold", "shortlist"),
    )
    for query, moments in zip(queries, found, strict=True):
        print_answer(query, moments, FLAGS.json)
    if refused := [moments.query for moments in found if not moments]:
        raise ValueError(
            "The model knows no word of "
            + ", ".join(map(repr, refused))
            + ". It was trained on other words; say it in those, and check the "
            "spelling."
        )


if __name__ == "__main__":
    command.run(run)
