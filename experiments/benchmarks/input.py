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
import multiprocessing
import os
import statistics
import tempfile
import time
import types
from concurrent import futures

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
FORMATS = {"HDF5": "clips.hdf5", "TFRecord": "clips.tfrecord", ".npy": "clips"}
# With five windows each, a pair takes 80 KiB: part of them tells the rate.
FEW_PAIRS = 4096

# By case: the file, the number of context windows, and the arguments of
# `training_pairs`.
SEQUENCE = {"videos_in_memory": 8, "shuffle": False}
MEMORY = "shuffled, from memory"
CONTEXTS = "5-window contexts, shuffled, from memory"
OURS = {
    **{
        f"from disk, in sequence, {name}": (file, 1, SEQUENCE)
        for name, file in FORMATS.items()
    },
    MEMORY: ("clips", 1, {}),
    CONTEXTS: ("clips", 5, {}),
}
# By name: the number of context windows, and whether pairs are shuffled.
PLAIN = {
    "h5py_row_by_row": (1, False),
    "h5py_row_by_row, shuffled": (1, True),
    "h5py_row_by_row, 5 windows, shuffled": (5, True),
}
PAIR_KEYS = ("window", "segment", "query", "score", "offset")


def rows(smoke=False, rounds=5):
    """Ours against the plain way.

    Args:
        smoke: Tiny sizes.
        rounds: Timed epochs of each, in turn, after one to warm up.

    Returns:
        List of rows. Seconds are those of a batch; `pairs_per_second` and
        `other_pairs_per_second` say the same.
    """
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        futures.ProcessPoolExecutor(1, spawn) as ours,
        futures.ProcessPoolExecutor(1, spawn) as plain,
    ):
        measure.progress("input: makes files")
        ours.submit(_write, folder, smoke).result()
        workers = dict.fromkeys(OURS, ours) | dict.fromkeys(PLAIN, plain)
        seconds = {case: [] for case in workers}
        for number in range(1 + rounds):
            measure.progress(f"input: epoch {number} of {rounds}")
            for case, worker in workers.items():
                time.sleep(measure.PAUSE)
                taken = worker.submit(_seconds_of_batch, folder, smoke, case)
                seconds[case].append(taken.result())
        errors = {
            case: ours.submit(_error, folder, smoke, case).result()
            for case in OURS
        }
    measured = {
        case: measure.Measured(statistics.median(taken[1:]), rounds)
        for case, taken in seconds.items()
    }
    found = []
    for case, (_, context_size, arguments) in OURS.items():
        way = context_size, arguments.get("shuffle", True)
        other = next(name for name, plain in PLAIN.items() if plain == way)
        found.append(
            measure.row(
                "input",
                case,
                other,
                measured[case],
                measured[other],
                max_relative_error=errors[case],
                pairs_per_second=BATCH_SIZE / measured[case].seconds,
                other_pairs_per_second=BATCH_SIZE / measured[other].seconds,
            )
        )
    return found


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
    file, context_size, arguments = OURS[case]
    moments = _moments(smoke)
    # 16 words a query; the first says which moment it is.
    queries = np.zeros((len(moments), 16), np.int32)
    queries[:, 0] = np.arange(len(moments))
    model = types.SimpleNamespace(
        grid=GRID,
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
    for file in FORMATS.values():
        write_features(os.path.join(folder, file), clips, CLIP_SECONDS)
    for case, limit in ((MEMORY, None), (CONTEXTS, FEW_PAIRS)):
        made, context_size = _pairs(folder, smoke, case), OURS[case][1]
        count = min(made.num_examples, limit or made.num_examples)
        first = 0
        with h5py.File(_file_of_pairs(folder, context_size), "w") as file:
            for inputs, targets in made.dataset:
                arrays = {**inputs, **targets}
                for key in PAIR_KEYS:
                    array = arrays[key].numpy()[: count - first]
                    if key not in file:
                        shape = (count, *array.shape[1:])
                        file.create_dataset(key, shape, array.dtype)
                    file[key][first : first + len(array)] = array
                first += len(array)
                if first == count:
                    break


def _file_of_pairs(folder, context_size):
    return os.path.join(folder, f"pairs_{context_size}.hdf5")


def _row_by_row(folder, name):
    """The plain way: batches without end, and how many make an epoch."""
    context_size, shuffled = PLAIN[name]
    file = h5py.File(_file_of_pairs(folder, context_size))
    windows = file["window"]
    small = {key: file[key][()] for key in PAIR_KEYS if key != "window"}
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
        key: tf.TensorSpec(file[key].shape[1:], file[key].dtype)
        for key in PAIR_KEYS
    }
    dataset = tf.data.Dataset.from_generator(
        examples, output_signature=signature
    )
    return dataset.batch(BATCH_SIZE).prefetch(2), len(windows) // BATCH_SIZE


@functools.cache
def _candidate(folder, smoke, case):
    """An iterator over batches without end, and how many make an epoch."""
    if case in OURS:
        made = _pairs(folder, smoke, case)
        return iter(made.dataset), made.steps_per_epoch
    dataset, num_batches = _row_by_row(folder, case)
    return iter(dataset), max(1, num_batches)


def _seconds_of_batch(folder, smoke, case):
    """Seconds for a batch, over an epoch."""
    batches, num_batches = _candidate(folder, smoke, case)
    start = time.perf_counter()
    for _ in range(num_batches):
        next(batches)
    return (time.perf_counter() - start) / num_batches


def _error(folder, smoke, case):
    """A batch's distance from `pool_clips`, window by window."""
    inputs, _ = next(_candidate(folder, smoke, case)[0])
    videos = [moment.video_id for moment in _moments(smoke)]
    with open_features(os.path.join(folder, FORMATS[".npy"])) as features:
        expected = [
            pool_clips(features[videos[query[0]]], context[0], CLIP_SECONDS)
            for query, context in zip(
                inputs["query"].numpy(), inputs["segment"].numpy()
            )
        ]
    found = inputs["window"].numpy()[:, 0]
    return measure.max_relative_error([found], [np.stack(expected)])
