"""Time, peak memory and error of candidates that compute the same thing.

Candidates are run in turn within one process, A B C A B C, since the speed of
a machine drifts by more than what there is to see. What a candidate returns
is let go before the next one starts. Memory is measured in another process,
see `peaks`.
"""

import ctypes
import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

ROOT = Path(__file__).resolve().parents[2]

# The threads of one library go on spinning for a while, waiting for more, and
# would take the cores from another: TensorFlow's products are half as fast
# within 0.1 seconds after one of NumPy's.
PAUSE = 0.15
# In its turn a candidate runs until this is over, and once at least: the first
# run after a pause, on cold caches, is not what training is made of.
TURN_SECONDS = 0.3
# Past this a candidate takes part in the first rounds only.
SLOW_SECONDS = 2.0
SLOW_ROUNDS = 2
# The peak depends on which operations happen to run side by side.
MEMORY_RUNS = 3


class Measured(NamedTuple):
    """Of one candidate.

    Attributes:
        seconds: Median of its runs.
        rounds: Rounds that it took part in.
        memory_mb: Peak, over what there was before it started; `None` where
            it was not measured.
    """

    seconds: float
    rounds: int
    memory_mb: float | None = None


def progress(text):
    """Says on stderr what is being measured; stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def in_turn(candidates, rounds):
    """Times candidates in turn, after a run of each to warm it up.

    Before its turn there is a pause, in which the threads of others fall
    asleep; in it, as many runs as fit into `TURN_SECONDS`.

    Args:
        candidates: Dictionary of functions without arguments, by name.
        rounds: Rounds of turns. A candidate that takes more than
            `SLOW_SECONDS` leaves after `SLOW_ROUNDS`.

    Returns:
        Dictionary of `Measured`, without memory.
    """
    for function in candidates.values():
        function()
    seconds = {name: [] for name in candidates}
    taken_part = dict.fromkeys(candidates, 0)
    for number in range(rounds):
        for name, function in candidates.items():
            runs = seconds[name]
            if number >= SLOW_ROUNDS and min(runs) > SLOW_SECONDS:
                continue
            taken_part[name] += 1
            time.sleep(PAUSE)
            end = time.perf_counter() + TURN_SECONDS
            while True:
                start = time.perf_counter()
                function()
                now = time.perf_counter()
                runs.append(now - start)
                if now > end:
                    break
    return {
        name: Measured(statistics.median(runs), taken_part[name])
        for name, runs in seconds.items()
    }


def peak_memory(function):
    """Megabytes that a run adds to the process at its peak.

    The operating system's count of the process's resident memory: its peak
    is reset, and what was free but not given back is given back first.

    Args:
        function: Function without arguments, warmed up already.

    Returns:
        Float, 10^6 bytes, or `None` on a system without `/proc`.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass  # another C library, which has no such call
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


def peaks(make, cases):
    """Peak memory of candidates, in a process of their own.

    TensorFlow keeps what it has freed in a pool, so that a step that is warm
    asks the system for nothing, and takes it from others. The other process
    has no such pool, which would make the timings here slower.

    Args:
        make: Function of a module that makes the candidates of a case.
        cases: List of lists of its arguments, which go through JSON.

    Returns:
        List, for each case, of dictionaries: `peak_memory` of its candidates,
        the largest of `MEMORY_RUNS` runs.
    """
    progress(f"memory: {make.__module__}")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.benchmarks.measure"),
            *(make.__module__, make.__name__, json.dumps(cases)),
        ],
        cwd=ROOT,
        env={**os.environ, "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _print_peaks(module, name, cases):
    """The other end of `peaks`."""
    make = getattr(importlib.import_module(module), name)
    found = []
    for arguments in json.loads(cases):
        found.append({})
        for name, function in make(*arguments).items():
            function()
            runs = [peak_memory(function) for _ in range(MEMORY_RUNS)]
            found[-1][name] = None if None in runs else max(runs)
    print(json.dumps(found))


def product_candidates(size):
    """One float32 matrix product of `size` cubed, by library."""
    left, right = np.random.default_rng(0).random((2, size, size), np.float32)
    tensors = tf.constant(left), tf.constant(right)
    return {
        "tensorflow": lambda: tf.matmul(*tensors).numpy(),
        "numpy": lambda: left @ right,
    }


def in_turn_with_products(candidates, rounds, smoke=False):
    """Times candidates, and the machine's matrix products in turn with them.

    A share of that rate is a share of what the machine did in the same
    moments, since machines that are shared drift by a factor of two.

    Args:
        candidates: As for `in_turn`.
        rounds: Likewise.
        smoke: Multiply tiny matrices.

    Returns:
        What `in_turn` returns, and the rate of float32 products, in 10^9
        FLOPs a second: of TensorFlow or NumPy, the better of their medians.
    """
    size = 64 if smoke else 2048
    products = product_candidates(size)
    measured = in_turn({**candidates, **products}, rounds)
    seconds = min(measured.pop(name).seconds for name in products)
    return measured, 2e-9 * size**3 / seconds


def max_relative_error(ours, other):
    """Largest `max|a - b| / max|b|` over pairs of arrays.

    Args:
        ours: List of arrays a.
        other: List of arrays b, of the same shapes.
    """
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
    part,
    case,
    candidates,
    rounds,
    *,
    smoke=False,
    flops=None,
    memory=None,
    error=None,
    **more,
):
    """Rows that hold the first candidate against each of the others.

    Args:
        part: Name of the part of the benchmark.
        case: What is measured, such as `"t=128,H=64,B=64"`.
        candidates: As for `in_turn`, ours first.
        rounds: As for `in_turn`.
        smoke: Take no pains over the rate of matrix products.
        flops: FLOPs of ours, of which `gemm_share` is made.
        memory: One of the dictionaries that `peaks` returns.
        error: Dictionary of ours' `max_relative_error`, by the name of the
            other candidate.
        **more: Further entries of each row.

    Returns:
        List of rows: see `row`.
    """
    progress(f"{part}: {case}")
    others = cpu_of_others()
    start = time.perf_counter()
    if flops is None:
        measured = in_turn(candidates, rounds)
    else:
        measured, rate = in_turn_with_products(candidates, rounds, smoke)
    measured = {
        name: one._replace(memory_mb=(memory or {}).get(name))
        for name, one in measured.items()
    }
    if others is not None:
        others = cpu_of_others() - others
        others /= os.cpu_count() * (time.perf_counter() - start)
        more = {"cpu_share_of_others": max(0.0, others), **more}
    first, *names = measured
    ours = measured[first]
    if flops is not None:
        share = flops * 1e-9 / ours.seconds / rate
        more = {"gemm_share": share, "gemm_gflops_per_second": rate, **more}
    return [
        row(
            part,
            case,
            name,
            ours,
            measured[name],
            max_relative_error=(error or {}).get(name),
            **more,
        )
        for name in names
    ]


def cpu_of_others():
    """Seconds of CPU that other processes took since the machine started.

    `None` where the system does not say. A row that others took a share of is
    worth little.
    """
    try:
        with open("/proc/stat", encoding="ascii") as lines:
            user, nice, system, _, _, *interrupts = map(
                int, next(lines).split()[1:9]
            )
    except OSError:
        return None
    ticks = user + nice + system + sum(interrupts)
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


def row(part, case, against, ours, other, **more):
    """One row: ours against another, as a dictionary for JSON.

    `ratio` and `memory_ratio` say how many times as much the other takes.

    Args:
        part: As for `compare`.
        case: As for `compare`.
        against: Name of the other.
        ours: `Measured`.
        other: `Measured`.
        **more: Further entries, or others in place of `None`.
    """
    memory_ratio = None
    if ours.memory_mb and other.memory_mb is not None:
        memory_ratio = other.memory_mb / ours.memory_mb
    return {
        "part": part,
        "case": case,
        "against": against,
        "ratio": other.seconds / ours.seconds,
        "memory_ratio": memory_ratio,
        "max_relative_error": None,
        "gemm_share": None,
        "seconds": ours.seconds,
        "other_seconds": other.seconds,
        "memory_mb": ours.memory_mb,
        "other_memory_mb": other.memory_mb,
        "rounds": ours.rounds,
        "other_rounds": other.rounds,
        **more,
    }


if __name__ == "__main__":
    _print_peaks(*sys.argv[1:])
