"""What the machine can do: the rate of square matrix products.

Every share of a matrix rate that the other parts quote has such a figure
below it, measured at the time.
"""

import numpy as np
import tensorflow as tf

from experiments.benchmarks import measure


def rows(smoke=False, rounds=5):
    """TensorFlow in float32 and in bfloat16 against NumPy in float32.

    Args:
        smoke: Tiny sizes.
        rounds: Timed rounds.

    Returns:
        List of rows, with the rates as `gflops_per_second` and
        `other_gflops_per_second`.
    """
    found = []
    for size in (32, 64) if smoke else (512, 1024, 2048):
        measure.progress(f"gemm: n={size}")
        candidates = measure.product_candidates(size)
        left, right = np.random.default_rng(0).random(
            (2, size, size), np.float32
        )
        half = tf.cast(left, tf.bfloat16), tf.cast(right, tf.bfloat16)
        candidates["bfloat16"] = lambda half=half: tf.matmul(*half)
        measured = measure.in_turn(candidates, rounds)
        exact = np.asarray(left, np.float64) @ np.asarray(right, np.float64)
        work = 2e-9 * size**3
        for name, dtype in (
            ("tensorflow", "float32"),
            ("bfloat16", "bfloat16"),
        ):
            product = tf.cast(candidates[name](), tf.float64)
            ours, other = measured[name], measured["numpy"]
            found.append(
                measure.row(
                    "gemm",
                    f"n={size},{dtype}",
                    "numpy",
                    ours,
                    other,
                    max_relative_error=measure.max_relative_error(
                        [product], [exact]
                    ),
                    gflops_per_second=work / ours.seconds,
                    other_gflops_per_second=work / other.seconds,
                )
            )
    return found
