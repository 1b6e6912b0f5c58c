"""The context of all windows of a video, from its clips.

One video of 4,096-d clips, four window lengths of 4 to 32 clips at 80 %
overlap (TACoS with a clip every 16 frames), kernels of 1, 3 and 5, 256
filters. `encode_windows` projects each clip once for each tap and pools
afterwards. The convolutions run over the windows of each length, which they
are given pooled.
"""

import numpy as np
import tensorflow as tf

from acnn_tf.data.windows import pool_clips
from acnn_tf.models import ACNN
from experiments.benchmarks import measure
from experiments.benchmarks.context import by_length, convolutions


def rows(smoke, rounds):
    """`ACNN.encode_windows` from clips, against Keras convolutions.

    `gemm_share` counts what ours multiplies: two FLOPs for each clip, tap,
    feature and filter, and for each window, tap, clip and filter.
    """
    shape = (60, 16, 8) if smoke else (600, 4096, 256)
    num_clips, width, filters = shape
    functions = candidates(*shape)
    num_windows = functions["encode_windows"]()[0].shape[0]
    return measure.compare(
        "encode",
        f"{num_clips} clips, {num_windows} windows",
        functions,
        rounds,
        flops=2 * num_clips * 9 * filters * (width + num_windows),
        memory=measure.peaks(candidates, *shape),
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
    sequences = [tf.constant(one[None]) for one in by_length(windows, pooled)]
    plain = convolutions(
        model.context, padding="same", dilation_rate=model.grid.dilation
    )

    @tf.function
    def encode(inputs):
        return model.encode_windows(inputs)[0]

    @tf.function
    def convolve(sequences):
        found = []
        for window in sequences:
            context = tf.stack([conv(window) for conv in plain], axis=-2)
            found.append(model.window_projection(model.pooling(context))[0])
        return tf.concat(found, axis=0)

    return {
        "encode_windows": lambda: [encode(inputs).numpy()],
        "keras_conv1d": lambda: [convolve(sequences).numpy()],
    }
