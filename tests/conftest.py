"""What every test file shares: quiet logs, fixed seeds, the real data."""

import contextlib
import gc
import os
import random
import sys
from pathlib import Path

# Before the first import of TensorFlow, Keras or Matplotlib.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("MPLBACKEND", "agg")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# The graphs of all tests live on: Python shall look through them less often.
gc.set_threshold(100_000, 50, 50)

# The same examples on every machine, and no verdict on how fast it is: the
# first call of a TensorFlow function traces it.
settings.register_profile(
    "acnn_tf",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("acnn_tf")

# The files that take longest, so that no worker is left with one at the end.
LONGEST = (
    "test_export",
    "test_distribution",
    "test_training",
    "test_servable",
    "test_experiments",
    "test_baselines",
    "test_demo_browser",
    "test_descriptions",
    "test_dask_shards",
    "test_moment_index",
    "test_demo",
    "test_documents",
    "test_encoders",
    "test_untrusted_archives",
)


def pytest_collection_modifyitems(items):
    """Puts the files that take longest first; all others keep their order."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def set_tensorflow_seed(seed):
    """`tf.random.set_seed`, but for the graphs that it makes TensorFlow forget.

    All graphs that tests share would be optimized again in each of them.
    """
    from tensorflow.python.eager import context

    own = context.context()
    own._seed, own._rng = seed, random.Random(seed)


@pytest.fixture(autouse=True)
def seeds():
    """Starts every test from the same seeds, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - Keras and older code draw from it
    # Tests of plain files should not wait for Keras to load.
    if "keras" in sys.modules:
        sys.modules["tensorflow"].random.set_seed = set_tensorflow_seed
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture
def refused(subtests):
    """What a block must raise; where it does not, other blocks are tried."""

    @contextlib.contextmanager
    def check(error, match, **case):
        with subtests.test(match, **case), pytest.raises(error, match=match):
            yield

    return check


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real datasets, where the machine has one."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip(
            "no real datasets at ../shared/data: they are for research use "
            "and not part of the project"
        )
    return path


@pytest.fixture(scope="session")
def small_models(tmp_path_factory):
    """Folder with version 1, y = 2 x. Tests copy what they change."""
    from tests.small_model import save  # brings TensorFlow

    folder = tmp_path_factory.mktemp("models")
    save(folder, 1, 2)
    return folder
