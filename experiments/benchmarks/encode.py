"""A whole video at once, against window by window.

One video of 4,096-d clips, four window lengths of 4 to 32 clips at 80 %
overlap (TACoS with a clip every 16 frames), kernels of 1, 3 and 5, 256
filters. `encode_windows` projects each clip once a tap and pools afterwards.
The others are given windows that are pooled already, which costs them nothing
here: `windows_in_sequence` convolves all windows of one length in one pass,
`window_by_window` takes 64 windows at a time, each with its own context.
"""

import numpy as np
import tensorflow as tf

from acnn_tf import layers
from acnn_tf.data.windows import pool_clips
from acnn_tf.models import ACNN
from experiments.benchmarks import measure

# Clips, features, filters.
SHAPE = (600, 4096, 256)
SMOKE_SHAPE = (60, 16, 8)
AT_ONCE = 64


def rows(smoke=False, rounds=5):
    """`ACNN.encode_windows` from clips against the two other ways.

    `gemm_share` counts what ours multiplies: two FLOPs for each clip, tap,
    feature and filter, and for each window, tap, clip and filter.

    Args:
        smoke: A tiny case.
        rounds: Timed rounds.

    Returns:
        List of rows.
    """
    shape = SMOKE_SHAPE if smoke else SHAPE
    num_clips, width, filters = shape
    functions = candidates(*shape)
    ours, *others = [function() for function in functions.values()]
    error = {
        name: measure.max_relative_error([ours], [other])
        for name, other in zip(list(functions)[1:], others)
    }
    num_windows = len(ours)
    taps = 2 * num_clips * 9 * filters
    (memory,) = measure.peaks(candidates, [shape])
    return measure.compare(
        "encode",
        f"{num_clips} clips, {num_windows} windows",
        functions,
        rounds,
        smoke=smoke,
        flops=taps * (width + num_windows),
        memory=memory,
        error=error,
    )


def candidates(num_clips, width, filters):
    """Functions that encode all windows, by name; the first is ours."""
    model = ACNN(
        window_lengths=(4.0, 8.0, 16.0, 32.0),
        kernel_sizes=(1, 3, 5),
        filters=filters,
        position_features=False,
    )
    model.build({"clip": (None, None, width), "query": (None, 8)})
    rng = np.random.default_rng(0)
    clip = rng.normal(size=(num_clips, width)).astype(np.float32)
    windows = model.grid.windows(float(num_clips))
    contexts = model.grid.contexts(windows, model.context_size)
    inputs = {
        "clip": tf.constant(clip[None]),
        "clip_mask": tf.ones((1, num_clips), tf.bool),
        "segment": tf.constant(contexts[None], tf.float32),
        "duration": tf.constant([float(num_clips)]),
    }
    pooled = pool_clips(clip, windows, 1.0)  # [W, D]

    of_length = np.unique((windows[:, 1] - windows[:, 0]).round(6))
    lengths = (windows[:, 1] - windows[:, 0]).round(6)
    sequences = [tf.constant(pooled[None, lengths == n]) for n in of_length]
    sequence_context = layers.TemporalContext(
        model.kernel_sizes, filters, dilation=model.grid.dilation
    )
    sequence_context.build(sequences[0].shape)
    sequence_context.set_weights(model.context.get_weights())
    hops = model.grid.dilation * np.arange(-2, 3)
    index = np.arange(len(windows))[:, None] + hops
    real = contexts[..., 1] > contexts[..., 0]
    index = tf.constant(np.where(real, index, len(windows)))
    table = tf.constant(np.vstack([pooled, np.zeros_like(pooled[:1])]))

    whole = tf.function(lambda inputs: model.encode_windows(inputs)[0])

    @tf.function
    def in_sequence(sequences):
        found = [
            model.window_projection(model.pooling(sequence_context(one)))[0]
            for one in sequences
        ]
        return tf.concat(found, axis=0)

    @tf.function(reduce_retracing=True)
    def alone(index):
        return model.encode_windows(
            {
                "window": tf.gather(table, index)[None],
                "segment": tf.zeros((1, tf.shape(index)[0], 5, 2)),
                "duration": tf.ones((1,)),
            }
        )[0]

    def window_by_window():
        parts = [
            alone(index[first : first + AT_ONCE]).numpy()
            for first in range(0, len(windows), AT_ONCE)
        ]
        return np.concatenate(parts)

    return {
        "encode_windows": lambda: whole(inputs).numpy(),
        "windows_in_sequence": lambda: in_sequence(sequences).numpy(),
        "window_by_window": window_by_window,
    }
