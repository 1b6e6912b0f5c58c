"""Threads that run a model, and the queue of requests in front of them.

A request that finds a thread idle runs at once. Those that meanwhile queue up
run together where they can: same version and signature, one number of rows in
all inputs of a request, otherwise the same shapes. They are joined along the
rows and never padded.
"""

import asyncio
import collections
import contextlib
import itertools
import threading
import time
from typing import NamedTuple

import numpy as np
from absl import logging

from export.protocol.errors import ServingError
from export.protocol.signatures import Servable


class Call(NamedTuple):
    """A checked request."""

    servable: Servable  # the version that it runs on
    signature: str
    inputs: dict  # arrays by their names
    output_filter: tuple = ()  # names of the outputs to send; all if empty


class _Job:
    """A call in the queue."""

    def __init__(self, call):
        self.call = call
        self.future = asyncio.get_running_loop().create_future()
        rows = {v.shape[0] if v.ndim else None for v in call.inputs.values()}
        # None: shares a run with no other.
        self.rows = rows.pop() if len(rows) == 1 else None
        self.shapes = {
            name: (value.dtype, value.shape[1:])
            for name, value in call.inputs.items()
        }

    def merges_with(self, other):
        return (
            other.rows is not None
            and self.call.servable is other.call.servable
            and self.call.signature == other.call.signature
            and self.shapes == other.shapes
        )


class Batcher:
    """Runs calls on threads. All but the threads is for one event loop.

    So many calls or batches run at a time, and `max_queue` may wait. A batch
    has `max_batch_size` rows at most, 1 for every call by itself, and waits
    for `batch_seconds` to fill. `observe_batch` is told the rows of each run.
    """

    def __init__(
        self,
        num_threads,
        max_batch_size,
        batch_seconds,
        max_queue,
        observe_batch,
    ):
        self._max_batch_size = max_batch_size
        self._batch_seconds = batch_seconds
        self._max_queue = max_queue
        self._observe_batch = observe_batch
        self._loop = asyncio.get_running_loop()
        self._num_arriving = 0
        self._jobs = collections.deque()
        self._is_closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"run-{i}", daemon=True)
            for i in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def max_calls(self):
        """Calls that may wait and run at a time."""
        return self._max_queue + len(self._threads) * self._max_batch_size

    @property
    def num_waiting(self):
        """Calls that are being read, or queue."""
        return self._num_arriving + len(self._jobs)

    @contextlib.contextmanager
    def place(self):
        """Holds a place in the queue for a call that is still being read."""
        self.check_not_full()
        self._num_arriving += 1
        try:
            yield
        finally:
            self._num_arriving -= 1

    def check_not_full(self):
        """Raises a `ServingError` if the queue is full."""
        if self.num_waiting >= self._max_queue:
            raise ServingError(
                "RESOURCE_EXHAUSTED",
                f"{self._max_queue} requests wait already, as many as "
                "--max_queue lets. Ask again later, or less often.",
            )

    async def run(self, call):
        """Returns the outputs of a `Call`.

        A call that is cancelled while it waits does not run.
        """
        job = _Job(call)
        with self._changed:
            self._jobs.append(job)
            # A thread that waits for a batch to fill must not take the call
            # of an idle one.
            self._changed.notify(
                len(self._threads) if self._batch_seconds else 1
            )
        try:
            return await job.future
        except asyncio.CancelledError:
            with self._changed, contextlib.suppress(ValueError):
                self._jobs.remove(job)
            raise

    def close(self, seconds):
        """Ends the threads once the queue is empty: whether in so long."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self):
        # What a batch held is gone when the next one is waited for, or an old
        # version would not leave memory.
        while self._work_once():
            pass

    def _work_once(self):
        jobs = self._take()
        if jobs:
            answers = list(zip(jobs, _run(jobs, self._observe_batch)))
            # The loop has ended if the server gave up waiting for this.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_settle, answers)
        return bool(jobs)

    def _take(self):
        """Waits for the jobs of the next run. None are left: it is over."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._is_closed)
                if not self._jobs:
                    return []
                jobs = [self._jobs.popleft()]
                if jobs[0].future.done():  # cancelled just now
                    continue
                call = jobs[0].call
                if (
                    jobs[0].rows is not None
                    and call.signature not in call.servable.unmergeable
                ):
                    self._gather(jobs)
                return jobs

    def _gather(self, jobs):
        """Takes along what merges with the first job."""
        first = jobs[0]
        room = self._max_batch_size - first.rows
        end = time.monotonic() + self._batch_seconds
        while room > 0:
            left = collections.deque()
            for job in self._jobs:
                if not first.merges_with(job) or job.rows > room:
                    left.append(job)
                elif not job.future.done():
                    jobs.append(job)
                    room -= job.rows
            self._jobs = left
            seconds = end - time.monotonic()
            if seconds <= 0 or self._is_closed:
                break
            self._changed.wait(seconds)


def _settle(answers):
    for job, answer in answers:
        if job.future.done():  # the client has gone
            continue
        if isinstance(answer, Exception):
            job.future.set_exception(answer)
        else:
            job.future.set_result(answer)


def _run(jobs, observe_batch):
    """Returns for each job its outputs or an exception."""
    if len(jobs) > 1:
        answers = _run_merged(jobs)
        if answers is not None:
            observe_batch(sum(job.rows for job in jobs))
            return answers
    return [_run_alone(job, observe_batch) for job in jobs]


def _run_alone(job, observe_batch):
    call = job.call
    observe_batch(1 if job.rows is None else job.rows)
    try:
        return call.servable.run(call.signature, call.inputs)
    except ServingError as error:
        # Whatever keeps a traceback keeps the version alive.
        return error.with_traceback(None)
    except Exception:
        logging.exception("Signature `%s` failed.", call.signature)
        return ServingError(
            "INTERNAL",
            f"Signature `{call.signature}` failed. The server's log has more.",
        )


def _run_merged(jobs):
    """Runs the jobs as one. None: it did not work, for one of them perhaps."""
    call = jobs[0].call
    starts = np.cumsum([0] + [job.rows for job in jobs])
    try:
        inputs = {
            name: np.concatenate([job.call.inputs[name] for job in jobs])
            for name in call.inputs
        }
        outputs = call.servable.run(call.signature, inputs)
    except Exception:
        return None
    if any(v.shape[:1] != (starts[-1],) for v in outputs.values()):
        logging.warning(
            "The outputs of signature `%s` have other rows than its inputs: "
            "its requests run one by one.",
            call.signature,
        )
        call.servable.unmergeable.add(call.signature)
        return None
    return [
        {name: v[start:end] for name, v in outputs.items()}
        for start, end in itertools.pairwise(starts)
    ]
