"""The figures of docs/scaling.md that follow from the model."""

from pathlib import Path

import numpy as np
import pytest

from acnn_tf.models import ACNN
from experiments.benchmarks import step

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
BATCH, WIDTH, QUERY_WIDTH = step.SHAPE


@pytest.fixture(scope="module")
def model():
    """The model of `experiments.benchmarks.step`."""
    model = ACNN(
        kernel_sizes=(1, 3, 5),
        filters=256,
        embedding_dim=128,
        hidden_dim=64,
        first_order_query=False,
        position_features=False,
    )
    model.build(
        {"window": (None, None, 5, WIDTH), "query": (None, QUERY_WIDTH)}
    )
    return model


def num_parameters(model):
    shapes = [weight.shape for weight in model.trainable_variables]
    return sum(int(np.prod(shape)) for shape in shapes)


def flops(model, replicas):
    """Of a replica: own queries, windows of all."""
    own = step.product_flops(model, BATCH, WIDTH, QUERY_WIDTH)
    others = (replicas - 1) * BATCH
    pair = model.hidden_dim * (model.embedding_dim + 3)
    return own + 6 * BATCH * others * pair


def words():
    return " ".join(PAGE.read_text(encoding="utf-8").split())


def test_sizes_are_those_of_the_model(model):
    count = num_parameters(model)
    assert f"P = {count:,} parameters" in words()
    assert f"| `16 P` bytes | {16e-6 * count:.1f} MB |" in words()
    # Adam's moments too; the file has names and positions besides.
    assert f"{12e-6 * count:.1f} MB" == "133.7 MB"
    assert "has 133.8 MB" in words()


def test_formula_of_flops_in_numbers_is_that_of_the_step(model):
    assert f"| {flops(model, 1):.2e} |".replace("e+09", "e9") in words()
    assert "`46,694,400 b + 50,304 b (B + 1)`" in words()
    for replicas in (1, 2, 8, 64):
        batch = replicas * BATCH
        expected = 46_694_400 * BATCH + 50_304 * BATCH * (batch + 1)
        assert flops(model, replicas) == expected
    assert f"at B = {46_694_400 / 50_304:.0f}, the pairs" in words()


def table_row(model, replicas):
    batch = replicas * BATCH
    share = (replicas - 1) / replicas
    reduced = 2 * share * 4 * num_parameters(model)
    gathered = share * 4 * batch * (3 * model.embedding_dim + 1)
    network = [8e3 * (reduced + gathered) / (g * 1e9) for g in (1, 10, 100)]
    own = flops(model, replicas)
    return (
        f"| {replicas} | {batch:,} | {1e-9 * own:.2f} "
        f"| {1e-6 * reduced:.1f} MB | {1e-6 * gathered:.2f} MB "
        f"| {' / '.join(f'{ms:.0f}' for ms in network)} ms "
        f"| {1e3 * own / 105e9:.0f} ms | {1e3 * own / 20e12:.2f} ms "
        f"| {1e3 * batch / 145_000:.0f} ms |"
    )


def test_table_follows_from_its_formulas(model):
    # Milliseconds of gathers are nothing beside their rounding.
    for replicas in (2, 8, 64):
        assert table_row(model, replicas) in words()
