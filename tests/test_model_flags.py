"""The flags of models: their table, and the models that they call for."""

from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from acnn_tf import models
from acnn_tf.models import acnn
from experiments import (
    losses_and_optimizer,
    model_flags,
    splits,
    training_batches,
)
from experiments.benchmarks import step
from export import command

ROOT = Path(__file__).resolve().parents[1]
# Arguments that the data decide on, or that have flags of other names.
OF_THE_DATA = {"clip_seconds", "encoder", "query_description", "vocabulary"}
OTHERWISE = {
    "window_lengths": ("window_seconds", "window_frames"),
    "window_overlap": ("overlap",),
    "frame_rate": ("frame_rate",),
}


def test_every_argument_of_a_constructor_has_a_flag():
    for name, (cls, settled) in model_flags.MODELS.items():
        expected = getattr(models, cls).arguments()
        for argument in {*OF_THE_DATA, *OTHERWISE, *settled, "context_pooling"}:
            expected.pop(argument, None)
        table = {
            argument: row.default
            for argument, row in model_flags.ARGUMENTS.items()
            if name in row.models
        }
        assert table == expected, name


def test_a_help_names_the_default_that_a_flag_leaves():
    helps = {name: flags.FLAGS[name].help for name in flags.FLAGS}
    assert helps["schedule"].endswith("always the same. Default: cosine.")
    assert helps["weight_decay"].endswith("Adam. Default: 0.0001.")
    assert helps["frame_rate"].endswith("of TACoS. Default: 29.4.")
    for name in ("skip_bad", "features"):  # said in words
        assert "Default" not in helps[name]
    own = acnn.ACNN.arguments()
    lengths = ",".join(f"{length:g}" for length in own["window_lengths"])
    assert helps["window_seconds"].endswith(f" Default: {lengths}.")
    assert helps["overlap"].endswith(f" Default: {own['window_overlap']}.")
    for name in set().union(
        *map(command.flag_values, (splits, model_flags, training_batches))
    ):
        raise AssertionError(f"--{name} has a default of its own")


def given(*words):
    with flagsaver.flagsaver():
        # The main is there if another test has imported it.
        flags.FLAGS(["train", "--workdir=run", *words], known_only=True)
        return command.flag_values(model_flags)


def test_each_model_is_made_of_its_own_flags():
    for name, flag, kept in (
        ("acnn", "--kernel_sizes=1,3", {"kernel_sizes": (1, 3)}),
        ("acnn_mean", "--filters=8", {"context_pooling": "mean"}),
        ("acnn_concat", "--filters=8", {"context_pooling": "concat"}),
        ("acrn", "--memory_activation=none", {"memory_activation": None}),
        ("ctrl", "--context_size=7", {"context_size": 7}),
        ("acnn", "--consensus_iou=0.3,0.6", {"consensus_iou": (0.3, 0.6)}),
        ("ctrl", "--overlap=0.5", {"window_overlap": 0.5}),
        (
            "acnn",
            "--window_frames=64,128 --frame_rate=25",
            {"window_lengths": (64, 128), "frame_rate": 25.0},
        ),
        ("acrn", "--window_seconds=3,4.5", {"window_lengths": (3.0, 4.5)}),
        (
            "acnn",
            "--scorer_activation=relu,tanh",
            {"scorer_activation": ("relu", "tanh")},
        ),
        ("acnn", "--scorer_activation=none", {"scorer_activation": None}),
    ):
        values = given(f"--model={name}", *flag.split(), "--hidden_dim=none")
        arguments = model_flags.constructor_arguments(**values)
        cls = getattr(models, model_flags.MODELS[name][0])
        config = cls(**arguments).get_config()
        assert config["hidden_dim"] is None
        for key, value in kept.items():
            assert config[key] == value, flag


def test_flags_that_are_filled_in_change_no_model():
    for name, (cls, settled) in model_flags.MODELS.items():
        for frames in (None, ["64"]):
            values = model_flags.defaults(name, frames)
            found = model_flags.constructor_arguments(**values)
            expected = getattr(models, cls).arguments() | settled
            if frames:
                expected["frame_rate"] = 29.4
            assert found.items() <= expected.items()
            assert "context_size" in found or "kernel_sizes" in found


def test_a_flag_that_does_not_fit_is_refused_by_name():
    for flag, message in (
        ("--model=ctrl --filters=8", "--filters is no .*--model=ctrl"),
        ("--model=ctrl --pool_size=1", "--pool_size is no .*--model=ctrl"),
        ("--model=acrn --nofirst_order_query", "--first_order_query is no .*"),
        ("--model=acnn --context_size=3", "--context_size is no .*"),
        ("--model=acnn_mean --scorer_activation=relu", "--scorer_act.* is no "),
        ("--kernel_sizes=1,x", "--kernel_sizes: .*'x'"),
        ("--hidden_dim=many", "--hidden_dim: .*'many'"),
        ("--window_seconds=3,x", "--window_seconds: .*'x'"),
        ("--window_seconds=3 --window_frames=64", "not both"),
    ):
        with pytest.raises(ValueError, match=message):
            model_flags.constructor_arguments(**given(*flag.split()))


def test_the_benchmark_times_the_papers_settings():
    path = ROOT / "experiments" / "flags" / "tacos_paper.flags"
    with flagsaver.flagsaver():
        flags.FLAGS(
            ["train", "--workdir=run", f"--flagfile={path}"], known_only=True
        )
        network = model_flags.constructor_arguments(
            **command.flag_values(model_flags)
        )
        objective = command.flag_values(losses_and_optimizer)
    assert network.pop("hidden_dim") is None  # the benchmark's has a layer
    assert step.NETWORK == network
    assert step.OBJECTIVE == objective
