"""A batch, or other work, that is split over replicas, seen as a whole.

Under a `tf.distribute` strategy each replica holds some rows of a batch. What
concerns the whole of it, such as negatives from the batch, goes through here.
On one replica, and on other backends of Keras, these functions change nothing.
"""

from __future__ import annotations

import itertools
import typing
from collections.abc import Callable, Sequence
from concurrent import futures

import keras
import numpy as np
from numpy.typing import ArrayLike

if typing.TYPE_CHECKING:
    import tensorflow as tf


def replica_context() -> tf.distribute.ReplicaContext | None:
    """The context of a step that several replicas take together, or `None`."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context


def gather(rows: tf.Tensor) -> tf.Tensor:
    """The rows `[B, ...]` of all replicas, from the `[b, ...]` of this one.

    They are in the order of the replicas, of which b may differ; gradients
    flow back to the replica that a row came from.
    """
    context = replica_context()
    return rows if context is None else context.all_gather(rows, axis=0)


def map_shares(
    strategy: tf.distribute.Strategy | None, function: Callable, items: Sequence
) -> list[tuple]:
    """Does each replica's share of some work, on its device.

    Items are dealt to the replicas like cards, and there is a thread for each
    device. Each of several workers must call this with the same arguments.

    Args:
        strategy: The strategy of the replicas, or `None` for one replica.
        function: Function that is called with each item.
        items: The items.

    Returns:
        List of `(item, result)` of the items that this process got.

    Example:

    >>> from acnn_tf.replicas import map_shares
    >>> map_shares(None, lambda item: item * 2, [1, 2])
    [(1, 2), (2, 4)]
    """
    if strategy is None or strategy.num_replicas_in_sync == 1:
        return [(item, function(item)) for item in items]
    import tensorflow as tf

    devices = strategy.extended.worker_devices
    count = strategy.num_replicas_in_sync
    resolver = strategy.cluster_resolver
    worker = resolver.task_id if count > len(devices) else 0

    def work(number):
        with tf.device(devices[number]):
            share = items[worker * len(devices) + number :: count]
            return [(item, function(item)) for item in share]

    with futures.ThreadPoolExecutor(len(devices)) as threads:
        parts = threads.map(work, range(len(devices)))
        return list(itertools.chain.from_iterable(parts))


def gather_arrays(
    strategy: tf.distribute.Strategy | None, rows: ArrayLike
) -> np.ndarray:
    """The rows `[R, ...]` that all processes hold, outside of a step.

    Args:
        strategy: The strategy of the replicas, or `None` for one process.
        rows: The rows `[r, ...]` of this process. Processes may have different
            numbers of rows.

    Returns:
        The rows of all processes.

    Example:

    >>> from acnn_tf.replicas import gather_arrays
    >>> gather_arrays(None, [[1, 2]])
    array([[1, 2]])
    """
    rows = np.asarray(rows)
    if strategy is None or strategy.num_replicas_in_sync == 1:
        return rows
    local = len(strategy.extended.worker_devices)
    if strategy.num_replicas_in_sync == local:
        return rows
    import tensorflow as tf

    # Of a process with several replicas the first brings all rows.
    parts = [tf.constant(rows), *[tf.constant(rows[:0])] * (local - 1)]
    value = strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group % local]
    )
    return strategy.gather(value, axis=0).numpy()
