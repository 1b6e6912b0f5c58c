"""Evaluates a small model under a strategy: figures and predictions to JSON.

python -m tests.sharded_evaluation STRATEGY OUT NUM_VIDEOS
"""

import json
import sys

from acnn_tf import evaluation
from acnn_tf.data import synthetic
from tests import distributed_fit


def evaluate(name, out, num_videos):
    strategy = distributed_fit.make_strategy(name)
    with strategy.scope():
        model, _ = distributed_fit.make_model()
    scenes = synthetic.make_scenes(int(num_videos), split="val")
    results, predictions = evaluation.evaluate(
        model, scenes.moments, scenes.features, strategy=strategy
    )
    found = [array.tolist() for array in predictions]
    with open(out, "w", encoding="utf-8") as file:
        json.dump([results, found], file)


if __name__ == "__main__":
    evaluate(*sys.argv[1:])
