"""The flags of models: their table, and the models that they call for."""

import inspect
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from acnn_tf import models
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
OF_THE_DATA = {"clip_seconds", "vocabulary"}
OTHERWISE = {
    "window_lengths": ("window_seconds", "window_frames"),
    "window_overlap": ("overlap",),
    "frame_rate": ("frame_rate",),
}


@pytest.mark.parametrize("name", model_flags.MODELS)
def test_every_argument_of_a_constructor_has_a_flag(name):
    cls, settled = model_flags.MODELS[name]
    expected = getattr(models, cls).arguments()
    for argument in {*OF_THE_DATA, *OTHERWISE, *settled, "context_pooling"}:
        expected.pop(argument, None)
    table = {
        argument: row.default
        for argument, row in model_flags.ARGUMENTS.items()
        if name in row.models
    }
    assert table == expected


def test_helps_name_the_default_that_a_flag_leaves():
    wrong = []
    for module, function in (
        (splits, splits.load_split),
        (training_batches, training_batches.make_batches),
        (losses_and_optimizer, losses_and_optimizer.compile_model),
        (model_flags, model_flags.make_model),
        (model_flags, model_flags.constructor_arguments),
    ):
        arguments = inspect.signature(function).parameters
        for flag in flags.FLAGS.get_key_flags_for_module(module):
            assert flag.default is None, flag.name
            if flag.name not in arguments:
                continue
            default = arguments[flag.name].default
            _, _, said = flag.help.partition("Default: ")
            said = said.split(",")[0].removesuffix(".")
            if default is None or isinstance(default, bool):
                continue  # said in words
            if type(default)(said) != default:
                wrong.append((flag.name, said, default))
    assert not wrong


def given(*words):
    with flagsaver.flagsaver():
        flags.FLAGS(["train", *words], known_only=True)
        return command.flag_values(model_flags)


@pytest.mark.parametrize(
    "name, flag, kept",
    [
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
    ],
)
def test_each_model_is_made_of_its_own_flags(name, flag, kept):
    values = given(f"--model={name}", *flag.split(), "--hidden_dim=none")
    arguments = model_flags.constructor_arguments(**values)
    cls = getattr(models, model_flags.MODELS[name][0])
    config = cls(**arguments).get_config()
    assert config["hidden_dim"] is None
    for key, value in kept.items():
        assert config[key] == value


@pytest.mark.parametrize(
    "name, flag",
    [
        ("ctrl", "--filters=8"),
        ("ctrl", "--pool_size=1"),
        ("acrn", "--nofirst_order_query"),
        ("acnn", "--context_size=3"),
        ("acnn_mean", "--scorer_activation=relu"),
    ],
)
def test_a_flag_that_a_model_does_not_have_is_refused_by_name(name, flag):
    word = flag.removeprefix("--no").lstrip("-").split("=")[0]
    values = given(f"--model={name}", flag)
    with pytest.raises(ValueError, match=f"--{word} is no .*--model={name}"):
        model_flags.constructor_arguments(**values)


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--kernel_sizes=1,x", "--kernel_sizes: .*'x'"),
        ("--hidden_dim=many", "--hidden_dim: .*'many'"),
        ("--window_seconds=3,x", "--window_seconds: .*'x'"),
        ("--window_seconds=3 --window_frames=64", "not both"),
    ],
)
def test_a_value_that_is_none_of_its_kind_is_named(flag, message):
    with pytest.raises(ValueError, match=message):
        model_flags.constructor_arguments(**given(*flag.split()))


def test_the_benchmark_times_the_papers_settings():
    path = ROOT / "experiments" / "flags" / "tacos_paper.flags"
    with flagsaver.flagsaver():
        flags.FLAGS(["train", f"--flagfile={path}"], known_only=True)
        network = model_flags.constructor_arguments(
            **command.flag_values(model_flags)
        )
        objective = command.flag_values(losses_and_optimizer)
    assert network.pop("hidden_dim") is None  # the benchmark's has a layer
    assert step.NETWORK == network
    assert step.OBJECTIVE == objective
