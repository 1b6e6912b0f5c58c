r"""Makes clip features and sentence vectors from annotations, without video.

  python -m experiments.tacos.make_features --data_dir=data/tacos \
      --out=runs/made

Writes c3d_{train,val,test}.hdf5 and skip_thoughts.hdf5 into --out, in the
layouts of the real C3D features and Skip-thought vectors of TACoS; what they
are made of is said in `experiments.tacos.made_features`. The same annotations
and --seed always make the same numbers, one video at a time.
"""

import os

from absl import flags

import acnn_tf
from experiments import splits
from export import command

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(splits)

flags.DEFINE_string("out", None, "Folder to fill.", required=True)
flags.DEFINE_integer("seed", 0, "Of all random numbers.", lower_bound=0)


def run():
    from experiments.tacos import made_features as semi_synthetic

    recipe = semi_synthetic.Recipe(seed=FLAGS.seed)
    os.makedirs(FLAGS.out, exist_ok=True)
    moments = []
    data = {"dataset": "tacos", **command.flag_values(splits)}
    for split in ("train", "val", "test"):
        loaded = splits.load_split(split, **data, with_features=False)
        own = loaded.moments
        moments += own
        clips = semi_synthetic.Clips(own, recipe)
        path = os.path.join(FLAGS.out, f"c3d_{split}.hdf5")
        acnn_tf.data.write_features(path, clips, recipe.clip_seconds)
        print(
            f"{path}: semi-synthetic, {len(clips)} videos, "
            f"{len(own)} sentences",
            flush=True,
        )
    path = os.path.join(FLAGS.out, "skip_thoughts.hdf5")
    vectors = semi_synthetic.Sentences(moments, recipe)
    acnn_tf.data.write_sentence_vectors(path, vectors)
    print(f"{path}: semi-synthetic, {len(moments)} sentences")


if __name__ == "__main__":
    command.run(run)
