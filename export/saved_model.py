r"""Exports a model as a servable: DIR/acnn/<version>/.

  python -m export.saved_model --workdir=runs/charades --export_dir=models \
      --corpus=clips.hdf5

The folder takes sentences (and clip features) and answers with moments, and
needs none of this code. A model that learned from sentences of an encoder takes
their vectors, unless --encoder=clip:FOLDER puts that into the folder, too. With
--corpus, all windows of those videos are encoded into it, and sentences are
searched for in all of them. The folder is written
elsewhere, loaded again, compared with the model and then renamed, so that a
server that watches DIR/acnn never sees half of it. See its README.md, and
BUILD.md for how to serve it.
"""

import contextlib
import os
import sys
import tempfile

from absl import flags

import acnn_tf
from acnn_tf.data.annotations import DATASETS, find_files
from acnn_tf.files.locks import locked
from acnn_tf.files.names import check_file_name
from acnn_tf.files.text import normalize
from export import command, flag_help, indexing, run_models
from export.protocol.version_numbers import version_number

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(indexing)

run_models.define_flags()
flags.DEFINE_string(
    "workdir", None, "Folder of a run, whose model is exported."
)
flags.DEFINE_string(
    "export_dir", None, "Folder to export into, as NAME/VERSION.", required=True
)
flags.DEFINE_string("name", "acnn", "Name by which clients ask for the model.")
flags.DEFINE_integer(
    "version",
    None,
    "Number of the version. Default: one more than the highest there.",
    lower_bound=1,
    upper_bound=2**63 - 1,
)
flags.DEFINE_string(
    "corpus",
    None,
    "Clip features of videos to search in: HDF5, TFRecord or a folder of .npy.",
)
flags.DEFINE_string(
    "index", None, "Folder of an index of videos, as experiments.search keeps."
)
flags.DEFINE_integer(
    "top_n", None, "Number of moments in an answer. Default: 10.", lower_bound=1
)
flags.DEFINE_float(
    "nms_threshold",
    None,
    "IoU that two moments of one video may have at most. Default: 0.5.",
)
flags.DEFINE_string(
    "example_query",
    None,
    "Sentence for the requests in the README of the folder. Default: one that "
    "the run learned from, if its annotations are at hand, or else frequent "
    "words of the model.",
)
flag_help.subject("Data", "corpus", "index")
flags.DEFINE_enum(
    "shortlist",
    None,
    ["linear"],
    "Score all windows of the corpus by a straight line first, and exactly "
    "those that may be among the best. Default: all exactly.",
)
flags.DEFINE_float(
    "min_recall",
    None,
    "With --shortlist: the share of the best moments that must be found. "
    "Default: 0.99.",
)
flag_help.subject(
    "Answers",
    *("top_n", "nms_threshold", "shortlist", "min_recall", "example_query"),
)


def make_index(model):
    """The index of the videos to search, or `None` where there are none."""
    if not (FLAGS.corpus or FLAGS.index):
        return None
    index = acnn_tf.search.MomentIndex(model, FLAGS.index)
    if FLAGS.corpus:
        indexing.add_videos(
            index, FLAGS.corpus, **command.flag_values(indexing)
        )
    return index


def learned_sentence(workdir):
    """A sentence that a run learned from; `None` where its file is not read."""
    used = {}
    with contextlib.suppress(KeyError, OSError, StopIteration, ValueError):
        with open(os.path.join(workdir, "flags.txt"), encoding="utf-8") as file:
            for line in file:
                name, _, used[name] = line.strip().partition("=")
        files = find_files(
            used["--dataset"],
            used.get("--data_dir"),
            "train",
            annotations=used.get("--annotations"),
        )
        form = DATASETS[used["--dataset"]]
        _, entry = next(iter(form.entries(files["annotations"])))
        if not isinstance(entry, ValueError):
            _, records = form.parse(entry)
            return normalize(records[0].query).strip()
    return None


def next_version(folder):
    """One more than the highest integer among the folders there."""
    there = os.listdir(folder) if os.path.isdir(folder) else []
    numbers = filter(None, map(version_number, there))
    number = 1 + max(numbers, default=0)
    if number == 2**63:
        raise ValueError(
            f"{folder} has the highest version that there can be, "
            f"{number - 1}: move it away, or give --version."
        )
    return number


def warmup_requests(model_name, model, index=None):
    """Requests that a server answers before a version counts as available.

    The first request of a graph is slow: operations are placed and memory is
    found. TensorFlow Serving reads `assets.extra/tf_serving_warmup_requests`
    when it loads a version, and answers what it holds.

    Returns a dictionary from the name of the file to its bytes, with a request
    for each signature: what `acnn_tf.servable.export` takes as `assets_extra`.
    Without the protos of TensorFlow Serving it raises an `ImportError`.
    """
    import tensorflow as tf

    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            "Warm-up requests need the protos of TensorFlow Serving: "
            'pip install -e ".[serving]"'
        ) from error
    inputs = acnn_tf.servable.example_inputs(model)
    if index is None:
        del inputs["search"]
    with tempfile.NamedTemporaryFile() as file:
        with tf.io.TFRecordWriter(file.name) as writer:
            for signature, arrays in inputs.items():
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = model_name
                request.model_spec.signature_name = signature
                for name, array in arrays.items():
                    request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
                writer.write(log.SerializeToString())
        return {"tf_serving_warmup_requests": file.read()}


def run():
    check_file_name(FLAGS.name)
    folder = os.path.join(FLAGS.export_dir, FLAGS.name)
    with locked(folder):  # two exports must not choose one version
        export(folder)


def export(folder):
    version = FLAGS.version or next_version(folder)
    target = os.path.join(folder, str(version))
    if os.path.exists(target):  # before videos are encoded for hours
        raise FileExistsError(f"{target} is there already.")
    model = indexing.load_model(
        FLAGS.workdir,
        FLAGS.corpus,
        FLAGS.clip_seconds,
        with_sentences=FLAGS.encoder is not None,
        **command.given("model", "encoder"),
    )
    index = make_index(model)
    try:
        assets_extra = warmup_requests(FLAGS.name, model, index)
    except ImportError as error:
        print(error, file=sys.stderr)
        assets_extra = None
    example_query = FLAGS.example_query
    if not example_query and FLAGS.workdir and model.vocabulary is not None:
        example_query = learned_sentence(FLAGS.workdir)
    errors = acnn_tf.servable.export(
        model,
        target,
        index=index,
        assets_extra=assets_extra,
        example_query=example_query,
        **command.given("top_n", "nms_threshold", "shortlist", "min_recall"),
    )
    name = FLAGS.model or os.path.join(FLAGS.workdir, "model.keras")
    print(f"{target}: the same numbers as {name}, but for rounding,")
    shares = (f"{error:.0e} in {name}" for name, error in errors.items())
    print(f"  as a share of the largest: {', '.join(shares)}")
    command.say_next(
        "export.server",
        f"--model_name={FLAGS.name}",
        f"--model_base_path={folder}",
    )


if __name__ == "__main__":
    command.run(run)
