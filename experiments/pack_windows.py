r"""Packs features that come as one file a window, as those of TACoS do.

  python -m experiments.pack_windows --features=c3d_windows --out=packed

Reads VIDEO_START_END.npy, frames, of --features, and writes one array and a
list of its names into the folder --out, which is a --features that opens at
once. Each vector is checked on the way; one that is bad is named, and nothing
is written.
"""

from absl import flags

import acnn_tf
from export import command
from export.progress import Progress

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "features", None, "Folder of VIDEO_START_END.npy.", required=True
)
flags.DEFINE_string("out", None, "Folder to write.", required=True)


def run():
    with acnn_tf.data.open_features(FLAGS.features) as features:
        if not isinstance(features, acnn_tf.data.WindowFeatures):
            raise ValueError(
                f"--features must hold one vector for each window, named "
                f"VIDEO_START_END. Received: {FLAGS.features}, which holds "
                "clips of whole videos"
            )
        count = sum(len(features[video].frames) for video in features)
        progress = Progress(count, "windows")
        acnn_tf.data.pack_windows(features, FLAGS.out, progress)
        print(
            f"{FLAGS.out}: {count:,} windows of {len(features):,} videos, "
            f"{features.dim:,} numbers each"
        )


if __name__ == "__main__":
    command.run(run)
