r"""Makes clip features of videos: what all other commands begin with.

  python -m experiments.extract_features --videos='videos/*.mp4' \
      --encoder=pixels --out=features.hdf5
  python -m experiments.extract_features --videos=videos \
      --encoder=clip:clip_vit_base_patch32 --fps=2 --out=features.hdf5 \
      --direct_num_workers=2 --direct_running_mode=multi_processing

The id of a video is the name of its file, without folder and ending. Killed and
started again, the command goes on with the videos that are missing, and ends
with the same bytes; so does a second run for those that are new or have
changed. Of a damaged video what can be read is taken, and said. Those of which
nothing can be read are left out and listed; if that is all of them, the exit
code is 2.

Beside --out stands OUT.videos.csv: the seconds of each video, which other
commands find there, and the digest of its file.

Other flags are Apache Beam's (pip install -e ".[beam]"): with them the
command is a pipeline, as experiments.encode_corpus is, whose workers must see
the videos, the encoder's weights and --out under the same paths. Without them
this process does all.
"""

import functools
import os
import sys

from absl import flags

from acnn_tf import encoders
from acnn_tf.data import extraction
from export import command, flag_help
from export.progress import Progress

FLAGS = flags.FLAGS

flags.DEFINE_list(
    "videos", None, "Files, folders and patterns of videos.", required=True
)
flags.DEFINE_string(
    "encoder",
    "pixels",
    "What makes the features: pixels, efficientnet_lite0, "
    "clip:PRESET_OR_FOLDER, applications:NAME, c3d:FILE.npz or FILE.keras.",
)
flags.DEFINE_float(
    "fps", None, "Frames of a second to encode. Default: the encoder's own."
)
flags.DEFINE_integer(
    "batch_size",
    None,
    "Clips that go through the network together. Default: the encoder's own.",
    lower_bound=1,
)
flags.DEFINE_string(
    "out", None, "File to write: .hdf5 or .tfrecord.", required=True
)
flag_help.subject("Encoder", "encoder", "fps", "batch_size")


def run(beam_arguments):
    videos = command.find_videos(FLAGS.videos)
    encoder = encoders.make(FLAGS.encoder, FLAGS.fps)
    if beam_arguments:
        problems = extract_in_pipeline(videos, encoder, beam_arguments)
    else:
        progress = Progress(len(videos), "videos")
        problems = extraction.extract(
            videos, encoder, FLAGS.out, FLAGS.batch_size, progress
        )
    failed = [problem for problem in problems if problem.dropped]
    command.tell_problems(problems)
    print(
        f"{FLAGS.out}: {len(videos) - len(failed):,} of {len(videos):,} videos "
        f"by {encoder.name} at {encoder.frame_rate:g} fps, {encoder.dim} "
        f"numbers for every {encoder.clip_seconds:g} s"
    )
    if len(failed) == len(videos):
        sys.exit(2)


def extract_in_pipeline(videos, encoder, beam_arguments):
    """Does what `extract` does in a pipeline of Beam, a video a shard."""
    from experiments import shard_work

    options = shard_work.beam_options(beam_arguments)
    # Workers may have started in another folder.
    with extraction.extracting(
        videos, encoder, command.absolute(FLAGS.out)
    ) as work:

        def find_done():
            missing = work.missing.keys() - work.done()
            return {n for n, v in enumerate(videos) if v not in missing}

        shard_work.run_shards(
            functools.partial(
                shard_work.extract,
                name=_absolute(FLAGS.encoder),
                description=encoder.description,
                batch_size=FLAGS.batch_size,
                parts=work.folder,
            ),
            [
                ({video: command.absolute(path)}, {"number": number})
                for number, (video, path) in enumerate(videos.items())
            ],
            find_done,
            f"{len(videos)} videos",
            # The folder itself is locked already.
            f"{work.folder}/pipeline",
            options,
        )
    return work.problems


def _absolute(name):
    """The name of an encoder whose weights are found from any folder."""
    kind, *others = name.split(":")
    if kind.endswith(".keras"):
        return command.absolute(name)
    others = [command.absolute(x) if os.path.exists(x) else x for x in others]
    return ":".join([kind, *others])


if __name__ == "__main__":
    command.run(run, other_flags=True)
