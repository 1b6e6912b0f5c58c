"""How a request is answered, whichever protocol it came by."""

import asyncio
import concurrent.futures
import contextlib
import time

import prometheus_client
from absl import logging

from export.protocol.errors import ServingError, failed, invalid

# Beyond this, reading and writing a body would keep the event loop from others.
LARGE_BODY = 8 * 2**10
# Bodies that arrive at a time, and the seconds that each has while others wait.
_ARRIVING = 4
_GRACE = 0.25


class Metrics:
    """What Prometheus is told. `registry` has it all."""

    def __init__(self):
        self.registry = prometheus_client.CollectorRegistry()
        of_server = {"namespace": "serving", "registry": self.registry}
        self.requests = prometheus_client.Counter(
            "requests",
            "Requests that were answered, by gRPC's code.",
            ["method", "signature", "code"],
            **of_server,
        )
        self.seconds = prometheus_client.Histogram(
            "request_seconds",
            "From the request read to its answer ready.",
            ["method"],
            buckets=[1e-3 * 2**i for i in range(15)],
            **of_server,
        )
        self.batch_rows = prometheus_client.Histogram(
            "batch_rows",
            "Rows that ran together.",
            buckets=[2**i for i in range(11)],
            **of_server,
        )
        self.in_flight = prometheus_client.Gauge(
            "in_flight", "Requests not yet answered.", **of_server
        )
        self.waiting = prometheus_client.Gauge(
            "waiting", "Requests not yet running.", **of_server
        )
        self.loaded = prometheus_client.Gauge(
            "loaded_version", "Version that takes requests.", **of_server
        )


class Room:
    """The memory for bodies of requests, of both protocols together.

    Only a few may arrive at a time, of `max_body_bytes` each, and twice that
    may be held until it is answered.
    """

    def __init__(self, max_body_bytes):
        self.max_body_bytes = max_body_bytes
        self._places = asyncio.Semaphore(_ARRIVING)
        self._arriving = {}  # limits in time, the oldest first, to their start
        self._num_waiting = 0
        self._held_bytes = 0

    @contextlib.asynccontextmanager
    async def arriving(self):
        """A place for a body that arrives.

        Who finds none waits; who holds one for long then has to give it up,
        with a `ServingError`.
        """
        loop = asyncio.get_running_loop()
        self._num_waiting += 1
        try:
            self._end_oldest(loop)
            await self._places.acquire()
        finally:
            self._num_waiting -= 1
        try:
            async with asyncio.timeout(None) as limit:
                self._arriving[limit] = loop.time()
                loop.call_later(_GRACE, self._end_oldest, loop)
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise ServingError(
                "RESOURCE_EXHAUSTED",
                "The request arrived too slowly while others waited for its "
                "place. Ask again later.",
            ) from None
        finally:
            del self._arriving[limit]
            self._places.release()

    def _end_oldest(self, loop):
        """Ends what has had its time, as many as others wait for."""
        if not self._places.locked():
            return
        for limit, start in list(self._arriving.items())[: self._num_waiting]:
            if limit.when() is None and loop.time() >= start + _GRACE:
                limit.reschedule(loop.time())

    @contextlib.contextmanager
    def held(self, num_bytes):
        """Keeps a large body that has arrived, or refuses it."""
        num_bytes = num_bytes if num_bytes > LARGE_BODY else 0
        if num_bytes and self._held_bytes + num_bytes > 2 * self.max_body_bytes:
            raise ServingError(
                "RESOURCE_EXHAUSTED",
                "Too many large requests wait already. Ask again later.",
            )
        self._held_bytes += num_bytes
        try:
            yield
        finally:
            self._held_bytes -= num_bytes


class Service:
    """Reads, runs and answers requests.

    They have `max_body_bytes` and `max_rows` at most, and take no longer than
    `max_seconds`.
    """

    def __init__(
        self, versions, batcher, metrics, max_body_bytes, max_rows, max_seconds
    ):
        self.versions = versions
        self.batcher = batcher
        self.metrics = metrics
        self.max_body_bytes = max_body_bytes
        self.max_rows = max_rows
        self.max_seconds = max_seconds
        self.room = Room(max_body_bytes)
        # One: what a large body becomes may be larger.
        self._thread = concurrent.futures.ThreadPoolExecutor(
            1, thread_name_prefix="bodies"
        )
        metrics.waiting.set_function(lambda: batcher.num_waiting)
        metrics.loaded.set_function(lambda: max(versions.available, default=0))

    async def answer(self, method, receive, read, write, deadline=None):
        """Returns the body that answers a predict request, bytes.

        `await receive()` is the body, `read` makes a `Call` of it, `write` the
        answer of the call and its outputs. `method` is what metrics call this
        kind of request. At its deadline, on the loop's clock, a request that
        still waits is given up. Raises a `ServingError` and nothing else.
        """
        start = time.perf_counter()
        signature, code = "", "OK"
        self.metrics.in_flight.inc()
        try:
            async with self.limited(deadline):
                body = await receive()
                with self.room.held(len(body)):
                    with self.batcher.place():
                        call = await self._do(len(body), read, body)
                    # Only now: a label for every name that comes would fill
                    # memory.
                    signature = call.signature
                    outputs = await self.batcher.run(call)
                    outputs = {
                        name: outputs[name]
                        for name in call.output_filter or outputs
                    }
                    size = sum(value.nbytes for value in outputs.values())
                    if size > self.max_body_bytes:
                        raise ServingError(
                            "RESOURCE_EXHAUSTED",
                            f"The answer has {size} bytes, more than "
                            "--max_body_mb of the server. Send fewer rows, or "
                            "shorter ones.",
                        )
                    return await self._do(size, write, call, outputs)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except ServingError as error:
            code = error.code
            raise
        except Exception:
            logging.exception("A request failed.")
            code = "INTERNAL"
            raise failed() from None
        finally:
            self.metrics.in_flight.dec()
            self.metrics.requests.labels(method, signature, code).inc()
            self.metrics.seconds.labels(method).observe(
                time.perf_counter() - start
            )

    @contextlib.asynccontextmanager
    async def limited(self, deadline=None):
        """Raises a `ServingError` inside at the deadline, or `max_seconds`."""
        latest = asyncio.get_running_loop().time() + self.max_seconds
        try:
            async with asyncio.timeout_at(min(latest, deadline or latest)):
                yield
        except TimeoutError:
            raise ServingError(
                "DEADLINE_EXCEEDED",
                "The request took longer than it may: the server allows "
                f"{self.max_seconds:g} s, --max_seconds.",
            ) from None

    async def _do(self, size, function, *args):
        """Reads or writes a body; what does not fit is a `ValueError`."""
        try:
            if size <= LARGE_BODY:
                return function(*args)
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, function, *args
            )
        except ValueError as error:
            raise invalid(str(error)) from None
