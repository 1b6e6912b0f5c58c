"""Evaluates a small model under a strategy: figures and predictions to JSON.

python -m tests.sharded_evaluation STRATEGY OUT NUM_VIDEOS [NUM_VIDEOS ...]
"""

import json
import sys

from acnn_tf import evaluation
from acnn_tf.data import synthetic
from tests import distributed_fit


def evaluate(model, strategy, num_videos):
    scenes = synthetic.make_scenes(num_videos, split="val")
    results, predictions = evaluation.evaluate(
        model, scenes.moments, scenes.features, strategy=strategy
    )
    return results, [array.tolist() for array in predictions]


def main(name, out, *numbers):
    strategy = distributed_fit.make_strategy(name)
    with strategy.scope():
        model, _ = distributed_fit.make_model()
    found = {
        number: evaluate(model, strategy, int(number)) for number in numbers
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
