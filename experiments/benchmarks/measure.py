"""Time, peak memory and error of candidates that compute the same thing.

Candidates are run in turn within one process, A B C A B C, since the speed of
a machine drifts by more than what there is to see. What a candidate returns
is let go before the next one starts. Memory is measured in another process,
see `peaks`.
"""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import statistics
import sys
import time
from concurrent import futures

import numpy as np
import tensorflow as tf

# The threads of one library go on spinning for a while, waiting for more, and
# would take the cores from another: TensorFlow's products are half as fast
# within 0.1 seconds after one of NumPy's.
PAUSE = 0.15
# In its turn a candidate runs until this is over, and once at least: the first
# run after a pause, on cold caches, is not what training is made of.
TURN_SECONDS = 0.3
# The peak depends on which operations happen to run side by side.
MEMORY_RUNS = 3
# Of the matrices whose product tells the rate of the machine.
PRODUCT_SIZE = 2048


def progress(text):
    """Says on stderr what is being measured; stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def in_turn(candidates, rounds):
    """Times candidates in turn, after a run of each to warm it up.

    Before its turn there is a pause, in which the threads of others fall
    asleep; in it, as many runs as fit into `TURN_SECONDS`. Returns the median
    of the seconds of a run, by name.
    """
    for function in candidates.values():
        function()
    seconds = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, function in candidates.items():
            time.sleep(PAUSE)
            end = time.perf_counter() + TURN_SECONDS
            while True:
                start = time.perf_counter()
                function()
                now = time.perf_counter()
                seconds[name].append(now - start)
                if now > end:
                    break
    return {name: statistics.median(runs) for name, runs in seconds.items()}


def peak_memory(function):
    """Megabytes that a run of a function adds to the process at its peak.

    The operating system's count of the process's resident memory: its peak
    is reset, and what was free but not given back is given back first. `None`
    on a system without `/proc`.
    """
    gc.collect()
    # Another C library has no such call.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        before = _status("VmRSS")
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        function()
        return max(0.0, (_status("VmHWM") - before) / 1e6)
    except (KeyError, OSError):
        return None


def _status(name):
    """Bytes of an entry of `/proc/self/status`."""
    with open("/proc/self/status", encoding="ascii") as lines:
        entries = dict(line.split(":", 1) for line in lines)
    return 1024 * int(entries[name].split()[0])


def new_process(**settings):
    """A process to run functions in, as an executor: a fresh interpreter."""
    spawn = multiprocessing.get_context("spawn")
    return futures.ProcessPoolExecutor(1, spawn, **settings)


def peaks(make, *arguments):
    """Peak memory of candidates, in a process of their own.

    TensorFlow keeps what it has freed in a pool, so that a step that is warm
    asks the system for nothing, and takes it from others. The other process
    has no such pool, which would make the timings here slower.

    A module's function `make` makes the candidates. Returns by name the
    largest `peak_memory` of `MEMORY_RUNS`.
    """
    no_pool = "TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1"
    with new_process(initializer=os.putenv, initargs=no_pool) as process:
        return process.submit(_peaks, make, arguments).result()


def _peaks(make, arguments):
    found = {}
    for name, function in make(*arguments).items():
        function()
        runs = [peak_memory(function) for _ in range(MEMORY_RUNS)]
        found[name] = None if None in runs else max(runs)
    return found


def product_candidates(size):
    """One float32 matrix product of `size` cubed, by library."""
    left, right = np.random.default_rng(0).random((2, size, size), np.float32)
    tensors = tf.constant(left), tf.constant(right)
    return {
        "tensorflow": lambda: tf.matmul(*tensors).numpy(),
        "numpy": lambda: left @ right,
    }


def max_relative_error(ours, other):
    """Largest `max|a - b| / max|b|` over two lists of arrays a and b."""
    worst = 0.0
    for one, reference in zip(ours, other, strict=True):
        one, reference = np.asarray(one), np.asarray(reference)
        if one.shape != reference.shape:
            raise ValueError(
                "Both must have one shape. "
                f"Received: {one.shape} and {reference.shape}"
            )
        distance = np.abs(one - reference).max()
        worst = max(worst, float(distance / np.abs(reference).max()))
    return worst


def compare(
    part, case, candidates, rounds, *, flops, memory, error=None, **more
):
    """Rows that hold the first candidate against each of the others.

    The machine's matrix products run in turn with them: a share of their rate
    is a share of what the machine did in the same moments, and machines that
    are shared drift by a factor of two.

    Args:
        part: Name of the part of the benchmark.
        case: What is measured, such as `"t=128,H=64,B=64"`.
        candidates: As for `in_turn`, ours first.
        rounds: As for `in_turn`.
        flops: FLOPs of ours, of which `gemm_share` is made.
        memory: What `peaks` returns.
        error: Dictionary of ours' `max_relative_error`, by the name of the
            other candidate. Default: of the arrays that they return.
        **more: Further entries of each row.

    Returns:
        List of rows: see `row`.
    """
    progress(f"{part}: {case}")
    ours, *others = candidates
    if error is None:
        arrays = candidates[ours]()
        error = {
            name: max_relative_error(arrays, candidates[name]())
            for name in others
        }
        del arrays
    products = product_candidates(PRODUCT_SIZE)
    seconds = in_turn({**candidates, **products}, rounds)
    rate = 2 * PRODUCT_SIZE**3 / min(seconds[name] for name in products)
    return [
        row(
            part,
            case,
            name,
            seconds[ours],
            seconds[name],
            memory[ours],
            memory.get(name),
            max_relative_error=error[name],
            gemm_share=flops / seconds[ours] / rate,
            gemm_gflops_per_second=rate * 1e-9,
            **more,
        )
        for name in others
    ]


def row(part, case, against, ours, other, ours_mb=None, other_mb=None, **more):
    """One row: seconds and memory of ours against another, for JSON.

    `ratio` and `memory_ratio` say how many times as much the other takes,
    `None` where that is not known.
    """
    has_memory = ours_mb and other_mb is not None
    return {
        "part": part,
        "case": case,
        "against": against,
        "ratio": None if other is None else other / ours,
        "memory_ratio": other_mb / ours_mb if has_memory else None,
        "max_relative_error": None,
        "gemm_share": None,
        "seconds": ours,
        "other_seconds": other,
        "memory_mb": ours_mb,
        "other_memory_mb": other_mb,
        **more,
    }
