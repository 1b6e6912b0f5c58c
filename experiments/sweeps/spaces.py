"""Spaces to tune in: functions in Python, from which KerasTuner draws.

    def space(hp):
        return {
            "kernel_sizes": hp.Choice("kernel_sizes", ["1", "1,3", "1,3,5"]),
            "filters": hp.Int("filters", 32, 256, step=32),
            "dropout": hp.Float("dropout", 0.0, 0.5),
        }

`hp` is a `keras_tuner.HyperParameters`. The function returns flags of
`experiments.train` by their names; one that is `None` is left out.
"""

import importlib
import os
import tempfile

from acnn_tf.files.problems import DataError, Problem
from experiments.sweeps.runs import RunError


def import_tuner(algorithm):
    """Imports `keras_tuner`, or says in an `ImportError` what to install."""
    needed = ["scipy", "sklearn"] if algorithm == "bayesian" else []
    try:
        for name in needed:
            importlib.import_module(name)
        return importlib.import_module("keras_tuner")
    except ImportError as error:
        raise ImportError(
            f"Tuning needs KerasTuner, with --algorithm={algorithm} ({error}). "
            'Run: pip install -e ".[tune]"'
        ) from error


def load_space(path):
    """The function `space` of a Python file below the current folder."""
    name, extension = os.path.splitext(os.path.relpath(path))
    parts = name.split(os.sep)
    if (
        extension != ".py"
        or not os.path.isfile(path)
        or not all(map(str.isidentifier, parts))
    ):
        raise ValueError(
            "--space must name a Python file below the current folder, such "
            f"as experiments/grids/tuning.py. Received: {path}"
        )
    space = getattr(importlib.import_module(".".join(parts)), "space", None)
    if not callable(space):
        raise ValueError(
            f"{path}: expected a function `space(hp)` that returns flags, "
            "found none; experiments/grids/tuning.py has one"
        )
    return space


def as_words(settings):
    """Flags by their names, as one types them; `None` leaves one out.

    >>> as_words({"dropout": 0.25, "kernel_sizes": (1, 3), "crop": None})
    ['--dropout=0.25', '--kernel_sizes=1,3']
    """

    def text(value):
        if isinstance(value, (list, tuple)):
            return ",".join(map(text, value))
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return [
        f"--{name}={text(value)}"
        for name, value in settings.items()
        if value is not None
    ]


def check_space(tuner, path, space, check_flags):
    """Tries each choice, and both ends of each range, one after the other.

    `check_flags` raises a `ValueError` where a list of flags will not do; all
    are told in one `DataError`, with the path of the space.
    """
    problems, seen = {}, set()
    to_try = [{}]  # what is not drawn has its default
    for drawn in to_try:  # which grows
        hp = tuner.HyperParameters()
        hp.values = dict(drawn)
        try:
            flags = space(hp)
            if not isinstance(flags, dict) or not flags:
                raise ValueError(
                    "expected `space` to return flags as {name: value}, found "
                    f"{flags!r:.80}; return at least one"
                )
            check_flags(as_words(flags))
        except ValueError as error:
            problems[str(error)] = Problem(os.fspath(path), None, str(error))
        for one in hp.space:
            if one.name in seen:
                continue
            seen.add(one.name)
            ends = (
                (one.min_value, one.max_value)
                if hasattr(one, "min_value")
                else one.values
            )
            branch = {each.name: each.values[0] for each in one.conditions}
            to_try += [drawn | branch | {one.name: value} for value in ends]
    if problems:
        raise DataError(problems.values())


def search(tuner, algorithm, space, score, count, seed):
    """Draws settings, and has `score` tell how good they are.

    What is drawn follows from the seed, the space and the scores before, so
    that a search that is repeated with the same scores draws the same. There
    are `count` trials, or fewer where the space has no more. A `RunError` of
    `score` is a trial that failed; other errors end the search.
    """
    kinds = {
        "random": tuner.RandomSearch,
        "bayesian": tuner.BayesianOptimization,
    }

    class Trials(kinds[algorithm]):
        def run_trial(self, trial, *args, **kwargs):
            settings = self.hypermodel.build(trial.hyperparameters)
            try:
                return {"score": score(settings)}
            except RunError as error:
                raise tuner.errors.FailedTrialError(str(error)) from error
            except (OSError, ValueError) as error:
                raise tuner.errors.FatalError(str(error)) from error

    # Its own files are thrown away: the runs say what is done.
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(
            space,
            objective=tuner.Objective("score", "max"),
            max_trials=count,
            seed=seed + 1,  # it takes 0 for "any"
            directory=folder,
            max_consecutive_failed_trials=count + 1,
        )
        try:
            trials.search(verbose=0)
        except tuner.errors.FatalError as error:
            raise ValueError(str(error)) from None
