"""Settings drawn by KerasTuner from a space, one after the other."""

import importlib
import math
import tempfile

from experiments.sweeps.runs import RunError


def import_tuner(algorithm):
    """The module `keras_tuner`, which is an extra.

    Args:
        algorithm: `"random"` or `"bayesian"`.

    Raises:
        ImportError: Says what to install.
    """
    needed = ["scipy", "sklearn"] if algorithm == "bayesian" else []
    try:
        for name in needed:
            importlib.import_module(name)
        return importlib.import_module("keras_tuner")
    except ImportError as error:
        raise ImportError(
            f"Tuning needs KerasTuner, with --algorithm={algorithm} ({error}). "
            "Run: pip install 'acnn_tf[tune]'"
        ) from error


def search(tuner, algorithm, space, score, count, seed):
    """Draws settings, and has `score` tell how good they are.

    What is drawn follows from the seed, the space and the scores before, so
    that a search that is repeated with the same scores draws the same.

    Args:
        tuner: From `import_tuner`.
        algorithm: `"random"` or `"bayesian"`.
        space: From `experiments.sweeps.space.read_space`.
        score: Function of a dictionary, name of a flag to its value as text;
            the higher the better. A `RunError` is a trial that failed.
        count: Int, trials in all; fewer where the space has no more.
        seed: Int.

    Raises:
        ValueError: If `score` raises it, or an `OSError`.
    """
    kind = tuner.RandomSearch
    if algorithm == "bayesian":
        kind = tuner.BayesianOptimization

    class Trials(kind):
        def run_trial(self, trial, *args, **kwargs):
            drawn = trial.hyperparameters.values
            settings = {name: _text(value) for name, value in drawn.items()}
            try:
                return {"score": score(settings)}
            except RunError:
                return {"score": math.nan}  # what it takes for a failure
            except (OSError, ValueError) as error:
                raise tuner.errors.FatalError(str(error)) from error

    # Its own files are thrown away: the runs say what is done.
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(
            objective=tuner.Objective("score", "max"),
            max_trials=count,
            seed=seed + 1,  # it takes 0 for "any"
            hyperparameters=_hyperparameters(tuner, space),
            directory=folder,
            max_consecutive_failed_trials=count + 1,
        )
        try:
            trials.search(verbose=0)
        except tuner.errors.FatalError as error:
            raise ValueError(str(error)) from None


def _text(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _hyperparameters(tuner, space):
    found = tuner.HyperParameters()
    for each in space:
        sampling = "log" if each.log else "linear"
        if each.choices:
            found.Choice(each.flag, list(each.choices))
        elif isinstance(each.low, float):
            found.Float(each.flag, each.low, each.high, sampling=sampling)
        else:
            found.Int(each.flag, each.low, each.high, each.step)
    return found
