r"""Finds moments in video files by sentences, or for a dataset's queries.

  python -m experiments.predict --workdir=runs/mine --video=holiday.mp4 \
      --query="a dog jumps into the water"
  python -m experiments.predict --workdir=runs/mine --video=videos \
      --query="a dog jumps" --query="a child laughs" --index=runs/mine/index \
      --clip_out=clips
  python -m experiments.predict --model=zero_shot --encoder=clip:weights \
      --video=holiday.mp4 --query="a dog jumps into the water"
  python -m experiments.predict --workdir=runs/qvh --dataset=qvhighlights \
      --data_dir=data/QVHighlights --split=test --out=submission.jsonl

--encoder names the encoder of the frames where the model does not, or where its
weights are in a folder; with --model=zero_shot it is all there is. --video is a
file, a folder or a pattern, and may be repeated. With --index what was encoded
is kept in that folder, and only what is new or has changed is encoded the next
time; without --video the whole index is searched. Files of which nothing can be
read are left out and listed; if that is all of them, the exit code is 2.

Prints start, end and score, best first. The score is how likely the moment is
the right one, by the calibration of the run (experiments.calibrate). Without
one, as zero_shot has none, it compares moments of one sentence only. Where the
model knows no more than half of the words of a sentence, no likelihood is
printed.

With --out the queries of a dataset are answered, whose moments may be hidden,
each in its own video; videos are those of its features. A line for each query
has what evaluation servers take: "qid", "query", "vid", ten
"pred_relevant_windows" unless --top is given, best first, and
"pred_saliency_scores", one for each two seconds of the video.
"""

import os
import sys

from absl import flags

import acnn_tf
from acnn_tf.data.annotations import SPLITS
from acnn_tf.data.datasets import qvhighlights
from acnn_tf.files.names import file_name
from acnn_tf.files.problems import DataError
from experiments import frames, moment_lists, queries, splits
from export import command, flag_help, run_models
from export.progress import Progress
from export.protocol.merging import print_answer

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(queries)
flags.adopt_module_key_flags(splits)

flags.DEFINE_string("workdir", None, "Folder of a run, whose model searches.")
run_models.define_flags()
flags.DEFINE_multi_string(
    "video", [], "Video file, folder or pattern; repeat it for several."
)
flags.DEFINE_string(
    "index", None, "Folder that keeps the encoded videos for later searches."
)
flags.DEFINE_float(
    "min_score", None, "Least score of a moment. Default: all are shown."
)
flags.DEFINE_bool("json", False, "Print one JSON object for each sentence.")
flags.DEFINE_enum(
    "format",
    None,
    ["csv", "srt", "edl"],
    "Print a list for other programs: a table; subtitles of one video; an edit "
    "decision list, CMX 3600.",
)
flags.DEFINE_string(
    "clip_out",
    None,
    "Folder to cut the moments into, each an .mp4 file with its sound.",
)
flags.DEFINE_string(
    "picture",
    None,
    "File to draw the best video of the sentence to, with its moments and "
    "frames; of several sentences, one each.",
)
flags.DEFINE_string(
    "out", None, "File to write the answers to the queries of --dataset to."
)
flags.DEFINE_enum("split", "test", SPLITS, "Split of the dataset to answer.")
flag_help.subject(
    "Output", "min_score", "json", "format", "clip_out", "picture", "out"
)
flag_help.subject("Data", "split")


# What goes with sentences and videos of one's own.
_OWN = (
    *("query", "queries_file", "video", "index", "min_score", "json"),
    *("format", "clip_out", "picture"),
)


def run():
    if FLAGS.out or FLAGS.dataset:
        answer_dataset()
        return
    if FLAGS.json and FLAGS.format:
        raise ValueError("Give --json or --format, not both.")
    sentences = queries.read_queries(**command.given("query", "queries_file"))
    if not (FLAGS.video or FLAGS.index):
        raise ValueError("Give --video, --index or both.")
    if not FLAGS.video and (
        FLAGS.clip_out or FLAGS.picture or FLAGS.format == "edl"
    ):
        raise ValueError(
            "--clip_out, --picture and --format=edl need the files: give "
            "--video."
        )
    paths = {}
    if FLAGS.video:
        paths = command.find_videos(FLAGS.video)
    retriever = run_models.load_retriever(
        FLAGS.workdir, FLAGS.model, FLAGS.encoder, FLAGS.index
    )
    problems = add(retriever, paths)
    command.tell_problems(problems)
    unread = {problem.path for problem in problems}
    videos = {name: path for name, path in paths.items() if path not in unread}
    if paths and not videos:
        sys.exit(2)
    answers = retriever.search(
        sentences,
        FLAGS.top,
        video_ids=list(videos) if paths else None,
        **command.given("nms_threshold"),
    )
    unknown = [moments.query for moments in answers if not moments]
    if FLAGS.min_score is not None:
        for moments in answers:
            moments[:] = [m for m in moments if m.score >= FLAGS.min_score]
    show(retriever, answers, videos, unknown)
    if FLAGS.clip_out:
        cut(answers, videos)
    if FLAGS.picture:
        draw(retriever, answers, videos)
    queries.refuse_unknown(unknown)


def answer_dataset():
    """Writes the answers to all queries of a split."""
    given = [f"--{name}" for name in _OWN if FLAGS[name].value]
    if given:
        raise ValueError(f"--out goes without {', '.join(given)}.")
    if not FLAGS.out:
        raise ValueError("--dataset needs --out, the file to write.")
    run_models.check_choice(FLAGS.workdir, FLAGS.model)
    data = command.flag_values(splits)
    if FLAGS.workdir and not FLAGS.dataset:
        data = splits.settings_of_run(FLAGS.workdir, FLAGS.split) | data
    split = splits.load_split(FLAGS.split, **data)
    moments = split.moments
    model = run_models.load_model(
        FLAGS.workdir,
        features=split.features,
        with_sentences=split.sentence_vectors is None,
        **command.given("model", "encoder"),
    )
    command.tell_unknown(split.features, model)
    predictions = acnn_tf.evaluation.predict(
        model,
        moments,
        split.features,
        sentence_vectors=split.sentence_vectors,
        suppression="fixed",
        top_n=FLAGS.top if FLAGS["top"].present else acnn_tf.evaluation.MAP_NUM,
        clip_seconds=qvhighlights.CLIP_SECONDS,
        **command.given("nms_threshold"),
    )
    unknown = [row for row, found in enumerate(predictions) if not len(found)]
    for row in unknown:
        predictions[row] = [[0.0, moments[row].duration, 0.0]]
    acnn_tf.data.write_predictions(FLAGS.out, moments, predictions)
    print(f"wrote {len(moments)} answers to {FLAGS.out}", file=sys.stderr)
    if unknown:
        print(
            "Number of sentences of which the model knows no word: "
            f"{len(unknown)}, the first {moments[unknown[0]].query!r}. As "
            "servers refuse a query without an answer, theirs is the whole "
            "video.",
            file=sys.stderr,
        )


def add(retriever, paths):
    """Encodes videos; returns what is wrong with those that cannot be read."""
    try:
        notes = retriever.add(
            *paths.values(), progress=Progress(len(paths), "videos")
        )
    except DataError as error:
        places = {problem.path for problem in error.problems}
        if not places <= set(paths.values()):
            raise  # of the encoder, or the index
        return error.problems
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return []


def show(retriever, answers, paths, unknown):
    """Prints the answers in the form that was asked for."""
    if retriever.calibration is None:
        note = "Without calibration scores compare moments of one sentence only"
        if FLAGS.workdir:
            note += f": experiments.calibrate --workdir={FLAGS.workdir}"
        print(f"{note}.", file=sys.stderr)
    if FLAGS.format:
        videos = paths
        if FLAGS.format == "edl":
            videos = {
                name: acnn_tf.data.open_video(path)
                for name, path in paths.items()
            }
        write = getattr(moment_lists, f"as_{FLAGS.format}")
        print(write(answers, videos), end="")
        return
    for moments in answers:
        if FLAGS.json:
            print_answer(moments.query, moments, as_json=True)
            continue
        if len(answers) > 1:
            print(moments.query)
        if moments.unknown_words:
            print(f"unknown words: {', '.join(moments.unknown_words)}")
        if moments.query in unknown:
            continue  # which is said at the end
        lines = moment_lists.as_lines(
            moments, bool(retriever.calibration), with_names=len(paths) != 1
        )
        print("\n".join(lines))


def cut(answers, paths):
    """Cuts the moments into files of their own."""
    os.makedirs(FLAGS.clip_out, exist_ok=True)
    moments = {m[:3]: None for moments in answers for m in moments}
    for video_id, start, end in sorted(moments):
        name = file_name(video_id, f"_{start:.2f}-{end:.2f}.mp4")
        out = os.path.join(FLAGS.clip_out, name)
        notes = acnn_tf.data.cut_video(paths[video_id], start, end, out)
        print(*notes, f"cut {out}", sep="\n", file=sys.stderr)


def draw(retriever, answers, paths):
    """Draws the best video of each sentence."""
    stem, ending = os.path.splitext(FLAGS.picture)
    for number, moments in enumerate(answers, start=1):
        if not moments:
            continue
        best = moments[0].video_id
        duration = (
            acnn_tf.data.open_video(paths[best]).duration or moments[0].end
        )
        out = FLAGS.picture
        if len(answers) > 1:
            out = f"{stem}-{number}{ending}"
        acnn_tf.plots.timeline(
            out,
            query=moments.query,
            duration=duration,
            truth=None,
            predictions=[m[1:] for m in moments if m.video_id == best],
            frames=frames.sample(paths[best], duration),
            curve=retriever.curve(best, moments.query),
            source=f"video {best}",
        )
        print(f"drew {out}", file=sys.stderr)


if __name__ == "__main__":
    command.run(run)
