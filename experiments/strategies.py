"""On how many devices and machines a main runs, and the flags that say it."""

import collections
import sys
import typing

from experiments import argument_flags

_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def make_strategy(
    strategy: typing.Literal["none", "mirrored", "multi_worker"] = "none",
    num_replicas: int | None = None,
):
    """Makes a `tf.distribute.Strategy`; before TensorFlow does any work.

    `num_replicas` are the devices of `"mirrored"`, all accelerators by default.
    If that number or TF_CONFIG cannot be used, a `ValueError` says why.
    """
    import tensorflow as tf

    if num_replicas and strategy != "mirrored":
        raise ValueError("--num_replicas is for --strategy=mirrored.")
    if strategy == "mirrored":
        return tf.distribute.MirroredStrategy(_devices(num_replicas))
    if strategy == "multi_worker":
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        workers = check_cluster(resolver)
        print(
            f"Worker {resolver.task_id} of {len(workers)} at "
            f"{workers[resolver.task_id]} waits for the others: each machine "
            "runs this command in a checkout of its own.",
            file=sys.stderr,
        )
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    return tf.distribute.get_strategy()


argument_flags.define(
    make_strategy,
    "Devices and machines",
    strategy="What runs the command: one device; all devices of this machine; "
    "or several machines, each of which has a checkout and runs this command "
    "in it, with a TF_CONFIG of its own. The model is the same.",
    num_replicas="Number of devices, with --strategy=mirrored. Without an "
    "accelerator, the processor plays so many. Default: all accelerators of "
    "this machine.",
)


def _devices(count):
    import tensorflow as tf

    accelerators = tf.config.list_physical_devices("GPU")
    if not accelerators and count:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * count,
        )
        return [f"CPU:{number}" for number in range(count)]
    if count and count > len(accelerators):
        raise ValueError(
            f"--num_replicas={count}, but this machine has "
            f"{len(accelerators)} GPUs."
        )
    count = count or len(accelerators)
    return [f"GPU:{number}" for number in range(count)] or None


def check_cluster(resolver):
    """`HOST:PORT` of each worker that TF_CONFIG names, by its index.

    TensorFlow itself would wait without end for a worker whose address is
    wrong; here a `ValueError` says what is wrong, with an example.
    """
    try:
        jobs = resolver.cluster_spec().as_cluster_def().job
        jobs = {job.name: dict(job.tasks) for job in jobs}
        kind, index = resolver.task_type, resolver.task_id
    except (TypeError, ValueError) as error:
        raise _config_error(f"cannot be read ({error})") from None
    workers = jobs.get("worker", {})
    addresses = list(workers.values())
    bad = [address for address in addresses if not _is_address(address)]
    counts = collections.Counter(addresses).items()
    twice = [address for address, count in counts if count > 1]
    for is_wrong, message in (
        (not jobs, "is not set, or has no `cluster`"),
        (
            set(jobs) != {"worker"} or kind != "worker",
            f"must have workers only; it has {sorted(jobs)} and this is a "
            f"{kind!r}",
        ),
        (not workers, "must list the workers; it has none"),
        (bad, f"has {bad[:1]} in place of HOST:PORT"),
        (twice, f"has {twice[:1]} twice"),
        (
            index not in workers,
            f"has index {index}, which is not one of the {len(workers)} "
            "workers, counted from 0",
        ),
    ):
        if is_wrong:
            raise _config_error(message)
    return workers


def _is_address(text):
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536


def _config_error(message):
    return ValueError(
        f"TF_CONFIG {message}. --strategy=multi_worker needs it on each "
        f"machine, with an `index` of its own: {_EXAMPLE}"
    )
