"""Curves over training steps: R@1, IoU=0.5, as the paper's Figure 5, losses."""

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
# Loss -> its column.
LOSSES = {
    "total": "loss",
    "alignment": "score_loss",
    "offset": "offset_loss",
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
        title: ([row["step"] for row in rows], _lines(rows, CURVES))
        for title, rows in histories.items()
    }
    acnn_tf.plots.recall_curves(path, panels, chance=chance)


def draw_epochs(path, history, steps_per_epoch, *, monitor, chance, title):
    """Draws the logs of all epochs so far, where there is Matplotlib.

    Args:
        path: Where to write the picture.
        history: List of the logs of each epoch.
        steps_per_epoch: Int.
        monitor: Name in the logs that decides on the best epoch.
        chance: Fraction of R@1, IoU=0.5 that guessing gets.
        title: Heading.

    Returns:
        `path`, or `None` without Matplotlib.
    """
    try:
        return acnn_tf.plots.training(
            path,
            [(epoch + 1) * steps_per_epoch for epoch in range(len(history))],
            _lines(history, CURVES),
            _lines(history, LOSSES),
            best=int(np.argmax([logs[monitor] for logs in history])),
            chance=chance,
            title=title,
        )
    except ImportError as error:  # no reason to stop
        logging.log_first_n(logging.WARNING, "No curve: %s", 1, error)
        return None


def _lines(rows, columns):
    """Name of a line -> its value in each row, of those columns there are."""
    return {
        name: [row.get(column, math.nan) for row in rows]
        for name, column in columns.items()
        if any(column in row for row in rows)
    }


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
