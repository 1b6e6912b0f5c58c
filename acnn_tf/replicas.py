"""A batch that is split over replicas, seen as a whole.

Under a `tf.distribute` strategy each replica holds some rows of a batch. What
concerns the whole of it, such as negatives from the batch, goes through here.
On one replica, and on other backends of Keras, these functions change nothing.
"""

import keras


def replica_context():
    """The context of a step that several replicas take together, or `None`."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context


def gather(rows):
    """The rows of all replicas, in the order of the replicas.

    Gradients flow back to the replica that a row came from.

    Args:
        rows: `[b, ...]`, those of this replica; b may differ between them.

    Returns:
        `[B, ...]`, the same on all replicas.
    """
    context = replica_context()
    return rows if context is None else context.all_gather(rows, axis=0)
