"""Training input: pairs a second through tf.data, from memory and from disk.

Made data in the proportions of TACoS: 75 videos, 27,000 clips of 4,096
numbers, 27,000 pairs on 3,800 windows, 64 pairs in a batch. The plain way is
what one would write first: a file with a row for each pair, read row by row
with h5py through `from_generator`. Files are in the system's cache.

Both sides have a process of their own: the `from_generator` of TensorFlow
2.21 has malloc, in all of its process, return larger blocks to the system at
once, which makes everything else there slower.
"""

import functools
import itertools
import os
import statistics
import tempfile
import time
import types

import h5py
import numpy as np
import tensorflow as tf

from acnn_tf.data.annotations import Moment
from acnn_tf.data.features import open_features, write_features
from acnn_tf.data.pair_batches import training_pairs
from acnn_tf.data.windows import WindowGrid, pool_clips
from experiments.benchmarks import measure

BATCH_SIZE = 64
CLIP_SECONDS = 16 / 29.4
GRID = WindowGrid((64, 128, 256, 512), overlap=0.8, frame_rate=29.4)
# With five windows each, a pair takes 80 KiB: part of them tells the rate.
FEW_PAIRS = 4096

# By case: the plain way to hold it against, the file, the number of context
# windows, and the arguments of `training_pairs`.
SEQUENCE = {"videos_in_memory": 8, "shuffle": False}
MEMORY = "shuffled, from memory"
CONTEXTS = "5-window contexts, shuffled, from memory"
ROWS = "h5py_row_by_row"
CASES = {
    "from disk, in sequence, HDF5": (ROWS, "clips.hdf5", 1, SEQUENCE),
    "from disk, in sequence, TFRecord": (ROWS, "clips.tfrecord", 1, SEQUENCE),
    "from disk, in sequence, .npy": (ROWS, "clips", 1, SEQUENCE),
    MEMORY: (f"{ROWS}, shuffled", "clips", 1, {}),
    CONTEXTS: (f"{ROWS}, 5 windows, shuffled", "clips", 5, {}),
}
# By name: the file of pairs, and whether they are shuffled.
PLAIN = {
    ROWS: ("pairs_1.hdf5", False),
    f"{ROWS}, shuffled": ("pairs_1.hdf5", True),
    f"{ROWS}, 5 windows, shuffled": ("pairs_5.hdf5", True),
}


def rows(smoke, rounds):
    """Ours against the plain way, an epoch a round after one to warm up.

    Seconds are those of a batch; `pairs_per_second` and
    `other_pairs_per_second` say the same.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        measure.new_process() as ours,
        measure.new_process() as plain,
    ):
        measure.progress("input: makes files")
        ours.submit(_write, folder, smoke).result()
        workers = dict.fromkeys(CASES, ours) | dict.fromkeys(PLAIN, plain)
        taken = {case: [] for case in workers}
        for number in range(1 + rounds):
            measure.progress(f"input: epoch {number} of {rounds}")
            for case, worker in workers.items():
                time.sleep(measure.PAUSE)
                result = worker.submit(_seconds_of_batch, folder, smoke, case)
                taken[case].append(result.result())
        errors = {
            case: ours.submit(_error, folder, smoke, case).result()
            for case in CASES
        }
    seconds = {
        case: statistics.median(epochs[1:]) for case, epochs in taken.items()
    }
    return [
        measure.row(
            "input",
            case,
            other,
            seconds[case],
            seconds[other],
            max_relative_error=errors[case],
            pairs_per_second=BATCH_SIZE / seconds[case],
            other_pairs_per_second=BATCH_SIZE / seconds[other],
        )
        for case, (other, *_) in CASES.items()
    ]


@functools.cache
def _moments(smoke):
    """14 intervals a video, each with 7 sentences."""
    rng = np.random.default_rng(0)
    moments = []
    for video in range(4 if smoke else 75):
        duration = float(rng.integers(160, 560) * CLIP_SECONDS)
        for _ in range(14):
            length = np.exp(rng.uniform(np.log(3.0), np.log(20.0)))
            start = rng.uniform(0.0, duration - length)
            segments = ((start, start + length),)
            moments += [
                Moment(str(n), "", f"v{video:02}", duration, segments)
                for n in range(len(moments), len(moments) + 7)
            ]
    return moments


def _pairs(folder, smoke, case):
    """The `Batches` of one case of ours."""
    _, file, context_size, arguments = CASES[case]
    moments = _moments(smoke)
    # 16 words a query; the first says which moment it is.
    queries = np.zeros((len(moments), 16), np.int32)
    queries[:, 0] = np.arange(len(moments))
    model = types.SimpleNamespace(
        grid=GRID,
        vocabulary=range(len(moments)),
        context_size=context_size,
        clip_seconds=CLIP_SECONDS,
        offset_unit="seconds",
    )
    features = open_features(os.path.join(folder, file))
    return training_pairs(
        moments, queries, features, model, batch_size=BATCH_SIZE, **arguments
    )


def _write(folder, smoke):
    """Writes the files of both ways."""
    rng = np.random.default_rng(0)
    moments, dim = _moments(smoke), 8 if smoke else 4096
    durations = {moment.video_id: moment.duration for moment in moments}
    clips = {
        video: rng.random((round(duration / CLIP_SECONDS), dim), np.float32)
        for video, duration in durations.items()
    }
    for _, name, *_ in CASES.values():
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            write_features(path, clips, CLIP_SECONDS)
    for case, limit in ((MEMORY, None), (CONTEXTS, FEW_PAIRS)):
        made = _pairs(folder, smoke, case)
        count = min(made.num_examples, limit or made.num_examples)
        batches = [
            {**inputs, **targets}
            for inputs, targets in itertools.islice(
                made.dataset, -(-count // BATCH_SIZE)
            )
        ]
        path = os.path.join(folder, PLAIN[CASES[case][0]][0])
        with h5py.File(path, "w") as file:
            for key in ("window", "segment", "query", "score", "offset"):
                arrays = [batch[key] for batch in batches]
                file[key] = np.concatenate(arrays)[:count]


def _row_by_row(folder, name):
    """The plain way: batches without end, and how many make an epoch."""
    name, shuffled = PLAIN[name]
    file = h5py.File(os.path.join(folder, name))
    windows = file["window"]
    small = {key: file[key][()] for key in file if key != "window"}
    rng = np.random.default_rng(0)

    def examples():
        while True:
            order = np.arange(len(windows))
            if shuffled:
                rng.shuffle(order)
            for row in order:
                values = {key: array[row] for key, array in small.items()}
                yield {"window": windows[row], **values}

    signature = {
        key: tf.TensorSpec(array.shape[1:], array.dtype)
        for key, array in file.items()
    }
    dataset = tf.data.Dataset.from_generator(
        examples, output_signature=signature
    )
    return dataset.batch(BATCH_SIZE).prefetch(2), len(windows) // BATCH_SIZE


@functools.cache
def _batches(folder, smoke, case):
    """An iterator over batches without end, and how many make an epoch."""
    if case in CASES:
        made = _pairs(folder, smoke, case)
        return iter(made.dataset), made.steps_per_epoch
    dataset, num_batches = _row_by_row(folder, case)
    return iter(dataset), max(1, num_batches)


def _seconds_of_batch(folder, smoke, case):
    """Seconds for a batch, over an epoch."""
    batches, num_batches = _batches(folder, smoke, case)
    start = time.perf_counter()
    for _ in range(num_batches):
        next(batches)
    return (time.perf_counter() - start) / num_batches


def _error(folder, smoke, case):
    """A batch's distance from `pool_clips`, window by window."""
    inputs, _ = next(_batches(folder, smoke, case)[0])
    videos = [moment.video_id for moment in _moments(smoke)]
    with open_features(os.path.join(folder, "clips")) as features:
        expected = [
            pool_clips(features[videos[query[0]]], context[0], CLIP_SECONDS)
            for query, context in zip(
                inputs["query"].numpy(), inputs["segment"].numpy()
            )
        ]
    found = inputs["window"].numpy()[:, 0]
    return measure.max_relative_error([found], [np.stack(expected)])
