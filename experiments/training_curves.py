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
    """Reads the history.csv of a run: dictionaries of floats, by epoch."""
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

    `histories` are by the titles of the panels, as of `read_history`.
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

    What they log begins with `train_`.
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
