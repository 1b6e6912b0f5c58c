"""The datasets: how their annotations are read, and what files are called.

Another dataset is a file beside these, that defines a `Dataset`, and a row in
the table.
"""

from acnn_tf.data.datasets import (
    activitynet_captions,
    charades_sta,
    didemo,
    jsonl,
    qvhighlights,
    tacos,
)

# What --dataset is called -> the dataset.
DATASETS = {
    "tacos": tacos.DATASET,
    "charades_sta": charades_sta.DATASET,
    "activitynet_captions": activitynet_captions.DATASET,
    "didemo": didemo.DATASET,
    "qvhighlights": qvhighlights.DATASET,
    "jsonl": jsonl.DATASET,
    # The rendered scenes of `acnn_tf.data.synthetic`, once they are written.
    "synthetic": jsonl.DATASET,
}
