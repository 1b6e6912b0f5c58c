"""What a process of the `distribute` part does when it is asked.

The model and its data are those of the `step` part.
"""

import collections
import contextlib
import json
import os
import re
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from acnn_tf import replicas
from acnn_tf.checkpoints import Checkpoints
from acnn_tf.data.batches import Batches
from experiments.benchmarks import step

# Steps of a `fit` that are not timed: a new iterator has nothing ready yet.
FIRST_STEPS = 2


class Alone:
    """A replica that takes what it has for what all of them have.

    With it a step computes on tensors of the same shapes, and tells nobody.
    """

    def __init__(self, context):
        self.num_replicas_in_sync = context.num_replicas_in_sync

    def all_reduce(self, operation, value):
        return value

    def all_gather(self, value, axis):
        return tf.concat([value] * self.num_replicas_in_sync, axis)


class _Times(keras.callbacks.Callback):
    """When each step ended, and the loss so far."""

    def __init__(self):
        super().__init__()
        self.ends, self.losses = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())
        self.losses.append(float(logs["loss"]))


class _Nothing(tf.train.experimental.PythonState):
    def serialize(self):
        return ""

    def deserialize(self, text):
        pass


class Replica:
    """Fits the model of the `step` part under a strategy.

    Args:
        strategy: `"none"`, `"mirrored"` or `"multi_worker"`.
        threads: Threads that an operation may use.
        deterministic: Whether TensorFlow is told to be so.
        smoke: Tiny shapes.
        ports: Of the workers, of `"multi_worker"`.
        index: The number of this worker. It gets a core of its own.
    """

    def __init__(
        self, strategy, threads, deterministic, smoke, ports=(), index=0
    ):
        if ports and hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[index % len(cores)]})
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(2)
        keras.utils.set_random_seed(0)
        if deterministic:
            tf.config.experimental.enable_op_determinism()
        self._strategy = _strategy(strategy, ports, index)
        self._smoke = smoke
        self._models = {}

    def __call__(self, question, *arguments):
        return getattr(self, question)(*arguments)

    def cpu_seconds(self):
        return time.process_time()

    def fit(self, collectives, num_steps):
        """Seconds of each step of a `model.fit`, and the losses.

        Args:
            collectives: Whether the replicas tell each other anything.
            num_steps: Steps that are timed.
        """
        with self._collectives(collectives):
            model, dataset = self._model(collectives)
            times = _Times()
            model.fit(
                dataset,
                steps_per_epoch=FIRST_STEPS + num_steps,
                shuffle=False,
                verbose=0,
                callbacks=[times],
            )
        seconds = np.diff(times.ends[FIRST_STEPS - 1 :]).tolist()
        return seconds, times.losses

    def sizes(self):
        """Parameters that learn, and collective operations in a step.

        Returns:
            Their number, and a `Counter` by types of operations.
        """
        model, dataset = self._model(True)
        count = sum(w.shape.num_elements() for w in _weights(model))
        found = collections.Counter()
        if self._strategy.num_replicas_in_sync > 1:
            # Traced already.
            function = model.train_function.get_concrete_function(iter(dataset))
            graph = function.graph.as_graph_def()
            nodes = list(graph.node)
            for inner in graph.library.function:
                nodes += inner.node_def
            found.update(
                node.op
                for node in nodes
                if re.match("Collective(Reduce|Gather)", node.op)
            )
        return count, found

    def alone(self, what, num_runs):
        """Seconds of a step's collectives, without the step.

        Args:
            what: `"all_reduce"` of as many numbers as there are gradients, in
                the same tensors, or `"all_gather"` of the windows' encodings.
            num_runs: How many times.
        """
        model, _ = self._model(True)
        strategy = self._strategy
        batch = (step.SMOKE_SHAPE if self._smoke else step.SHAPE)[0]
        rows = batch // strategy.num_replicas_in_sync

        def of_replica():
            context = tf.distribute.get_replica_context()
            if what == "all_reduce":
                tensors = [tf.identity(weight) for weight in _weights(model)]
                return context.all_reduce("SUM", tensors)
            encoding = tf.ones((rows, model.embedding_dim))
            return context.all_gather(encoding, axis=0)

        if what not in self._models:
            self._models[what] = tf.function(lambda: strategy.run(of_replica))
        seconds = []
        for _ in range(1 + num_runs):
            start = time.perf_counter()
            self._models[what]()
            seconds.append(time.perf_counter() - start)
        return seconds[1:]

    def checkpoint(self, num_runs):
        """Seconds of a checkpoint, and of a plain file of the same arrays.

        Returns:
            Two medians, and the bytes of a checkpoint's files.
        """
        model, _ = self._model(True)
        variables = model.variables + model.optimizer.variables
        variables = [variable.value for variable in variables]
        seconds, plain = [], []
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(folder, variables, _Nothing())
            for _ in range(1 + num_runs):
                start = time.perf_counter()
                checkpoints.save()
                middle = time.perf_counter()
                with open(os.path.join(folder, "plain"), "wb") as file:
                    for variable in variables:
                        file.write(np.ascontiguousarray(variable))
                plain.append(time.perf_counter() - middle)
                seconds.append(middle - start)
            files = list(Path(folder).glob("ckpt-*"))
            last = max(files, key=lambda path: path.stat().st_mtime)
            size = sum(p.stat().st_size for p in files if p.stem == last.stem)
        return (
            statistics.median(seconds[1:]),
            statistics.median(plain[1:]),
            size,
        )

    def _model(self, collectives):
        if collectives not in self._models:
            with self._strategy.scope():
                model, dataset = step.model_and_data(self._smoke)
            batches = Batches(dataset, 0, 0).distribute(self._strategy)
            self._models[collectives] = model, batches.dataset
        return self._models[collectives]

    @contextlib.contextmanager
    def _collectives(self, wanted):
        real = replicas.replica_context

        def context():
            found = real()
            return found if wanted or found is None else Alone(found)

        with mock.patch.object(replicas, "replica_context", context):
            yield


def _weights(model):
    return [weight.value for weight in model.trainable_variables]


def _strategy(name, ports, index):
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    os.environ["TF_CONFIG"] = json.dumps(
        {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": index},
        }
    )
    return tf.distribute.MultiWorkerMirroredStrategy()
