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
from acnn_tf.data.windows import WindowGrid, pool_clips, video_pairs
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
    **{
        f"from disk, shuffled, {name}": (file, 1, {"videos_in_memory": 8})
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
PREFIX_SUMS = "prefix sums, pooled on the fly"
STORED = "5 windows stored with every pair"
PAIR_KEYS = ("window", "segment", "query", "score", "offset")


def rows(smoke=False, rounds=5):
    """Ours against the plain way, and the layout against two others.

    Args:
        smoke: Tiny sizes.
        rounds: Timed epochs of each, in turn, after one to warm up.

    Returns:
        List of rows. Seconds are those of a batch; `pairs_per_second` and
        `other_pairs_per_second` say the same. The last two compare layouts:
        there, memory is the size of the arrays.
    """
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        futures.ProcessPoolExecutor(1, spawn) as ours,
        futures.ProcessPoolExecutor(1, spawn) as plain,
    ):
        measure.progress("input: makes files")
        megabytes = ours.submit(_write, folder, smoke).result()
        workers = dict.fromkeys([*OURS, PREFIX_SUMS], ours)
        workers |= dict.fromkeys(PLAIN, plain)
        seconds = {case: [] for case in workers}
        for number in range(1 + rounds):
            measure.progress(f"input: epoch {number} of {rounds}")
            for case, worker in workers.items():
                time.sleep(measure.PAUSE)
                taken = worker.submit(_seconds_of_batch, folder, smoke, case)
                seconds[case].append(taken.result())
        errors = {
            case: ours.submit(_error, folder, smoke, case).result()
            for case in [*OURS, PREFIX_SUMS]
        }
    measured = {
        case: measure.Measured(
            statistics.median(taken[1:]), rounds, megabytes.get(case)
        )
        for case, taken in seconds.items()
    }
    found = []
    for case, (_, context_size, arguments) in OURS.items():
        way = context_size, arguments.get("shuffle", True)
        other = next(name for name, plain in PLAIN.items() if plain == way)
        found.append(_row(case, other, measured, errors[case]))
    found.append(_row(CONTEXTS, PREFIX_SUMS, measured, errors[PREFIX_SUMS]))
    # Too large to be worth a try.
    found.append(
        {
            **found[-1],
            "against": STORED,
            "other_memory_mb": megabytes[STORED],
            "memory_ratio": megabytes[STORED] / megabytes[CONTEXTS],
            **dict.fromkeys(
                (
                    "ratio",
                    "max_relative_error",
                    "other_seconds",
                    "other_pairs_per_second",
                )
            ),
        }
    )
    return found


def _row(case, other, measured, error):
    return measure.row(
        "input",
        case,
        other,
        measured[case],
        measured[other],
        max_relative_error=error,
        pairs_per_second=BATCH_SIZE / measured[case].seconds,
        other_pairs_per_second=BATCH_SIZE / measured[other].seconds,
    )


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
    """Writes all files; returns the megabytes of each layout."""
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
    num_windows = 0
    for _, windows, window, _ in video_pairs(moments, GRID):
        contexts = GRID.contexts(windows, 5)[np.unique(window)]
        num_windows += len(np.unique(contexts.reshape(-1, 2), axis=0))
    num_sums = sum(1 + len(rows) for rows in clips.values())
    return {
        CONTEXTS: 4e-6 * dim * num_windows,
        PREFIX_SUMS: 8e-6 * dim * num_sums,
        STORED: 4e-6 * dim * 5 * made.num_examples,
    }


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


def _pooled_on_the_fly(folder, smoke):
    """The layout that holds running sums of clips and pools in each batch."""
    videos = [moment.video_id for moment in _moments(smoke)]
    features = open_features(os.path.join(folder, FORMATS[".npy"]))
    lengths = {video: len(clips) for video, clips in features.items()}
    sums = np.zeros((sum(lengths.values()) + len(lengths), features.dim))
    firsts, first = {}, 0
    for video, clips in features.items():
        firsts[video] = first
        for row, clip in enumerate(clips, start=first):
            np.add(sums[row], clip, out=sums[row + 1])
        first += len(clips) + 1
    with h5py.File(_file_of_pairs(folder, 5)) as file:
        query, segment = file["query"][()], file["segment"][()]
    of_pair = [videos[number] for number in query[:, 0]]
    shape = (-1, 1, 1, 1)
    length = np.reshape([lengths[video] for video in of_pair], shape)
    edges = np.clip(segment / CLIP_SECONDS, 0, length)  # [P, V, C, 2]
    whole = np.minimum(edges.astype(np.int64), length - 1)
    part = (edges - whole)[..., None]
    whole += np.reshape([firsts[video] for video in of_pair], shape)
    covered = (edges[..., 1] - edges[..., 0])[..., None]
    tensors = [
        tf.constant(array)
        for array in (query, segment, whole, part, covered, sums)
    ]

    def batch(pair):
        query, segment, whole, part, covered = (
            tf.gather(array, pair) for array in tensors[:-1]
        )
        before = tf.gather(tensors[-1], whole)  # [B, V, C, 2, D]
        after = tf.gather(tensors[-1], whole + 1)
        sums = before + part * (after - before)
        total = tf.math.divide_no_nan(
            sums[..., 1, :] - sums[..., 0, :], covered
        )
        window = tf.cast(total, tf.float32)
        return {"window": window, "segment": segment, "query": query}

    dataset = tf.data.Dataset.range(len(query)).shuffle(len(query), seed=0)
    dataset = dataset.repeat().batch(BATCH_SIZE)
    dataset = dataset.map(
        batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return dataset.prefetch(2), len(query) // BATCH_SIZE


@functools.cache
def _candidate(folder, smoke, case):
    """An iterator over batches without end, and how many make an epoch."""
    if case in OURS:
        made = _pairs(folder, smoke, case)
        return iter(made.dataset), made.steps_per_epoch
    if case in PLAIN:
        dataset, num_batches = _row_by_row(folder, case)
    else:
        dataset, num_batches = _pooled_on_the_fly(folder, smoke)
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
    batch = next(_candidate(folder, smoke, case)[0])
    inputs = batch[0] if isinstance(batch, tuple) else batch
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
