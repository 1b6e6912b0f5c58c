"""Which model the flags call for."""

import pytest
from absl.testing import flagsaver

from acnn_tf.models import ACNN, ACRN, CTRL
from experiments import model_flags


def arguments(*given):
    with flagsaver.flagsaver():
        model_flags.FLAGS(["train", *given])
        return model_flags.model_arguments()


@pytest.mark.parametrize(
    "name, make, flag, kept",
    [
        ("acnn", ACNN, "--kernel_sizes=1,3", {"kernel_sizes": (1, 3)}),
        ("acnn_mean", ACNN, "--filters=8", {"context_pooling": "mean"}),
        ("acnn_concat", ACNN, "--filters=8", {"context_pooling": "concat"}),
        ("acrn", ACRN, "--memory_activation=none", {"memory_activation": None}),
        ("ctrl", CTRL, "--context_size=7", {"context_size": 7}),
    ],
)
def test_each_model_is_made_of_its_own_flags(name, make, flag, kept):
    given = arguments(f"--model={name}", flag, "--hidden_dim=none")
    config = make(**given).get_config()
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
    with pytest.raises(ValueError, match=f"--{word} is no .*--model={name}"):
        arguments(f"--model={name}", flag)
