r"""What is worth tuning, kernels first.

  python -m experiments.sweeps.tune --space=experiments/grids/tuning.py \
      --flagfile=experiments/flags/charades_clip.flags --members=1 \
      --data_dir=data/charades_sta_clip \
      --word_vectors=data/glove/glove.300d.charades.txt \
      --workdir=runs/tuning --trials=30 --epochs=8

30 trials of 1.5 minutes on 2 CPU cores: three quarters of an hour.
"""


def space(hp):
    """Flags of `experiments.train`, with values that KerasTuner draws."""
    return {
        "kernel_sizes": hp.Choice(
            "kernel_sizes", ["1", "1,3", "1,3,5", "1,3,5,7"]
        ),
        "dilation": hp.Choice("dilation", [1, 2, 5]),
        "filters": hp.Int("filters", 64, 256, step=64),
        "embedding_dim": hp.Choice("embedding_dim", [32, 64, 128]),
        "hidden_dim": hp.Choice("hidden_dim", ["none", "64", "128", "256"]),
        "learning_rate": hp.Float("learning_rate", 3e-4, 3e-3, sampling="log"),
        "dropout": hp.Float("dropout", 0.0, 0.5),
        "clip_dropout": hp.Float("clip_dropout", 0.0, 0.5),
    }
