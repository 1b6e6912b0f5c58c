"""On how many devices and machines, by flags."""

import collections
import json
import os
import sys

import tensorflow as tf
from absl import flags

FLAGS = flags.FLAGS

flags.DEFINE_enum(
    "strategy",
    "none",
    ["none", "mirrored", "multi_worker"],
    "One device; all devices of this machine; or several machines, each of "
    "which runs this command with a TF_CONFIG of its own. The model is the "
    "same.",
)
flags.DEFINE_integer(
    "num_replicas",
    None,
    "Of --strategy=mirrored. Default: the accelerators of this machine; "
    "without any, the processor plays this many devices.",
    lower_bound=1,
)

_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def make_strategy():
    """The strategy that the flags name; call it before anything else.

    Raises:
        ValueError: If TF_CONFIG, or the number of replicas, will not do.
    """
    if FLAGS.num_replicas and FLAGS.strategy != "mirrored":
        raise ValueError("--num_replicas is for --strategy=mirrored.")
    if FLAGS.strategy == "mirrored":
        return tf.distribute.MirroredStrategy(_devices(FLAGS.num_replicas))
    if FLAGS.strategy == "multi_worker":
        workers, index = read_tf_config(os.environ.get("TF_CONFIG"))
        print(
            f"Worker {index} of {len(workers)} at {workers[index]} waits for "
            "the others.",
            file=sys.stderr,
        )
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def _devices(count):
    found = tf.config.list_physical_devices("GPU")
    if not found and count:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * count,
        )
        return [f"CPU:{number}" for number in range(count)]
    if count and count > len(found):
        raise ValueError(
            f"--num_replicas={count}, but this machine has {len(found)} GPUs."
        )
    return [f"GPU:{number}" for number in range(count or len(found))] or None


def read_tf_config(text):
    """Workers and the own number, from TF_CONFIG.

    Args:
        text: Its value, or `None` where it is not set.

    Returns:
        `(workers, index)`: list of `HOST:PORT`, int.

    Raises:
        ValueError: If it is not as TensorFlow wants it.

    Example:

    >>> read_tf_config(
    ...     '{"cluster": {"worker": ["a:1", "b:1"]}, '
    ...     '"task": {"type": "worker", "index": 1}}'
    ... )
    (['a:1', 'b:1'], 1)
    """

    def fail(what):
        raise ValueError(
            f"TF_CONFIG {what}. --strategy=multi_worker needs it on each "
            f"machine, with an `index` of its own: {_EXAMPLE}"
        )

    if not text:
        fail("is not set")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        workers, kind, index = cluster["worker"], task["type"], task["index"]
    except ValueError as error:
        fail(f"is not JSON ({error})")
    except (KeyError, TypeError):
        fail("must have `cluster` with `worker`, and `task`")
    if set(cluster) != {"worker"} or kind != "worker":
        fail(
            f"must have workers only; it has {sorted(cluster)} and this is a "
            f"{kind!r}"
        )
    if not isinstance(workers, list) or not workers:
        fail(f"must list the workers; it has {workers!r}")
    for worker in workers:
        host, _, port = str(worker).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            fail(f"has {worker!r} in place of HOST:PORT")
    twice = [w for w, n in collections.Counter(workers).items() if n > 1]
    if twice:
        fail(f"has {twice[0]!r} twice")
    if type(index) is not int or not 0 <= index < len(workers):
        fail(
            f"has index {index!r}, which is not one of the {len(workers)} "
            "workers, counted from 0"
        )
    return workers, index
