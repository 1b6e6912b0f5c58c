"""How a request is answered, whichever protocol it came by."""

import asyncio
import concurrent.futures
import time

import prometheus_client
from absl import logging

from export.protocol.errors import ServingError, invalid

# Beyond this, reading and writing a body would keep the event loop from others.
_LARGE_BODY = 64 * 2**10


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


class Service:
    """Reads, runs and answers requests, of `max_body_bytes` at most."""

    def __init__(self, versions, batcher, metrics, max_body_bytes):
        self.versions = versions
        self.batcher = batcher
        self.metrics = metrics
        self.max_body_bytes = max_body_bytes
        # A proto may say a lot in few bytes: one value for a large shape.
        self.max_input_bytes = 16 * max_body_bytes
        self._threads = concurrent.futures.ThreadPoolExecutor(
            2, thread_name_prefix="bodies"
        )
        metrics.waiting.set_function(lambda: batcher.num_waiting)
        metrics.loaded.set_function(lambda: max(versions.available, default=0))

    async def answer(self, method, body, read, write, deadline=None):
        """Returns the body that answers a predict request, bytes.

        `read` makes a `Call` of the body, `write` the answer of the call and
        its outputs. `method` is what metrics call this kind of request. Raises
        a `ServingError` and nothing else.
        """
        start = time.perf_counter()
        signature, code = "", "OK"
        self.metrics.in_flight.inc()
        try:
            with self.batcher.place():
                call = await self._do(len(body), read, body)
            # Only now: a label for every name that comes would fill memory.
            signature = call.signature
            outputs = await self.batcher.run(call, deadline)
            outputs = {
                name: outputs[name] for name in call.output_filter or outputs
            }
            size = sum(value.nbytes for value in outputs.values())
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
            raise ServingError(
                code, "The server failed. Its log has more."
            ) from None
        finally:
            self.metrics.in_flight.dec()
            self.metrics.requests.labels(method, signature, code).inc()
            self.metrics.seconds.labels(method).observe(
                time.perf_counter() - start
            )

    async def _do(self, size, function, *args):
        """Reads or writes a body; what does not fit is a `ValueError`."""
        try:
            if size <= _LARGE_BODY:
                return function(*args)
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, function, *args
            )
        except ValueError as error:
            raise invalid(str(error)) from None
