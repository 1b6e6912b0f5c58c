"""Curves of R@1, IoU=0.5 over training steps, as the paper's Figure 5."""

import csv
import math
import os

import numpy as np
from absl import logging

import acnn_tf

# Curve -> its column of history.csv.
CURVES = {
    "training": "train_R@1_IoU=0.5",
    "validation": "val_R@1_IoU=0.5",
}


def read_history(folder):
    """Reads the history.csv of a run.

    Args:
        folder: Folder of a run of experiments.train.

    Returns:
        List of dictionaries of floats, one for each epoch.

    Raises:
        ValueError: Says what is wrong with the file, and what to do.
    """
    path = os.path.join(folder, "history.csv")
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        rows = [
            {name: float(value or math.nan) for name, value in row.items()}
            for row in rows
        ]
        if not rows:
            raise ValueError("no epochs")
        if missing := {"step", CURVES["validation"]} - rows[0].keys():
            raise ValueError(f"no columns {', '.join(sorted(missing))}")
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} must be what experiments.train writes, with a row an "
            f"epoch; found: {error}. Train the run, or leave it out."
        ) from None
    return rows


def draw(path, histories, chance=None):
    """Draws the curves of one run or more, each in a panel of its own.

    Args:
        path: PNG file to write.
        histories: Dictionary from the title of a panel to the rows of its
            run, as `read_history` returns them.
        chance: Float, what guessing gets, or `None`.
    """
    panels = {
        title: (
            [row["step"] for row in rows],
            {
                name: [row.get(column, math.nan) for row in rows]
                for name, column in CURVES.items()
                if any(column in row for row in rows)
            },
        )
        for title, rows in histories.items()
    }
    acnn_tf.plots.recall_curves(path, panels, chance=chance)


def draw_epochs(path, history, steps_per_epoch, chance):
    """Draws the logs of all epochs so far, where there is Matplotlib."""
    rows = [
        {"step": (epoch + 1) * steps_per_epoch, **logs}
        for epoch, logs in enumerate(history)
    ]
    try:
        draw(path, {"": rows}, chance=chance)
    except ImportError as error:  # no reason to stop
        logging.log_first_n(logging.WARNING, "No curve: %s", 1, error)


def watch_training_queries(split, count, seed):
    """Callbacks that search for some training queries after every epoch.

    Args:
        split: `experiments.splits.Split` that is trained on.
        count: Int, how many queries; 0 asks for none.
        seed: Int, which decides on the queries.

    Returns:
        List, for `fit`; what they log begins with `train_`.
    """
    if not count:
        return []
    order = np.random.default_rng(seed).permutation(len(split.moments))
    return [
        acnn_tf.callbacks.Validation(
            [split.moments[index] for index in sorted(order[:count])],
            split.features,
            monitor=None,
            prefix="train_",
            sentence_vectors=split.sentence_vectors,
        )
    ]
