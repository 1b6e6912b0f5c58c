"""Where the time of a step goes, from TensorFlow's own trace."""

import collections
import re
import tempfile
import time
from pathlib import Path

import tensorflow as tf

NUM_STEPS = 5

# Kinds of operations by their types, the first that fits. What fits none is
# elementwise, sums included.
KINDS = {
    "matrix products": re.compile("MatMul|Einsum|Conv"),
    "optimizer": re.compile("ResourceApply|Assign"),
    "copies": re.compile(
        "Slice|Concat|Pack|Transpose|Gather|Broadcast|Tile|Pad|Split"
        "|Iterator|Optional|Reshape|Identity"
    ),
}
ALL_KINDS = (*KINDS, "elementwise", "rest")
# Not those that only call others, nor the stages of the input, `A::B`.
OPERATION = re.compile(r"([^: ]+):(?!\w*PartitionedCall)(\w+)")


def time_shares(step, model):
    """Share of a step's time by kind of operation, from TensorFlow's trace.

    Where operations run side by side, the time is shared out evenly. `rest`
    is the time when none runs: Python, and finding what to run next.

    Args:
        step: Function without arguments, warmed up.
        model: Its model, whose optimizer's operations carry its name.

    Returns:
        Dictionary of shares, by `ALL_KINDS`.
    """
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            start = time.perf_counter()
            for _ in range(NUM_STEPS):
                step()
            total = time.perf_counter() - start
        (path,) = Path(folder).rglob("*.xplane.pb")
        trace = path.read_bytes()
    seconds = collections.Counter()
    running = collections.Counter()
    before = 0
    for now, change, kind in sorted(_events(trace, model.optimizer.name)):
        for other, count in running.items():
            share = count / max(1, running.total())
            seconds[other] += (now - before) * 1e-12 * share
        running[kind] += change
        before = now
    seconds["rest"] = max(0.0, total - seconds.total())
    return {kind: seconds[kind] / seconds.total() for kind in ALL_KINDS}


def _events(trace, optimizer_name):
    """Starts and ends of operations: `(picosecond, 1 or -1, kind)`."""
    # Not at the top: the module is TensorFlow's own business.
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(trace)
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                operation = OPERATION.fullmatch(name)
                if operation is None:
                    continue
                kind = _kind(*operation.groups(), optimizer_name)
                start = 1000 * line.timestamp_ns + event.offset_ps
                yield start, 1, kind
                yield start + event.duration_ps, -1, kind


def _kind(name, operation_type, optimizer_name):
    if f"/{optimizer_name}/" in f"/{name}":
        return "optimizer"
    matching = (k for k, types in KINDS.items() if types.search(operation_type))
    return next(matching, "elementwise")
